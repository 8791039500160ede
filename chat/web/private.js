// Private rooms: the list has all that one is in, a button makes one, and an invitation leads into
// one. Each message has a button that opens a direct room with its author. It is loaded where people
// make private rooms, and when an address has an invitation.
//
// An invitation is in the fragment of the address, which browsers send to nobody. It is kept in the
// tab while somebody signs in, and is used only when they say so: the members see who comes. It has
// 74 characters, and app.js keeps 92 of what is there: the service closes the connection when a frame
// is too long.

import { ask, chosen, offer } from "./actions.js";
import { failure } from "./dialogs.js";
import { button, element, notice, page } from "./dom.js";
import { plain } from "./markup.js";
import { messageOf } from "./messages.js";
import { current, drawWhy, leaveRoom, PRIVATE, roomNamed, rooms, show } from "./rooms.js";
import { store, stored } from "./store.js";
import { locale, t } from "./texts.js";

/** @typedef {import("./connection.js").Connection} Connection */
/** @typedef {import("./connection.js").Frame} Frame */
/** @typedef {import("./rooms.js").Room} Room */

const en = {
  make: "New private room",
  label: (/** @type {string} */ id) => `Private ${id}`,
  direct: "Direct message",
  unblock: "Unblock",
  unblocked: "Not blocked any more.",
  blocking: "You block this person, so neither of you can write here. 'Members' can end that.",
  alone: "The other one has left, or is not available: you may read this room, but not write in it. "
    + "'Direct message' on one of their messages tries to open it again.",
  tooMany: (/** @type {number} */ most) =>
    `You are in more rooms than this page can show, which is ${most}: leave some.`,
  members: "Members",
  stranger: "It is private, and you are no member.",
  out: "It is private, and you are no member any more.",
  invitation: "Invitation",
  invited: "You are invited to a private room. Its members will see that you come, and you will see "
    + "what was said before.",
  missing: "There are no private rooms here.",
  errors: /** @type {Record<string, string>} */ ({
    no_invitation: "This invitation does not count: it has ended, was used up or taken back, or the "
      + "link is not complete. Ask whoever invited you for a new link.",
    full: "The room has as many members as it may have, or all private rooms have.",
    bad_author: "This person is not available.",
    too_many_rooms: "You are in as many private rooms as you may be: leave one.",
  }),
};

/** @type {typeof en} */
const de = {
  make: "Neuer privater Raum",
  label: (id) => `Privat ${id}`,
  direct: "Direktnachricht",
  unblock: "Nicht mehr blockieren",
  unblocked: "Nicht mehr blockiert.",
  blocking: "Sie blockieren diese Person: niemand von Ihnen kann hier schreiben. „Mitglieder“ kann das "
    + "beenden.",
  alone: "Die andere Person ist gegangen oder nicht erreichbar: Sie dürfen hier lesen, aber nicht "
    + "schreiben. „Direktnachricht“ an einer ihrer Nachrichten versucht, den Raum wieder zu öffnen.",
  tooMany: (most) =>
    `Sie sind in mehr Räumen, als diese Seite zeigen kann; das sind ${most}: verlassen Sie welche.`,
  members: "Mitglieder",
  stranger: "Er ist privat, und Sie sind kein Mitglied.",
  out: "Er ist privat, und Sie sind nicht mehr Mitglied.",
  invitation: "Einladung",
  invited: "Sie sind in einen privaten Raum eingeladen. Seine Mitglieder werden sehen, dass Sie "
    + "kommen, und Sie werden sehen, was bisher gesagt wurde.",
  missing: "Hier gibt es keine privaten Räume.",
  errors: {
    no_invitation: "Diese Einladung gilt nicht: sie ist abgelaufen, verbraucht oder zurückgenommen, "
      + "oder der Link ist nicht vollständig. Bitten Sie die Person, die Sie "
      + "eingeladen hat, um einen neuen Link.",
    full: "Der Raum hat so viele Mitglieder, wie er haben darf, oder alle privaten Räume haben es.",
    bad_author: "Diese Person ist nicht erreichbar.",
    too_many_rooms: "Sie sind in so vielen privaten Räumen, wie möglich ist: verlassen Sie einen.",
  },
};

const words = locale.startsWith("de") ? de : en;
// Where app.js keeps it: before this module is there, somebody may have followed the link to sign in.
const INVITED = "chat.invited";
// Until all replicas know of a new member, and of a new invitation (docs/protocol.md).
const MEMBER_MS = 10_000;
const INVITATION_MS = 1_000;
const AGAIN_MS = 500;

/** @type {Connection} */
let connection;
/** @type {Frame | undefined} the last `welcome` */
let welcome;
/** @type {Map<string, number>} room -> when all replicas know that one is in it */
const fresh = new Map();
/** @type {Map<string, string>} direct rooms, and the author of the other one in each */
const direct = new Map();
/** @type {Map<string, string>} the names under which the others came into direct rooms, by author */
const came = new Map();
/** @type {Map<string, string>} the names, by author, when all labels were drawn last */
let seen = new Map();
/** @type {Set<string>} authors whom one blocks */
let blocked = new Set();
/** @type {Set<string>} rooms that one has left, which the service has not said yet */
const leaving = new Set();
/** @type {typeof import("./members.js") | undefined} */
let members;

const style = new CSSStyleSheet();
style.replaceSync(`
  #make { align-self: start; padding: .25rem .6rem; font-size: .9rem; }
  #members { padding: .1rem .6rem; font-size: .85rem; }
  #invitation .row > :first-child { border-color: var(--accent); color: var(--accent); font-weight: 600; }
  #rooms .private .enter { overflow-wrap: anywhere; }
  #rooms .private .count { white-space: nowrap; }
  body:not(:has(#rooms .private [aria-current])) #members { display: none; }
`);
document.adoptedStyleSheets.push(style);

const make = button(words.make, async () => {
  make.disabled = true;
  const answer = await ask(connection, { type: "make" });
  make.disabled = false;
  if (answer.type === "ack") enter(answer.id);
  else notice(failure(answer, words.errors));
  // Without an answer, there may be one.
  if (answer.type !== "ack") list();
});
make.id = "make";
const showMembers = button(words.members, () => { if (current) open(current, false); });
showMembers.id = "members";

// The list.

/**
 * A room that one is in.
 * @param {string} name
 */
function have(name) {
  const room = roomNamed(name);
  room.tab.classList.add("private");
  drawLabel(room);
  return room;
}

/**
 * As many of these rooms as the page can show.
 * @param {string[]} all that one is in
 */
function haveAll(all) {
  const most = welcome?.limits.rooms;
  for (const name of all) if (rooms.has(name) || rooms.size < most) have(name);
  if (all.some((name) => !rooms.has(name))) notice(words.tooMany(most));
}

/**
 * The label that somebody gave the room here; without one, a direct room has the other one's name.
 * Until the service has said which rooms are direct, they keep their last label.
 * @param {Room} room
 */
function drawLabel(room, known = toldApart(names())) {
  const { name } = room;
  const author = direct.get(name);
  const label = stored(`own-label.${name}`, null)
    ?? (author ? `@${known.get(author) ?? author.slice(0, 6)}`
      : stored(`label.${name}`, words.label(name.slice(8, 14))));
  if (room.label === label) return;
  store(`label.${name}`, label);
  room.label = label;
  room.button.firstChild?.replaceWith(label);
  room.tab.lastElementChild?.setAttribute("aria-label", t.leave(label));
  room.log.setAttribute("aria-label", t.messagesIn(label));
  if (room === current) page.title.textContent = label;
}

/** After messages, which may bring a name, or one that somebody else has. */
function drawLabels() {
  if (direct.size === 0) return;
  seen = names();
  const known = toldApart(seen);
  for (const room of rooms.values()) if (direct.has(room.name)) drawLabel(room, known);
}

async function list() {
  const answer = await ask(connection, { type: "rooms" });
  if (answer.type !== "rooms") return;
  for (const [name, author] of Object.entries(answer.direct ?? {})) direct.set(name, author);
  for (const [author, name] of Object.entries(answer.names ?? {})) came.set(author, name);
  blocked = new Set(answer.blocked);
  for (const name of direct.keys()) drawReadOnly(rooms.get(name));
  haveAll(answer.rooms ?? []);
}

/**
 * The names of people, by author: under which they have written, in this room if they have, or else
 * under which they came.
 * @param {Record<string, string>} members those who came into this room
 */
export function names(room = current, members = {}) {
  const found = new Map([...came, ...Object.entries(members)]);
  for (const one of [...rooms.values(), ...room ? [room] : []]) {
    for (const [name, authors] of one.authors) {
      for (const author of authors.keys()) found.set(author, name);
    }
  }
  return welcome ? found.set(welcome.author, welcome.user) : found;
}

// What `toldApart` appends; a name may imitate it.
const APART = /\([0-9a-f]{6}\)$/;
const BLANK = /[\s\u2800\p{Default_Ignorable_Code_Point}]/gu;

/**
 * The same names, with the beginning of the author where several names look alike: case, accents and
 * what cannot be seen make no difference.
 * @param {Map<string, string>} known by author
 */
export function toldApart(known) {
  /** @param {string} name */
  const look = (name) => plain(name).replace(BLANK, "");
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const name of known.values()) counts.set(look(name), (counts.get(look(name)) ?? 0) + 1);
  return new Map([...known].map(([author, name]) => {
    const alone = counts.get(look(name)) === 1 && !APART.test(look(name));
    return [author, alone ? name : `${name} (${author.slice(0, 6)})`];
  }));
}

const write = button(words.direct, async () => {
  const author = messageOf(chosen)?.author;
  if (!author) return;
  const blocks = blocked.has(author);
  const answer = await ask(connection, blocks ? { type: "block", author, blocked: false }
    : { type: "direct", author });
  if (answer.type === "ack" && blocks) {
    notice(words.unblocked);
    list();
  } else if (answer.type === "ack") {
    direct.set(answer.id, author);
    enter(answer.id);
  } else {
    notice(failure(answer, words.errors));
  }
});

/** @param {HTMLElement} item */
function mayWriteTo(item) {
  const there = current && direct.has(current.name) && !current.readOnly;
  const author = messageOf(item)?.author;
  write.textContent = author && blocked.has(author) ? words.unblock : words.direct;
  return !there && !item.matches(".mine") && Boolean(author);
}

/** @param {Room | undefined} room a direct one; why nobody can write there, if so */
function drawReadOnly(room) {
  if (!room?.joined || !room.readOnly) return;
  room.readOnly = blocked.has(direct.get(room.name) ?? "") ? words.blocking : words.alone;
  drawWhy();
}

/** @param {string} name of a room that one has just come to */
function enter(name) {
  fresh.set(name, Date.now() + MEMBER_MS);
  // It is in the list already if the service has refused it before.
  const listed = rooms.get(name);
  if (listed && !listed.joined) listed.askIn();
  show(have(name));
  page.text.focus();
}

/**
 * The service does not let one in: any more, or not yet.
 * @param {Room | undefined} room
 */
function refused(room) {
  if (!room || room.joined) return;
  if (leaving.delete(room.name)) {
    drop(room);
  } else if (Date.now() < (fresh.get(room.name) ?? 0)) {
    room.why = "";
    setTimeout(() => room.askIn(), AGAIN_MS);
  } else {
    room.why = room.readOnly = room.entered ? words.out : words.stranger;
    if (room.entered && room !== current) notice(`${room.label}: ${room.why}`);
    empty(room);
  }
  drawWhy();
}

/**
 * Nothing that was said there stays on this page.
 * @param {Room} room
 */
function empty(room) {
  room.tab.classList.remove("private");
  for (const part of [room.older, room.list]) part.replaceChildren();
  room.ids.clear();
  room.authors.clear();
  room.newLine = room.position = room.last = null;
  room.entered = false;
  room.countUnread();
  members?.close(room);
}

/** @param {Room} room */
function drop(room) {
  for (const key of ["label", "own-label"]) store(`${key}.${room.name}`, null);
  leaveRoom(room);
  page.text.focus();
}

/**
 * @param {Room} room
 * @param {boolean} leave whether one is asked whether to leave it
 */
async function open(room, leave) {
  if (!welcome) return;
  members ??= await import("./members.js");
  members.open({
    room,
    connection,
    me: welcome,
    direct: direct.get(room.name) ?? "",
    blocked: async () => {
      await list();
      return blocked.has(direct.get(room.name) ?? "");
    },
    rename(label) {
      store(`own-label.${room.name}`, label || null);
      store(`label.${room.name}`, null);
      drawLabel(room);
      store(`label.${room.name}`, room.label);
    },
    left() {
      // The service says so on this connection, too. Until then it would answer what is asked there.
      if (room.joined) leaving.add(room.name);
      else drop(room);
    },
  }, leave);
}

// The button that leaves a room does it for good where one is a member, so it asks first.
page.rooms.addEventListener("click", (event) => {
  const target = /** @type {Element} */ (event.target);
  const tab = target.closest("li");
  const room = [...rooms.values()].find((one) => one.tab === tab);
  if (!room || !PRIVATE.test(room.name) || room.button.contains(target)) return;
  event.stopPropagation();
  if (tab?.matches(".private")) open(room, true);
  else drop(room);
}, true);

// Invitations.

const said = element("p", { role: "status" });
const accept = button(t.join, async () => {
  if (said.textContent === t.sending) return;
  said.textContent = t.sending;
  const frame = { type: "accept", token: sessionStorage.getItem(INVITED)?.replace(/\/$/, "") };
  let answer = await ask(connection, frame);
  if (answer.code === "no_invitation") {
    await new Promise((resolve) => { setTimeout(resolve, INVITATION_MS); });
    answer = await ask(connection, frame);
  }
  if (answer.type === "ack") {
    invitation.close();
    enter(answer.id);
  } else {
    said.textContent = !welcome?.private ? words.missing
      : words.errors[answer.code] ?? failure(answer);
  }
});
/** @type {HTMLDialogElement} */
const invitation = element("dialog", {
  id: "invitation", className: "action", "aria-labelledby": "invitation-title",
},
  element("h2", { id: "invitation-title" }, words.invitation),
  element("p", {}, words.invited),
  said,
  element("p", { className: "row" }, accept, button(t.cancel, () => invitation.close())));
invitation.addEventListener("close", () => sessionStorage.removeItem(INVITED));
document.body.append(invitation);

function invite() {
  if (!connection.live || !sessionStorage.getItem(INVITED)) return;
  said.textContent = "";
  if (!invitation.open) invitation.showModal();
}

/**
 * @param {Frame} frame
 * @param {Connection} given
 */
export function hear(frame, given) {
  connection = given;
  const room = PRIVATE.test(frame.room) ? rooms.get(frame.room) : undefined;
  switch (frame.type) {
    case "welcome":
      welcome = frame;
      if (frame.private) {
        page.join.after(make);
        page.people.before(showMembers);
        offer(write, mayWriteTo);
        list();
      }
      invite();
      break;
    case "invited":
      // Nobody is to read it over somebody's shoulder, or send it on by mistake.
      history.replaceState(null, "", current ? `#${current.name}` : location.pathname);
      invite();
      break;
    case "joined":
      fresh.delete(frame.room);
      if (room) have(frame.room);
      drawLabels();
      break;
    case "direct":
      direct.set(frame.room, frame.author);
      if (frame.user) came.set(frame.author, frame.user);
      haveAll([frame.room]);
      break;
    case "history":
      drawLabels();
      break;
    case "message":
      if (seen.get(frame.author) !== frame.user) drawLabels();
      break;
    case "error":
      if (frame.code === "bad_room") refused(room);
  }
  if (direct.has(frame.room)) drawReadOnly(room);
  members?.hear(frame);
}
