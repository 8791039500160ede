// Muting and banning the author of a message, and lifting that again. It is loaded in the rooms
// whose moderator one is, and for those who may ban people from the whole chat. Nobody is told who
// is muted or banned, so all buttons are always there. In private rooms nobody can be muted or
// banned, so those of a room are not there.

import { ask, chosen, goBack, offer, writerOf } from "./actions.js";
import { chooseTime, failure } from "./dialogs.js";
import { button, element, notice } from "./dom.js";
import { messageOf } from "./messages.js";
import { current, PRIVATE } from "./rooms.js";
import { shownEnd } from "./sanctioned.js";
import { locale, t } from "./texts.js";

/** @typedef {import("./connection.js").Connection} Connection */
/** @typedef {import("./connection.js").Frame} Frame */
/** @typedef {import("./messages.js").Message} Message */

const en = {
  moderate: "Moderate",
  rules: (/** @type {string} */ room) => `In ${room} only. Who is muted may read, but not write. `
    + "Who is banned does not see the room. Moderators are not affected.",
  time: "For how long",
  mute: "Mute",
  ban: "Ban",
  lift: "Lift",
  muted: (/** @type {string} */ end) => `Muted until ${end}.`,
  banned: (/** @type {string} */ end) => `Banned until ${end}.`,
  lifted: "Neither muted nor banned any more.",
  everywhere: "The whole chat: who is banned from it is disconnected, and cannot come back until then.",
  banEverywhere: "Ban from the whole chat",
  liftEverywhere: "Lift for the whole chat",
  bannedEverywhere: (/** @type {string} */ end) => `Banned from the whole chat until ${end}.`,
  liftedEverywhere: "Not banned from the whole chat any more.",
  errors: /** @type {Record<string, string>} */ ({}),
};

/** @type {typeof en} */
const de = {
  moderate: "Moderieren",
  rules: (room) => `Nur in ${room}. Wer stummgeschaltet ist, darf lesen, aber nicht schreiben. `
    + "Wer verbannt ist, sieht den Raum nicht. Für Moderatoren gilt es nicht.",
  time: "Wie lange",
  mute: "Stummschalten",
  ban: "Verbannen",
  lift: "Aufheben",
  muted: (end) => `Stummgeschaltet bis ${end}.`,
  banned: (end) => `Verbannt bis ${end}.`,
  lifted: "Weder stummgeschaltet noch verbannt.",
  everywhere: "Der ganze Chat: Wer verbannt ist, wird getrennt und kann bis dahin nicht zurück.",
  banEverywhere: "Aus dem ganzen Chat verbannen",
  liftEverywhere: "Für den ganzen Chat aufheben",
  bannedEverywhere: (end) => `Aus dem ganzen Chat verbannt bis ${end}.`,
  liftedEverywhere: "Nicht mehr aus dem ganzen Chat verbannt.",
  errors: {
    bad_author: "So jemanden kann es nicht geben.",
    not_moderator: "Sie moderieren diesen Raum nicht.",
  },
};

const words = locale.startsWith("de") ? de : en;

/** @type {Connection} */
let connection;
/** @type {Message | undefined} whose author the dialog is about */
let message;
/** @type {HTMLElement | null} */
let item = null;
let asking = false;
/** Whether one may ban people from the whole chat. */
let everywhere = false;

const moderate = button(words.moderate, () => { if (chosen) open(chosen); });
const name = element("bdi");
const rules = element("p");
const time = chooseTime("moderation-time");
const said = element("p", { role: "status" });
const inRoom = element("p", { className: "row" },
  button(words.mute, () => say("mute", Number(time.value), words.muted)),
  button(words.ban, () => say("ban", Number(time.value), words.banned)),
  button(words.lift, () => say("mute", 0, () => words.lifted)));
const inChat = element("div", {},
  element("p", {}, words.everywhere),
  element("p", { className: "row" },
    button(words.banEverywhere, () => say("ban", Number(time.value), words.bannedEverywhere, "*")),
    button(words.liftEverywhere, () => say("ban", 0, () => words.liftedEverywhere, "*"))));
/** @type {HTMLDialogElement} */
const dialog = element("dialog", {
  id: "moderation", className: "action", "aria-labelledby": "moderation-title",
},
  element("h2", { id: "moderation-title" }, `${words.moderate}: `, name),
  rules,
  element("p", { className: "row" },
    element("label", { htmlFor: time.id }, words.time), time),
  inRoom,
  inChat,
  said,
  button(t.close, () => dialog.close()));
dialog.addEventListener("close", () => {
  message = undefined;
  goBack(item, moderate);
});
document.body.append(dialog);

function moderatesRoom() {
  return current?.moderator === true && !PRIVATE.test(current.name);
}

/** @param {HTMLElement} of */
function open(of) {
  item = of;
  message = messageOf(item);
  if (!message) return;
  name.textContent = writerOf(item);
  rules.textContent = words.rules(message.room);
  rules.hidden = inRoom.hidden = !moderatesRoom();
  inChat.hidden = !everywhere;
  said.textContent = "";
  dialog.showModal();
}

/**
 * @param {"mute" | "ban"} type
 * @param {number} seconds
 * @param {(end: string) => string} done
 * @param {string | undefined} place the message's room, or "*" for the whole chat
 */
async function say(type, seconds, done, place = message?.room) {
  const about = message;
  if (!about || asking) return;
  asking = true;
  said.textContent = t.sending;
  const { author } = about;
  const answer = await ask(connection, { type, room: place, author, seconds });
  asking = false;
  const outcome = answer.type === "ack" ? done(shownEnd(Date.now() + seconds * 1000))
    : failure(answer, words.errors);
  // The event "close", which forgets the message, comes a moment after the dialog is closed.
  if (dialog.open && about === message) said.textContent = outcome;
  else notice(`${about.user}: ${outcome}`);
}

/**
 * @param {Frame} frame
 * @param {Connection} given
 */
export function hear(frame, given) {
  connection = given;
  everywhere ||= frame.type === "welcome";
  offer(moderate, (of) => (everywhere || moderatesRoom())
    && !of.matches(".mine") && Boolean(messageOf(of)?.author));
}
