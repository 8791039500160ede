// The line that says how it stands with the connection.

import { page } from "./dom.js";

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
  countdown.textContent = seconds ? `again in ${seconds} s` : "";
  if (seconds) ticking = setTimeout(draw, 1000);
}

function describe() {
  switch (state.name) {
    case "idle": return "Not connected";
    case "connecting": return "Connecting…";
    case "connected": return `Connected to ${state.replica}`;
    case "draining": return "The service restarts…";
    case "waiting": return navigator.onLine ? state.reason : "You are offline";
    case "refused": return `The service refuses this page: ${state.reason}`;
  }
}

addEventListener("online", draw);
addEventListener("offline", draw);
