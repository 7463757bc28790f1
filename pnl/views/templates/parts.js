// The breakdown: a tab for each dimension, a row for each part of it, and the chips of what is filtered.
(() => {
  "use strict";
  const DOWN = { series: "event", event: "market" }; // where a part of a part is seen
  const DAY_MS = 86400000;
  const SHADES = 4;
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => document.querySelectorAll(selector);
  const wish = () => window.pnl.wish;

  const make = (tag, properties = {}, ...children) => {
    const el = Object.assign(document.createElement(tag), properties);
    el.append(...children);
    return el;
  };
  const cellsOf = (text) => (text ? text.split("\n").map((line) => line.split("\t")) : []);

  function rows(text) {
    const by = window.pnl.text("parts.by");
    one("[data-parts]").replaceChildren(...cellsOf(text).map(([part, can, share, name, ...cells]) => {
      const first = make("th", { scope: "row" }, can ? opener(by, part, name) : make("span", {}, name));
      const figures = cells.map((cell) => make("td", {}, window.pnl.veiled(cell)));
      figures[0].prepend(bar(Number(share)));
      return make("tr", {}, first, ...figures);
    }));
    one(".parts .none").hidden = text !== "" || window.pnl.text("parts.days") !== "";
  }

  function opener(by, part, name) {
    const button = make("button", { type: "button", className: "part", title: `Show ${name} alone` }, name);
    button.addEventListener("click", () => {
      const down = part && DOWN[by] ? { by: DOWN[by] } : {};
      wish().filter(by, part || null, down);
    });
    return button;
  }

  function bar(share) {
    const el = make("span", { className: share < 0 ? "bar loss" : "bar gain", ariaHidden: "true" });
    el.style.setProperty("--share", Math.abs(share));
    return el;
  }

  function sum(text) {
    const [cells = []] = cellsOf(text);
    const [name, ...figures] = cells;
    const row = name === undefined ? [] : [make("th", { scope: "row" }, name), ...figures.map((cell) => make("td", {}, window.pnl.veiled(cell)))];
    one("[data-parts-sum]").replaceChildren(make("tr", {}, ...row));
  }

  // A column for each week, Monday first; the stronger the colour the larger the amount, and a sign tells which way.
  function calendar(text) {
    const days = cellsOf(text);
    const box = one(".calendar");
    box.hidden = days.length === 0;
    one(".parts .wide-table").hidden = days.length > 0;
    if (days.length === 0) return box.replaceChildren();
    const largest = Math.max(...days.map(([, usd]) => Math.abs(Number(usd)))) || 1;
    const known = new Map(days.map(([day, usd, shown]) => [day, { usd: Number(usd), shown }]));
    const [from, to] = [days[0][0], days.at(-1)[0]].map((day) => Date.parse(`${day}T00:00Z`));
    const monday = from - ((new Date(from).getUTCDay() + 6) % 7) * DAY_MS;
    const weeks = [];
    for (let week = monday; week <= to; week += 7 * DAY_MS) weeks.push(weekOf(week, known, largest));
    const names = ["", "Mon", "", "Wed", "", "Fri", "", ""].map((name) => make("span", { className: "weekday" }, name));
    box.replaceChildren(make("div", { className: "week", ariaHidden: "true" }, ...names), ...weeks);
    box.scrollLeft = box.scrollWidth;
  }

  function weekOf(start, known, largest) {
    const month = new Date(start).toLocaleDateString("en", { month: "short", timeZone: "UTC" });
    const isFirst = new Date(start).getUTCDate() <= 7;
    const head = make("span", { className: "month" }, isFirst ? month : "");
    const days = [0, 1, 2, 3, 4, 5, 6].map((number) => dayOf(start + number * DAY_MS, known, largest));
    return make("div", { className: "week" }, head, ...days);
  }

  function dayOf(at, known, largest) {
    const name = new Date(at).toISOString().slice(0, 10);
    const day = known.get(name);
    if (!day) return make("span", { className: "day", title: name });
    const text = `${name}: ${window.pnl.veiled(day.shown)}`;
    const sign = day.usd > 0 ? "+" : day.usd < 0 ? "−" : "";
    const button = make("button", { type: "button", className: "day", title: text, ariaLabel: text }, sign);
    button.dataset.tone = day.usd > 0 ? "gain" : day.usd < 0 ? "loss" : "flat";
    button.dataset.shade = Math.ceil((Math.abs(day.usd) / largest) * SHADES) || 0;
    button.addEventListener("click", () => wish().filter("day", name));
    return button;
  }

  function tabs() {
    const { by } = wish().wanted;
    for (const tab of all("[data-by]")) {
      const isOpen = tab.dataset.by === by;
      tab.setAttribute("aria-selected", String(isOpen));
      tab.tabIndex = isOpen ? 0 : -1;
    }
  }

  function turnTab(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const here = event.target.closest("[data-by]");
    if (!step || !here) return;
    const tabs_ = [...all("[data-by]")];
    const next = tabs_[(tabs_.indexOf(here) + step + tabs_.length) % tabs_.length];
    next.focus();
    next.click();
  }

  function chips() {
    const { filters, term, q } = wish().wanted;
    const found = filters.map(([name, part]) => chip(`${name}: ${part ?? "everything else"}`, () => wish().unfilter(name)));
    if (term !== "net") found.push(chip(`only ${term}`, () => wish().ask({ term: "net" }, { place: true })));
    if (q) found.push(chip(`“${q}”`, () => wish().ask({ q: "" }, { place: true })));
    if (found.length > 1) found.push(chip("Clear all", () => wish().ask({ filters: [], term: "net", q: "" }, { place: true })));
    one(".filters").replaceChildren(...found);
    one(".filters").hidden = found.length === 0;
    document.querySelector(".pnl").classList.toggle("is-filtered", filters.length > 0 || q !== "");
  }

  function chip(text, remove) {
    const button = make("button", { type: "button", title: "Remove this filter" }, text);
    if (text !== "Clear all") button.append(make("span", { ariaHidden: "true" }, " ×"));
    button.addEventListener("click", remove);
    return button;
  }

  function changed() {
    tabs();
    chips();
  }

  addEventListener("DOMContentLoaded", () => {
    window.pnl.on("parts.rows", rows);
    window.pnl.on("parts.sum", sum);
    window.pnl.on("parts.days", calendar);
    window.pnl.on("parts.by", () => rows(window.pnl.text("parts.rows"))); // an answer without a row, too
    wish().hear({ asked: changed, settled: changed });
    one("[role=tablist]").addEventListener("keydown", turnTab);
    document.addEventListener("click", (event) => {
      const by = event.target.closest("[data-by]")?.dataset.by;
      if (by) wish().ask({ by });
    });
    setTimeout(changed);
  });
  window.pnl.make = make;
  window.pnl.cellsOf = cellsOf;
})();
