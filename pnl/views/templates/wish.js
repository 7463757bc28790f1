// What somebody wants to see: kept in the address, asked of the server, and what the server makes of it.
(() => {
  "use strict";
  const AGAIN_MS = 60000; // "today" ends, and the live line drops its oldest points
  const TIMINGS_MS = 5000; // while somebody looks at them
  const HEALTH_MS = 1000; // likewise
  const FIRST = {
    range: "all", at: "", window: null, compare: false, filters: [], by: "source", term: "net", sort: "-time", q: "",
    first: 0, count: 60, record: null,
  };
  const TYPED = ["range", "at"]; // the server says what it made of them
  const PLACED = ["by", "term", "sort", "q"];

  let asked = null; // the model that carries a wish to the server, once the page is there
  let turn = 0;
  let settled = -1; // the last turn that was answered
  let isNewPlace = false;
  const wanted = { ...FIRST };
  const settling = []; // called once a wish is settled
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => document.querySelectorAll(selector);
  const dimensions = () => one(".pnl").dataset.dimensions.split(" ");

  // Another range, filter or order begins with its first row.
  function ask(change, { place = false } = {}) {
    const isOfRows = ["range", "filters", "q", "term", "sort"].some((name) => name in change);
    Object.assign(wanted, isOfRows ? { first: 0, ...change } : change);
    isNewPlace ||= place;
    turn += 1;
    send("range" in change || "at" in change);
    if (!TYPED.some((name) => name in change)) put();
    for (const hear of settling) hear.asked?.(change);
  }

  function send(chosen, anew = false) {
    if (asked) asked.wish = JSON.stringify({ turn, ...wanted, chosen, anew, timings: one(".timings")?.open ?? false, health: one(".health[open]") !== null });
  }

  function again() {
    if (document.hidden) return;
    turn += 1;
    send(false, true);
  }

  // What the server took over of the last wish, once; on the way there may be older answers, which no longer matter.
  function settle(said) {
    if (settled === turn || Number(said["past.turn"]) !== turn) return;
    settled = turn;
    const isRefused = Boolean(said["past.range.error"]);
    Object.assign(wanted, { range: said["past.range"], at: said["past.at"] });
    for (const hear of settling) hear.settled?.({ isRefused });
    put();
    isNewPlace = false;
    write(said);
  }

  function write(said) {
    const { range, at } = wanted;
    for (const el of all("[data-preset]")) el.setAttribute("aria-pressed", String(el.dataset.preset === range));
    const isPreset = one(`[data-preset="${CSS.escape(range)}"]`) !== null;
    fill("range", isPreset ? "" : range, said["past.range.error"]);
    fill("at", at, said["past.at.error"]);
    for (const el of all("[data-shift]")) el.disabled = !said[`past.${el.dataset.shift}`];
  }

  // What is wrong stays in its field, to be mended.
  function fill(name, text, error) {
    const field = one(`.period [name="${name}"]`);
    field.setAttribute("aria-invalid", String(Boolean(error)));
    if (!error && document.activeElement !== field) field.value = text;
  }

  function put() {
    const url = new URL(location.href);
    const set = (name, text) => (text ? url.searchParams.set(name, text) : url.searchParams.delete(name));
    for (const name of [...TYPED, ...PLACED]) set(name, wanted[name] === FIRST[name] ? "" : wanted[name]);
    set("compare", wanted.compare ? "1" : "");
    for (const name of dimensions()) url.searchParams.delete(name);
    for (const [name, part] of wanted.filters) url.searchParams.set(name, part ?? "");
    if (url.href !== location.href) history[isNewPlace ? "pushState" : "replaceState"](null, "", url);
    for (const el of all("[data-compare]")) el.setAttribute("aria-pressed", String(wanted.compare));
    for (const el of all("a[data-file]")) el.href = fileAt(el.dataset.file, url);
  }

  // An export or a report is of what is looked at.
  function fileAt(file, page) {
    const [name, format] = file.split(".");
    const url = new URL(name, location.href);
    url.searchParams.set("range", wanted.range);
    const of = name === "report" ? dimensions() : ["term", "q", ...dimensions()];
    for (const key of of) if (page.searchParams.has(key)) url.searchParams.set(key, page.searchParams.get(key));
    if (format) url.searchParams.set("format", format);
    if (name === "report" && window.pnl.hides?.()) url.searchParams.set("hide", "1");
    return url.href;
  }

  function read() {
    const { searchParams: said } = new URL(location.href);
    for (const name of [...TYPED, ...PLACED]) wanted[name] = said.get(name) || FIRST[name];
    wanted.compare = said.get("compare") === "1";
    wanted.filters = dimensions().filter((name) => said.has(name)).map((name) => [name, said.get(name) || null]);
  }

  // A filter in the place of one of the same dimension.
  function filter(dimension, part, change = {}) {
    const others = wanted.filters.filter(([name]) => name !== dimension);
    ask({ filters: [...others, [dimension, part]], ...change }, { place: true });
  }

  function unfilter(dimension) {
    ask({ filters: wanted.filters.filter(([name]) => name !== dimension) }, { place: true });
  }

  function shift(way) {
    const range = window.pnl.text(`past.${way}`);
    if (range) ask({ range, window: null }, { place: true });
  }

  function submit(event) {
    const name = event.target.dataset.ask;
    if (!name) return;
    event.preventDefault();
    const text = event.target.elements[name].value.trim();
    ask(name === "range" ? { range: text || FIRST.range, window: null } : { [name]: text }, { place: true });
  }

  function click(event) {
    const { preset, now, shift: way, compare } = event.target.closest("button")?.dataset ?? {};
    if (preset) ask({ range: preset, window: null }, { place: true });
    if (now !== undefined) ask({ at: "" }, { place: true });
    if (way) shift(way);
    if (compare !== undefined) ask({ compare: !wanted.compare }, { place: true });
  }

  function begin(model, texts) {
    asked = model;
    texts.patching.connect(() => show(texts));
    show(texts);
    if (turn > 0) send(true); // somebody was quicker than the page
  }

  function show(texts) {
    const { name, text } = texts.data;
    const said = Object.fromEntries(name.map((key, i) => [key, text[i]]));
    for (const [key, value] of Object.entries(said)) window.pnl.put(key, value);
    settle(said);
  }

  addEventListener("DOMContentLoaded", () => {
    read();
    const { range, at } = one(".period").dataset;
    Object.assign(wanted, { range, at });
    put();
    document.addEventListener("click", click);
    document.addEventListener("submit", submit);
    document.addEventListener("visibilitychange", again);
    one(".timings")?.addEventListener("toggle", () => ask({}));
    setInterval(again, AGAIN_MS);
    setInterval(() => one(".timings")?.open && ask({}), TIMINGS_MS);
    setInterval(() => one(".health[open]") && ask({}), HEALTH_MS);
  });
  addEventListener("popstate", () => {
    read();
    ask({ range: wanted.range, window: null, record: null });
    for (const hear of settling) hear.returned?.();
  });
  const hear = (listener) => settling.push(listener);
  window.pnl.wish = { wanted, begin, ask, filter, unfilter, shift, hear };
})();
