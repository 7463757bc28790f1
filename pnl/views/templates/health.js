// A chip opens the drawer of its source, by mouse and by keyboard; in it, the time until the next try ticks.
(() => {
  "use strict";
  const TICK_MS = 250;
  const WAIT_MS = 5000; // the server asks a source at once no more often than this
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => document.querySelectorAll(selector);
  const drawerOf = (chip) => document.getElementById(`health-${chip.dataset.says.replace(/\.state$/, "")}`);

  function open(chip) {
    const drawer = drawerOf(chip);
    if (!drawer || drawer.open) return;
    drawer.showModal();
    window.pnl?.wish?.ask({});
    tick();
  }

  function click(event) {
    const chip = event.target.closest(".chip");
    if (chip) open(chip);
    const drawer = event.target.closest(".health:modal");
    if (drawer && (event.target === drawer ? isBeside(drawer, event) : event.target.closest("[data-close]"))) drawer.close();
    const button = event.target.closest("[data-sync]");
    if (!button) return;
    window.pnl?.tell?.("sync", button.dataset.sync);
    rest(button);
  }

  function isBeside(drawer, { clientX, clientY }) {
    const { left, right, top, bottom } = drawer.getBoundingClientRect();
    return clientX < left || clientX > right || clientY < top || clientY > bottom;
  }

  function rest(button) {
    button.disabled = true;
    setTimeout(() => { button.disabled = false; }, WAIT_MS);
  }

  function press(event) {
    const chip = event.target.closest(".chip:not(button)");
    if (!chip || !["Enter", " "].includes(event.key)) return;
    event.preventDefault(); // a space scrolls otherwise
    open(chip);
  }

  // What is in a drawer that nobody sees need not tick.
  function tick() {
    for (const el of all(".health[open] .countdown")) {
      const leftS = Math.ceil((Date.parse(el.dataset.at) - (window.pnl?.now?.() ?? Date.now())) / 1000);
      const text = Number.isFinite(leftS) ? (leftS > 0 ? `in ${leftS} s` : "now") : "";
      if (el.textContent !== text) el.textContent = text;
    }
  }

  // A chip that is no button yet becomes one, and the list of them a group: a list holds no buttons.
  function begin() {
    for (const chip of all(".chip.source:not(button)")) {
      if (!drawerOf(chip)) continue;
      chip.tabIndex = 0;
      chip.setAttribute("role", "button");
      chip.setAttribute("aria-haspopup", "dialog");
    }
    one(".chips[role=list]:has([role=button])")?.setAttribute("role", "group");
    document.addEventListener("click", click);
    document.addEventListener("keydown", press);
    setInterval(tick, TICK_MS);
  }

  addEventListener("DOMContentLoaded", begin);
})();
