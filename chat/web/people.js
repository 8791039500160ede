// Who is in the room, and who is typing.

import { element, page } from "./dom.js";
import { locale, t } from "./texts.js";

/**
 * @param {number} count 0 while it is not known
 * @param {Set<string>} people unless there are too many
 */
export function drawPeople(count, people) {
  page.people.hidden = count === 0;
  if (count === 0) return;
  page.count.textContent = t.people(count);
  const names = [...people].sort((one, other) => one.localeCompare(other, locale));
  page.names.replaceChildren(...(names.length
    ? names.map((name) => element("li", {}, element("bdi", {}, name)))
    : [element("li", {}, t.tooManyPeople)]));
}

/** @param {string[]} names */
export function drawTyping(names) {
  if (names.length > 3) {
    page.typing.replaceChildren(t.severalType);
    return;
  }
  const who = names.flatMap((name, n) => [n ? ", " : "", element("bdi", {}, name)]);
  page.typing.replaceChildren(...who, names.length ? t.typing(names.length) : "");
}
