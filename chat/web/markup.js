// What people write, as nodes: links, code, quotes, and one's own name. Whatever is none of these
// is text. Nothing is ever parsed as HTML, and each character is looked at a bounded number of
// times, whatever is written.

import { element } from "./dom.js";
import { t } from "./texts.js";

const FENCE = /^```[\w+#.-]*[^\S\n]*$/;
// Up to white space, quotes and what cannot be seen.
const LINK = /\bhttps?:\/\/[^\s<>"'`\p{C}]+/giu;
const AFTER_LINK = new Set(".,:;!?*_…»”’");
/** @type {Record<string, string>} */
const CLOSED_BY = { ")": "(", "]": "[", "}": "{" };

/**
 * @param {string} text
 * @param {RegExp | null} name of the reader, by `nameIn`
 * @returns {Node[]}
 */
export function drawText(text, name) {
  const lines = text.split("\n");
  /** @type {Node[]} */
  const blocks = [];
  /** @type {string[]} */
  let plain = [];
  const endParagraph = () => {
    const words = plain.join("\n").replace(/^(?:[^\S\n]*\n)+/, "").trimEnd();
    if (words) blocks.push(element("p", { dir: "auto" }, ...inline(words, name)));
    plain = [];
  };
  for (let at = 0; at < lines.length; at += 1) {
    const end = FENCE.test(lines[at])
      ? lines.findIndex((line, n) => n > at && line.trimEnd() === "```") : -1;
    if (end > at) {
      endParagraph();
      const code = element("code", {}, lines.slice(at + 1, end).join("\n"));
      // What scrolls can be scrolled by keyboard.
      blocks.push(element("pre",
        { dir: "auto", tabIndex: 0, role: "group", "aria-label": t.code }, code));
      at = end;
    } else if (lines[at].startsWith(">")) {
      endParagraph();
      const quote = [];
      for (; lines[at]?.startsWith(">"); at += 1) quote.push(lines[at].replace(/^> ?/, ""));
      at -= 1;
      blocks.push(element("blockquote", { dir: "auto" }, ...inline(quote.join("\n"), name)));
    } else {
      plain.push(lines[at]);
    }
  }
  endParagraph();
  return blocks;
}

/**
 * @param {string} text
 * @param {RegExp | null} name
 */
function inline(text, name) {
  const nodes = [];
  let from = 0;
  for (const { start, end, code } of codeSpans(text)) {
    nodes.push(...linked(text.slice(from, start), name), element("code", {}, code));
    from = end;
  }
  nodes.push(...linked(text.slice(from), name));
  return nodes;
}

/**
 * Code is between two runs of equally many backticks in one line.
 * @param {string} text
 */
function* codeSpans(text) {
  const runs = [...text.matchAll(/`+/g)]
    .map(({ 0: { length }, index = 0 }) => ({ length, index }));
  let lineEnd = -1;
  for (let at = 0; at < runs.length; at += 1) {
    const { length, index } = runs[at];
    if (lineEnd < index) lineEnd = `${text}\n`.indexOf("\n", index);
    let close = at + 1;
    while (runs[close]?.index < lineEnd && runs[close].length !== length) close += 1;
    if (!(runs[close]?.index < lineEnd)) continue;
    const code = text.slice(index + length, runs[close].index);
    const padded = /^ .*[^ ].* $/.test(code);
    yield {
      start: index, end: runs[close].index + length, code: padded ? code.slice(1, -1) : code,
    };
    at = close;
  }
}

/**
 * @param {string} text
 * @param {RegExp | null} name
 */
function* linked(text, name) {
  let from = 0;
  for (const { 0: match, index = 0 } of text.matchAll(LINK)) {
    const shown = match.slice(0, linkEnd(match));
    const url = safeUrl(shown);
    if (!url) continue;
    yield* named(text.slice(from, index), name);
    yield link(shown, url);
    from = index + shown.length;
  }
  yield* named(text.slice(from), name);
}

/**
 * The sentence around a link has the last punctuation, and the parenthesis that it opened.
 * @param {string} link
 */
function linkEnd(link) {
  const open = { "(": 0, "[": 0, "{": 0 };
  for (const character of link) {
    if (character in open) open[/** @type {keyof open} */ (character)] += 1;
    const opened = /** @type {keyof open} */ (CLOSED_BY[character]);
    if (opened) open[opened] -= 1;
  }
  let end = link.length;
  for (; end > 0; end -= 1) {
    const last = link[end - 1];
    const opened = /** @type {keyof open} */ (CLOSED_BY[last]);
    if (opened && open[opened] < 0) open[opened] += 1;
    else if (!AFTER_LINK.has(last)) break;
  }
  return end;
}

/**
 * @param {string} text
 * @returns {URL | null} unless it says one host, and leads to another
 */
function safeUrl(text) {
  try {
    const url = new URL(text);
    return url.username || url.password ? null : url;
  } catch {
    return null;
  }
}

/**
 * @param {string} shown
 * @param {URL} url
 */
function link(shown, url) {
  const made = element("a", { href: url.href, rel: "noopener noreferrer nofollow" }, shown);
  // A room of this chat opens here.
  if (url.origin !== location.origin || url.pathname !== location.pathname) made.target = "_blank";
  // Letters of other scripts that look like Latin ones, numbers that are addresses: by their name.
  const host = shown.replace(/^https?:\/\//i, "").split(/[/?#]/)[0].toLowerCase();
  if (host.replace(/:(80|443)?$/, "") !== url.host) made.dataset.host = url.host;
  return made;
}

/**
 * @param {string} text
 * @param {RegExp | null} name
 * @returns {Iterable<Node | string>}
 */
function* named(text, name) {
  let from = 0;
  for (const { 0: match, index = 0 } of name ? text.matchAll(name) : []) {
    yield text.slice(from, index);
    yield element("mark", {}, match);
    from = index + match.length;
  }
  if (from < text.length) yield text.slice(from);
}

/**
 * Finds a name where it is a word of its own. Very short ones are words of other kinds, too: they
 * count only after an @.
 * @param {string} name
 */
export function nameIn(name) {
  if (!name) return null;
  const at = [...name].length < 3 ? "@" : "@?";
  const escaped = name.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
  return new RegExp(`(?<![\\p{L}\\p{N}_@])${at}${escaped}(?![\\p{L}\\p{N}_])`, "giu");
}

/**
 * Without case and accents: whoever looks for something leaves them out.
 * @param {string} text
 */
export const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
