// The WebSocket, which may break at any time, or go silent. Each wait has an end; what is shown
// about the connection is what this knows. Nothing here knows the document.

import { t } from "./texts.js";

/** Milliseconds; docs/protocol.md, "Timers", has the rules. */
export const TIMERS = {
  open: 10_000,
  quiet: [4_000, 15_000],
  lively: 60_000,
  answer: 6_000,
  probe: 3_000,
  retry: [500, 15_000],
  peace: 30_000,
};

// The service would close again for the same reason; so it would with 4000 to 4999.
const FATAL = [1002, 1003, 1007];

/** @typedef {{type: string, [field: string]: any}} Frame */
/**
 * What is known of the connection. `until`: when the next attempt begins, by `performance.now()`.
 * @typedef {{name: "idle" | "connecting"}
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
 * @property {(code: number) => void} lose the connection is gone; 0: nobody closed it
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
    this.heard = 0;            // when anything but a pong came last
    /** @type {number | null} milliseconds, from `bye` */
    this.askedToWait = null;
    // Until the next attempt; until silence asks for a ping; until a wait has been too long.
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

  /** Do not wait for the next attempt; and if all seems well, see whether it is. */
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
    // The cookie may lead to a replica whose host is dead: the edge ignores it then.
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
      const quiet = TIMERS.quiet[performance.now() - this.heard < TIMERS.lively ? 0 : 1];
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
    this.listener.hear(frame);
  }

  /** @param {number} most milliseconds for any answer */
  ping(most) {
    this.say({ type: "ping" });
    this.expect(most);
  }

  /** @param {number} most milliseconds until the connection is taken for lost */
  expect(most) {
    clearTimeout(this.deadline);
    this.deadline = setTimeout(() => this.drop(0, ""), most);
  }

  /**
   * Give the connection up. Its own end is not waited for: over a dead network it takes minutes.
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
    if (this.live && performance.now() - this.since >= TIMERS.peace) this.attempts = 0;
    this.socket = null;
    this.live = false;
    this.listener.lose(code);
    if (!this.wanted) {
      this.listener.show({ name: "idle" });
      return;
    }
    if (FATAL.includes(code) || code >= 4000) {
      // Not by itself: neither later, nor when the network comes back.
      this.wanted = false;
      this.listener.show({ name: "refused", reason: reason || `code ${code}` });
      return;
    }
    // Whoever restarts says when to come back; otherwise later each time, and never all at once.
    const asked = /retry_after=([0-9.]+)/.exec(reason);
    const most = Math.min(TIMERS.retry[1], TIMERS.retry[0] * 2 ** this.attempts);
    const delay = asked ? Number(asked[1]) * 1000 : this.askedToWait ?? between(most / 2, most);
    this.attempts += 1;
    const why = t.closes[code] ?? (code === 1008 && reason ? t.closed(reason) : t.lost);
    this.listener.show({ name: "waiting", reason: why, until: performance.now() + delay });
    this.retryTimer = setTimeout(() => this.connect(), delay);
  }
}
