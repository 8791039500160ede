// The page: several rooms over one connection. This module knows all others, and none knows it: see
// docs/page.md.

import { setUpCompose, prepend } from "./compose.js";
import { between, Connection } from "./connection.js";
import { notice, page } from "./dom.js";
import { scrollToEnd, setUpLatest } from "./latest.js";
import { nameIn } from "./markup.js";
import { lookForUpdate, notify, setBadge, setUpInstall } from "./install.js";
import { setUpKeys } from "./keys.js";
import { Outbox, spaceLeft, tooLong } from "./outbox.js";
import { drawPending, erasePending } from "./pending.js";
import { setUpReading } from "./reading.js";
import { endSearch, searchFurther, setUpSearch } from "./search.js";
import { current, loseRooms, PRIVATE, roomNamed, rooms, setUpRooms, show } from "./rooms.js";
import { showState } from "./status.js";
import { newId, store, stored } from "./store.js";
import { explain, fillIn, t } from "./texts.js";

/** @typedef {import("./connection.js").Frame} Frame */

// Between two times that the others are told of somebody's typing.
const TYPING_MS = 3000;

let user = stored("name", "");
// As the service took it; empty as long as it took none.
let accepted = user;
// Whoever comes with this key is the same person; others cannot take the name.
const key = stored("key", null) ?? newId();
store("key", key);
// By which this page's messages are known, from `welcome`.
let me = "";
let sanctions = false;
let hasPrivate = false;
// Whether there was ever a right to read reports.
let audits = false;
let myName = nameIn(user);
// From `welcome`; until then as they were last, so that one hears offline, too, what is too long.
let limits = stored("limits", null);
let joinTimer = 0;
let toldTyping = 0;

sessionStorage.removeItem("chat.boots");
fillIn();

// Then the name is the token's.
const signIn = document.getElementById("sign-in") && await import("./sign_in.js");
const connection = new (signIn?.SignedInConnection ?? Connection)(
  new URL("ws", location.href.replace(/^http/, "ws").replace(/#.*/, "")),
  {
    hello: () => ({ type: "hello", user, key }),
    hear,
    show: showState,
    lose(code) {
      clearTimeout(joinTimer);
      loseRooms();
      outbox.lose(code);
    },
  },
);

const outbox = new Outbox({
  limits: () => limits,
  mayGo: (room) => rooms.get(room)?.joined ?? false,
  send: ({ room, text, cid }) => connection.say({ type: "send", room, text, cid }),
  unanswered: () => connection.drop(0, ""),
  gone: ({ cid }) => erasePending(cid),
  changed(entry) {
    // Another tab may have written it, in a room that this one does not have.
    roomNamed(entry.room);
    drawPending(entry, current?.name === entry.room, {
      retry: () => outbox.retry(entry.cid),
      edit: () => { outbox.remove(entry.cid); prepend(entry.text); },
      discard: () => outbox.remove(entry.cid),
    });
  },
});

setUpRooms({
  say: (frame) => { if (connection.live) connection.say(frame); },
  isMine: ({ author, user: name }) => (author ? author === me : name === user),
  name: () => myName,
  entered: ({ name }) => outbox.pump(name),
  left({ name }) {
    for (const { cid } of outbox.of(name)) outbox.remove(cid);
    // There may be a place now for one that was too many.
    joinMissing();
  },
  rename: signIn ? null : () => ask(),
  shown: endSearch,
  grown: searchFurther,
  mentioned: notify,
  counted: setBadge,
});

/**
 * What few need is not loaded before.
 * @param {Promise<any>} module
 * @param {Frame} frame
 */
async function later(module, frame) {
  (await module).hear(frame, connection, myName);
}

/** @param {Frame} frame */
const revise = (frame) => later(import("./revisions.js"), frame);
/** @param {Frame} frame */
const privately = (frame) => later(import("./private.js"), frame);

/** @type {Record<string, (frame: Frame) => void>} */
const hearing = {
  welcome(frame) {
    limits = frame.limits;
    store("limits", limits);
    user = accepted = frame.user;
    myName = nameIn(user);
    me = frame.author ?? "";
    store("name", user);
    page.welcome.close();
    page.rename.hidden = false;
    page.rename.textContent = user;
    page.rename.title = t.rename;
    sanctions = frame.sanctions;
    if (frame.revisions) revise(frame);
    if (frame.reports) later(import("./reports.js"), frame);
    audits ||= frame.audit;
    hasPrivate = frame.private || sessionStorage["chat.invited"];
    joinMissing();
    lookForUpdate(() => connection.live);
  },
  joined(frame) {
    rooms.get(frame.room)?.enter(frame);
    if (frame.deleted || frame.edited) revise(frame);
  },
  deleted: revise,
  edited: revise,
  access(frame) { rooms.get(frame.room)?.allow(frame); },
  message(frame) { rooms.get(frame.room)?.add(/** @type {any} */ (frame)); },
  position(frame) {
    const room = rooms.get(frame.room);
    if (room) room.position = frame.position;
  },
  // The message itself came before, or long ago: either way the log has it.
  ack({ cid }) { outbox.remove(cid); },
  presence(frame) { rooms.get(frame.room)?.see(frame); },
  typing({ room, user: name, seconds }) { rooms.get(room)?.startTyping(name, seconds); },
  history(frame) { rooms.get(frame.room)?.addEarlier(frame); },
  error({ code, message: words, cid, room: name, retry_after: wait }) {
    const message = explain(wait ? "slow" : code, words);
    const room = rooms.get(name);
    const forNow = code === "unavailable" || code === "rate_limited" || code === "not_joined";
    if (code === "not_joined" && room) room.joined = false;
    const known = cid && outbox.refuse(cid, code, message, wait);
    if (!known && code === "bad_user") {
      connection.stop();
      ask(message);
    } else if (forNow) {
      if (room?.stopAsking()) notice(message);
      clearTimeout(joinTimer);
      joinTimer = setTimeout(joinMissing, between(500, 2000));
    } else if (!known && code === "name_taken" && !signIn) {
      room?.refuse(code, message);
      ask(message);
    } else if (!known && room && (!room.joined || ["bad_position", "bad_room"].includes(code))) {
      room.refuse(code, message);
    } else if (!known && code !== "bad_frame") {
      // A service of an earlier release does not know `ping`, and answers with bad_frame.
      notice(message);
    }
  },
};

/** @param {Frame} frame */
function hear(frame) {
  // What this page does not know is for newer ones.
  if (Object.hasOwn(hearing, frame.type)) hearing[frame.type](frame);
  if (sanctions && frame.moderator) later(import("./moderation.js"), frame);
  if (frame.room && frame.until) later(import("./sanctioned.js"), frame);
  if (audits) later(import("./audit.js"), frame);
  if (hasPrivate || PRIVATE.test(frame.room)) privately(frame);
}

function joinMissing() {
  if (!connection.live) return;
  for (const room of rooms.values()) if (!room.joined) room.askIn();
}

// The name. Nothing is disconnected before another one is given.

function ask(refused = "") {
  page.refused.textContent = refused;
  page.cancel.hidden = !accepted;
  if (!page.welcome.open) {
    page.name.value = user;
    page.welcome.showModal();
  }
  page.name.select();
}

page.hello.addEventListener("submit", (event) => {
  event.preventDefault();
  const name = page.name.value.trim();
  if (name !== user) connection.stop();
  user = name;
  if (connection.live) {
    joinMissing();
    page.welcome.close();
  } else {
    connection.start();
  }
});
page.cancel.addEventListener("click", () => page.welcome.close());
page.welcome.addEventListener("cancel", (event) => { if (!accepted) event.preventDefault(); });
page.welcome.addEventListener("close", () => {
  // Without a name there is nothing to go back to; browsers let a second Escape through.
  if (!accepted) {
    ask();
    return;
  }
  if (user !== accepted) connection.stop();
  user = accepted;
  // Whoever waits for the next attempt goes on waiting.
  if (!connection.wanted) connection.start();
});
page.rename.addEventListener("click", () => ask());

// What people do.

setUpCompose({
  send(text) {
    const refused = tooLong(text, limits);
    if (refused || !current) return refused;
    outbox.add(current.name, text);
    toldTyping = 0;
    scrollToEnd();
    return "";
  },
  typing() {
    if (!current?.joined || Date.now() < toldTyping + TYPING_MS) return;
    toldTyping = Date.now();
    connection.say({ type: "typing", room: current.name });
  },
  left: (text) => spaceLeft(text, limits),
  people: () => [...current?.people ?? []].filter((name) => name !== user),
});

page.join.addEventListener("submit", (event) => {
  event.preventDefault();
  show(roomNamed(page.room.value.trim()));
  page.room.value = "";
  page.text.focus();
});

page.people.addEventListener("keydown", (event) => {
  if (event.key === "Escape") page.people.open = false;
});

setUpLatest();
setUpReading();
setUpKeys();
setUpSearch();
setUpInstall(showNamed);

page.now.addEventListener("click", () => { connection.wanted = true; connection.hurry(); });
addEventListener("online", () => connection.hurry());
addEventListener("offline", () => connection.hurry());
document.addEventListener("visibilitychange", () => { if (!document.hidden) connection.hurry(); });
addEventListener("hashchange", () => showNamed(location.hash.slice(1)));

/** @param {string} name */
function showNamed(name) {
  if (/^[A-Za-z0-9._-]{1,64}$/.test(name)) show(roomNamed(name));
  else if (/^invite=/.test(name)) {
    sessionStorage["chat.invited"] = name.slice(7, 99);
    privately({ type: "invited" });
  }
}

const [named, last] = [location.hash.slice(1), stored("room", "")];
for (const name of stored("rooms", ["lobby"])) roomNamed(name);
show(rooms.get(last) ?? [...rooms.values()].at(-1) ?? null);
showNamed(named);
outbox.adopt();
if (user || signIn) connection.start(); else ask();
