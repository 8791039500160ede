// The end of the log: it is kept in sight of whoever is there, and others are told what came.

import { page } from "./dom.js";
import { t } from "./texts.js";

let staying = true;
let missed = 0;
// Where the top of what is in sight was when that was last known.
let top = 0;

export function atEnd() {
  const { scrollHeight, scrollTop, clientHeight } = page.scroll;
  return scrollHeight - scrollTop - clientHeight < 40;
}

export function scrollToEnd() {
  staying = true;
  page.scroll.scrollTop = page.scroll.scrollHeight;
  top = page.scroll.scrollTop;
  draw();
}

/** Something came below of what is in sight. */
export function miss() {
  // Of scrolling up, the event may still come. (What changes its size keeps the place of the top.)
  if (page.scroll.scrollTop < top) staying = false;
  missed += 1;
  draw();
}

/**
 * Go to what is new, if there is more of it than fits.
 * @param {HTMLElement} line
 */
export function scrollToNew(line) {
  if (line.getBoundingClientRect().top >= page.scroll.getBoundingClientRect().top) return;
  staying = false;
  line.scrollIntoView();
}

function draw() {
  if (staying) missed = 0;
  page.latest.hidden = staying;
  const words = t.latest(missed);
  if (page.latest.textContent !== words) page.latest.textContent = words;
}

export function setUpLatest() {
  page.scroll.addEventListener("scroll", () => {
    staying = atEnd();
    top = page.scroll.scrollTop;
    draw();
  });
  // A narrower window, larger letters and a keyboard on the screen change how much fits.
  const observer = new ResizeObserver(() => { if (staying) scrollToEnd(); });
  for (const box of [page.scroll, page.logs, page.pending]) observer.observe(box);
  page.latest.addEventListener("click", () => {
    scrollToEnd();
    page.text.focus();
  });
}
