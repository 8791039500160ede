// How messages are drawn.

import { element } from "./dom.js";

/**
 * @typedef {object} Message
 * @property {string} room
 * @property {string} id
 * @property {string} user
 * @property {string} text
 * @property {number} ts
 * @property {string} cid
 * @property {string} [author]
 */

/**
 * @param {Message} message
 * @param {boolean} mine
 */
export function drawMessage({ user, author = "", text, ts, id }, mine) {
  const when = new Date(ts);
  return element("li",
    {
      className: mine ? "message mine" : "message",
      "data-id": id, "data-user": user, "data-author": author, "data-ts": String(ts),
    },
    element("bdi", { className: "user" }, user),
    element("span", { className: "author", hidden: true }),
    element("time", { dateTime: when.toISOString(), title: exactly(when) }, hour(when)),
    element("p", { dir: "auto" }, text));
}

/** @param {Date} when */
const hour = (when) => when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

/** @param {Date} when */
const exactly = (when) => when.toLocaleString([], { dateStyle: "full", timeStyle: "medium" });

/**
 * Where there is no pointer that could rest on it, the exact time takes the short one's place.
 * @param {HTMLTimeElement} time
 */
export function toggleTime(time) {
  const when = new Date(time.dateTime);
  time.textContent = time.textContent === exactly(when) ? hour(when) : exactly(when);
}

/**
 * The first message of a day says which one.
 * @param {HTMLElement} item
 * @param {Element | null | undefined} previous
 */
export function markDay(item, previous) {
  const day = dayOf(item);
  if (!day) return;
  if (previous instanceof HTMLElement && dayOf(previous) === day) item.removeAttribute("data-day");
  else item.dataset.day = day;
}

/** @param {HTMLElement} item */
function dayOf({ dataset: { ts } }) {
  if (ts === undefined) return "";
  return new Date(Number(ts)).toLocaleDateString([], { dateStyle: "full" });
}
