// Deleting and editing messages, and what becomes of those that somebody deletes or edits. It is
// loaded where people may do that, or when somebody has done it.

import { button, element, notice, page } from "./dom.js";
import { drawText } from "./markup.js";
import { markEdited, messageOf } from "./messages.js";
import { current, rooms } from "./rooms.js";
import { newId } from "./store.js";
import { locale, t } from "./texts.js";

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
/** @type {HTMLElement | null} to whose message the tools are for */
let chosen = null;

const remove = button(words.remove, () => {
  if (remove.textContent === words.sure) say("delete");
  else remove.textContent = words.sure;
});
const edit = button(t.edit, () => { if (chosen) startEditing(chosen); });

/**
 * @param {string} type
 * @param {object} more
 */
function say(type, more = {}) {
  const message = messageOf(chosen);
  if (!message) return;
  if (!connection.live) {
    notice(t.lost);
    return;
  }
  connection.say({ type, room: message.room, id: message.id, cid: `r-${newId()}`, ...more });
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
    chosen = item;
    if (text.value === message.text) stop();
    else say("edit", { text: text.value });
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

/** @param {Event} event */
function offer({ target }) {
  const tools = page.logs.querySelector(".tools");
  const item = tools?.parentElement ?? null;
  if (!tools || !(target instanceof Element) || target.closest(".message") !== item) return;
  if (item !== chosen) remove.textContent = words.remove;
  chosen = item;
  const mine = item?.matches(".mine:not(.deleted)") && !current?.readOnly;
  edit.hidden = !mine;
  remove.hidden = !mine && !(current?.moderator && !item?.matches(".deleted"));
  if (!tools.contains(remove)) tools.append(edit, remove);
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
      page.logs.addEventListener("pointerover", offer);
      page.logs.addEventListener("focusin", offer);
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
