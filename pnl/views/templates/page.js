// Puts the texts that the server patches into the page, as text, and lets every age tick by the browser's own clock.
(() => {
  "use strict";
  const LATE_MS = 15000;
  const shown = new Map();
  const all = (selector) => document.querySelectorAll(selector);

  function age(at) {
    const s = Math.max(0, (Date.now() - Date.parse(at)) / 1000);
    if (s < 100) return `${Math.floor(s)} s`;
    if (s < 6000) return `${Math.floor(s / 60)} m`;
    if (s < 172800) return `${Math.floor(s / 3600)} h`;
    return `${Math.floor(s / 86400)} d`;
  }

  function clock(at) {
    const zone = document.querySelector(".pnl")?.dataset.zone;
    return new Date(at).toLocaleTimeString("en-GB", { timeZone: zone });
  }

  function tick() {
    for (const el of all("[data-age]")) el.textContent = el.dataset.at ? age(el.dataset.at) : "";
    const asOf = document.querySelector("time[data-clock]")?.dataset.at;
    const late = Boolean(asOf) && Date.now() - Date.parse(asOf) > LATE_MS;
    document.querySelector(".pnl")?.classList.toggle("is-late", late);
  }

  function put(name, text) {
    const of = (attribute) => all(`[data-${attribute}="${CSS.escape(name)}"]`);
    for (const el of of("text")) el.textContent = text;
    for (const el of of("of")) el.dataset.is = text;
    for (const el of of("hint")) el.title = text;
    for (const el of of("age")) el.dataset.at = text;
    for (const el of of("clock")) { el.dataset.at = text; el.textContent = text ? clock(text) : "—"; }
  }

  function paint(fields) {
    const { name, text } = fields.data;
    for (let i = 0; i < name.length; i++) {
      if (shown.get(name[i]) === text[i]) continue;
      shown.set(name[i], text[i]);
      put(name[i], text[i]);
    }
    tick();
  }

  function theme(choice) {
    if (choice) document.documentElement.dataset.theme = choice;
  }

  function remember(choice) {
    try { localStorage.setItem("pnl.theme", choice); } catch { /* private window: for this visit only */ }
    theme(choice);
  }

  try { theme(localStorage.getItem("pnl.theme")); } catch { /* follows the system */ }
  addEventListener("DOMContentLoaded", () => {
    for (const el of all("time[data-clock]")) el.textContent = el.dataset.at ? clock(el.dataset.at) : "—";
    document.querySelector(".theme")?.addEventListener("click", () => {
      const page = getComputedStyle(document.documentElement).colorScheme;
      remember(page.includes("dark") ? "light" : "dark");
    });
    tick();
    setInterval(tick, 1000);
  });
  window.pnl = { paint };
})();
