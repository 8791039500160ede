// How messages are drawn: each is an item of a list, the first of a day says which one, and the
// first of a group who wrote it, and when.

import { element } from "./dom.js";
import { drawText } from "./markup.js";
import { t } from "./texts.js";
import { dayName, drawTime, sameDay } from "./times.js";

/**
 * @typedef {object} Message
 * @property {string} room
 * @property {string} id
 * @property {string} user
 * @property {string} text
 * @property {number} ts
 * @property {string} cid
 * @property {string} [author]
 * @property {number} [edited]
 */

// What one author says within this time is one group.
const GROUP_MS = 5 * 60_000;

/** @type {WeakMap<Element, Message>} */
const messages = new WeakMap();
/** @type {WeakMap<Element, number>} when its group began */
const began = new WeakMap();

/**
 * @param {Message} message
 * @param {boolean} mine
 * @param {RegExp | null} name of the reader
 */
export function drawMessage(message, mine, name) {
  const text = element("div", { className: "text" }, ...drawText(message.text, mine ? null : name));
  const item = element("li", { className: mine ? "message mine" : "message" },
    element("div", { className: "head" },
      element("bdi", { className: "user" }, message.user),
      element("span", { className: "author", hidden: true }),
      drawTime(message.ts)),
    text);
  item.classList.toggle("mentions", text.querySelector("mark") !== null);
  messages.set(item, message);
  if (message.edited) markEdited(item);
  return item;
}

/** @param {Element} item */
export function markEdited(item) {
  if (!item.querySelector(".edited")) {
    item.append(element("span", { className: "edited" }, t.edited));
  }
}

/**
 * The message that an item of a list shows; none if it says something else.
 * @param {Element | null | undefined} item
 */
export function messageOf(item) {
  return item ? messages.get(item) : undefined;
}

/**
 * Begin a day or a group with this item, or go on with those of the previous one.
 * @param {HTMLElement} item
 * @param {Element | null | undefined} previous
 */
export function place(item, previous) {
  const message = messageOf(item);
  if (!message) return;
  const before = messageOf(previous);
  const day = !before || !sameDay(before.ts, message.ts);
  if (day) item.dataset.day = dayName(message.ts);
  else item.removeAttribute("data-day");
  const start = (previous && began.get(previous)) ?? 0;
  const more = !day && before.user === message.user && before.author === message.author
    && Math.abs(message.ts - start) < GROUP_MS && !item.querySelector(".new");
  item.classList.toggle("more", more);
  began.set(item, more ? start : message.ts);
}

/**
 * What comes from this item on is new.
 * @param {HTMLElement} item
 */
export function drawNewLine(item) {
  const line = element("strong", { className: "new" }, t.newSince);
  item.prepend(line);
  item.classList.remove("more");
  return line;
}
