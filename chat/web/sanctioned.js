// What people see whom a moderator has muted or banned: by whom, and until when. It is loaded when
// the service says that somebody is.

import { drawWhy, rooms } from "./rooms.js";
import { locale } from "./texts.js";

/** @typedef {import("./connection.js").Frame} Frame */

const en = {
  muted: (/** @type {string} */ end) =>
    `A moderator has muted you in this room until ${end}. You may read, but not write.`,
  banned: (/** @type {string} */ end) => `A moderator has banned you from it until ${end}.`,
};

/** @type {typeof en} */
const de = {
  muted: (end) => "Die Moderation hat Sie in diesem Raum stummgeschaltet, "
    + `bis ${end}. Sie dürfen lesen, aber nicht schreiben.`,
  banned: (end) => `Die Moderation hat Sie daraus verbannt, bis ${end}.`,
};

const words = locale.startsWith("de") ? de : en;
const format = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });

/** @param {number} ts milliseconds since 1970 */
export const shownEnd = (ts) => format.format(ts);

/** @param {Frame} frame with `until` */
export function hear({ type, room: name, until }) {
  const room = rooms.get(name);
  if (!room) return;
  // Meanwhile, it may have been lifted.
  if (type === "error" && room.why) room.why = room.banned = words.banned(shownEnd(until));
  else if (type !== "error" && room.readOnly) room.readOnly = words.muted(shownEnd(until));
  drawWhy();
}
