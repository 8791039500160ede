// What the keyboard does anywhere on the page.

import { page } from "./dom.js";
import { current, rooms, show } from "./rooms.js";

/** @param {number} step */
function showNeighbour(step) {
  const all = [...rooms.values()];
  if (!current || all.length < 2) return;
  show(all[(all.indexOf(current) + step + all.length) % all.length]);
}

async function showKeys() {
  (await import("./shortcuts.js")).showKeys();
}

/** @param {KeyboardEvent} event */
function pressed(event) {
  if (document.querySelector("dialog[open]")) return;
  const command = event.ctrlKey || event.metaKey;
  const writing = event.target instanceof HTMLInputElement
    || event.target instanceof HTMLTextAreaElement;
  if (event.altKey && !command && event.key === "ArrowUp") showNeighbour(-1);
  else if (event.altKey && !command && event.key === "ArrowDown") showNeighbour(1);
  else if (command && !event.shiftKey && event.key.toLowerCase() === "k") page.room.focus();
  else if (event.key === "/" && !writing) page.query.focus();
  else if (event.key === "?" && !writing) showKeys();
  else return;
  event.preventDefault();
}

export function setUpKeys() {
  document.addEventListener("keydown", pressed);
  page.help.addEventListener("click", showKeys);
}
