// Notes when each new number of one element was painted, and when any plot was, also inside shadow roots.
(selector) => {
  "use strict";
  const MONEY = /-?\$-?[\d,]+\.\d\d/;
  const WHERE = { subtree: true, childList: true, characterData: true };
  const attach = Element.prototype.attachShadow;
  const noted = { numbers: [], plots: [] }; // ms since the epoch
  let roots = [document];
  let last = "";

  const present = () => (roots = roots.filter((root) => root === document || root.host.isConnected));

  // The frame that shows what was just written is over when the task after its callbacks runs.
  const whenPainted = (note) => requestAnimationFrame(() => setTimeout(() => note(performance.timeOrigin + performance.now())));

  function number() {
    for (const root of present()) {
      const el = root.querySelector(selector);
      if (el) return MONEY.exec((el.shadowRoot ?? el).textContent)?.[0];
    }
  }

  function look() {
    const text = number();
    if (!text || text === last) return;
    last = text;
    whenPainted((ms) => noted.numbers.push([text, ms]));
  }

  // Whoever draws on a canvas of the page calls one of these; looking at its pixels instead would take time.
  function notePlots() {
    const drawing = CanvasRenderingContext2D.prototype;
    let isNoted = false;
    for (const name of ["stroke", "fill", "fillText"]) {
      const draw = drawing[name];
      drawing[name] = function (...what) {
        draw.apply(this, what);
        if (isNoted || !this.canvas.isConnected) return;
        isNoted = true;
        whenPainted((ms) => {
          isNoted = false;
          noted.plots.push(ms);
        });
      };
    }
  }

  const observer = new MutationObserver(look);
  Element.prototype.attachShadow = function (options) {
    const root = attach.call(this, options);
    roots.push(root);
    observer.observe(root, WHERE);
    return root;
  };
  observer.observe(document, WHERE);
  notePlots();
  window.pnlPainted = noted;
}
