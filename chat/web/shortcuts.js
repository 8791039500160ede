// The list of all that the keyboard does. It is loaded when somebody first asks for it.

import { element, page } from "./dom.js";
import { locale } from "./texts.js";

const en = [
  ["Enter", "sends the message"],
  ["Shift Enter", "starts a new line"],
  ["@name", "offers people who are here"],
  [":name:", "becomes an emoji, like :smile:"],
  ["↓ ↑ Tab", "among what is offered: the next, the previous, takes it"],
  ["↑", "in an empty message: to the messages"],
  ["↑ ↓", "among the messages: the previous, the next"],
  ["Enter R", "on a message: quotes it"],
  ["Esc", "among the messages: back to writing"],
  ["Alt ↑", "shows the previous room"],
  ["Alt ↓", "shows the next room"],
  ["Ctrl K", "goes to the name of a room to join"],
  ["/", "outside of text: goes to the search"],
  ["Enter Shift Enter", "in the search: an older hit, a newer one"],
  ["?", "outside of text: shows this list"],
];

const de = [
  ["Enter", "sendet die Nachricht"],
  ["Umschalt Enter", "beginnt eine neue Zeile"],
  ["@Name", "schlägt Anwesende vor"],
  [":name:", "wird zu einem Emoji, etwa :smile:"],
  ["↓ ↑ Tab", "unter Vorschlägen: der nächste, der vorige, nimmt ihn"],
  ["↑", "in einer leeren Nachricht: zu den Nachrichten"],
  ["↑ ↓", "in den Nachrichten: die vorige, die nächste"],
  ["Enter R", "auf einer Nachricht: zitiert sie"],
  ["Esc", "in den Nachrichten: zurück zum Schreiben"],
  ["Alt ↑", "zeigt den vorigen Raum"],
  ["Alt ↓", "zeigt den nächsten Raum"],
  ["Strg K", "zum Namen eines Raums, den man betreten will"],
  ["/", "außerhalb von Text: zur Suche"],
  ["Enter Umschalt Enter", "in der Suche: ein älterer Treffer, ein neuerer"],
  ["?", "außerhalb von Text: zeigt diese Liste"],
];

export function showKeys() {
  const shortcuts = locale.startsWith("de") ? de : en;
  page.keyList.replaceChildren(...shortcuts.map(([keys, what]) => element("div", {},
    element("dt", {}, ...keys.split(" ").flatMap((key, n) => [n ? " " : "",
      element("kbd", {}, key)])),
    element("dd", {}, what))));
  page.keys.showModal();
}
