// What this page keeps in the browser: JSON, under names of its own.

let ours = "chat.";

/**
 * From now on, keep what is this person's, who may not be the only one at this browser.
 * @param {string} person
 */
export function keepFor(person) { ours = `chat.${person}.`; }

/**
 * @param {string} name
 * @param {any} otherwise
 * @returns {any}
 */
export function stored(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(ours + name) ?? "null") ?? otherwise;
  } catch {
    return otherwise;
  }
}

/**
 * Keep a value; `null` removes it.
 * @param {string} name
 * @param {unknown} value
 */
export function store(name, value) {
  try {
    if (value === null) localStorage.removeItem(ours + name);
    else localStorage.setItem(ours + name, JSON.stringify(value));
  } catch {
    // Private windows may refuse; the page works without.
  }
}

/**
 * The names under `prefix` for which something is kept.
 * @param {string} prefix
 */
export function storedNames(prefix) {
  try {
    return Object.keys(localStorage)
      .filter((key) => key.startsWith(ours + prefix))
      .map((key) => key.slice(ours.length));
  } catch {
    return [];
  }
}

/**
 * Be told what other tabs store under `prefix`; the value is null if they removed it.
 * @param {string} prefix
 * @param {(rest: string, value: any) => void} tell
 */
export function onStored(prefix, tell) {
  addEventListener("storage", ({ key, newValue }) => {
    if (!key?.startsWith(ours + prefix)) return;
    tell(key.slice(ours.length + prefix.length), newValue && JSON.parse(newValue));
  });
}

/** A random id. Not crypto.randomUUID: without TLS, browsers have none. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
