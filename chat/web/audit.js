// The audit room, for those who may read it: a button leads there, what the chat says there is drawn
// in people's words, and reports lead to the message that they are about.

import { chosen, isAudit, offerOnAll } from "./actions.js";
import { button, element, notice, page } from "./dom.js";
import { messageOf } from "./messages.js";
import { current, PRIVATE, roomNamed, rooms, show } from "./rooms.js";
import { locale } from "./texts.js";

/** @typedef {import("./connection.js").Frame} Frame */

const en = {
  reports: "Reports",
  go: "Show message",
  missing: (/** @type {number} */ count) => "It is deleted, or among earlier messages than the "
    + `${count} that are loaded.`,
  everywhere: "everywhere",
  lifted: "lifted",
  kinds: /** @type {Record<string, string>} */ ({
    report: "Reported", delete: "Deleted", mute: "Muted", ban: "Banned",
  }),
  fields: /** @type {Record<string, string>} */ ({
    room: "Room", author: "Person", "reported by": "Reported by", "deleted by": "Deleted by", by: "By",
    seconds: "For", reason: "Reason", text: "Message",
  }),
};

/** @type {typeof en} */
const de = {
  reports: "Meldungen",
  go: "Nachricht zeigen",
  missing: (count) => `Sie ist gelöscht, oder älter als die ${count} geladenen Nachrichten.`,
  everywhere: "überall",
  lifted: "aufgehoben",
  kinds: {
    report: "Gemeldet", delete: "Gelöscht", mute: "Stummgeschaltet", ban: "Verbannt",
  },
  fields: {
    room: "Raum", author: "Person", "reported by": "Gemeldet von", "deleted by": "Gelöscht von",
    by: "Durch", seconds: "Für", reason: "Grund", text: "Nachricht",
  },
};

const words = locale.startsWith("de") ? de : en;
/** @type {[number, string][]} */
const UNITS = [[86_400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
const PERSON = /^([0-9a-f]{32})(?: (.*))?$/;
// Answers to `history` in which a message is looked for.
const LOOKS = 20;

/** @type {string} */
let room;
/** @type {{room: string, id: string, looks: number} | undefined} a message that is looked for */
let wanted;

const style = new CSSStyleSheet();
style.replaceSync(`
  #reports { align-self: start; padding: .25rem .6rem; font-size: .9rem; }
  /* The buttons are below it. */
  .audit .text { padding-bottom: 1.7rem; }
  .audit dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .6rem; margin: 0; }
  .audit dt { color: var(--faint); }
  .audit dd { margin: 0; min-width: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
  .audit dd small { color: var(--faint); }
`);
document.adoptedStyleSheets.push(style);

const open = button(words.reports, () => {
  show(roomNamed(room));
  open.hidden = true;
  page.scroll.focus();
});
open.id = "reports";

/**
 * What the chat says: its first line is what it is about, and then there are fields. Lines that people
 * wrote begin with "> ".
 * @param {string} text
 */
function read(text) {
  const [kind, ...lines] = text.split("\n");
  /** @type {Map<string, string>} */
  const fields = new Map();
  let last = "";
  for (const line of lines) {
    const [, name, value] = /^([a-z ]+): ?(.*)$/.exec(line) ?? [];
    if (line.startsWith("> ")) {
      fields.set(last, [fields.get(last), line.slice(2)].filter(Boolean).join("\n"));
    } else if (name) {
      last = name;
      fields.set(name, value);
    }
  }
  return { kind, fields };
}

/** @param {number} seconds */
function duration(seconds) {
  if (!seconds) return words.lifted;
  const [size, unit] = UNITS.find(([one]) => seconds % one === 0) ?? [1, "second"];
  return new Intl.NumberFormat(locale, {
    style: "unit", unit, unitDisplay: "long",
  }).format(seconds / size);
}

/**
 * @param {string} name
 * @param {string} value
 */
function shown(name, value) {
  const [, author, user] = PERSON.exec(value) ?? [];
  // In full, to be copied: bots that ban people take nothing less.
  if (author) return [user ? `${user} ` : "", element("small", {}, author)];
  if (name === "seconds") return [duration(Number(value))];
  return [name === "room" && value === "*" ? words.everywhere : value];
}

/** Draw what the chat has said, and is drawn as text. */
function draw() {
  for (const item of rooms.get(room)?.items ?? []) {
    const message = messageOf(item);
    if (!message || !isAudit(item) || item.matches(".audit, .deleted")) continue;
    const { kind, fields } = read(message.text);
    fields.delete("message");
    item.classList.add("audit");
    item.querySelector(".text")?.replaceChildren(
      element("strong", {}, words.kinds[kind] ?? kind),
      element("dl", {}, ...[...fields].flatMap(([name, value]) => [
        element("dt", {}, words.fields[name] ?? name),
        element("dd", { dir: "auto" }, ...shown(name, value)),
      ])));
  }
}

/** @param {HTMLElement | null} item the message that it is about, if one may see that */
function about(item) {
  const message = messageOf(item);
  if (!item || !message || !isAudit(item)) return undefined;
  const { kind, fields } = read(message.text);
  const [name, id] = [fields.get("room"), fields.get("message")];
  if (kind !== "report" || !name || !id) return undefined;
  return PRIVATE.test(name) && !rooms.has(name) ? undefined : { room: name, id, looks: 0 };
}

const go = button(words.go, () => {
  wanted = about(chosen);
  if (!wanted) return;
  show(roomNamed(wanted.room));
  look();
});

/** Go to the message that is looked for, or ask for earlier ones. */
function look() {
  const there = current;
  // Whoever has gone elsewhere does not look for it any more.
  if (there?.name !== wanted?.room) wanted = undefined;
  if (!wanted || !there?.joined) return;
  const { id } = wanted;
  const item = there.items.find((one) => messageOf(one)?.id === id);
  wanted.looks += 1;
  if (item) {
    item.tabIndex = -1;
    item.focus();
    item.scrollIntoView({ block: "center" });
  } else if (there.more && wanted.looks <= LOOKS) {
    there.askEarlier();
    return;
  } else {
    notice(words.missing(there.ids.size));
  }
  wanted = undefined;
}

/** @param {Frame} frame */
export function hear(frame) {
  if (frame.type === "welcome") {
    // Another token may have taken the right.
    room = frame.audit ?? "";
    if (room) page.join.after(open);
    else open.remove();
    offerOnAll(go, (item) => about(item) !== undefined);
  }
  open.hidden = rooms.has(room);
  if (frame.room === room && ["joined", "message", "history"].includes(frame.type)) draw();
  if (["joined", "history"].includes(frame.type)) look();
}
