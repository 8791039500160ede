// Deleting and editing messages, and what becomes of those that somebody deletes or edits. It is
// loaded where people may do that, or when somebody has done it.

import { ask, chosen, offer } from "./actions.js";
import { button, element, notice } from "./dom.js";
import { drawText } from "./markup.js";
import { markEdited, messageOf } from "./messages.js";
import { current, rooms } from "./rooms.js";
import { explain, locale, t } from "./texts.js";

/** @typedef {import("./connection.js").Connection} Connection */
/** @typedef {import("./connection.js").Frame} Frame */

const en = {
  deleted: "Message deleted",
  remove: "Delete",
  sure: "Delete for all?",
  text: "New text",
  save: "Save",
};

/** @type {typeof en} */
const de = {
  deleted: "Nachricht gelöscht",
  remove: "Löschen",
  sure: "Für alle löschen?",
  text: "Neuer Text",
  save: "Speichern",
};

const words = locale.startsWith("de") ? de : en;

/** @type {Connection} */
let connection;
/** @type {HTMLElement | null} the message of which somebody was asked whether it is to go */
let doubted = null;

const remove = button(words.remove, () => {
  if (doubted) {
    revise(doubted, "delete");
    return;
  }
  doubted = chosen;
  remove.textContent = words.sure;
});
const edit = button(t.edit, () => { if (chosen) startEditing(chosen); });

/** @param {HTMLElement} item */
function mayEdit(item) {
  return item.matches(".mine:not(.deleted)") && !current?.readOnly;
}

/** @param {HTMLElement} item */
function mayDelete(item) {
  if (item !== doubted) {
    doubted = null;
    remove.textContent = words.remove;
  }
  // Who may not write any more still takes back what they wrote.
  return !item.matches(".deleted") && (item.matches(".mine") || current?.moderator === true);
}

/**
 * @param {HTMLElement} item
 * @param {string} type
 * @param {object} more
 */
async function revise(item, type, more = {}) {
  const message = messageOf(item);
  if (!message) return;
  const { room, id } = message;
  const answer = await ask(connection, { type, room, id, ...more });
  if (answer.type === "error") notice(explain(answer.code, answer.message));
}

/** @param {HTMLElement} item */
function startEditing(item) {
  const message = messageOf(item);
  if (!message || item.querySelector("form")) return;
  const text = element("textarea", { "aria-label": words.text, value: message.text, rows: 3 });
  const stop = () => {
    form.remove();
    item.focus();
  };
  const form = element("form", { className: "editing" }, text,
    element("button", { type: "submit" }, words.save), button(t.cancel, stop));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (text.value === message.text) stop();
    else revise(item, "edit", { text: text.value });
  });
  form.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.isComposing) return;
    if (event.key === "Escape") stop();
    else if (event.key === "Enter" && !event.shiftKey && event.target === text) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  item.append(form);
  text.focus();
}

/**
 * @param {string} room
 * @param {string} id
 */
const itemOf = (room, id) => rooms.get(room)?.items.find((item) => messageOf(item)?.id === id);

/**
 * @param {string} room
 * @param {string} id
 * @param {string} words_ that it says from now on; none if it is gone
 * @param {RegExp | null} name
 */
function draw(room, id, words_, name) {
  const item = itemOf(room, id);
  const message = messageOf(item);
  const text = item?.querySelector(".text");
  if (!item || !message || !text || item.matches(".deleted")) return;
  message.text = words_;
  item.querySelector("form")?.remove();
  if (words_) {
    text.replaceChildren(...drawText(words_, item.matches(".mine") ? null : name));
    markEdited(item);
    return;
  }
  item.classList.add("deleted");
  item.classList.remove("mentions");
  item.querySelector(".edited")?.remove();
  text.replaceChildren(element("em", {}, words.deleted));
  edit.hidden = remove.hidden = true;
}

/**
 * @param {Frame} frame
 * @param {Connection} given
 * @param {RegExp | null} name of the reader
 */
export function hear(frame, given, name) {
  connection = given;
  switch (frame.type) {
    case "welcome":
      offer(edit, mayEdit);
      offer(remove, mayDelete);
      break;
    case "deleted":
      draw(frame.room, frame.id, "", name);
      break;
    case "edited":
      draw(frame.room, frame.id, frame.text, name);
      break;
    case "joined":
      for (const id of frame.deleted ?? []) draw(frame.room, id, "", name);
      for (const { id, text } of frame.edited ?? []) draw(frame.room, id, text, name);
  }
}
