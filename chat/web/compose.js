// Where one writes. What is written belongs to its room, and survives a reload.

import { notice, page } from "./dom.js";
import { store, stored } from "./store.js";
import { drawOffers, pressedOffers, replaceName, setUpOffers } from "./suggest.js";
import { t } from "./texts.js";

let room = "";
// Where the keyboard is on the screen, Enter begins a line: it has no Shift+Enter.
const touch = matchMedia("(pointer: coarse)");
/** @type {(text: string) => string} how much more fits; empty as long as it is plenty */
let spaceLeft = () => "";

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
  page.text.value = stored(`draft.${name}`, "");
  drawHint();
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
  drawHint();
  page.text.focus();
}

function keep() {
  store(`draft.${room}`, page.text.value || null);
}

/** What one has to know now: what the last word may become, how much is left, what Enter does. */
function drawHint() {
  const left = spaceLeft(page.text.value);
  page.hint.dataset.says = left ? "left" : "";
  page.hint.textContent = left || (touch.matches ? t.touchHint : t.hint);
  drawOffers();
}

/** @param {DataTransfer | null} data */
function isFile(data) {
  return data !== null && data.types.includes("Files") && !data.types.includes("text/plain");
}

function refuseFiles() {
  page.text.addEventListener("paste", (event) => {
    if (!isFile(event.clipboardData)) return;
    event.preventDefault();
    notice(t.noFiles);
  });
  // What is dropped beside the field would be opened by the browser, instead of this page.
  addEventListener("dragover", (event) => {
    if (isFile(event.dataTransfer)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    if (!isFile(event.dataTransfer)) return;
    event.preventDefault();
    notice(t.noFiles);
  });
}

/**
 * @param {object} ways
 * @param {(text: string) => string} ways.send returns why it cannot be sent
 * @param {() => void} ways.typing
 * @param {(text: string) => string} ways.left
 * @param {() => Iterable<string>} ways.people who may be spoken to
 */
export function setUpCompose({ send, typing, left, people }) {
  spaceLeft = left;
  setUpOffers(people);
  refuseFiles();
  page.text.enterKeyHint = touch.matches ? "enter" : "send";
  touch.addEventListener("change", drawHint);
  drawHint();
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
    drawHint();
  });
  page.text.addEventListener("keydown", (event) => {
    // Safari says of an input method's Enter that it composes no more, but gives it this key code.
    if (event.isComposing || event.keyCode === 229) return;
    if (pressedOffers(event)) {
      event.preventDefault();
      return;
    }
    if (event.key !== "Enter" || event.shiftKey) return;
    if (touch.matches && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    page.compose.requestSubmit();
  });
  page.text.addEventListener("input", (event) => {
    if (event instanceof InputEvent && event.data === ":") replaceName();
    keep();
    drawHint();
    if (page.text.value) typing();
  });
}
