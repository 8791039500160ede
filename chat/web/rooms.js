// The rooms one is in: what was said in each, who is there, and what is new.
//
// Nothing is shown twice (messages are known by id), nothing in another order than the log's, and
// what was missed is fetched by the last position.

import { composeIn, dropDraft } from "./compose.js";
import { button, element, page } from "./dom.js";
import { atEnd, miss, scrollToEnd, scrollToNew } from "./latest.js";
import { drawMessage, drawNewLine, messageOf, place } from "./messages.js";
import { showPending } from "./pending.js";
import { onStored, store, stored } from "./store.js";
import { locale, t } from "./texts.js";

/** @typedef {import("./messages.js").Message} Message */
/** @typedef {import("./connection.js").Frame} Frame */
/**
 * What rooms ask for.
 * @typedef {object} Ways
 * @property {(frame: Frame) => void} say
 * @property {(message: Message) => boolean} isMine
 * @property {() => RegExp | null} name finds one's own
 * @property {(room: Room) => void} entered
 * @property {(room: Room) => void} left
 * @property {(() => void) | null} rename
 * @property {() => void} shown another room, or none
 * @property {() => void} grown by earlier messages, the room that is shown
 * @property {(message: Message, label: string) => void} mentioned while nobody looked
 * @property {(unread: number) => void} counted in all rooms
 */

// Messages kept in the document per room; more while somebody reads further up.
const SHOWN = 1000;
const SHOWN_READING = 10 * SHOWN;
// Pieces of the log that are looked through for earlier messages before one has to ask again.
const IN_VAIN = 10;

export const PRIVATE = /^private-[0-9a-f]{32}$/;
/** @type {Map<string, Room>} in the order they were joined */
export const rooms = new Map();
/** @type {Room | null} the one that is shown */
export let current = null;
/** @type {Ways} */
let ways;

/** @param {Ways} given */
export function setUpRooms(given) {
  ways = given;
  page.earlier.addEventListener("click", () => current?.askEarlier());
  // Whoever scrolls up to it need not press it.
  new IntersectionObserver(([{ isIntersecting }]) => {
    const { scrollHeight, clientHeight } = page.scroll;
    if (isIntersecting && scrollHeight > clientHeight) current?.askEarlier();
  }, { root: page.scroll }).observe(page.earlier);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) current?.dropNewLine();
    else current?.markRead();
  });
  // Read in one tab is read in all.
  onStored("read.", (name, position) => {
    const room = rooms.get(name);
    if (!room) return;
    room.read = position;
    if (room.last === position) room.countUnread(0);
  });
}

export class Room {
  /** @param {string} name */
  constructor(name) {
    this.name = name;
    this.label = stored(`label.${name}`, name);  // what it is called here
    this.joined = false;
    this.why = "";             // why it is not joined, if the service has said so
    this.banned = "";          // the same, if a moderator put this person out
    this.code = "";
    this.entered = false;      // whether it ever was
    this.readOnly = "";        // why the service takes nothing from this page here, if so
    this.moderator = false;    // whether this page may delete what others wrote here
    /** @type {string | null} how far this page has seen; handed back on joining again */
    this.position = null;
    /** @type {string | null} the last message, or where there was none yet */
    this.last = null;
    /** @type {string | null} how far it was shown, in this tab or another one */
    this.read = stored(`read.${name}`, null);
    /** @type {HTMLElement | null} above what is new */
    this.newLine = null;
    this.ids = new Set();
    /** @type {Map<string, Map<string, number>>} name -> who wrote under it, in the order seen */
    this.authors = new Map();
    this.unread = 0;
    this.mentions = 0;         // of one's own name, in what is unread
    this.count = 0;            // people who are here; 0 while that is not known
    /** @type {Set<string>} their names, unless there are too many */
    this.people = new Set();
    /** @type {Map<string, number>} name -> the timer that takes it away */
    this.typing = new Map();
    /** @type {string | null} what was said before this can be asked for */
    this.oldest = null;
    this.more = false;         // whether there may be anything
    this.asking = false;
    this.inVain = 0;           // answers without a message, one after another
    // What is fetched from before is no news: it has lists of its own, which nobody reads out; one
    // for each answer, because browsers paint ten thousand items of one list slowly.
    this.older = element("div", { hidden: true });
    // Screen readers read what is added to a log, and only that.
    this.list = element("ol");
    this.log = element("div", { role: "log", "aria-label": t.messagesIn(this.label), hidden: true },
      this.list);
    page.logs.append(this.older, this.log);
    this.badge = element("span", { className: "count", hidden: true });
    this.button = button(this.label, () => show(this));
    this.button.className = "enter";
    this.mentioned = element("span", { className: "count mentioned", hidden: true });
    this.button.append(" ", this.badge, " ", this.mentioned);
    const leave = button("×", () => leaveRoom(this));
    leave.className = "quiet";
    leave.setAttribute("aria-label", t.leave(this.label));
    this.tab = element("li", {}, this.button, leave);
    page.rooms.append(this.tab);
  }

  askIn() {
    ways.say({
      type: "join", room: this.name, ...(this.position !== null && { since: this.position }),
    });
  }

  /** @param {Frame} frame */
  enter(frame) {
    const again = this.entered;
    this.entered = true;
    this.joined = true;
    this.allow(frame);
    this.why = this.banned = "";
    if (again && !frame.recovered) {
      this.list.replaceChildren(element("li", { className: "gap" }, t.gap));
      this.newLine = null;
      this.ids.clear();
      this.older.replaceChildren();
    }
    if (!again || !frame.recovered) {
      this.oldest = frame.messages[0]?.id ?? frame.position;
      this.more = frame.more ?? true;
    }
    // After a reload, what was shown before is no news.
    const seen = frame.messages.findIndex((/** @type {Message} */ { id }) => id === this.read);
    for (const [n, message] of frame.messages.entries()) {
      this.add(message, again || (this.read !== null && n > seen), !again || this.away);
    }
    this.position = frame.position;
    this.last ??= frame.position;
    if (!again && this === current) {
      this.markRead();
      if (this.newLine) scrollToNew(this.newLine);
    }
    ways.entered(this);
    drawEarlier();
    drawWhy();
  }

  /**
   * The service does not let this page in, or puts it out.
   * @param {string} code
   * @param {string} why
   */
  refuse(code, why) {
    this.lose();
    // Its log was replaced: what this page has seen is in no log any more.
    if (code === "bad_position" && this.position !== null) {
      this.position = null;
      this.askIn();
      return;
    }
    this.code = code;
    this.why = this.banned || why;
    drawWhy();
    drawEarlier();
    drawHere();
  }

  /** @param {Frame} frame */
  allow({ read_only: readOnly = false, moderator = false }) {
    this.readOnly = readOnly ? t.readOnly : "";
    this.moderator = moderator;
    drawWhy();
  }

  askEarlier() {
    if (!this.joined || !this.more || this.asking) return;
    this.asking = true;
    ways.say({ type: "history", room: this.name, before: this.oldest });
    drawEarlier();
  }

  /** @returns {boolean} whether it was asking */
  stopAsking() {
    const asking = this.asking;
    this.asking = false;
    drawEarlier();
    return asking;
  }

  /**
   * What is in sight stays where it is.
   * @param {Frame} frame
   */
  addEarlier({ position, more, messages }) {
    this.asking = false;
    this.oldest = position;
    this.more = more;
    const { scrollHeight, scrollTop } = page.scroll;
    /** @type {Message[]} */
    const unknown = messages.filter((/** @type {Message} */ { id }) => !this.ids.has(id));
    for (const message of unknown) this.ids.add(message.id);
    const items = unknown.map((message) => (
      drawMessage(message, ways.isMine(message), ways.name())));
    const [after] = this.items;
    if (items.length) {
      this.older.prepend(element("ol", { "aria-label": t.earlierIn(this.label) }, ...items));
    }
    for (const item of items) {
      this.tellApart(item);
      place(item, item.previousElementSibling);
    }
    if (after) place(after, items.at(-1));
    drawEarlier();
    const grown = page.scroll.scrollHeight - scrollHeight;
    if (this === current) {
      page.scroll.scrollTop = scrollTop + grown;
      ways.grown();
    }
    // One answer may hold nothing of this room, though there is more. But the log is long.
    this.inVain = unknown.length ? 0 : this.inVain + 1;
    if (this.inVain % IN_VAIN) this.askEarlier();
  }

  /**
   * Two who write under one name are shown as two: each by a number, from then on.
   * @param {HTMLElement} item
   */
  tellApart(item) {
    const { user: name = "", author } = messageOf(item) ?? {};
    if (!author) return;
    const numbers = this.authors.get(name) ?? new Map();
    this.authors.set(name, numbers);
    /** @type {Element[]} */
    const items = [item];
    if (!numbers.has(author)) {
      numbers.set(author, numbers.size + 1);
      if (numbers.size === 2) items.push(...this.items);
    }
    if (numbers.size < 2) return;
    for (const one of items) {
      const message = messageOf(one);
      if (message?.user !== name || !message.author) continue;
      const mark = one.querySelector(".author");
      if (!(mark instanceof HTMLElement)) continue;
      mark.textContent = `(${numbers.get(message.author)})`;
      mark.title = t.namesake(name);
      mark.hidden = false;
    }
  }

  /**
   * Too many messages: the first ones go, and can be asked for again.
   * @param {number} most
   */
  trim(most) {
    if (this.ids.size <= most) return;
    const { items } = this;
    const older = items.length - this.list.childElementCount;
    for (const item of items.slice(0, Math.max(older, items.length - most))) {
      this.ids.delete(messageOf(item)?.id);
      item.remove();
    }
    this.older.replaceChildren();
    const first = this.items.find(messageOf);
    if (first) {
      this.oldest = messageOf(first)?.id ?? null;
      place(first, null);
    }
    this.more = true;
    drawEarlier();
  }

  /**
   * Who is here: everyone, or those who came and went, or how many.
   * @param {Frame} frame
   */
  see({ count, users, joined = [], left = [] }) {
    this.count = count;
    if (users || (joined.length === 0 && left.length === 0)) this.people = new Set(users);
    for (const name of left) {
      this.people.delete(name);
      this.stopTyping(name);
    }
    for (const name of joined) this.people.add(name);
    drawHere();
  }

  /**
   * @param {string} name
   * @param {number} seconds
   */
  startTyping(name, seconds) {
    clearTimeout(this.typing.get(name));
    this.typing.set(name, setTimeout(() => this.stopTyping(name), seconds * 1000));
    drawHere();
  }

  /** @param {string} name */
  stopTyping(name) {
    clearTimeout(this.typing.get(name));
    if (this.typing.delete(name)) drawHere();
  }

  /** The connection is gone, and with it what was known of this moment. */
  lose() {
    this.joined = false;
    this.asking = false;
    this.count = 0;
    this.people.clear();
    for (const name of [...this.typing.keys()]) this.stopTyping(name);
  }

  /** All that is shown of it, oldest first. */
  get items() {
    return /** @type {HTMLElement[]} */ ([
      ...[...this.older.children].flatMap((list) => [...list.children]), ...this.list.children,
    ]);
  }

  /** Whether nobody looks at it. */
  get away() {
    return this !== current || document.hidden;
  }

  /** @param {Message} message */
  add(message, isNew = true, away = this.away) {
    this.position = this.last = message.id;
    if (this.ids.has(message.id)) return;
    this.ids.add(message.id);
    const follow = this === current && atEnd();
    this.stopTyping(message.user);
    const mine = ways.isMine(message);
    const item = drawMessage(message, mine, ways.name());
    const previous = this.list.lastElementChild ?? this.older.lastElementChild?.lastElementChild;
    if (isNew && away && !mine) this.newLine ??= drawNewLine(item);
    place(item, previous);
    this.list.append(item);
    this.tellApart(item);
    this.trim(this === current && !follow ? SHOWN_READING : SHOWN);
    if (follow) scrollToEnd();
    else if (this === current) miss();
    if (!isNew) return;
    if (!this.away) this.markRead();
    // Another tab may have been the first to show it.
    else if (message.id === this.read) this.countUnread(0);
    else if (!mine) {
      const mentioned = item.matches(".mentions");
      this.countUnread(this.unread + 1, this.mentions + Number(mentioned));
      if (mentioned) ways.mentioned(message, this.label);
    }
  }

  markRead() {
    this.countUnread(0);
    if (this.last !== null) store(`read.${this.name}`, this.last);
  }

  dropNewLine() {
    this.newLine?.remove();
    this.newLine = null;
  }

  countUnread(unread = 0, mentions = 0) {
    this.unread = unread;
    this.mentions = mentions;
    this.badge.hidden = unread === 0;
    this.badge.textContent = unread ? t.unread(unread) : "";
    this.mentioned.hidden = mentions === 0;
    this.mentioned.replaceChildren(...(mentions ? [
      element("span", { "aria-hidden": "true" }, `@${mentions}`),
      element("span", { className: "hidden" }, t.mentions(mentions)),
    ] : []));
    const all = [...rooms.values()].reduce((sum, room) => sum + room.unread, 0);
    ways.counted(all);
    document.title = all ? `(${all}) ${t.chat}` : t.chat;
  }
}

/** After the connection was lost. */
export function loseRooms() {
  for (const room of rooms.values()) room.lose();
  drawHere();
  drawEarlier();
}

/**
 * @param {number} count 0 while it is not known
 * @param {Set<string>} people unless there are too many
 */
function drawPeople(count, people) {
  page.people.hidden = count === 0;
  if (count === 0) return;
  page.count.textContent = t.people(count);
  const names = [...people].sort((one, other) => one.localeCompare(other, locale));
  page.names.replaceChildren(...(names.length
    ? names.map((name) => element("li", {}, element("bdi", {}, name)))
    : [element("li", {}, t.tooManyPeople)]));
}

/** @param {string[]} names */
function drawTyping(names) {
  if (names.length > 3) {
    page.typing.replaceChildren(t.severalType);
    return;
  }
  const who = names.flatMap((name, n) => [n ? ", " : "", element("bdi", {}, name)]);
  page.typing.replaceChildren(...who, names.length ? t.typing(names.length) : "");
}

function drawHere() {
  drawPeople(current?.count ?? 0, current?.people ?? new Set());
  drawTyping(current ? [...current.typing.keys()] : []);
}

function drawEarlier() {
  page.earlier.hidden = !current?.joined || !current.more;
  page.earlier.textContent = current?.asking ? t.looking : t.showEarlier;
}

/** Why nothing can be read or written here, if that is so. */
export function drawWhy() {
  const room = current;
  page.compose.hidden = !room || room.readOnly !== "";
  page.why.hidden = !room?.why && !room?.readOnly;
  if (!room?.why) {
    page.why.textContent = room?.readOnly ?? "";
    return;
  }
  page.why.replaceChildren(t.notIn(room.why), room.code === "name_taken" && ways.rename
    ? button(t.rename, ways.rename)
    : button(t.joinAgain, () => room.askIn()));
}

/** @param {Room | null} room */
export function show(room) {
  if (current !== room) {
    current?.dropNewLine();
    ways.shown();
  }
  current = room;
  for (const one of rooms.values()) {
    one.log.hidden = one.older.hidden = one !== room;
    if (one === room) one.button.setAttribute("aria-current", "page");
    else one.button.removeAttribute("aria-current");
  }
  page.title.textContent = room?.label ?? "";
  composeIn(room?.name ?? "");
  showPending(room?.name ?? "");
  drawHere();
  drawEarlier();
  drawWhy();
  if (!room) return;
  room.markRead();
  store("room", room.name);
  history.replaceState(null, "", `#${room.name}`);
  room.tab.scrollIntoView({ block: "nearest" });
  // On low screens, that may have moved the room itself out of sight.
  page.compose.scrollIntoView({ block: "nearest" });
  scrollToEnd();
  if (room.newLine) scrollToNew(room.newLine);
}

/**
 * The room of this name, which from now on is one of those one is in.
 * @param {string} name
 */
export function roomNamed(name) {
  const known = rooms.get(name);
  if (known) return known;
  const room = new Room(name);
  rooms.set(name, room);
  store("rooms", [...rooms.keys()]);
  room.askIn();
  return room;
}

/** @param {Room} room */
export function leaveRoom(room) {
  if (room.joined) ways.say({ type: "leave", room: room.name });
  room.joined = false;
  rooms.delete(room.name);
  store("rooms", [...rooms.keys()]);
  store(`read.${room.name}`, null);
  dropDraft(room.name);
  room.older.remove();
  room.log.remove();
  room.tab.remove();
  if (current === room) show([...rooms.values()].at(-1) ?? null);
  ways.left(room);
}
