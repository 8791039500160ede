// What dialogs have in common in which one asks the service for something: their style, for how long
// it is to be, and why it was not done. It is loaded by the modules that have such dialogs.

import { element } from "./dom.js";
import { explain, locale } from "./texts.js";

/** @typedef {import("./connection.js").Frame} Frame */

const en = {
  refused: (/** @type {string} */ why) => `Not done. ${why}`,
  unknown: (/** @type {string} */ why) => `It may be done, or not. ${why}`,
  errors: /** @type {Record<string, string>} */ ({
    unavailable: "The service does not reach its store.",
  }),
};

/** @type {typeof en} */
const de = {
  refused: (why) => `Nicht ausgeführt. ${why}`,
  unknown: (why) => `Es wurde ausgeführt oder nicht. ${why}`,
  errors: {},
};

const words = locale.startsWith("de") ? de : en;

// Seconds of what one can choose from, and how many of which unit these are.
/** @type {[number, number, string][]} */
const TIMES = [
  [600, 10, "minute"],
  [3600, 1, "hour"],
  [86_400, 1, "day"],
  [604_800, 1, "week"],
  [2_592_000, 30, "day"],
];

// style.css has only what everybody needs.
const style = new CSSStyleSheet();
style.replaceSync(`
  .action > * + * { margin-top: .75rem; }
  .action .row { align-items: baseline; }
  .action select {
    font: inherit;
    color: inherit;
    padding: .45rem .5rem;
    border: 1px solid var(--line);
    border-radius: .5rem;
    background: var(--paper);
  }
  .action [role="status"] { min-height: 1.45em; overflow-wrap: anywhere; }
`);
document.adoptedStyleSheets.push(style);

/**
 * What an error means for whoever asked.
 * @param {Frame} error
 * @param {Record<string, string>} errors words for some of its codes
 */
export function failure({ code, message }, errors = {}) {
  const why = errors[code] ?? words.errors[code] ?? explain(code, message);
  return ["lost", "unavailable"].includes(code) ? words.unknown(why) : words.refused(why);
}

/** @param {string} id of the element in which one chooses for how long */
export function chooseTime(id) {
  return element("select", { id }, ...TIMES.map(([seconds, count, unit]) => (
    element("option", { value: seconds }, new Intl.NumberFormat(locale, {
      style: "unit", unit, unitDisplay: "long",
    }).format(count)))));
}
