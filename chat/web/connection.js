// The WebSocket, which may break or go silent at any time. Every wait has a timeout. The status that
// the page shows comes from here. This file does not touch the document.

import { t } from "./texts.js";

/** Milliseconds; the rules are in docs/protocol.md, "Timers". */
export const TIMERS = {
  open: 10_000,
  quiet: [4_000, 15_000],
  active: 60_000,
  answer: 6_000,
  probe: 3_000,
  retry: [500, 15_000],
  stable: 30_000,
};

// The service would close the next one for the same reason; the same holds for 4000 to 4999, except
// for a token that has ended (4401).
const FATAL = [1002, 1003, 1007];

/** @typedef {{type: string, [field: string]: any}} Frame */
/**
 * The state of the connection. `until`: time of the next attempt, by `performance.now()`.
 * @typedef {{name: "idle" | "connecting" | "signed-out"}
 *   | {name: "connected", replica: string}
 *   | {name: "draining"}
 *   | {name: "waiting", reason: string, until: number}
 *   | {name: "refused", reason: string}} State
 */
/**
 * @typedef {object} Listener
 * @property {() => Frame} hello the first frame of a connection
 * @property {(frame: Frame) => void} hear
 * @property {(state: State) => void} show
 * @property {(code: number) => void} lose the connection has ended; 0: without a close frame
 */

/**
 * @param {number} low
 * @param {number} high
 */
export const between = (low, high) => low + Math.random() * (high - low);

export class Connection {
  /**
   * @param {URL} url
   * @param {Listener} listener
   */
  constructor(url, listener) {
    this.url = url;
    this.listener = listener;
    /** @type {WebSocket | null} */
    this.socket = null;
    this.live = false;
    this.wanted = false;
    this.again = false;        // not the first attempt
    this.attempts = 0;
    this.since = 0;
    this.heard = 0;            // time of the last frame but pong
    /** @type {Map<string, (frame: Frame) => void>} cid -> who hears the answer */
    this.answers = new Map();
    /** @type {number | null} milliseconds, from `bye` */
    this.askedToWait = null;
    // For the next attempt; for a ping after silence; for the end of a wait.
    this.retryTimer = this.quietTimer = this.deadline = 0;
  }

  start() {
    this.wanted = true;
    this.connect();
  }

  stop() {
    this.wanted = false;
    clearTimeout(this.retryTimer);
    if (this.socket) this.drop(1000, "");
    else this.listener.show({ name: "idle" });
  }

  /** Try again at once, or check a connection that seems to work. */
  hurry() {
    if (this.live) {
      this.ping(TIMERS.probe);
    } else if (this.wanted) {
      this.attempts = 0;
      this.connect();
    }
  }

  /** @param {Frame} frame */
  say(frame) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
  }

  connect() {
    clearTimeout(this.retryTimer);
    if (this.socket) return;
    this.listener.show({ name: "connecting" });
    const url = new URL(this.url);
    // The cookie may lead to a replica on a dead host: `again` makes the edge ignore it.
    if (this.again) url.searchParams.set("again", "1");
    this.again = true;
    const socket = new WebSocket(url);
    this.socket = socket;
    this.askedToWait = null;
    this.expect(TIMERS.open);
    socket.onopen = () => this.say(this.listener.hello());
    socket.onmessage = ({ data }) => this.hear(JSON.parse(data));
    socket.onclose = ({ code, reason }) => this.lost(code, reason);
  }

  /** @param {Frame} frame */
  hear(frame) {
    clearTimeout(this.quietTimer);
    if (frame.type !== "pong") this.heard = performance.now();
    if (this.live || frame.type === "welcome") {
      clearTimeout(this.deadline);
      const quiet = TIMERS.quiet[performance.now() - this.heard < TIMERS.active ? 0 : 1];
      this.quietTimer = setTimeout(() => this.ping(TIMERS.answer), quiet);
    }
    if (frame.type === "welcome") {
      this.live = true;
      this.since = performance.now();
      this.listener.show({ name: "connected", replica: frame.replica });
    } else if (frame.type === "bye") {
      this.askedToWait = frame.retry_after * 1000;
      this.expect(TIMERS.answer);
      this.listener.show({ name: "draining" });
    } else if (frame.type === "error" && !this.live
      && ["unavailable", "rate_limited"].includes(frame.code)) {
      this.expect(TIMERS.open);
      this.quietTimer = setTimeout(() => this.say(this.listener.hello()), between(500, 2000));
      return;
    }
    (this.answers.get(frame.cid) ?? this.listener.hear)(frame);
  }

  /** @param {number} most milliseconds for any answer */
  ping(most) {
    this.say({ type: "ping" });
    this.expect(most);
  }

  /** @param {number} most milliseconds until the connection counts as lost */
  expect(most) {
    clearTimeout(this.deadline);
    this.deadline = setTimeout(() => this.drop(0, ""), most);
  }

  /**
   * Give the connection up without waiting for its end: over a dead network that takes minutes.
   * @param {number} code
   * @param {string} reason
   */
  drop(code, reason) {
    const socket = this.socket;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    this.lost(code, reason);
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  lost(code, reason) {
    clearTimeout(this.deadline);
    clearTimeout(this.quietTimer);
    if (this.live && performance.now() - this.since >= TIMERS.stable) this.attempts = 0;
    this.socket = null;
    this.live = false;
    this.listener.lose(code);
    if (!this.wanted) {
      this.listener.show({ name: "idle" });
      return;
    }
    if (FATAL.includes(code) || (code >= 4000 && code !== 4401)) {
      // Do not retry by itself, not even when the network comes back.
      this.wanted = false;
      this.listener.show({ name: "refused", reason: reason || `code ${code}` });
      return;
    }
    // A restarting server says when to come back; otherwise double the wait, with a random part.
    const asked = /retry_after=([0-9.]+)/.exec(reason);
    const most = Math.min(TIMERS.retry[1], TIMERS.retry[0] * 2 ** this.attempts);
    const delay = asked ? Number(asked[1]) * 1000 : this.askedToWait ?? between(most / 2, most);
    this.attempts += 1;
    const why = t.closes[code] ?? (code === 1008 && reason ? t.closed(reason) : t.lost);
    this.listener.show({ name: "waiting", reason: why, until: performance.now() + delay });
    this.retryTimer = setTimeout(() => this.connect(), delay);
  }
}
