// What one can do with a message besides quoting it: buttons on the message that is pointed at, and
// the service's answers. It is loaded by the modules that have such buttons.

import { page } from "./dom.js";
import { newId } from "./store.js";
import { t } from "./texts.js";

/** @typedef {import("./connection.js").Connection} Connection */
/** @typedef {import("./connection.js").Frame} Frame */

/** @type {Map<HTMLButtonElement, (item: HTMLElement) => boolean>} and whether a message has it */
const offered = new Map();
/** @type {HTMLElement | null} the message that the buttons are on */
export let chosen = null;

/** Where the button is that quotes, so are those of `offered`. */
function draw() {
  const tools = page.logs.querySelector(".tools");
  chosen = tools?.parentElement ?? null;
  if (!tools || !chosen) return;
  for (const [button, has] of offered) {
    button.hidden = !has(chosen);
    if (!tools.contains(button)) tools.append(button);
  }
}

/**
 * Put a button beside the one that quotes, on all messages for which `has` returns true.
 * @param {HTMLButtonElement} button
 * @param {(item: HTMLElement) => boolean} has
 */
export function offer(button, has) {
  offered.set(button, has);
  page.logs.addEventListener("pointerover", draw);
  page.logs.addEventListener("focusin", draw);
  draw();
}

/** @param {string} code */
const failed = (code) => ({ type: "error", code, message: t.lost });

/**
 * Ask the service for something. There is always one answer: `ack`, what the frame asks for, or an
 * `error`. Two of its codes are not the service's: `offline`: it was not asked; `lost`: the
 * connection was lost before the answer, so that it may be done or not.
 * @param {Connection} connection
 * @param {Frame} frame without `cid`
 * @returns {Promise<Frame>}
 */
export function ask(connection, frame) {
  const { socket, answers } = connection;
  if (!socket || !connection.live) return Promise.resolve(failed("offline"));
  const cid = newId();
  /** @type {Promise<Frame>} */
  const answer = new Promise((resolve) => {
    answers.set(cid, resolve);
    socket.addEventListener("close", () => resolve(failed("lost")));
  });
  connection.say({ ...frame, cid });
  return answer.finally(() => answers.delete(cid));
}
