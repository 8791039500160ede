// What was written here and is not in the log yet. Nothing that was sent is lost: it is kept in
// the browser, and is sent again under the same cid until the log has it, or the service refuses it
// and its author decides. Nothing here knows the document or the socket.
//
// Each message belongs to one tab, which sends it; a tab that ends releases its own, and another
// one takes them. Should two tabs send one after all, its cid makes that harmless.

import { between } from "./connection.js";
import { newId, onStored, store, stored, storedNames } from "./store.js";
import { t } from "./texts.js";

// Without an `ack` for so long, the connection is taken for dead.
const ANSWER_MS = 15_000;
// The service knows what it has by the cid for ten minutes at least (docs/protocol.md). What was
// sent before that may be in the log, and would be shown twice.
const KNOWN_MS = 9 * 60_000;
// Until what a tab released is taken by another one: a reload takes it back by itself.
const RELEASED_MS = 2000;
// Until a tab that does not answer is taken for gone.
const GONE_MS = 1000;
// The service closed the connection so many times when this message was sent.
const TRIES = 3;
// From this share of what fits on, one is told how much is left.
const NEARLY = 0.9;

/**
 * `used`: something else was sent under its cid.
 * @typedef {object} Entry
 * @property {string} cid
 * @property {string} room
 * @property {string} text
 * @property {number} order
 * @property {string} tab
 * @property {"waiting" | "sent" | "held" | "failed"} state
 * @property {string} why
 * @property {number} tries
 * @property {number} sentAt when it was sent first, by `Date.now()`; 0: never
 * @property {boolean} used
 */
/** @typedef {{frame_bytes: number, text_bytes: number, text_graphemes: number}} Limits */
/**
 * @typedef {object} Ways
 * @property {(room: string) => boolean} mayGo
 * @property {(entry: Entry) => void} send
 * @property {() => void} unanswered
 * @property {(entry: Entry) => void} changed
 * @property {(entry: Entry) => void} gone
 * @property {() => Limits | null} limits
 */

/**
 * Why a text cannot be sent; empty if it can.
 * @param {string} text
 * @param {Limits | null} limits
 */
export function tooLong(text, limits) {
  if (!limits) return "";
  if (bytesOf(text) > limits.text_bytes) return t.tooManyBytes(bytesOf(text), limits.text_bytes);
  // Around it there are a type, a room of 64 letters and a cid.
  if (bytesOf(JSON.stringify(text)) + 200 > limits.frame_bytes) {
    return t.tooManyEscapes(limits.frame_bytes);
  }
  const count = charactersOf(text);
  if (count <= limits.text_graphemes || !limits.text_graphemes) return "";
  return t.tooManyCharacters(count, limits.text_graphemes);
}

/**
 * How much more can be written, once most of what fits is; empty before.
 * @param {string} text
 * @param {Limits | null} limits
 */
export function spaceLeft(text, limits) {
  if (!limits) return "";
  const { text_bytes: bytes, text_graphemes: characters } = limits;
  // A letter has at most three bytes. Long before the end, nothing is counted.
  if (text.length < NEARLY * Math.min(bytes / 3, characters || bytes)) return "";
  const bytesLeft = bytes - bytesOf(text);
  const left = characters ? characters - charactersOf(text) : bytes;
  const full = [[left, characters], [bytesLeft, bytes]].map(([some, all]) => some / (all || 1));
  if (Math.min(...full) > 1 - NEARLY) return "";
  return full[0] <= full[1] ? t.charactersLeft(left) : t.bytesLeft(bytesLeft);
}

/** @param {string} text */
const bytesOf = (text) => new TextEncoder().encode(text).length;

/** @param {string} text */
const charactersOf = (text) => (Intl.Segmenter ? [...new Intl.Segmenter().segment(text)].length : 0);

export class Outbox {
  /** @param {Ways} ways */
  constructor(ways) {
    this.ways = ways;
    this.tab = newId();
    /** @type {Map<string, Entry>} in the order they were written */
    this.entries = new Map();
    /** @type {Map<string, number>} */
    this.timers = new Map();
    this.last = 0;
    // Tabs that said that they are there.
    this.here = new Set();
    this.tabs = new BroadcastChannel("chat.tabs");
    this.tabs.onmessage = ({ data: { ask, here } }) => {
      if (ask === this.tab) this.tabs.postMessage({ here: this.tab });
      if (here) this.here.add(here);
    };
    onStored("outbox.", (cid, value) => this.noticed(cid, value));
    addEventListener("pagehide", () => this.release());
    addEventListener("pageshow", ({ persisted }) => { if (persisted) this.takeBack(); });
  }

  /**
   * @param {string} room
   * @param {string} text
   */
  add(room, text) {
    this.last = Math.max(Date.now(), this.last + 1);
    this.own({
      cid: newId(), room, text, order: this.last, tab: this.tab,
      state: "waiting", why: "", tries: 0, sentAt: 0, used: false,
    });
  }

  /** Take what was left here, by this tab before a reload, or by one that is gone. */
  adopt() {
    /** @type {Entry[]} */
    const asked = [];
    for (const name of storedNames("outbox.")) {
      const entry = stored(name, null);
      if (!entry) continue;
      if (entry.tab) asked.push(entry); else this.own(entry);
    }
    for (const tab of new Set(asked.map((entry) => entry.tab))) {
      this.tabs.postMessage({ ask: tab });
    }
    setTimeout(() => {
      for (const { cid, tab } of asked) if (!this.here.has(tab)) this.ownIf(cid, tab);
    }, GONE_MS);
  }

  /**
   * The first message of a room goes, and then the next one: what is refused for now must not be
   * overtaken by what was written after it. What failed holds nobody up.
   * @param {string} room
   */
  pump(room) {
    if (!this.ways.mayGo(room)) return;
    const next = this.of(room).find((entry) => entry.state !== "failed");
    if (next?.state !== "waiting") return;
    const refused = tooLong(next.text, this.ways.limits());
    if (refused) {
      this.fail(next, refused);
      return;
    }
    if (next.sentAt && Date.now() - next.sentAt > KNOWN_MS) {
      this.fail(next, t.perhapsSent);
      return;
    }
    if (!next.sentAt) {
      next.sentAt = Date.now();
      store(`outbox.${next.cid}`, next);
    }
    this.become(next, "sent");
    this.later(next, ANSWER_MS, () => this.ways.unanswered());
    this.ways.send(next);
  }

  /** @param {string} room */
  of(room) {
    return [...this.entries.values()]
      .filter((entry) => entry.room === room)
      .sort((one, other) => one.order - other.order);
  }

  /**
   * The service refused it: for now, or for good.
   * @param {string} cid
   * @param {string} code
   * @param {string} words
   * @param {number} [wait] seconds after which it may go, if the service knows
   */
  refuse(cid, code, words, wait) {
    const entry = this.entries.get(cid);
    if (!entry) return false;
    if (["unavailable", "rate_limited", "not_joined"].includes(code)) {
      // Of `unavailable` alone, the service does not know whether the log has it.
      if (code !== "unavailable") entry.sentAt = 0;
      this.become(entry, "held", words);
      this.later(entry, wait ? wait * 1000 : between(500, 2500), () => this.wait(entry));
    } else {
      entry.used = code === "cid_used";
      this.fail(entry, words);
    }
    return true;
  }

  /**
   * The connection is gone. Whoever closes it says whether a message was the cause.
   * @param {number} code
   */
  lose(code) {
    const sent = [...this.entries.values()].filter((entry) => entry.state === "sent");
    for (const entry of this.entries.values()) {
      if (entry.state !== "failed") this.become(entry, "waiting");
    }
    if (code === 1009) {
      const largest = sent.sort((one, other) => other.text.length - one.text.length)[0];
      if (largest) this.fail(largest, t.tooLong);
    } else if ([1002, 1003, 1007, 1008].includes(code)) {
      for (const entry of sent) {
        entry.tries += 1;
        if (entry.tries === TRIES) {
          this.fail(entry, t.hungUp);
        }
      }
    }
  }

  /** @param {string} cid */
  retry(cid) {
    const entry = this.entries.get(cid);
    if (!entry) return;
    entry.tries = 0;
    entry.sentAt = 0;
    if (!entry.used) {
      this.wait(entry);
      return;
    }
    // Under its cid, something else was said already: it takes another one to try again.
    this.remove(cid);
    this.own({ ...entry, cid: newId(), used: false, state: "waiting", why: "" });
  }

  /** @param {string} cid */
  remove(cid) {
    const entry = this.entries.get(cid);
    if (!entry) return;
    store(`outbox.${cid}`, null);
    this.forget(entry);
    this.pump(entry.room);
  }

  /** @param {Entry} entry */
  wait(entry) {
    this.become(entry, "waiting");
    this.pump(entry.room);
  }

  /**
   * @param {Entry} entry
   * @param {string} why
   */
  fail(entry, why) {
    this.become(entry, "failed", why);
    store(`outbox.${entry.cid}`, entry);
    this.pump(entry.room);
  }

  /**
   * @param {Entry} entry
   * @param {Entry["state"]} state
   */
  become(entry, state, why = "") {
    const failed = entry.state === "failed";
    clearTimeout(this.timers.get(entry.cid));
    entry.state = state;
    entry.why = why;
    if (failed) store(`outbox.${entry.cid}`, entry);
    this.ways.changed(entry);
  }

  /**
   * @param {Entry} entry
   * @param {number} milliseconds
   * @param {() => void} act
   */
  later(entry, milliseconds, act) {
    this.timers.set(entry.cid, setTimeout(act, milliseconds));
  }

  // Between tabs.

  /** @param {Entry} entry */
  own(entry) {
    entry.tab = this.tab;
    if (entry.state !== "failed") entry.state = "waiting";
    this.entries.set(entry.cid, entry);
    store(`outbox.${entry.cid}`, entry);
    this.ways.changed(entry);
    this.pump(entry.room);
  }

  /**
   * @param {string} cid
   * @param {string} tab whose it must be still
   */
  ownIf(cid, tab) {
    const entry = stored(`outbox.${cid}`, null);
    if (entry?.tab === tab) this.own(entry);
  }

  /** @param {Entry} entry */
  forget(entry) {
    clearTimeout(this.timers.get(entry.cid));
    this.timers.delete(entry.cid);
    this.entries.delete(entry.cid);
    this.ways.gone(entry);
  }

  release() {
    for (const entry of this.entries.values()) store(`outbox.${entry.cid}`, { ...entry, tab: "" });
  }

  /** After the browser kept this page aside, and others may have taken its messages. */
  takeBack() {
    for (const entry of [...this.entries.values()]) {
      if (stored(`outbox.${entry.cid}`, null)?.tab === "") store(`outbox.${entry.cid}`, entry);
      else this.forget(entry);
    }
  }

  /**
   * @param {string} cid
   * @param {Entry | null} value
   */
  noticed(cid, value) {
    const entry = this.entries.get(cid);
    if (entry && value?.tab !== this.tab) this.forget(entry);
    if (value?.tab === "") setTimeout(() => this.ownIf(cid, ""), RELEASED_MS);
  }
}
