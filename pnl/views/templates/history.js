// The range, the instant and the part of the plot that somebody wants to see: kept in the address, asked of the server.
(() => {
  "use strict";
  const SETTLED_MS = 150; // a drag that goes on asks for nothing
  const AGAIN_MS = 60000; // "today" ends, and the live line drops its oldest points
  const TIMINGS_MS = 5000; // while somebody looks at them
  const DEFAULT = "all";

  let asked = null; // the model that carries a wish to the server, once the page is there
  let plot = null;
  let turn = 0;
  let settled = -1; // the last turn that was answered
  let isNewPlace = false;
  let isToFit = false; // to the range that is coming; a plot in somebody's hand is not moved
  let kept = null; // the window to stay at when a wish makes no sense
  let moving = 0;
  let live = null; // the live line's source, and what draws it
  const wanted = { range: DEFAULT, at: "", window: null, fills: 0 };
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => document.querySelectorAll(selector);

  function ask(change, { place = false } = {}) {
    Object.assign(wanted, change);
    isNewPlace ||= place;
    isToFit ||= change.window === null;
    turn += 1;
    send("range" in change || "at" in change);
  }

  function send(chosen) {
    if (asked) asked.wish = JSON.stringify({ turn, ...wanted, chosen, timings: one(".timings")?.open ?? false });
  }

  // What the server took over of the last wish, once; on the way there may be older answers, which no longer matter.
  function settle(said) {
    if (settled === turn || Number(said["past.turn"]) !== turn) return;
    settled = turn;
    if (said["past.range.error"]) wanted.window ??= kept;
    else if (isToFit) fit();
    if (!said["past.range.error"]) kept = wanted.window;
    Object.assign(wanted, { range: said["past.range"], at: said["past.at"] });
    place(wanted);
    isNewPlace = isToFit = false;
    write(said);
  }

  function write(said) {
    const { range, at } = wanted;
    for (const el of all("[data-preset]")) el.setAttribute("aria-pressed", String(el.dataset.preset === range));
    const isPreset = one(`[data-preset="${CSS.escape(range)}"]`) !== null;
    fill("range", isPreset ? "" : range, said["past.range.error"]);
    fill("at", at, said["past.at.error"]);
  }

  // What is wrong stays in its field, to be mended.
  function fill(name, text, error) {
    const field = one(`.period [name="${name}"]`);
    field.setAttribute("aria-invalid", String(Boolean(error)));
    if (!error && document.activeElement !== field) field.value = text;
  }

  function place({ range, at }) {
    const url = new URL(location.href);
    const put = (name, text) => (text ? url.searchParams.set(name, text) : url.searchParams.delete(name));
    put("range", range === DEFAULT ? "" : range);
    put("at", at);
    if (url.href === location.href) return;
    history[isNewPlace ? "pushState" : "replaceState"](null, "", url);
  }

  function returnTo() {
    const { searchParams } = new URL(location.href);
    ask({ range: searchParams.get("range") || DEFAULT, at: searchParams.get("at") || "", window: null });
  }

  function fit() {
    if (plot?.x_range.have_updated_interactively) plot.toolbar.tools.find((tool) => tool.type === "ResetTool").do.emit();
  }

  // Someone moved the plot, or put it back; at its edge it follows by itself.
  function moved() {
    clearTimeout(moving);
    moving = setTimeout(() => {
      const { start, end, have_updated_interactively: isMoved } = plot.x_range;
      const window = isMoved ? [start, end] : null;
      if (window === null && kept === null) return;
      kept = window;
      ask({ window });
      isToFit = false; // it is where somebody put it
    }, SETTLED_MS);
  }

  function move({ zoom = 1, shift = 0 }) {
    const { start, end } = plot.x_range;
    const middle = (start + end) / 2 + shift * (end - start);
    const half = ((end - start) / 2) * zoom;
    plot.x_range.setv({ start: middle - half, end: middle + half });
    moved();
  }

  const MOVES = {
    in: () => move({ zoom: 0.5 }),
    out: () => move({ zoom: 2 }),
    left: () => move({ shift: -0.5 }),
    right: () => move({ shift: 0.5 }),
    reset: () => { fit(); moved(); },
    box: (button) => drag(button.getAttribute("aria-pressed") === "true" ? atRest() : "BoxZoomTool"),
  };

  const atRest = () => (matchMedia("(pointer: coarse)").matches ? "" : "PanTool"); // a finger scrolls the page

  function drag(type) {
    for (const tool of plot.toolbar.tools) {
      if (["PanTool", "BoxZoomTool"].includes(tool.type)) tool.active = tool.type === type;
    }
    one('[data-move="box"]').setAttribute("aria-pressed", String(type === "BoxZoomTool"));
  }

  function begin({ asked: model, texts, line, figure }) {
    [asked, plot] = [model, figure];
    live = { line, drawn: figure.renderers.find((renderer) => renderer.name === "live"), since: 0 };
    drag(atRest());
    for (const el of all("[data-move]")) el.disabled = false;
    figure.on_event("rangesupdate", moved);
    texts.patching.connect(() => show(texts));
    line.properties.data.change.connect(trim);
    show(texts);
    if (turn > 0) send(true); // somebody was quicker than the page
  }

  function show(texts) {
    const { name, text } = texts.data;
    const said = Object.fromEntries(name.map((key, i) => [key, text[i]]));
    for (const [key, value] of Object.entries(said)) window.pnl.put(key, value);
    join(said["past.live"]);
    settle(said);
    leaf(said["past.fills"]);
  }

  // From when on the live line is shown; before, and while it is not, the steps are.
  function join(since) {
    live.drawn.visible = since !== "";
    live.since = Number(since);
    trim();
  }

  function trim() {
    const { line, since } = live;
    const { t } = line.data;
    let count = 0;
    while (count < t.length && t[count] < since) count++;
    if (count === 0) return;
    const rest = Object.entries(line.data).map(([name, column]) => [name, column.slice(count)]);
    line.setv({ data: Object.fromEntries(rest) }, { sync: false });
  }

  // The newest page of fills is every session's; another one is shown once it is there.
  function leaf(rows) {
    const { fills } = wanted;
    const isNewest = fills === 0 || !rows;
    one('[data-rows="fills"]').hidden = !isNewest;
    one('[data-rows="past.fills"]').hidden = isNewest;
    count();
  }

  function count() {
    const size = Number(one("[data-page-rows]").dataset.pageRows);
    const all_ = Number(window.pnl.text("fills.count"));
    const first = wanted.fills * size;
    const last = Math.min(first + size, all_);
    one("[data-fills-shown]").textContent = all_ ? `${first + 1}–${last} of ${all_.toLocaleString("en")}` : "none yet";
    for (const button of all("[data-fills]")) {
      button.disabled = button.dataset.fills === "1" ? last >= all_ : first === 0;
    }
  }

  function submit(event) {
    const name = event.target.dataset.ask;
    if (!name) return;
    event.preventDefault();
    const text = event.target.elements[name].value.trim();
    ask(name === "range" ? { range: text || DEFAULT, window: null } : { at: text }, { place: true });
  }

  function click(event) {
    const button = event.target.closest("button");
    const { preset, move: name, now, fills } = button?.dataset ?? {};
    if (preset) ask({ range: preset, window: null }, { place: true });
    if (now !== undefined) ask({ at: "" }, { place: true });
    if (name) MOVES[name](button);
    if (fills) {
      ask({ fills: wanted.fills + Number(fills) });
      count();
    }
  }

  addEventListener("DOMContentLoaded", () => {
    const { range, at } = one(".period").dataset;
    Object.assign(wanted, { range, at });
    document.addEventListener("click", click);
    document.addEventListener("submit", submit);
    document.addEventListener("visibilitychange", () => document.hidden || ask({}));
    one(".timings").addEventListener("toggle", () => ask({}));
    setInterval(() => document.hidden || ask({}), AGAIN_MS);
    setInterval(() => document.hidden || !one(".timings").open || ask({}), TIMINGS_MS);
  });
  addEventListener("popstate", returnTo);
  window.pnl.past = { begin, count };
})();
