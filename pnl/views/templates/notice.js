// Loads the notice anew now and then, and only from a server that answers: a browser's own error page would stay for ever.
(() => {
  "use strict";
  const againMs = Number(document.currentScript.dataset.againMs);
  setInterval(async () => {
    try {
      const how = { cache: "no-store", signal: AbortSignal.timeout(againMs) };
      const answer = await fetch(new URL("healthz", location.href), how);
      await answer.text(); // what nobody reads never ends
      if (answer.status < 500) location.reload();
    } catch { /* not there yet */ }
  }, againMs);
})();
