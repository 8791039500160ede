// When something was said: a moment ago, or at what time, and exactly.

import { element } from "./dom.js";
import { locale } from "./texts.js";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
// Between two times that what is shown is brought up to date.
const TICK_MS = 20_000;
// A clock may be a little behind the log's.
const AHEAD_MS = 10_000;

const hour = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });
const exact = new Intl.DateTimeFormat(locale, { dateStyle: "full", timeStyle: "medium" });
const longDay = new Intl.DateTimeFormat(locale, { dateStyle: "full" });
const ago = new Intl.RelativeTimeFormat(locale, { numeric: "auto", style: "short" });

/** @type {Set<HTMLTimeElement>} whose words change with time */
const moving = new Set();

/** @param {number} ts milliseconds since 1970, of the log's clock */
export function drawTime(ts) {
  const when = new Date(ts);
  const time = element("time", { dateTime: when.toISOString(), title: exact.format(when) });
  if (write(time)) moving.add(time);
  return time;
}

/**
 * @param {HTMLTimeElement} time
 * @returns {boolean} whether it will have to be written again
 */
function write(time) {
  const age = Date.now() - Date.parse(time.dateTime);
  // A clock that is wrong shows itself by messages of the future: no words for those.
  const recent = age >= -AHEAD_MS && age < HOUR;
  const words = !recent ? hour.format(new Date(time.dateTime))
    : age < MINUTE ? ago.format(0, "second")
      : ago.format(-Math.floor(age / MINUTE), "minute");
  if (time.textContent !== words) time.textContent = words;
  return recent;
}

/**
 * Where there is no pointer that could rest on it, the exact time takes the short one's place.
 * @param {HTMLTimeElement} time
 */
export function toggleTime(time) {
  if (time.textContent !== time.title) {
    moving.delete(time);
    time.textContent = time.title;
  } else if (write(time)) {
    moving.add(time);
  }
}

/** @param {number} ts */
export const dayName = (ts) => longDay.format(ts);

/**
 * @param {number} one
 * @param {number} other
 */
export function sameDay(one, other) {
  return new Date(one).toDateString() === new Date(other).toDateString();
}

setInterval(() => {
  for (const time of moving) if (!time.isConnected || !write(time)) moving.delete(time);
}, TICK_MS);
