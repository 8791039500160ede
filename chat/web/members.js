// A private room's dialog: who is in it, and for its owners, who else may come. It is loaded when
// somebody opens it.
//
// The service knows members by their author. Their name is that under which they have written, or else
// under which they came: a release that kept no names may have let them in.

import { ask } from "./actions.js";
import { chooseTime, failure } from "./dialogs.js";
import { button, element, notice } from "./dom.js";
import { names, toldApart } from "./private.js";
import { locale, t } from "./texts.js";

/** @typedef {import("./connection.js").Connection} Connection */
/** @typedef {import("./connection.js").Frame} Frame */
/** @typedef {import("./rooms.js").Room} Room */
/**
 * `me`: the last `welcome`. `direct`: the author of the other one, in a direct room. `blocked`: whether
 * one blocks them. `left`: the room is to go.
 * @typedef {object} Given
 * @property {Room} room
 * @property {Connection} connection
 * @property {Frame} me
 * @property {string} direct
 * @property {() => Promise<boolean>} blocked
 * @property {(label: string) => void} rename
 * @property {() => void} left
 */

const en = {
  members: "Members",
  owner: "owner",
  you: "you",
  nameless: (/** @type {string} */ id) => `Somebody whose name is not known yet (${id})`,
  here: (/** @type {string} */ names) => `Here now, and has not written: ${names}`,
  promote: "Make owner",
  promoted: "Owner now.",
  sureToPromote: (/** @type {string} */ name) =>
    `Owners invite people and remove them, you as well. Press again to make ${name} an owner.`,
  remove: "Remove",
  removed: "Removed. All invitations have ended.",
  sureToRemove: (/** @type {string} */ name) =>
    `${name} will see nothing of this room any more, and all invitations end. Press again to remove.`,
  invitations: "Invitations",
  time: "Counts for",
  uses: "For how many people",
  invite: "Make a link",
  link: "Link",
  linked: "Whoever has this link can come in. It is shown only now.",
  copy: "Copy",
  copied: "Copied.",
  notCopied: "The browser does not allow it: press Ctrl+C.",
  open: (/** @type {string} */ end, /** @type {number} */ left) => `Until ${end}; ${left} left`,
  revoke: "Take back",
  revoked: "Taken back.",
  label: "What you call it here",
  save: "Save",
  saved: "Saved. Nobody else sees this name.",
  leave: "Leave for good",
  block: "Block",
  blocked: "Blocked.",
  sureToBlock: "Neither of you can write here then, until you end that. The other one is not told. Press "
    + "again to block.",
  unblock: "Unblock",
  unblocked: "Not blocked any more.",
  leaveDirect: "Leave",
  sureToLeaveDirect: "It goes from your list. The other one may read it, but not write, until one of "
    + "you opens it again.",
  sureToLeave: "You will see nothing of it any more, and come back only with a new invitation.",
  sureToHandOver: "The one who has been a member for longest becomes owner.",
  sureToEnd: "You are the last one: the room ends for good.",
  again: "Press again to leave.",
  errors: /** @type {Record<string, string>} */ ({
    full: "The room has as many invitations as it may have, or all private rooms have: take one back.",
    not_moderator: "You are no owner of this room.",
  }),
};

/** @type {typeof en} */
const de = {
  members: "Mitglieder",
  owner: "besitzt den Raum",
  you: "Sie",
  nameless: (id) => `Jemand, dessen Name noch nicht bekannt ist (${id})`,
  here: (names) => `Gerade hier und hat nichts geschrieben: ${names}`,
  promote: "Zum Besitzer machen",
  promoted: "Besitzt jetzt den Raum.",
  sureToPromote: (name) => "Besitzer laden ein und entfernen andere, auch Sie. "
    + `Noch einmal drücken, damit ${name} den Raum besitzt.`,
  remove: "Entfernen",
  removed: "Entfernt. Alle Einladungen sind beendet.",
  sureToRemove: (name) => `${name} sieht dann nichts mehr von diesem Raum, und alle Einladungen `
    + "enden. Noch einmal drücken, um zu entfernen.",
  invitations: "Einladungen",
  time: "Gilt für",
  uses: "Für wie viele Personen",
  invite: "Link erstellen",
  link: "Link",
  linked: "Wer diesen Link hat, kann hereinkommen. Er wird nur jetzt gezeigt.",
  copy: "Kopieren",
  copied: "Kopiert.",
  notCopied: "Der Browser erlaubt es nicht: drücken Sie Strg+C.",
  open: (end, left) => `Bis ${end}; noch ${left}`,
  revoke: "Zurücknehmen",
  revoked: "Zurückgenommen.",
  label: "Wie er bei Ihnen heißt",
  save: "Speichern",
  saved: "Gespeichert. Niemand sonst sieht diesen Namen.",
  leave: "Für immer verlassen",
  block: "Blockieren",
  blocked: "Blockiert.",
  sureToBlock: "Niemand von Ihnen kann dann hier schreiben, bis Sie es beenden. Die andere Person erfährt "
    + "es nicht. Noch einmal drücken, um zu blockieren.",
  unblock: "Nicht mehr blockieren",
  unblocked: "Nicht mehr blockiert.",
  leaveDirect: "Verlassen",
  sureToLeaveDirect: "Er verschwindet aus Ihrer Liste. Die andere Person darf darin lesen, aber nicht "
    + "schreiben, bis eine von Ihnen beiden ihn wieder öffnet.",
  sureToLeave: "Sie sehen dann nichts mehr davon, und kommen nur mit einer neuen Einladung zurück.",
  sureToHandOver: "Wer am längsten Mitglied ist, besitzt dann den Raum.",
  sureToEnd: "Sie sind als Letzter hier: der Raum endet für immer.",
  again: "Noch einmal drücken, um zu verlassen.",
  errors: {
    bad_author: "Diese Person ist kein Mitglied.",
    full: "Der Raum hat so viele Einladungen, wie er haben darf, oder alle privaten Räume haben es: "
      + "nehmen Sie eine zurück.",
    not_moderator: "Sie besitzen diesen Raum nicht.",
  },
};

const words = locale.startsWith("de") ? de : en;
const format = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });

/** @type {Given} */
let given;
// What the dialog shows, so that nothing is drawn again that has not changed.
let drawn = "";
// The invitation whose link is shown.
let invitation = "";
/** @type {Frame} what the service said last */
let last;
let asking = false;

const style = new CSSStyleSheet();
style.replaceSync(`
  #private h3 { margin-bottom: 0; font-size: 1rem; }
  #private li { align-items: baseline; padding: .2rem 0; }
  #private li > :first-child { flex: 1 1 7rem; min-width: 0; overflow-wrap: anywhere; }
  #private :is(li, .made) button { padding: .1rem .6rem; font-size: .85rem; }
  #private small { color: var(--faint); }
  #private [type="number"] { flex: 0 1 5rem; }
  #private form, #private .made:not([hidden]) { display: flex; flex-wrap: wrap; gap: .5rem; align-items: baseline; }
  #private :is(form, .made) p { flex-basis: 100%; }
  #private .made input { flex: 1 1 8rem; }
  #private h2 { outline: none; overflow-wrap: anywhere; }
  #private section > * + * { margin-top: .5rem; }
  #private { scroll-padding-bottom: 7rem; }
  /* In sight of whoever has pressed a button further up. */
  #private [role="status"]:not(:empty) {
    position: sticky;
    bottom: -1.25rem;
    padding: .5rem 0;
    border-top: 1px solid var(--line);
    background: var(--paper);
  }
  #private .quiet { border-color: var(--line); background: none; color: inherit; font-weight: inherit; }
  #private .sure { border-color: var(--bad); color: var(--bad); }
`);
document.adoptedStyleSheets.push(style);

const title = element("h2", { id: "private-title", tabIndex: -1, autofocus: true });
const people = element("ul");
const here = element("p");
const time = chooseTime("private-time");
time.value = "86400";
const uses = element("input", {
  id: "private-uses", type: "number", min: "1", max: "200", value: "1", required: true,
});
const link = element("input", { id: "private-link", readOnly: true });
const made = element("p", { className: "made", hidden: true },
  element("label", { htmlFor: link.id }, words.link), link, button(words.copy, copy));
const invitations = element("ul");
const inviting = element("form", {},
  element("label", { htmlFor: time.id }, words.time), time,
  element("label", { htmlFor: uses.id }, words.uses), uses,
  element("button", { type: "submit" }, words.invite));
const owners = element("section", {},
  element("h3", {}, words.invitations), inviting, made, invitations);
const label = element("input", { id: "private-label", maxLength: 40 });
const naming = element("form", {},
  element("label", { htmlFor: label.id }, words.label), label,
  element("button", { type: "submit", className: "quiet" }, words.save));
const said = element("p", { role: "status" });
const leave = sure(words.leave, sureToLeave, () => change(
  { type: "remove", author: given.me.author }, "", (_answer, { left }) => {
    dialog.close();
    left();
  },
));
// Only one of them is shown, in direct rooms.
const block = sure(words.block, () => words.sureToBlock, () => change(
  { type: "block", author: given.direct, blocked: true }, words.blocked, drawBlock));
const unblock = button(words.unblock, () => change(
  { type: "block", author: given.direct, blocked: false }, words.unblocked, drawBlock));
/** @type {HTMLDialogElement} */
const dialog = element("dialog", {
  id: "private", className: "action", "aria-labelledby": title.id,
},
  title,
  element("h3", {}, words.members), people, here,
  owners, naming, said,
  element("p", { className: "row" }, block, unblock, leave, button(t.close, () => dialog.close())));
document.body.append(dialog);

inviting.addEventListener("submit", (event) => {
  event.preventDefault();
  const frame = { type: "invite", seconds: Number(time.value), uses: uses.valueAsNumber };
  change(frame, words.linked, async ({ id, token }) => {
    invitation = id;
    // A token may end in a letter that chats take for the end of a sentence. This one is no part of it.
    link.value = `${location.origin}${location.pathname}#invite=${token}/`;
    await refresh();
    link.focus();
    link.select();
  });
});
naming.addEventListener("submit", (event) => {
  event.preventDefault();
  given.rename(label.value.trim());
  title.textContent = label.value = given.room.label;
  said.textContent = words.saved;
});

async function copy() {
  link.select();
  try {
    await navigator.clipboard.writeText(link.value);
    said.textContent = words.copied;
  } catch {
    said.textContent = words.notCopied;
  }
}

/**
 * A button for what cannot be undone: when it is pressed first, one is told what it does.
 * @param {string} says
 * @param {() => string} question
 * @param {() => void} act
 */
function sure(says, question, act) {
  const asks = button(says, () => {
    if (asks.classList.toggle("sure")) said.textContent = question();
    else act();
  });
  asks.addEventListener("blur", () => asks.classList.remove("sure"));
  return asks;
}

function sureToLeave() {
  const { owners: all, members } = last;
  const only = all.length === 1 && all[0] === given.me.author;
  if (given.direct) return `${words.sureToLeaveDirect} ${words.again}`;
  const then = !only ? "" : members.length ? words.sureToHandOver : words.sureToEnd;
  return [words.sureToLeave, then, words.again].filter(Boolean).join(" ");
}

/**
 * @param {Frame} frame without the room
 * @param {string} done
 * @param {(answer: Frame, of: Given) => void} then
 */
async function change(frame, done, then = refresh) {
  if (asking) return;
  asking = true;
  const of = given;
  said.textContent = t.sending;
  const answer = await ask(of.connection, { ...frame, room: of.room.name });
  asking = false;
  const outcome = answer.type === "error" ? failure(answer, words.errors) : done;
  if (dialog.open && given === of) said.textContent = outcome;
  else if (outcome) notice(`${of.room.label}: ${outcome}`);
  if (answer.type === "error") refresh();
  else then(answer, of);
}

async function refresh() {
  const { room, connection } = given;
  const answer = await ask(connection, { type: "members", room: room.name });
  if (!dialog.open || given.room !== room) return;
  if (answer.type === "error") said.textContent = failure(answer, words.errors);
  else draw(answer);
}

async function drawBlock() {
  const of = given;
  const blocked = of.direct !== "" && await of.blocked();
  if (given !== of) return;
  const focused = document.activeElement === block || document.activeElement === unblock;
  block.hidden = !of.direct || blocked;
  unblock.hidden = !of.direct || !blocked;
  if (focused) (blocked ? unblock : block).focus();
}

/** @param {Frame} answer */
function draw(answer) {
  const known = names(given.room, answer.names);
  const { owners: all, members, invitations: offered = [] } = answer;
  const nameless = [...all, ...members].some((author) => !known.has(author));
  const silent = [...given.room.people].filter((name) => ![...known.values()].includes(name));
  const state = JSON.stringify([all, members, offered, invitation, [...known], silent]);
  if (state === drawn) return;
  drawn = state;
  last = answer;
  const mine = all.includes(given.me.author);
  const shown = toldApart(known);
  people.replaceChildren(
    ...all.map((/** @type {string} */ author) => drawPerson(author, shown, true, mine)),
    ...members.map((/** @type {string} */ author) => drawPerson(author, shown, false, mine)));
  here.textContent = nameless && silent.length ? words.here(silent.join(", ")) : "";
  here.hidden = !here.textContent;
  owners.hidden = !mine;
  made.hidden = !offered.some((/** @type {Frame} */ { id }) => id === invitation);
  invitations.replaceChildren(...offered.map(drawInvitation));
  // What had the focus may be gone.
  if (!dialog.contains(document.activeElement)) title.focus();
}

/**
 * @param {string} author
 * @param {Map<string, string>} shown names by author, told apart
 * @param {boolean} owner
 * @param {boolean} mine whether one may change it
 */
function drawPerson(author, shown, owner, mine) {
  const name = shown.get(author) ?? words.nameless(author.slice(0, 6));
  const me = author === given.me.author;
  const marks = [owner ? words.owner : "", me ? words.you : ""].filter(Boolean).join(", ");
  const item = element("li", { className: "row" },
    element("span", {}, element("bdi", {}, name), marks && element("small", {}, ` (${marks})`)));
  if (!mine || me) return item;
  const promote = sure(words.promote, () => words.sureToPromote(name), () => change(
    { type: "promote", author }, words.promoted));
  const remove = sure(words.remove, () => words.sureToRemove(name), () => change(
    { type: "remove", author }, words.removed));
  for (const one of owner ? [remove] : [promote, remove]) {
    one.setAttribute("aria-label", `${one.textContent}: ${name}`);
    item.append(one);
  }
  return item;
}

/** @param {any} invitation of the frame `members` */
function drawInvitation({ id, until, left }) {
  const what = words.open(format.format(until), left);
  const revoke = button(words.revoke, () => change(
    { type: "revoke", invitation: id }, words.revoked));
  revoke.setAttribute("aria-label", `${words.revoke}: ${what}`);
  return element("li", { className: "row" }, element("span", {}, what), revoke);
}

/**
 * @param {Given} wanted
 * @param {boolean} leaving whether one is asked whether to leave
 */
export async function open(wanted, leaving) {
  given = wanted;
  title.textContent = label.value = given.room.label;
  said.textContent = drawn = "";
  last = { type: "members", owners: [], members: [] };
  leave.textContent = given.direct ? words.leaveDirect : words.leave;
  for (const part of [people, invitations]) part.replaceChildren();
  here.hidden = owners.hidden = made.hidden = block.hidden = unblock.hidden = true;
  if (!dialog.open) dialog.showModal();
  await Promise.all([refresh(), drawBlock()]);
  if (!leaving || said.textContent) return;
  leave.focus();
  leave.click();
}

/** @param {Room} room that one may not see any more */
export function close(room) {
  if (given.room === room) dialog.close();
}

/** @param {Frame} frame after which the members may be others, or have names */
export function hear({ type, room }) {
  if (!dialog.open || room !== given.room.name) return;
  if (["presence", "access", "joined"].includes(type)) refresh();
  else if (type === "message" && drawn) draw(last);
}
