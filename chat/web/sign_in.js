// Where people sign in. A proxy of the site turns their cookie into a token, and no script sees it:
// the service says whose it is, and how long it counts. The document has this module, and the
// addresses for signing in and out, only if the service wants tokens.

import { between, Connection, TIMERS } from "./connection.js";
import { element, page } from "./dom.js";
import { keepFor, stored } from "./store.js";
import { t } from "./texts.js";

// A token is renewed when so much of its time is over.
const RENEW_SHARE = 0.75;
const SOON_MS = 1_000;
// If that failed, or if the token is no newer: all pages notice it, and do not ask all at once.
const AGAIN_MS = [5_000, 15_000];
// What setTimeout takes.
const LONGEST_MS = 2 ** 31 - 1;

const script = document.getElementById("sign-in");
const signIn = element("a", { href: script?.dataset.in ?? "", hidden: true }, t.signIn);
const signOut = element("a", { href: script?.dataset.out ?? "", onclick: leave }, t.signOut);
const me = element("bdi", { id: "me" });
page.now.after(signIn);

// Whether somebody has signed out here, and nobody in since then.
const signedOut = stored("signed-out", false);
// Whose the things are that this page keeps in the browser; empty until somebody signs in here.
let author = signedOut ? "" : stored("author", "");
keepFor(author);
drawInert();

/** What is written before anybody has signed in would be nobody's. */
function drawInert() {
  for (const part of document.querySelectorAll("nav, main > *")) {
    part.toggleAttribute("inert", !author);
  }
}

/**
 * The page is to be nobody's until somebody signs in, and what is kept is to stay. The service
 * revokes the token first: for that, the cookie is needed, which the proxy deletes.
 * @param {Event} event
 */
async function leave(event) {
  event.preventDefault();
  try {
    localStorage.setItem("chat.signed-out", "true");
  } catch {
    // Nothing is kept then.
  }
  await ask("DELETE");
  location.assign(/** @type {HTMLAnchorElement} */ (signOut).href);
}

/**
 * Another person begins with a page of their own, and sends nothing that the first one wrote.
 * @param {string} who is signed in
 */
function isAnother(who) {
  if (who === author) return false;
  try {
    localStorage.removeItem("chat.signed-out");
    localStorage.setItem("chat.author", JSON.stringify(who));
  } catch {
    // Private windows may refuse; nothing is kept then.
  }
  if (author || signedOut) return true;
  author = who;
  keepFor(who);
  drawInert();
  return false;
}

/**
 * @param {"GET" | "POST" | "DELETE"} method
 * @param {string} query
 * @returns {Promise<{status: number, who: string, left: number, why: string}>} `status`: 0 if there
 *   is no answer; `left`: for how many milliseconds the token counts; `why`: of a refusal
 */
async function ask(method, query = "") {
  try {
    const signal = /** @type {any} */ (AbortSignal).timeout(TIMERS.open);
    const response = await fetch(`api/session${query}`, { method, signal, cache: "no-store" });
    const answered = response.ok || response.status === 403;
    const { author: who = "", until = 0, error: why = "" } = answered ? await response.json() : {};
    // By the service's clock: this machine's may be hours off.
    const now = Date.parse(response.headers.get("Date") ?? "");
    return { status: response.status, who, left: until - (now || Date.now()), why };
  } catch {
    return { status: 0, who: "", left: 0, why: "" };
  }
}

export class SignedInConnection extends Connection {
  /**
   * @param {URL} url
   * @param {import("./connection.js").Listener} listener
   */
  constructor(url, listener) {
    super(url, {
      ...listener,
      show(state) {
        signIn.hidden = state.name !== "signed-out" || !script?.dataset.in;
        listener.show(state);
      },
    });
    this.asking = false;
    this.renewal = 0;
    this.ends = 0;    // when the token does, by `performance.now()`
  }

  /**
   * An answer to a WebSocket tells neither 401 from 503, nor sets a cookie that the proxy has
   * renewed. So the service is asked first.
   */
  async connect() {
    clearTimeout(this.retryTimer);
    if (this.socket || this.asking) return;
    this.listener.show({ name: "connecting" });
    this.asking = true;
    const { status, who, left, why } = await ask("GET");
    this.asking = false;
    if (!this.wanted) return;
    if (status === 401) {
      // Whoever signs in elsewhere and comes back to this page is asked again (`hurry`).
      this.listener.show({ name: "signed-out" });
    } else if (status === 403) {
      // Banned from the whole chat: signing in again would change nothing.
      this.wanted = false;
      this.listener.show({ name: "refused", reason: why });
    } else if (status !== 200) {
      this.lost(0, "");
    } else if (isAnother(who)) {
      location.reload();
    } else {
      this.ends = performance.now() + left;
      super.connect();
    }
  }

  /** @param {import("./connection.js").Frame} frame */
  hear(frame) {
    // Somebody else may have signed in since the service was asked.
    if (frame.type === "welcome" && isAnother(frame.author)) {
      location.reload();
      return;
    }
    super.hear(frame);
    if (frame.type !== "welcome") return;
    // The name is the token's, and cannot be changed here.
    page.rename.replaceWith(me, ...script?.dataset.out ? [signOut] : []);
    me.textContent = frame.user;
    this.renewLater(frame.connection, true);
  }

  /**
   * @param {string} id of the connection
   * @param {boolean} renewed
   */
  renewLater(id, renewed) {
    clearTimeout(this.renewal);
    const wait = RENEW_SHARE * (this.ends - performance.now());
    const delay = renewed && wait >= SOON_MS ? wait
      : Math.max(wait, between(AGAIN_MS[0], AGAIN_MS[1]));
    this.renewal = setTimeout(() => this.renew(id), Math.min(delay, LONGEST_MS));
  }

  /** @param {string} id */
  async renew(id) {
    const { socket } = this;
    const { status, left } = await ask("POST", `?connection=${id}`);
    if (!socket || this.socket !== socket) return;
    if (status === 404 || status === 409) {
      // Another tab was led to another replica, where this one now goes, too; or somebody else has
      // signed in.
      this.again = false;
      this.drop(0, "");
      return;
    }
    if (status === 200) this.ends = performance.now() + left;
    this.renewLater(id, status === 200);
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  lost(code, reason) {
    clearTimeout(this.renewal);
    // Whose token was revoked (4403) is asked whether there is another one, as when it has ended.
    super.lost(code === 4403 ? 4401 : code, reason);
  }
}
