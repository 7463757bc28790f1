// The ledger: only the rows that are seen, and some around them, are in the page; the rest is room to scroll through.
(() => {
  "use strict";
  const ROW_PX = 34;
  const MOST_PX = 30000000; // a browser draws nothing taller
  const MARGIN = 20; // rows above and below what is seen
  const SETTLED_MS = 30;
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => document.querySelectorAll(selector);
  const wish = () => window.pnl.wish;
  const box = () => one(".ledger .scroll");
  let settling = 0;
  let opened = null; // what the record was opened from, to return to

  const count = () => Number(window.pnl.text("ledger.count") || 0);
  const rowPx = () => Math.min(ROW_PX, MOST_PX / Math.max(count(), 1));

  function rows() {
    const first = Number(window.pnl.text("ledger.first") || 0);
    const found = window.pnl.cellsOf(window.pnl.text("ledger.rows"));
    const below = Math.max(count() - first - found.length, 0);
    const body = one("[data-ledger]");
    const focused = document.activeElement?.closest("[data-record]")?.dataset.record;
    body.replaceChildren(space(first), ...found.map(row), space(below));
    if (focused) one(`[data-record="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    const shown = count() === 1 ? "1 row" : count() ? `${count().toLocaleString("en")} rows` : "none";
    one("[data-ledger-count]").textContent = shown;
    const isNarrowed = wish().wanted.filters.length > 0 || wish().wanted.q !== "";
    one(".ledger .none").textContent = isNarrowed ? "No row passes these filters." : "Nothing is booked in this period yet.";
    one(".ledger").classList.toggle("is-empty", count() === 0);
    look();
  }

  function space(rowCount) {
    const el = window.pnl.make("tr", { className: "space", ariaHidden: "true" }, document.createElement("td"));
    el.firstChild.colSpan = all(".ledger thead th").length;
    el.firstChild.style.height = `${rowCount * rowPx()}px`;
    return el;
  }

  function row([kind, name, when, ...cells]) {
    const { make, veiled } = window.pnl;
    const [day, time = ""] = when.split(" ");
    const opener = window.pnl.isOwner()
      ? make("button", { type: "button", className: "open", title: "The record behind this row" }, `${day} `, make("span", {}, time))
      : make("span", { className: "open" }, `${day} `, make("span", {}, time));
    opener.dataset.record = `${kind}\t${name}`;
    const el = make("tr", {}, make("td", {}, opener), ...cells.map((cell) => make("td", {}, veiled(cell))));
    el.dataset.kind = kind;
    el.children[1].title = veiled(cells[0]);
    return el;
  }

  // Asks for the rows around what is seen, once it stands still.
  function look() {
    clearTimeout(settling);
    settling = setTimeout(() => {
      const first = Number(window.pnl.text("ledger.first") || 0);
      const there = first + window.pnl.cellsOf(window.pnl.text("ledger.rows")).length;
      const from = Math.floor(box().scrollTop / rowPx());
      const until = Math.min(from + Math.ceil(box().clientHeight / ROW_PX), count());
      if (from >= first && until <= there) return;
      const wanted = Math.max(from - MARGIN, 0);
      if (wanted === wish().wanted.first && first !== wanted) return; // it is on its way
      wish().ask({ first: wanted, count: until - from + 2 * MARGIN });
    }, SETTLED_MS);
  }

  function sums() {
    const [figures = []] = window.pnl.cellsOf(window.pnl.text("ledger.parts"));
    for (const [number, el] of all("[data-ledger-part]").entries()) el.textContent = window.pnl.veiled(figures[number] ?? "");
  }

  function heads() {
    const { sort } = wish().wanted;
    for (const head of all(".ledger [data-sort]")) {
      const isThis = sort.replace("-", "") === head.dataset.sort;
      const way = sort.startsWith("-") ? "descending" : "ascending";
      head.closest("th").setAttribute("aria-sort", isThis ? way : "none");
    }
    const field = one('.ledger [name="q"]');
    if (document.activeElement !== field) field.value = wish().wanted.q;
  }

  function sortBy(name) {
    const { sort } = wish().wanted;
    wish().ask({ sort: sort === `-${name}` ? name : `-${name}` });
  }

  // Every row that adds up to a term, whenever it was.
  function openTerm(term) {
    wish().ask({ term, range: "all", filters: [], q: "", window: null }, { place: true });
    one(".ledger").scrollIntoView({ behavior: "smooth" });
    one(".ledger h2").focus({ preventScroll: true });
  }

  function openRecord(button) {
    opened = button;
    wish().ask({ record: button.dataset.record.split("\t") });
  }

  function record(is) {
    const drawer = one("dialog.record");
    if (is === "") drawer.close();
    else if (!drawer.open) drawer.showModal();
  }

  function changed(change) {
    heads();
    if ("first" in change && !("count" in change)) box().scrollTop = 0;
    if (["range", "filters", "q", "term", "sort"].some((name) => name in change)) box().scrollTop = 0;
  }

  function click(event) {
    const button = event.target.closest("button");
    const { sort, term, record: name } = button?.dataset ?? {};
    if (sort) sortBy(sort);
    if (term) openTerm(term);
    if (name) openRecord(button);
  }

  addEventListener("DOMContentLoaded", () => {
    for (const name of ["ledger.rows", "ledger.first", "ledger.count"]) window.pnl.on(name, () => queue(rows));
    window.pnl.on("ledger.parts", sums);
    window.pnl.on("record.is", record);
    wish().hear({ asked: changed, settled: heads });
    box().addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
    one("dialog.record")?.addEventListener("close", () => {
      if (wish().wanted.record) wish().ask({ record: null });
      opened?.focus();
    });
    document.addEventListener("click", click);
    setTimeout(heads);
  });

  // Several texts come together; the table is made once.
  const queued = new Set();
  function queue(work) {
    if (queued.has(work)) return;
    queued.add(work);
    queueMicrotask(() => {
      queued.delete(work);
      work();
    });
  }
})();
