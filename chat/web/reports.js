// Reporting a message to those who read the audit room. It is loaded where the service has one.

import { ask, chosen, goBack, offer, writerOf } from "./actions.js";
import { failure } from "./dialogs.js";
import { button, element, notice } from "./dom.js";
import { messageOf } from "./messages.js";
import { PRIVATE } from "./rooms.js";
import { newId } from "./store.js";
import { locale, t } from "./texts.js";

/** @typedef {import("./connection.js").Connection} Connection */
/** @typedef {import("./connection.js").Frame} Frame */
/** @typedef {import("./messages.js").Message} Message */

const en = {
  report: "Report",
  rules: "Moderators will see this message, who wrote it, your reason, and your name. The one who "
    + "wrote it is not told.",
  inPrivate: "Moderators need not be members of this room. They see this message, and nothing else "
    + "of it.",
  reason: "Your reason",
  done: "Reported.",
  errors: /** @type {Record<string, string>} */ ({
    no_message: "The message is not there any more.",
    bad_text: "Give a reason.",
  }),
};

/** @type {typeof en} */
const de = {
  report: "Melden",
  rules: "Die Moderation sieht dann diese Nachricht, wer sie geschrieben hat, Ihren Grund und Ihren "
    + "Namen. Wer sie geschrieben hat, erfährt es nicht.",
  inPrivate: "Wer moderiert, muss nicht Mitglied dieses Raums sein, und sieht daraus diese Nachricht "
    + "und sonst nichts.",
  reason: "Ihr Grund",
  done: "Gemeldet.",
  errors: {
    no_message: "Die Nachricht ist nicht mehr da.",
    bad_text: "Geben Sie einen Grund an.",
  },
};

const words = locale.startsWith("de") ? de : en;
// Moderators see no more of a reason (chat/audit.py).
const MOST = 2000;

/** @type {Connection} */
let connection;
/** @type {Message | undefined} that the dialog is about */
let message;
/** @type {HTMLElement | null} */
let item = null;
// The same report has the same one, however often it is sent.
let cid = "";
let asking = false;

const style = new CSSStyleSheet();
style.replaceSync(`
  #report blockquote { max-height: 6rem; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
  #report label { display: block; }
  #report textarea { width: 100%; margin-top: .25rem; }
`);
document.adoptedStyleSheets.push(style);

const report = button(words.report, () => { if (chosen) open(chosen); });
const name = element("bdi");
const quoted = element("blockquote", { dir: "auto", tabIndex: 0 });
const inPrivate = element("p", {}, words.inPrivate);
const reason = element("textarea", { id: "report-reason", rows: 3, maxLength: MOST, required: true });
const send = element("button", { type: "submit" }, words.report);
const said = element("p", { role: "status" });
const close = button(t.close, () => dialog.close());
const form = element("form", {},
  element("label", { htmlFor: reason.id }, words.reason), reason);
/** @type {HTMLDialogElement} */
const dialog = element("dialog", {
  id: "report", className: "action", "aria-labelledby": "report-title",
},
  element("h2", { id: "report-title" }, `${words.report}: `, name),
  quoted,
  element("p", {}, words.rules),
  inPrivate,
  form,
  said,
  element("p", { className: "row" }, send, close));
form.id = "report-form";
send.setAttribute("form", form.id);
reason.addEventListener("input", () => { cid = newId(); });
dialog.addEventListener("close", () => {
  message = undefined;
  goBack(item, report);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  tell();
});
document.body.append(dialog);

/** @param {HTMLElement} of */
function open(of) {
  item = of;
  message = messageOf(item);
  if (!message) return;
  name.textContent = writerOf(item);
  quoted.textContent = message.text;
  inPrivate.hidden = !PRIVATE.test(message.room);
  reason.value = said.textContent = "";
  reason.disabled = send.hidden = false;
  cid = newId();
  dialog.showModal();
  reason.focus();
}

async function tell() {
  const about = message;
  if (!about || asking) return;
  asking = true;
  said.textContent = t.sending;
  const { room, id } = about;
  const answer = await ask(connection, { type: "report", room, id, reason: reason.value, cid });
  asking = false;
  const done = answer.type === "ack";
  const outcome = done ? words.done : failure(answer, words.errors);
  // The event "close", which forgets the message, comes a moment after the dialog is closed.
  if (!dialog.open || about !== message) {
    notice(`${about.user}: ${outcome}`);
    return;
  }
  said.textContent = outcome;
  reason.disabled = send.hidden = done;
  if (done) close.focus();
}

/**
 * @param {Frame} _welcome
 * @param {Connection} given
 */
export function hear(_welcome, given) {
  connection = given;
  offer(report, (of) => !of.matches(".mine, .deleted") && Boolean(messageOf(of)?.author));
}
