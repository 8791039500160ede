// How what is on its way is shown: below the log, until the log has it.

import { button, element, page } from "./dom.js";
import { t } from "./texts.js";

/** @typedef {import("./outbox.js").Entry} Entry */

/** @type {Map<string, HTMLLIElement>} by cid */
const items = new Map();

/**
 * @param {Entry} entry
 * @param {boolean} visible
 * @param {{retry: () => void, edit: () => void, discard: () => void}} actions
 */
export function drawPending(entry, visible, actions) {
  let item = items.get(entry.cid);
  if (!item) {
    item = element("li", { className: "message", hidden: !visible, "data-room": entry.room },
      element("p", { dir: "auto" }, entry.text),
      element("span", { className: "state" }),
      element("span", { className: "actions" }));
    items.set(entry.cid, item);
    page.pending.append(item);
  }
  const [, words, buttons] = item.children;
  words.textContent = describe(entry);
  item.classList.toggle("failed", entry.state === "failed");
  buttons.replaceChildren(...(entry.state === "failed"
    ? [
      button(t.retry, actions.retry),
      button(t.edit, actions.edit),
      button(t.discard, actions.discard),
    ]
    : []));
}

/** @param {Entry} entry */
function describe({ state, why }) {
  switch (state) {
    case "waiting": return t.waiting;
    case "sent": return t.sending;
    case "held": return t.held(why);
    case "failed": return t.failed(why);
  }
}

/** @param {string} cid */
export function erasePending(cid) {
  items.get(cid)?.remove();
  items.delete(cid);
}

/** @param {string} room */
export function showPending(room) {
  for (const item of items.values()) item.hidden = item.dataset.room !== room;
}
