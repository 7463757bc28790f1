// Puts the texts that the server patches into the page, as text, and lets every age tick by the browser's own clock.
// A page that hears nothing says so, and loads itself anew as soon as the server answers again.
(() => {
  "use strict";
  const RETRY_MS = 3000;
  const shown = new Map();
  let heardAt = Date.now();
  let triedAt = 0;
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
    const page = document.querySelector(".pnl");
    const isLate = Date.now() - heardAt > Number(page.dataset.lateMs);
    page.classList.toggle("is-late", isLate);
    if (isLate && Date.now() - triedAt > RETRY_MS) comeBack();
  }

  async function comeBack() {
    triedAt = Date.now();
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(RETRY_MS) });
      if (answer.ok) location.reload();
    } catch { /* still away: the page goes on saying so */ }
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
    heardAt = Date.now();
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
