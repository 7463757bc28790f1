// Draws the banner of alerts anew whenever its text changes, as text, and says which of them somebody acknowledges.
(() => {
  "use strict";
  const WORDS = { firing: "Alert", near: "Near the limit", no_data: "No data" };

  const veiled = (text) => window.pnl?.veiled?.(text) ?? text;

  function made(tag, text, properties = {}) {
    return Object.assign(document.createElement(tag), { textContent: text, ...properties });
  }

  function clock(iso) {
    const timeZone = document.querySelector(".pnl")?.dataset.zone;
    return new Date(iso).toLocaleString("sv-SE", { timeZone, dateStyle: "short", timeStyle: "short" });
  }

  // A line for each rule, cells separated by tabs.
  function alert(line) {
    const [name, state, since, title, text, largest, seen] = line.split("\t");
    if (!(state in WORDS) || seen) return [];
    const head = made("b", "");
    head.append(made("span", WORDS[state], { className: "word" }), ` ${title}`);
    const at = made("small", "since ");
    at.append(made("time", clock(since), { dateTime: since }));
    const said = made("p", "");
    said.append(head, ` ${veiled(text)} `);
    if (largest) said.append(made("span", `Largest losses today: ${veiled(largest)}.`, { className: "largest" }), " ");
    said.append(at);
    const button = made("button", "Acknowledge", { type: "button" });
    button.dataset.acknowledge = name;
    button.setAttribute("aria-label", `Acknowledge: ${title}`);
    const row = made("div", "", { className: "alert" });
    Object.assign(row.dataset, { is: state, title });
    row.append(said, ...(window.pnl?.isOwner?.() ?? true ? [button] : []));
    return [row];
  }

  // The worst of them in full, the others folded: what is told of must not push the number off the screen.
  function folded(rest, isOpen) {
    const titles = rest.map((row) => row.dataset.title).join(", ");
    const fold = made("details", "", { open: isOpen });
    fold.append(made("summary", `${rest.length} more: ${titles}`), ...rest);
    return fold;
  }

  function draw(banner) {
    const focused = document.activeElement?.dataset.acknowledge;
    const isOpen = banner.querySelector("details")?.open ?? false;
    const order = Object.keys(WORDS);
    const rows = banner.dataset.is.split("\n").flatMap(alert);
    rows.sort((a, b) => order.indexOf(a.dataset.is) - order.indexOf(b.dataset.is));
    const rest = rows.slice(1);
    banner.replaceChildren(...rows.slice(0, 1), ...(rest.length ? [folded(rest, isOpen)] : []));
    if (focused) banner.querySelector(`[data-acknowledge="${CSS.escape(focused)}"]`)?.focus();
  }

  // The banner changes once the server says so.
  function acknowledge({ target }) {
    const name = target.closest("[data-acknowledge]")?.dataset.acknowledge;
    if (name) window.pnl?.tell("acknowledge", name);
  }

  function begin() {
    for (const banner of document.querySelectorAll(".alerts")) {
      banner.addEventListener("click", acknowledge);
      new MutationObserver(() => draw(banner)).observe(banner, { attributeFilter: ["data-is"] });
    }
  }

  if (document.readyState === "loading") addEventListener("DOMContentLoaded", begin);
  else begin();
})();
