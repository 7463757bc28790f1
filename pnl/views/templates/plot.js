// The equity plot: moved by buttons, fingers and mouse, asked for what is seen, with the live line going on from it.
(() => {
  "use strict";
  const SETTLED_MS = 150; // a drag that goes on asks for nothing

  let plot = null;
  let isToFit = false; // to the range that is coming; a plot in somebody's hand is not moved
  let kept = null; // the window to stay at when a wish makes no sense
  let moving = 0;
  let live = null; // the live line's source, and what draws it
  const one = (selector) => document.querySelector(selector);
  const all = (selector) => document.querySelectorAll(selector);
  const wish = () => window.pnl.wish;

  function fit() {
    if (plot?.x_range.have_updated_interactively) plot.toolbar.tools.find((tool) => tool.type === "ResetTool").do.emit();
  }

  function settled({ isRefused }) {
    const { wanted } = wish();
    if (isRefused) wanted.window ??= kept;
    else if (isToFit) fit();
    if (!isRefused) kept = wanted.window;
    isToFit = false;
  }

  // Someone moved the plot, or put it back; at its edge it follows by itself.
  function moved() {
    clearTimeout(moving);
    moving = setTimeout(() => {
      const { start, end, have_updated_interactively: isMoved } = plot.x_range;
      const window_ = isMoved ? [start, end] : null;
      if (window_ === null && kept === null) return;
      kept = window_;
      wish().ask({ window: window_ });
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

  function begin({ line, figure, daily }) {
    plot = figure;
    daily.on_event("tap", ({ x }) => wish().filter("day", new Date(x).toISOString().slice(0, 10)));
    veil(window.pnl.hides());
    live = { line, drawn: figure.renderers.find((renderer) => renderer.name === "live"), since: 0 };
    drag(atRest());
    for (const el of all("[data-move]")) el.disabled = false;
    figure.on_event("rangesupdate", moved);
    line.properties.data.change.connect(trim);
    window.pnl.on("past.live", join);
  }

  // Neither an axis nor a tooltip says an amount while amounts are hidden.
  function veil(hides) {
    for (const model of Bokeh.documents[0]?.all_models ?? []) {
      if (!model.tags?.includes("money")) continue;
      if ("visible" in model) model.visible = !hides;
      if ("active" in model) model.active = !hides;
    }
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

  addEventListener("DOMContentLoaded", () => {
    wish().hear({ settled, asked: (change) => { isToFit ||= change.window === null; } });
    document.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-move]");
      if (button) MOVES[button.dataset.move](button);
    });
  });
  window.pnl.plot = { begin, veil };
})();
