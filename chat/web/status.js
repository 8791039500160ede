// The line that says how it stands with the connection.

import { page } from "./dom.js";
import { t } from "./texts.js";

/** @typedef {import("./connection.js").State} State */

/** @type {State} */
let state = { name: "idle" };
let ticking = 0;

/** @param {State} changed */
export function showState(changed) {
  state = changed;
  draw();
}

function draw() {
  const { status, countdown, now } = page;
  status.dataset.state = state.name === "waiting" && !navigator.onLine ? "offline" : state.name;
  status.dataset.replica = state.name === "connected" ? state.replica : "";
  // Said again, it would be read out again.
  const words = describe();
  if (status.textContent !== words) status.textContent = words;
  now.hidden = state.name !== "waiting" && state.name !== "refused";
  countdown.textContent = "";
  clearTimeout(ticking);
  if (state.name !== "waiting") return;
  const seconds = Math.max(0, Math.ceil((state.until - performance.now()) / 1000));
  countdown.textContent = seconds ? t.again(seconds) : "";
  if (seconds) ticking = setTimeout(draw, 1000);
}

function describe() {
  switch (state.name) {
    case "idle": return t.idle;
    case "connecting": return t.connecting;
    case "signed-out": return t.signedOut;
    case "connected": return t.connected(state.replica);
    case "draining": return t.draining;
    case "waiting": return navigator.onLine ? state.reason : t.offline;
    case "refused": return t.refused(state.reason);
  }
}

addEventListener("online", draw);
addEventListener("offline", draw);
