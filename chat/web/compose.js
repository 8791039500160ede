// Where one writes. What is written belongs to its room, and survives a reload.

import { notice, page } from "./dom.js";
import { store, stored } from "./store.js";

let room = "";

/**
 * @param {string} text as it was written
 * @returns {string} as it is sent: without empty lines around it, or halves of characters
 */
function tidy(text) {
  return text
    .replace(/\r\n?/g, "\n")
    .replace(/^(?:[^\S\n]*\n)+/, "")
    .trimEnd()
    .replace(/\p{Surrogate}/gu, "\ufffd");
}

/** @param {string} name of the room that is shown now; empty: none */
export function composeIn(name) {
  if (room === name) return;
  room = name;
  page.compose.hidden = !name;
  page.text.value = stored(`draft.${name}`, "");
}

/** @param {string} name */
export function dropDraft(name) {
  store(`draft.${name}`, null);
}

/**
 * Put a text to be changed, or a quote, before what has been written meanwhile.
 * @param {string} text
 */
export function prepend(text) {
  page.text.value = page.text.value ? `${text}\n${page.text.value}` : text;
  keep();
  page.text.focus();
}

function keep() {
  store(`draft.${room}`, page.text.value || null);
}

/**
 * @param {(text: string) => string} send returns why it cannot be sent
 * @param {() => void} typing
 */
export function setUpCompose(send, typing) {
  page.compose.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = tidy(page.text.value);
    if (!text || !room) return;
    const refused = send(text);
    if (refused) {
      notice(refused);
      return;
    }
    page.text.value = "";
    keep();
  });
  page.text.addEventListener("keydown", (event) => {
    // Safari says of an input method's Enter that it composes no more, but gives it this key code.
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key !== "Enter" || event.shiftKey) return;
    event.preventDefault();
    page.compose.requestSubmit();
  });
  page.text.addEventListener("input", () => {
    keep();
    if (page.text.value) typing();
  });
}
