// Moving among messages by keyboard, quoting one, and copying what was written.

import { prepend } from "./compose.js";
import { button, element, page } from "./dom.js";
import { scrollToEnd } from "./latest.js";
import { messageOf } from "./messages.js";
import { current } from "./rooms.js";
import { t } from "./texts.js";
import { toggleTime } from "./times.js";

/** @typedef {import("./messages.js").Message} Message */

// Of a quote: lines, and characters in each.
const QUOTED_LINES = 4;
const QUOTED_CHARACTERS = 200;

/**
 * Its first words, without what was quoted in it.
 * @param {Message} message
 */
function quoted({ user, text }) {
  const lines = text.split("\n").filter((line) => line.trim() && !/^(?:>|```)/.test(line));
  const kept = lines.slice(0, QUOTED_LINES).map((line) => {
    const characters = [...line];
    return characters.length <= QUOTED_CHARACTERS ? line
      : `${characters.slice(0, QUOTED_CHARACTERS).join("")}…`;
  });
  if (lines.length > QUOTED_LINES) kept.push("…");
  return [`${user}: ${kept[0] ?? ""}`, ...kept.slice(1)].map((line) => `> ${line}`).join("\n");
}

/** @param {EventTarget | null} target */
const itemAt = (target) => (target instanceof Element
  ? /** @type {HTMLElement | null} */ (target.closest("#logs .message")) : null);

/** @param {Element | null} item */
function quote(item) {
  const message = messageOf(item);
  if (message) prepend(`${quoted(message)}\n`);
}

/**
 * @param {HTMLElement | null} item none: below the last one
 * @param {number} step
 */
function neighbour(item, step) {
  const items = current?.items ?? [];
  return items[(item ? items.indexOf(item) : items.length) + step];
}

/** @param {Element | null | undefined} item */
function focusOn(item) {
  if (!(item instanceof HTMLElement)) return;
  item.tabIndex = -1;
  item.focus();
}

/** @param {KeyboardEvent} event */
function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const item = event.target === page.scroll ? null : itemAt(event.target);
  const onItem = item !== null && item === event.target;
  if (event.key === "ArrowUp" && (onItem || event.target === page.scroll)) {
    focusOn(neighbour(item, -1));
  } else if (event.key === "ArrowDown" && onItem) {
    focusOn(neighbour(item, 1));
  } else if ((event.key === "Enter" || event.key.toLowerCase() === "r") && onItem) {
    quote(item);
  } else if (event.key === "Escape") {
    scrollToEnd();
    page.text.focus();
  } else {
    return;
  }
  event.preventDefault();
}

/**
 * The text as it was written, with what code and quotes are marked by.
 * @param {ClipboardEvent} event
 */
function copied(event) {
  const selection = getSelection();
  if (event.target instanceof HTMLTextAreaElement || event.target instanceof HTMLInputElement
    || !selection || selection.isCollapsed || !current) return;
  const range = selection.getRangeAt(0);
  const items = current.items.filter((item) => messageOf(item) && range.intersectsNode(item));
  const parts = items.map((item) => partOf(item, range)).filter((part) => part.words);
  if (parts.length === 0 || (parts.length === 1 && !parts[0].whole)) return;
  event.clipboardData?.setData("text/plain", parts.map(({ words }) => words).join("\n"));
  event.preventDefault();
}

/**
 * @param {Element} item
 * @param {Range} range
 */
function partOf(item, range) {
  const text = /** @type {Element} */ (item.querySelector(".text"));
  const all = document.createRange();
  all.selectNodeContents(text);
  const part = all.cloneRange();
  if (range.compareBoundaryPoints(Range.START_TO_START, all) > 0) {
    if (range.compareBoundaryPoints(Range.END_TO_START, all) > 0) return { words: "", whole: false };
    part.setStart(range.startContainer, range.startOffset);
  }
  if (range.compareBoundaryPoints(Range.END_TO_END, all) < 0) {
    part.setEnd(range.endContainer, range.endOffset);
  }
  const words = part.toString().trim();
  const whole = words !== "" && words === text.textContent?.trim();
  return { words: whole ? messageOf(item)?.text ?? "" : words, whole };
}

export function setUpReading() {
  // One for all messages, in the one that is pointed at. Putting it there is no news.
  /** @type {HTMLElement} */
  const tools = element("div", { className: "tools", "aria-live": "off" },
    button(t.quote, () => quote(itemAt(tools))));
  /** @param {Event} event */
  const offerTools = ({ target }) => {
    const item = itemAt(target);
    if (item && !item.contains(tools) && !tools.contains(document.activeElement)) {
      item.append(tools);
    }
  };
  page.logs.addEventListener("pointerover", offerTools);
  page.logs.addEventListener("focusin", offerTools);
  page.logs.addEventListener("click", ({ target }) => {
    if (target instanceof HTMLTimeElement) toggleTime(target);
  });
  page.scroll.addEventListener("keydown", pressed);
  page.text.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowUp" || page.text.value || event.isComposing) return;
    event.preventDefault();
    focusOn(neighbour(null, -1));
  });
  document.addEventListener("copy", copied);
}
