// A note is pinned by the form, and taken away by the number that stands before it.
(() => {
  "use strict";

  function submit(event) {
    const form = event.target.closest("[data-note]");
    if (!form) return;
    event.preventDefault();
    const { text, at } = form.elements;
    window.pnl.tell("note", text.value.trim(), at.value.trim());
    form.reset();
    text.focus();
  }

  // The number becomes a button that takes the note away, once it has been pressed twice.
  function numbers() {
    if (!window.pnl.isOwner()) return;
    for (const row of document.querySelectorAll('[data-rows="notes.rows"] tr')) {
      const [cell] = row.cells;
      const number = cell.textContent;
      const button = window.pnl.make("button", { type: "button", title: `Take note ${number} away` }, number);
      button.addEventListener("click", () => {
        if (button.dataset.sure) window.pnl.tell("forget", number);
        button.dataset.sure = "yes";
        button.textContent = `${number} – sure?`;
      });
      cell.replaceChildren(button);
    }
  }

  addEventListener("DOMContentLoaded", () => {
    document.addEventListener("submit", submit);
    window.pnl.on("notes.rows", numbers);
    numbers();
  });
})();
