// What one can do with a message besides quoting it: buttons on the message that is pointed at, and
// the service's answers. It is loaded by the modules that have such buttons.

import { page } from "./dom.js";
import { messageOf } from "./messages.js";
import { newId } from "./store.js";
import { t } from "./texts.js";

/** @typedef {import("./connection.js").Connection} Connection */
/** @typedef {import("./connection.js").Frame} Frame */

/** @typedef {(item: HTMLElement) => boolean} Has whether a message has a button */
/** @type {Map<HTMLButtonElement, Has>} */
const offered = new Map();
// By this author, nobody writes: the chat says what was reported, and what moderators have done.
const AUDIT = "e2459dcfd60c2f703a0d45feb2c652a9";
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

/** @param {HTMLElement} item */
export const isAudit = (item) => messageOf(item)?.author === AUDIT;

/**
 * Put a button beside the one that quotes, on all messages of people for which `has` returns true.
 * @param {HTMLButtonElement} button
 * @param {Has} has
 */
export function offer(button, has) {
  offerOnAll(button, (item) => !isAudit(item) && has(item));
}

/**
 * The same, on all messages.
 * @param {HTMLButtonElement} button
 * @param {Has} has
 */
export function offerOnAll(button, has) {
  offered.set(button, has);
  page.logs.addEventListener("pointerover", draw);
  page.logs.addEventListener("focusin", draw);
  draw();
}

/**
 * Back to a button, which a message shows only while it has the focus, or is pointed at. The message
 * would not do: without the focus it is lower on narrow screens, and a click would miss.
 * @param {HTMLElement | null} item
 * @param {HTMLButtonElement} button
 */
export function goBack(item, button) {
  if (!item?.isConnected) {
    page.text.focus();
    return;
  }
  item.tabIndex = -1;
  item.focus();
  button.focus();
}

/**
 * Who wrote a message: of two with one name, one has to know which.
 * @param {HTMLElement} item
 */
export function writerOf(item) {
  const mark = item.querySelector(".author:not([hidden])")?.textContent ?? "";
  return `${messageOf(item)?.user} ${mark}`.trim();
}

/** @param {string} code */
const failed = (code) => ({ type: "error", code, message: t.lost });

/**
 * Ask the service for something. There is always one answer: `ack`, what the frame asks for, or an
 * `error`. Two of its codes are not the service's: `offline`: it was not asked; `lost`: the
 * connection was lost before the answer, so that it may be done or not.
 * @param {Connection} connection
 * @param {Frame} frame with a `cid` only if it was sent before
 * @returns {Promise<Frame>}
 */
export function ask(connection, frame) {
  const { socket, answers } = connection;
  if (!socket || !connection.live) return Promise.resolve(failed("offline"));
  const { cid = newId() } = frame;
  /** @type {Promise<Frame>} */
  const answer = new Promise((resolve) => {
    answers.set(cid, resolve);
    socket.addEventListener("close", () => resolve(failed("lost")));
  });
  connection.say({ ...frame, cid });
  return answer.finally(() => answers.delete(cid));
}
