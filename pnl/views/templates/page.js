// Puts the texts that the server patches into the page, as text, and lets every age tick by the browser's own clock.
// By that clock it also judges what can be believed: each source, and whether the server is there at all.
(() => {
  "use strict";
  const TICK_MS = 250;
  const ASK_AFTER_MS = 1200; // without a word; then the server is asked whether it lives
  const SILENT_AFTER_MS = 2400; // without an answer to that either
  const ANSWER_MS = 2000;
  const AGAIN_MS = 1000;
  const AT_LEAST_MS = 60000; // also while numbers come: the answer tells the server's time
  const RELOAD_MS = 3000;
  const LEAVE_MS = 30000; // a page that is on its way is not asked for again
  const CLOCK_OFF_MS = 3000;
  const CLOSE_MS = 10; // an answer that took no longer tells the server's time closely
  const COMPARISONS = 5; // before what a slower one tells is made do with
  const NO_WORD = "No word from the server";
  const NO_NUMBERS = "The server answers, but sends no numbers";

  const shown = new Map();
  const listeners = new Map(); // by the name of a text: who is told when it changes
  let tickedAt = performance.now();
  let silentMs = 0; // since the last sign of life
  let muteMs = 0; // since the last numbers
  let askedMs = AGAIN_MS;
  let isAsking = false;
  let leftMs = LEAVE_MS;
  let offMs = 0; // how far this clock is ahead of the server's
  let quickestMs = Infinity; // of the answers that told the server's time
  let comparisons = 0;
  let exactOffMs = 0; // as far as the quickest of them tells
  let reportedAt = -Infinity;
  let seen = null; // the model that carries a report to the server
  let line = null;
  let done = null; // the model that carries to the server what somebody does
  let deeds = 0;
  let isCut = false;
  const root = document.documentElement;
  const bare = new Map(); // by text node of the server's HTML: what it says while amounts are hidden
  const SLOT = /^(.*)\.(\d+)$/;
  const SVG = "http://www.w3.org/2000/svg";
  const AMOUNT = /[+\-−▲▼]?\s?(\$[\d,]+(\.\d+)?|\d+\.\d+ US dollars)/g;
  const all = (selector) => document.querySelectorAll(selector);
  const now = () => Date.now() - offMs;
  const clockMs = () => performance.timeOrigin + performance.now(); // to a fraction

  function age(at) {
    const s = Math.max(0, (now() - at) / 1000);
    if (s < 100) return `${Math.floor(s)} s`;
    if (s < 6000) return `${Math.floor(s / 60)} m`;
    if (s < 172800) return `${Math.floor(s / 3600)} h`;
    return `${Math.floor(s / 86400)} d`;
  }

  function clock(at) {
    const zone = document.querySelector(".pnl")?.dataset.zone;
    return new Date(at).toLocaleTimeString("en-GB", { timeZone: zone });
  }

  function write(el, text) {
    if (el.textContent !== text) el.textContent = text;
  }

  function mark(el, is) {
    if (el.dataset.is !== is) el.dataset.is = is;
  }

  // A source that the server still calls fresh gets old all the same when nothing new of it comes.
  function believed({ said, at, pollMs }) {
    if (said !== "fresh" || !at || !pollMs) return said;
    const ageMs = now() - Date.parse(at);
    const poll = Number(pollMs);
    if (ageMs > 2 * poll + 1000) return "stale";
    return ageMs > Math.max(1.5 * poll, poll + 1000) ? "late" : "fresh";
  }

  function judgeSources() {
    for (const el of all(".source")) mark(el, believed(el.dataset));
    for (const el of all("[data-age]")) write(el, el.dataset.at ? age(Date.parse(el.dataset.at)) : "");
    const old = [...all(".chip:is([data-is=stale], [data-is=down])")];
    for (const el of all(".verdict")) mark(el, old.length ? "partial" : el.dataset.said);
    for (const el of all(".as-of[data-at]")) holdFor(el, [el, ...old]);
  }

  // The numbers hold for the instant of the oldest answer in them.
  function holdFor(el, parts) {
    const at = Math.min(...parts.map((part) => Date.parse(part.dataset.at)).filter(Number.isFinite));
    if (!Number.isFinite(at)) return;
    write(el.querySelector("time"), clock(at));
    write(el.querySelector(".age"), age(at));
  }

  // Only time in which this page was awake counts: timers of a hidden tab or a laptop asleep prove no silence.
  function judgeServer() {
    const passedMs = Math.min(performance.now() - tickedAt, 2 * TICK_MS);
    tickedAt = performance.now();
    silentMs += passedMs;
    muteMs += passedMs;
    askedMs += passedMs;
    leftMs += passedMs;
    if ((silentMs > ASK_AFTER_MS && askedMs > AGAIN_MS) || askedMs > AT_LEAST_MS) ask();
    const isSilent = silentMs > SILENT_AFTER_MS;
    const lateMs = Number(document.querySelector(".pnl").dataset.lateMs);
    say(isSilent ? NO_WORD : muteMs > lateMs ? NO_NUMBERS : "");
    if (!isSilent && muteMs > lateMs + RELOAD_MS) leave();
  }

  function say(trouble) {
    document.querySelector(".pnl").classList.toggle("is-late", trouble !== "");
    const newest = document.querySelector(".as-of")?.dataset.at;
    const of = newest ? ` Newest numbers: ${clock(newest)}.` : "";
    for (const el of all(".lost")) write(el, trouble && `${trouble}.${of} Trying again.`);
  }

  async function ask() {
    if (isAsking) return;
    isAsking = true;
    const askedAt = performance.now();
    try {
      const answer = await fetch(new URL("healthz", location.href), {
        cache: "no-store",
        signal: AbortSignal.timeout(ANSWER_MS),
      });
      await answer.text(); // what nobody reads never ends
      const tookMs = performance.now() - askedAt;
      if (tookMs < AGAIN_MS) compareClocks(Number(answer.headers.get("Now-Ms")), tookMs);
      if (answer.status < 500) hear(); // a gateway in front of a dead server answers too
    } catch { /* no answer: the silence goes on */ }
    isAsking = false;
    askedMs = 0;
  }

  // Ages are of the server's making: a computer whose clock is off by more than a glance must not call them stale.
  function compareClocks(serverMs, tookMs) {
    comparisons++;
    if (!serverMs) return;
    const aheadMs = Date.now() - tookMs / 2 - serverMs;
    offMs = Math.abs(aheadMs) > CLOCK_OFF_MS ? aheadMs : 0;
    if (tookMs > quickestMs) return;
    quickestMs = tookMs;
    exactOffMs = clockMs() - tookMs / 2 - serverMs;
  }

  // Now and then the server is told when a point came and when it stood on the screen.
  function report() {
    const everyMs = Number(document.querySelector(".pnl").dataset.reportMs);
    if (!seen || document.hidden || performance.now() - reportedAt < everyMs) return;
    reportedAt = performance.now();
    if (quickestMs > CLOSE_MS && comparisons < COMPARISONS) return void ask(); // a first answer waits for the page
    const serversMs = () => clockMs() - exactOffMs;
    const received = serversMs();
    requestAnimationFrame(() => setTimeout(() => {
      const t0 = line.data.t0.at(-1);
      seen.report = JSON.stringify({ t0, received, painted: serversMs() });
    }));
  }

  function hear() {
    if (silentMs > SILENT_AFTER_MS) muteMs = 0; // it is back, and has something to send first
    silentMs = 0;
    if (isCut) leave();
    tick();
  }

  function leave() {
    if (leftMs < LEAVE_MS || performance.now() < RELOAD_MS) return;
    leftMs = 0;
    location.reload();
  }

  function tick() {
    judgeSources();
    judgeServer();
  }

  function cut() {
    isCut = true;
    ask();
  }

  function put(name, text) {
    if (shown.get(name) === text) return;
    shown.set(name, text);
    render(name, text);
    for (const hear of listeners.get(name) ?? []) hear(text);
  }

  // Told at once, too, if the text is there.
  function on(name, hear) {
    listeners.set(name, [...(listeners.get(name) ?? []), hear]);
    if (shown.has(name)) hear(shown.get(name));
  }

  function render(name, text) {
    const of = (attribute) => all(`[data-${attribute}="${CSS.escape(name)}"]`);
    for (const el of of("text")) el.textContent = veiled(text);
    for (const el of of("of")) el.dataset.is = text;
    for (const el of of("says")) el.dataset.said = text;
    for (const el of of("hint")) el.title = veiled(text);
    for (const el of of("rows")) rows(el, text);
    const [, table, place] = name.match(SLOT) ?? [];
    if (table) for (const el of all(`[data-slots="${CSS.escape(table)}"]`)) slot(el, Number(place), text);
    for (const el of of("spark")) spark(el, text);
    for (const el of of("chars")) el.style.setProperty("--chars", text.length);
    for (const el of of("share")) el.style.setProperty("--share", Math.min(Number(text) || 0, 1));
    for (const el of [...of("since"), ...of("age")]) el.dataset.at = text;
  }

  // A line for each row, cells separated by tabs.
  function rows(table, text) {
    table.replaceChildren();
    for (const line of text ? text.split("\n") : []) {
      const row = table.insertRow();
      for (const cell of line.split("\t")) row.insertCell().textContent = veiled(cell);
    }
  }

  // One row of a table whose rows come one by one.
  function slot(table, place, text) {
    while (text && table.rows.length <= place) table.insertRow();
    while (!text && table.rows.length > place) table.deleteRow(-1);
    if (text) table.rows[place].replaceChildren(...text.split("\t").map((cell) => {
      const el = document.createElement("td");
      el.textContent = veiled(cell);
      return el;
    }));
  }

  // Numbers as a line that only tells which way they went.
  function spark(el, text) {
    const numbers = text ? text.split(" ").map(Number) : [];
    if (numbers.length < 2) return el.replaceChildren();
    const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
    const y = (number) => 19 - (high > low ? ((number - low) / (high - low)) * 18 : 9);
    const points = numbers.map((number, i) => `${((i / (numbers.length - 1)) * 100).toFixed(1)},${y(number).toFixed(1)}`);
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 100 20");
    svg.setAttribute("preserveAspectRatio", "none");
    const line = document.createElementNS(SVG, "polyline");
    line.setAttribute("points", points.join(" "));
    svg.append(line);
    el.replaceChildren(svg);
  }

  function paint(fields) {
    silentMs = muteMs = 0;
    const { name, text } = fields.data;
    for (let i = 0; i < name.length; i++) put(name[i], text[i]);
    tick();
  }

  // The page's document is here: what its sources say goes into the page, now and whenever the server patches them.
  function begin() {
    const [page] = Bokeh.documents;
    const source = (name) => page.get_model_by_id(`pnl-${name}`);
    const fields = source("fields");
    paint(fields);
    [seen, line, done] = [source("seen"), source("line"), source("done")];
    const plot = (name) => page.roots().find((root) => root.name === name);
    window.pnl.plot.begin({ line, figure: plot("equity"), daily: plot("daily") });
    window.pnl.wish.begin(source("asked"), source("past"));
    fields.patching.connect(() => {
      paint(fields);
      report();
    });
  }

  // Have the server do something: to what, and what else is said of it.
  function tell(name, to = "", more = "") {
    deeds += 1;
    if (done) done.deed = JSON.stringify({ turn: deeds, name, to, more });
  }

  function choose(name, choice) {
    root.dataset[name] = choice;
    try { localStorage.setItem(`pnl.${name}`, choice); } catch { /* private window: for this visit only */ }
  }

  function toggleTheme() {
    const page = getComputedStyle(document.documentElement).colorScheme;
    choose("theme", page.includes("dark") ? "light" : "dark");
  }

  // Whoever looks over a shoulder sees no amount: every text is written anew, the ones of the server's HTML too.
  function toggleAmounts() {
    choose("amounts", hides() ? "shown" : "hidden");
    if (hides()) veilAll();
    else for (const [node, text] of bare) node.textContent = text;
    if (!hides()) bare.clear();
    for (const [name, text] of shown) {
      render(name, text);
      for (const hear of listeners.get(name) ?? []) hear(text);
    }
    window.pnl.plot.veil(hides());
    tick();
  }

  const isOwner = () => document.querySelector(".pnl")?.dataset.role !== "viewer";
  const hides = () => root.dataset.amounts === "hidden";
  const veiled = (text) => (hides() ? text.replace(AMOUNT, "••••") : text);

  function veilAll() {
    for (const el of all("[title]")) el.title = veiled(el.title);
    const walker = document.createTreeWalker(document.querySelector(".pnl"), NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode;
      if (node.parentElement.closest("script, style") || veiled(node.textContent) === node.textContent) continue;
      if (!bare.has(node)) bare.set(node, node.textContent);
      node.textContent = veiled(node.textContent);
    }
  }

  for (const name of ["theme", "amounts"]) {
    try {
      const choice = localStorage.getItem(`pnl.${name}`);
      if (choice) root.dataset[name] = choice;
    } catch { /* follows the system */ }
  }
  addEventListener("DOMContentLoaded", () => {
    if (hides()) veilAll();
    root.dataset.ready = "";
    document.querySelector(".theme")?.addEventListener("click", toggleTheme);
    document.querySelector(".amounts")?.addEventListener("click", toggleAmounts);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      tick();
      ask();
    });
    tick();
    ask();
    setInterval(tick, TICK_MS);
  });
  window.pnl = { begin, paint, cut, put, on, tell, now, veiled, hides, isOwner, toggleTheme, toggleAmounts, text: (name) => shown.get(name) };
})();
