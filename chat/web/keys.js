// What the keyboard does anywhere on the page, and the list of all that it does.

import { element, page } from "./dom.js";
import { current, rooms, show } from "./rooms.js";
import { t } from "./texts.js";

/** @param {number} step */
function showNeighbour(step) {
  const all = [...rooms.values()];
  if (!current || all.length < 2) return;
  show(all[(all.indexOf(current) + step + all.length) % all.length]);
}

export function showKeys() {
  page.keyList.replaceChildren(...t.keys.map(([keys, what]) => element("div", {},
    element("dt", {}, ...keys.split(" ").flatMap((key, n) => [n ? " " : "",
      element("kbd", {}, key)])),
    element("dd", {}, what))));
  page.keys.showModal();
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
