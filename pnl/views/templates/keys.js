// What keys do, and the overlay that tells it; off while somebody types.
(() => {
  "use strict";
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => document.querySelectorAll(selector);
  const LATER_MS = 1200; // between the two keys of a pair
  let before = "";
  let forget = 0;

  const KEYS = {
    "?": () => help(),
    r: () => window.pnl.tell("sync"),
    "[": () => window.pnl.wish.shift("earlier"),
    "]": () => window.pnl.wish.shift("later"),
    c: () => one("[data-compare]").click(),
    "/": () => one('.ledger [name="q"]').focus(),
    e: () => one('a[data-file="export.csv"]')?.click(),
    d: () => window.pnl.toggleTheme(),
    p: () => window.pnl.toggleAmounts(),
    "g l": () => go(".ledger"),
    "g b": () => go(".parts"),
    "g e": () => go(".equity"),
    "g g": () => go(".verdict"),
  };

  function help() {
    const overlay = one("dialog.help");
    if (overlay.open) overlay.close();
    else overlay.showModal();
  }

  function go(selector) {
    const panel = one(selector);
    panel.scrollIntoView({ behavior: "smooth" });
    panel.querySelector("h2").focus({ preventScroll: true });
  }

  function press(event) {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.closest("input, textarea, select, [contenteditable]")) {
      if (key === "Escape") target.blur();
      return;
    }
    if (one("dialog[open]") && key !== "?") return;
    const preset = all("[data-preset]")[Number(key) - 1];
    const act = KEYS[`${before} ${key}`] ?? (/^[1-9]$/.test(key) && preset ? () => preset.click() : KEYS[key]);
    before = key;
    clearTimeout(forget);
    forget = setTimeout(() => { before = ""; }, LATER_MS);
    if (!act) return;
    event.preventDefault();
    before = "";
    act();
  }

  addEventListener("DOMContentLoaded", () => {
    document.addEventListener("keydown", press);
    document.addEventListener("click", ({ target }) => {
      if (target.closest("[data-help]")) help();
      const closer = target.closest("[data-close]");
      if (closer) closer.closest("dialog").close();
      if (target.matches("dialog")) target.close(); // its backdrop
    });
  });
})();
