// The page: several rooms over one WebSocket, which may break at any time.
//
// What is promised here: nothing that was sent is lost while the page is open (it stays "pending"
// and is sent again under the same cid until the log has it), nothing is shown twice (messages are
// known by id), nothing is shown in another order than the log's, and what was missed is fetched by
// the last position. All that others wrote gets into the document as text nodes alone.

// Messages kept in the document per room; more while somebody reads further up.
const SHOWN = 1000;
const SHOWN_READING = 5 * SHOWN;
// Without an answer to a message for so long, the connection is taken for dead.
const ANSWER_MS = 15_000;
const RETRY_MS = [500, 15_000];
// Between two times that the others are told of somebody's typing.
const TYPING_MS = 3000;
// Pieces of the log that are looked through for earlier messages before one has to ask again.
const IN_VAIN = 10;

const $ = (id) => document.getElementById(id);
const page = Object.fromEntries(
  ["status", "rename", "rooms", "join", "room", "title", "people", "count", "names", "scroll",
    "earlier", "logs", "pending", "typing", "notice", "compose", "text", "welcome", "hello", "name",
    "refused"].map((id) => [id, $(id)]),
);

const rooms = new Map();       // name -> Room, in the order they were joined
let current = null;            // the Room that is shown
let user = stored("name", "");
// Whoever comes with this key is the same person; others cannot take the name.
const key = stored("key", null) ?? newCid();
store("key", key);
let me = "";                   // by which this page's messages are known, from `welcome`
let limits = null;             // from `welcome`; null while there is none
let socket = null;
let attempts = 0;
let timer = 0;
let joinTimer = 0;
let askedToWait = null;        // milliseconds, from `bye`
let toldTyping = 0;

function stored(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(`chat.${key}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function store(key, value) {
  try {
    localStorage.setItem(`chat.${key}`, JSON.stringify(value));
  } catch {
    // Private windows may refuse; the page works without.
  }
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made) made[key] = value; else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// Not crypto.randomUUID: without TLS, browsers have none.
function newCid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const between = (low, high) => low + Math.random() * (high - low);

// Rooms.

class Room {
  constructor(name) {
    this.name = name;
    this.joined = false;
    this.position = null;      // how far this page has seen; handed back on joining again
    this.ids = new Set();
    this.authors = new Map();  // name -> Map of who wrote under it -> number, in the order seen
    this.pending = new Map();  // cid -> Pending, in the order they were written
    this.unread = 0;
    this.count = 0;            // people who are here; 0 while that is not known
    this.people = new Set();   // their names, unless there are too many
    this.typing = new Map();   // name -> the timer that takes it away
    this.oldest = null;        // what was said before this can be asked for
    this.more = false;         // whether there may be anything
    this.asking = false;
    this.inVain = 0;           // answers without a message, one after another
    // What is fetched from before is no news: it has a list of its own, which nobody reads out.
    this.older = element("ol", { "aria-label": `Earlier messages in ${name}`, hidden: true });
    // Screen readers read what is added to a log, and only that.
    this.log = element("ol", { role: "log", "aria-label": `Messages in ${name}`, hidden: true });
    page.logs.append(this.older, this.log);
    this.badge = element("span", { className: "count", hidden: true });
    this.button = element("button", { type: "button", className: "enter" },
      name, " ", this.badge);
    this.button.addEventListener("click", () => show(this));
    const leave = button("×", () => leaveRoom(this));
    leave.className = "quiet";
    leave.setAttribute("aria-label", `Leave ${name}`);
    this.tab = element("li", {}, this.button, leave);
    page.rooms.append(this.tab);
  }

  enter(frame) {
    const again = this.position !== null;
    this.joined = true;
    this.position = frame.position;
    if (again && !frame.recovered) {
      this.log.replaceChildren(element("li", { className: "gap" },
        "You were away for longer than the history reaches; these are the last messages."));
      this.ids.clear();
      this.older.replaceChildren();
    }
    if (!again || !frame.recovered) {
      this.oldest = frame.messages[0]?.id ?? frame.position;
      this.more = frame.more ?? true;
    }
    for (const message of frame.messages) this.add(message, again);
    this.position = frame.position;
    this.sendNext();
    drawEarlier();
  }

  askEarlier() {
    if (!this.joined || !this.more || this.asking) return;
    this.asking = true;
    say({ type: "history", room: this.name, before: this.oldest });
    drawEarlier();
  }

  // What is in sight stays where it is.
  addEarlier({ position, more, messages }) {
    this.asking = false;
    this.oldest = position;
    this.more = more;
    const { scrollHeight, scrollTop } = page.scroll;
    const unknown = messages.filter((message) => !this.ids.has(message.id));
    for (const message of unknown) this.ids.add(message.id);
    const items = unknown.map(drawMessage);
    this.older.prepend(...items);
    for (const item of items) this.tellApart(item);
    drawEarlier();
    const grown = page.scroll.scrollHeight - scrollHeight;
    if (this === current) page.scroll.scrollTop = scrollTop + grown;
    // One answer may hold nothing of this room, though there is more. But the log is long.
    this.inVain = unknown.length ? 0 : this.inVain + 1;
    if (this.inVain % IN_VAIN) this.askEarlier();
  }

  // Two who write under one name are shown as two: each by a number, from then on.
  tellApart(item) {
    const { user: name, author } = item.dataset;
    if (!author) return;
    if (!this.authors.has(name)) this.authors.set(name, new Map());
    const numbers = this.authors.get(name);
    const items = [item];
    if (!numbers.has(author)) {
      numbers.set(author, numbers.size + 1);
      if (numbers.size === 2) items.push(...this.older.children, ...this.log.children);
    }
    if (numbers.size < 2) return;
    for (const one of items) {
      if (one.dataset.user !== name || !one.dataset.author) continue;
      const mark = one.querySelector(".author");
      mark.textContent = `(${numbers.get(one.dataset.author)})`;
      mark.title = `Several people write as ${name}; this number tells them apart.`;
      mark.hidden = false;
    }
  }

  // Too many messages: the first ones go, and can be asked for again.
  trim(most) {
    if (this.older.childElementCount + this.log.childElementCount <= most) return;
    for (const { dataset } of this.older.children) this.ids.delete(dataset.id);
    this.older.replaceChildren();
    while (this.log.childElementCount > most) {
      this.ids.delete(this.log.firstElementChild.dataset.id);
      this.log.firstElementChild.remove();
    }
    this.oldest = this.log.querySelector("[data-id]").dataset.id;
    this.more = true;
    drawEarlier();
  }

  // Who is here: everyone, or those who came and went, or how many.
  see({ count, users, joined = [], left = [] }) {
    this.count = count;
    if (users || (joined.length === 0 && left.length === 0)) this.people = new Set(users);
    for (const name of left) {
      this.people.delete(name);
      this.stopTyping(name);
    }
    for (const name of joined) this.people.add(name);
    drawPeople();
  }

  startTyping(name, seconds) {
    clearTimeout(this.typing.get(name));
    this.typing.set(name, setTimeout(() => this.stopTyping(name), seconds * 1000));
    drawTyping();
  }

  stopTyping(name) {
    clearTimeout(this.typing.get(name));
    if (this.typing.delete(name)) drawTyping();
  }

  // The connection is gone, and with it what was known of this moment.
  lose() {
    this.joined = false;
    this.asking = false;
    this.count = 0;
    this.people.clear();
    for (const name of [...this.typing.keys()]) this.stopTyping(name);
    for (const pending of this.pending.values()) if (pending.state !== "failed") pending.wait();
  }

  // One at a time: what is refused for now must not be overtaken by what was written after it.
  sendNext() {
    if (!this.joined) return;
    const next = [...this.pending.values()].find((pending) => pending.state !== "failed");
    if (next?.state === "waiting") next.send();
  }

  add(message, isNew = true) {
    this.position = message.id;
    if (this.ids.has(message.id)) return;
    this.ids.add(message.id);
    const follow = this === current && atEnd();
    this.stopTyping(message.user);
    const item = drawMessage(message);
    this.log.append(item);
    this.tellApart(item);
    this.trim(this === current && !follow ? SHOWN_READING : SHOWN);
    if (follow) scrollToEnd();
    if (isNew && (this !== current || document.hidden)) this.countUnread(this.unread + 1);
  }

  countUnread(unread) {
    this.unread = unread;
    this.badge.hidden = unread === 0;
    this.badge.textContent = unread ? `${unread} new` : "";
    const all = [...rooms.values()].reduce((sum, room) => sum + room.unread, 0);
    document.title = all ? `(${all}) Chat` : "Chat";
  }
}

// A message of one's own, until the log has it: waiting (to be sent), sent, held (to be sent again
// a little later), or failed.
class Pending {
  constructor(room, text) {
    this.room = room;
    this.text = text;
    this.cid = newCid();
    this.words = element("span", { className: "state" });
    this.buttons = element("span");
    this.item = element("li", { className: "message", hidden: room !== current },
      element("p", { dir: "auto" }, text), this.words, this.buttons);
    page.pending.append(this.item);
    room.pending.set(this.cid, this);
    this.wait();
    room.sendNext();
  }

  become(state, words) {
    this.state = state;
    this.item.classList.toggle("failed", state === "failed");
    this.words.textContent = words;
    this.buttons.replaceChildren();
    clearTimeout(this.timer);
  }

  wait() {
    this.become("waiting", "Waiting…");
  }

  send() {
    this.become("sent", "Sending…");
    say({ type: "send", room: this.room.name, text: this.text, cid: this.cid });
    this.timer = setTimeout(() => socket?.close(4000, "no answer"), ANSWER_MS);
  }

  refuse(code, words) {
    if (["unavailable", "rate_limited", "not_joined"].includes(code)) {
      this.become("held", `Not sent yet. ${words}`);
      this.timer = setTimeout(() => this.retry(), between(500, 2500));
      return;
    }
    this.become("failed", `Not sent. ${words}`);
    // Under its cid, something else was said already: it takes another one to try again.
    this.used = code === "cid_used";
    this.buttons.append(
      button("Try again", () => this.retry()), button("Discard", () => this.done()));
    this.room.sendNext();
  }

  retry() {
    if (this.used) {
      this.room.pending.delete(this.cid);
      this.cid = newCid();
      this.room.pending.set(this.cid, this);
      this.used = false;
    }
    this.wait();
    this.room.sendNext();
  }

  done() {
    clearTimeout(this.timer);
    this.item.remove();
    this.room.pending.delete(this.cid);
    this.room.sendNext();
  }
}

function button(label, act) {
  const made = element("button", { type: "button" }, label);
  made.addEventListener("click", act);
  return made;
}

function drawMessage({ user: name, author = "", text, ts, id }) {
  const when = new Date(ts);
  const mine = author ? author === me : name === user;
  return element("li",
    {
      className: mine ? "message mine" : "message",
      "data-id": id, "data-user": name, "data-author": author,
    },
    element("bdi", { className: "user" }, name),
    element("span", { className: "author", hidden: true }),
    element("time", { dateTime: when.toISOString(), title: when.toLocaleString() },
      when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })),
    element("p", { dir: "auto" }, text));
}

function drawPeople() {
  const { count, people } = current ?? { count: 0 };
  page.people.hidden = count === 0;
  if (count === 0) return;
  page.count.textContent = count === 1 ? "1 person" : `${count} people`;
  const names = [...people].sort((one, other) => one.localeCompare(other));
  page.names.replaceChildren(...(names.length
    ? names.map((name) => element("li", {}, element("bdi", {}, name)))
    : [element("li", {}, "Too many to be named.")]));
}

function drawTyping() {
  const names = current ? [...current.typing.keys()] : [];
  if (names.length > 3) {
    page.typing.replaceChildren("Several people are typing…");
    return;
  }
  const who = names.flatMap((name, n) => [n ? ", " : "", element("bdi", {}, name)]);
  page.typing.replaceChildren(
    ...who, ["", " is typing…"][names.length] ?? " are typing…");
}

function drawEarlier() {
  page.earlier.hidden = !current?.joined || !current.more;
  page.earlier.textContent = current?.asking ? "Looking…" : "Show earlier messages";
}

function atEnd() {
  const { scrollHeight, scrollTop, clientHeight } = page.scroll;
  return scrollHeight - scrollTop - clientHeight < 40;
}

function scrollToEnd() {
  page.scroll.scrollTop = page.scroll.scrollHeight;
}

function show(room) {
  current = room;
  for (const one of rooms.values()) {
    one.log.hidden = one.older.hidden = one !== room;
    if (one === room) one.button.setAttribute("aria-current", "page");
    else one.button.removeAttribute("aria-current");
    for (const pending of one.pending.values()) pending.item.hidden = one !== room;
  }
  page.title.textContent = room?.name ?? "";
  page.compose.hidden = !room;
  drawPeople();
  drawTyping();
  drawEarlier();
  if (!room) return;
  room.countUnread(0);
  history.replaceState(null, "", `#${room.name}`);
  room.tab.scrollIntoView({ block: "nearest", inline: "nearest" });
  scrollToEnd();
}

function joinRoom(name) {
  if (!rooms.has(name)) {
    const room = new Room(name);
    rooms.set(name, room);
    store("rooms", [...rooms.keys()]);
    if (limits) say({ type: "join", room: name });
  }
  show(rooms.get(name));
}

function leaveRoom(room) {
  if (room.joined) say({ type: "leave", room: room.name });
  room.joined = false;
  for (const pending of [...room.pending.values()]) pending.done();
  rooms.delete(room.name);
  store("rooms", [...rooms.keys()]);
  room.older.remove();
  room.log.remove();
  room.tab.remove();
  if (current === room) show([...rooms.values()].at(-1) ?? null);
}

// The connection.

function connect() {
  clearTimeout(timer);
  if (socket || !user) return;
  tell("connecting", "Connecting…");
  socket = new WebSocket(new URL("ws", location.href.replace(/^http/, "ws").replace(/#.*/, "")));
  socket.addEventListener("open", sayHello);
  socket.addEventListener("message", (event) => hear(JSON.parse(event.data)));
  socket.addEventListener("close", (event) => lost(event));
}

function sayHello() {
  if (user) say({ type: "hello", user, key });
}

function say(frame) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
}

function lost(event) {
  socket = null;
  limits = null;
  for (const room of rooms.values()) room.lose();
  drawPeople();
  drawEarlier();
  if (!user) {
    tell("idle", "Not connected");
    return;
  }
  // Whoever restarts says when to come back; otherwise later each time, and never all at once.
  const asked = /retry_after=([0-9.]+)/.exec(event.reason);
  if (asked) askedToWait ??= Number(asked[1]) * 1000;
  const most = Math.min(RETRY_MS[1], RETRY_MS[0] * 2 ** attempts);
  const delay = askedToWait ?? between(most / 2, most);
  askedToWait = null;
  attempts += 1;
  tell("waiting", navigator.onLine ? "Connection lost, trying again…" : "You are offline");
  timer = setTimeout(connect, delay);
}

function tell(state, words, replica = "") {
  page.status.dataset.state = state;
  page.status.dataset.replica = replica;
  page.status.textContent = words;
}

const hearing = {
  welcome(frame) {
    limits = frame.limits;
    user = frame.user;
    me = frame.author ?? "";
    attempts = 0;
    store("name", user);
    page.welcome.close();
    page.rename.hidden = false;
    page.rename.textContent = user;
    page.rename.title = "Change your name";
    tell("connected", `Connected to ${frame.replica}`, frame.replica);
    for (const room of rooms.values()) joinAgain(room);
  },
  joined(frame) { rooms.get(frame.room)?.enter(frame); },
  message(frame) { rooms.get(frame.room)?.add(frame); },
  position(frame) {
    const room = rooms.get(frame.room);
    if (room) room.position = frame.position;
  },
  ack({ cid }) {
    for (const room of rooms.values()) {
      const pending = room.pending.get(cid);
      // The message itself came before, or long ago: either way the log has it.
      if (pending) pending.done();
    }
  },
  presence(frame) { rooms.get(frame.room)?.see(frame); },
  typing({ room, user: name, seconds }) { rooms.get(room)?.startTyping(name, seconds); },
  history(frame) { rooms.get(frame.room)?.addEarlier(frame); },
  bye({ retry_after: seconds }) { askedToWait = seconds * 1000; },
  error({ code, message, cid, room }) {
    const pending = cid && [...rooms.values()].map((room) => room.pending.get(cid)).find(Boolean);
    if (pending) {
      pending.refuse(code, message);
    } else if (code === "bad_user" || code === "name_taken") {
      ask(message);
    } else if (code === "unavailable" || code === "rate_limited") {
      const asking = rooms.get(room);
      if (asking?.asking) {
        asking.asking = false;
        drawEarlier();
        notice(message);
      }
      clearTimeout(joinTimer);
      joinTimer = setTimeout(joinMissing, between(500, 2000));
    } else {
      notice(message);
    }
  },
};

function hear(frame) {
  // What this page does not know is for newer ones.
  if (Object.hasOwn(hearing, frame.type)) hearing[frame.type](frame);
}

function joinAgain(room) {
  say({ type: "join", room: room.name, ...(room.position !== null && { since: room.position }) });
}

function joinMissing() {
  if (!limits) {
    sayHello();
    return;
  }
  for (const room of rooms.values()) if (!room.joined) joinAgain(room);
}

// What people do.

let noticeTimer = 0;
function notice(words) {
  page.notice.textContent = words;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => { page.notice.textContent = ""; }, 6000);
}

function ask(refused = "") {
  page.refused.textContent = refused;
  page.name.value = user;
  user = "";
  socket?.close(1000);
  if (!page.welcome.open) page.welcome.showModal();
  page.name.select();
}

function tooLong(text) {
  const bytes = new TextEncoder().encode(text).length;
  const most = limits ?? { text_bytes: Infinity, text_graphemes: Infinity };
  if (bytes > most.text_bytes) return `That is ${bytes} bytes; ${most.text_bytes} can go.`;
  const count = Intl.Segmenter ? [...new Intl.Segmenter().segment(text)].length : 0;
  if (count <= most.text_graphemes) return "";
  return `That is ${count} characters; ${most.text_graphemes} can go.`;
}

page.hello.addEventListener("submit", (event) => {
  event.preventDefault();
  user = page.name.value.trim();
  connect();
});
// Without a name there is nothing to go back to.
page.welcome.addEventListener("cancel", (event) => event.preventDefault());
page.rename.addEventListener("click", () => ask());

page.join.addEventListener("submit", (event) => {
  event.preventDefault();
  joinRoom(page.room.value.trim());
  page.room.value = "";
  page.text.focus();
});

page.compose.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = page.text.value.trim().replace(/\r\n?/g, "\n");
  if (!text || !current) return;
  const refused = tooLong(text);
  if (refused) {
    notice(refused);
    return;
  }
  new Pending(current, text);
  page.text.value = "";
  toldTyping = 0;
  scrollToEnd();
});

page.text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    page.compose.requestSubmit();
  }
});

page.text.addEventListener("input", () => {
  if (!page.text.value || !current?.joined || Date.now() < toldTyping + TYPING_MS) return;
  toldTyping = Date.now();
  say({ type: "typing", room: current.name });
});

page.people.addEventListener("keydown", (event) => {
  if (event.key === "Escape") page.people.open = false;
});

page.earlier.addEventListener("click", () => current?.askEarlier());
// Whoever scrolls up to it need not press it.
new IntersectionObserver(([{ isIntersecting }]) => {
  if (isIntersecting && page.scroll.scrollHeight > page.scroll.clientHeight) current?.askEarlier();
}, { root: page.scroll }).observe(page.earlier);

addEventListener("online", () => { attempts = 0; connect(); });
addEventListener("hashchange", () => joinNamed());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && current) current.countUnread(0);
});

function joinNamed() {
  const name = location.hash.slice(1);
  if (/^[A-Za-z0-9._-]{1,64}$/.test(name)) joinRoom(name);
}

const named = location.hash;
for (const name of stored("rooms", ["lobby"])) joinRoom(name);
history.replaceState(null, "", named || location.hash || "#lobby");
joinNamed();
if (user) connect(); else ask();
