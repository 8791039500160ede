// The elements of index.html, and how new ones are made. All that others wrote gets into the
// document as text nodes alone.

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
function find(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`index.html has no ${type.name} #${id}`);
  return found;
}

export const page = {
  status: find("status", HTMLElement),
  countdown: find("countdown", HTMLElement),
  now: find("now", HTMLButtonElement),
  rename: find("rename", HTMLButtonElement),
  notify: find("notify", HTMLButtonElement),
  update: find("update", HTMLElement),
  reload: find("reload", HTMLButtonElement),
  help: find("help", HTMLButtonElement),
  keys: find("keys", HTMLDialogElement),
  keyList: find("key-list", HTMLElement),
  rooms: find("rooms", HTMLElement),
  join: find("join", HTMLFormElement),
  room: find("room", HTMLInputElement),
  title: find("title", HTMLElement),
  search: find("search", HTMLFormElement),
  query: find("query", HTMLInputElement),
  found: find("found", HTMLElement),
  people: find("people", HTMLDetailsElement),
  count: find("count", HTMLElement),
  names: find("names", HTMLElement),
  scroll: find("scroll", HTMLElement),
  latest: find("latest", HTMLButtonElement),
  earlier: find("earlier", HTMLButtonElement),
  logs: find("logs", HTMLElement),
  pending: find("pending", HTMLElement),
  typing: find("typing", HTMLElement),
  why: find("why", HTMLElement),
  notice: find("notice", HTMLElement),
  compose: find("compose", HTMLFormElement),
  text: find("text", HTMLTextAreaElement),
  hint: find("hint", HTMLElement),
  offers: find("offers", HTMLElement),
  offered: find("offered", HTMLElement),
  welcome: find("welcome", HTMLDialogElement),
  hello: find("hello", HTMLFormElement),
  name: find("name", HTMLInputElement),
  cancel: find("cancel", HTMLButtonElement),
  refused: find("refused", HTMLElement),
};

/**
 * @template {keyof HTMLElementTagNameMap} N
 * @param {N} name
 * @param {Record<string, any>} attributes properties of the element, or attributes
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[N]}
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made) Object.assign(made, { [key]: value });
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/**
 * @param {string} label
 * @param {() => void} act
 */
export function button(label, act) {
  const made = element("button", { type: "button" }, label);
  made.addEventListener("click", act);
  return made;
}

let noticeTimer = 0;

/**
 * Say something for a moment.
 * @param {string} words
 */
export function notice(words) {
  page.notice.textContent = words;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => { page.notice.textContent = ""; }, 6000);
}
