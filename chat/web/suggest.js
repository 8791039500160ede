// What the word before the cursor may become: people of the room after an @, emoji after a colon.
// Nothing is chosen until one goes there by the arrows, so Enter sends as ever; Tab takes the first.

import { element, page } from "./dom.js";
import { plain } from "./markup.js";
import { t } from "./texts.js";

/** @typedef {{shown: string, words: string}} Offer what is shown, and what is written */

const MOST = 5;
const WORD = /(?<![\p{L}\p{N}_])@([^\s@]+)$|:([a-z0-9_+-]{2,})$/u;
const NAME = /:([a-z0-9_+-]+):$/;

/** @type {Offer[]} */
let offers = [];
// The text that they were made for, up to the cursor, and how much of it they replace.
let before = "";
let length = 0;
let chosen = -1;
/** @type {() => Iterable<string>} */
let peopleHere = () => [];
/** @type {typeof import("./emoji.js") | undefined} */
let emoji;

/** They are there a moment after somebody first names one. Until then, names stay as written. */
async function loadEmoji() {
  emoji = await import("./emoji.js").catch(() => undefined);
  if (!emoji) return;
  replaceName();
  drawOffers();
}

const toCursor = () => page.text.value.slice(0, page.text.selectionStart);

/** @param {string} start of a name */
function peopleLike(start) {
  const names = [...peopleHere()].filter((name) => plain(name).startsWith(plain(start)));
  return names.sort().slice(0, MOST);
}

/** Offer what the word before the cursor may become, if it is anything like that. */
export function drawOffers() {
  before = toCursor();
  const [, name, sign] = WORD.exec(before) ?? [];
  length = 1 + (name ?? sign ?? "").length;
  if (name) draw(peopleLike(name).map((one) => ({ shown: `@${one}`, words: `@${one} ` })));
  else {
    const like = sign ? emoji?.emojiLike(sign, MOST) : [];
    draw((like ?? []).map(([one, words]) => ({ shown: `${words} :${one}:`, words })));
    if (!like) loadEmoji();
  }
}

/** @param {Offer[]} made */
function draw(made) {
  offers = made;
  page.offers.replaceChildren(...offers.map(({ shown }, n) => (
    element("li", { id: `offer-${n}`, role: "option" }, element("bdi", {}, shown)))));
  page.offers.hidden = offers.length === 0;
  const words = offers.length ? t.offers(offers.length) : "";
  if (page.offered.textContent !== words) page.offered.textContent = words;
  choose(-1);
}

/** @param {number} at none: -1 */
function choose(at) {
  chosen = at;
  for (const [n, item] of [...page.offers.children].entries()) {
    item.setAttribute("aria-selected", String(n === at));
  }
  if (at < 0) page.text.removeAttribute("aria-activedescendant");
  else page.text.setAttribute("aria-activedescendant", `offer-${at}`);
}

/**
 * Put words in the place of what is before the cursor, in a way that can be undone.
 * @param {number} count of characters
 * @param {string} words
 */
function replaceBefore(count, words) {
  const end = page.text.selectionStart;
  page.text.setSelectionRange(end - count, end);
  document.execCommand("insertText", false, words);
}

/** The name before the cursor becomes its emoji, in a way that can be undone. */
export function replaceName() {
  const name = NAME.exec(toCursor())?.[1];
  if (!name) return;
  const found = emoji?.emojiNamed(name);
  if (found) replaceBefore(name.length + 2, found);
  else if (!emoji) loadEmoji();
}

/** @param {number} at */
const take = (at) => replaceBefore(length, offers[at].words);

/**
 * @param {KeyboardEvent} event
 * @returns {boolean} whether it was about what is offered
 */
export function pressedOffers({ key, shiftKey, ctrlKey, metaKey, altKey }) {
  if (shiftKey || ctrlKey || metaKey || altKey) return false;
  if (toCursor() !== before) drawOffers();
  const last = offers.length - 1;
  if (last < 0) return false;
  if (key === "ArrowDown") choose(chosen < last ? chosen + 1 : 0);
  else if (key === "ArrowUp") choose(chosen > 0 ? chosen - 1 : last);
  else if (key === "Tab") take(Math.max(chosen, 0));
  else if (key === "Enter" && chosen >= 0) take(chosen);
  else if (key === "Escape") draw([]);
  else return false;
  return true;
}

/** @param {() => Iterable<string>} people whose names are offered */
export function setUpOffers(people) {
  peopleHere = people;
  // The focus stays in the text.
  page.offers.addEventListener("pointerdown", (event) => event.preventDefault());
  page.offers.addEventListener("click", ({ target }) => {
    const item = target instanceof Element ? target.closest("li") : null;
    const at = item ? [...page.offers.children].indexOf(item) : -1;
    if (toCursor() !== before) drawOffers();
    else if (at >= 0) take(at);
    page.text.focus();
  });
}
