// Load the page again if a part of it did not come: a network that changes while it loads makes
// browsers give up requests, and without all modules there is nothing to see. This one has no
// imports, so it comes or fails on its own.

addEventListener("error", ({ target }) => {
  if (!(target instanceof HTMLScriptElement)) return;
  // Twice as long each time: the reason may last.
  const times = Number(sessionStorage.getItem("chat.boots") ?? 0);
  sessionStorage.setItem("chat.boots", String(times + 1));
  setTimeout(() => location.reload(), Math.min(500 * 2 ** times, 30_000));
}, true);
