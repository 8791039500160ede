// Finding words in the messages of this room that are loaded, from the newest to the oldest.

import { page } from "./dom.js";
import { plain } from "./markup.js";
import { messageOf } from "./messages.js";
import { current } from "./rooms.js";
import { t } from "./texts.js";

/** @type {HTMLElement | null} the message that was found last */
let hit = null;

/** @param {number} step to an older message (-1), a newer one (1), or the newest (0) */
function find(step) {
  const query = plain(page.query.value.trim());
  hit?.classList.remove("hit");
  if (!query || !current) {
    hit = null;
    page.found.textContent = "";
    return;
  }
  const items = current.items.filter(messageOf);
  const found = items.filter((item) => {
    const { user = "", text = "" } = messageOf(item) ?? {};
    return plain(`${user}\n${text}`).includes(query);
  });
  const before = hit ? found.indexOf(hit) : -1;
  const at = step && before >= 0
    ? (before + step + found.length) % found.length : found.length - 1;
  hit = found[at] ?? null;
  hit?.classList.add("hit");
  hit?.scrollIntoView({ block: "center" });
  if (!hit && step < 0) current.askEarlier();
  page.found.textContent = hit ? t.hit(found.length - at, found.length)
    : t.noHit(items.length) + (current.more ? t.further : "");
}

/** There are earlier messages now, or there are none. */
export function searchFurther() {
  if (!hit) find(0);
}

/** Another room, or enough of it. */
export function endSearch() {
  if (!page.query.value) return;
  page.query.value = "";
  find(0);
}

export function setUpSearch() {
  page.query.addEventListener("input", () => find(0));
  page.search.addEventListener("submit", (event) => {
    event.preventDefault();
    find(-1);
  });
  page.query.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && event.shiftKey || event.key === "ArrowDown") find(1);
    else if (event.key === "ArrowUp") find(-1);
    else if (event.key === "Escape") {
      endSearch();
      page.text.focus();
    } else return;
    event.preventDefault();
  });
}
