// The words of the page, in each of its languages; plurals and lists are Intl's. Those that few need
// are in the modules that show them (shortcuts.js, revisions.js). What the service says is English:
// where a language has words for an error's code, those are shown instead.

/**
 * @typedef {{one?: string, other: string}} Forms
 * @typedef {import("./connection.js").State} State
 */

const en = {
  chat: "Chat",
  close: "Close",
  cancel: "Cancel",

  idle: "Not connected",
  connecting: "Connecting…",
  connected: (/** @type {string} */ replica) => `Connected to ${replica}`,
  draining: "The service restarts…",
  offline: "You are offline",
  refused: (/** @type {string} */ why) => `The service refuses this page: ${why}`,
  lost: "Connection lost",
  closed: (/** @type {string} */ why) => `Closed: ${why}`,
  closes: /** @type {Record<number, string>} */ ({
    1009: "A message was too large",
    1012: "The service restarts",
    1013: "This page could not keep up",
  }),
  again: (/** @type {number} */ seconds) => `again in ${seconds} s`,
  now: "Now",

  signedOut: "You are not signed in",
  signIn: "Sign in",
  signOut: "Sign out",
  whoAreYou: "What are you called?",
  name: "Name",
  start: "Start",
  rename: "Change your name",
  notify: "Notify me when I am mentioned",
  notAllowed: "The browser does not allow notifications of this page: its settings can.",
  update: "There is a new version of this page.",
  reload: "Reload",

  rooms: "Rooms",
  joinRoom: "Join a room",
  join: "Join",
  roomRule: "Letters, digits and - _ . only",
  leave: (/** @type {string} */ room) => `Leave ${room}`,
  unread: (/** @type {number} */ count) => `${count} new`,
  mentions: (/** @type {number} */ count) => plural(count, {
    one: "# mention of you", other: "# mentions of you",
  }),
  people: (/** @type {number} */ count) => plural(count, { one: "# person", other: "# people" }),
  tooManyPeople: "Too many to be named.",
  typing: (/** @type {number} */ count) => plural(count, {
    one: " is typing…", other: " are typing…",
  }),
  severalType: "Several people are typing…",
  notIn: (/** @type {string} */ why) => `You are not in this room. ${why} `,
  joinAgain: "Join again",

  messagesIn: (/** @type {string} */ room) => `Messages in ${room}`,
  earlierIn: (/** @type {string} */ room) => `Earlier messages in ${room}`,
  showEarlier: "Show earlier messages",
  looking: "Looking…",
  gap: "You were away for longer than the history reaches; these are the last messages.",
  namesake: (/** @type {string} */ name) =>
    `Several people write as ${name}; this number tells them apart.`,
  newSince: "New since you left",
  latest: (/** @type {number} */ count) => count
    ? `Jump to the latest (${plural(count, { other: "# new" })})`
    : "Jump to the latest",
  quote: "Quote",
  edited: "edited",
  search: "Search in this room",
  hit: (/** @type {number} */ at, /** @type {number} */ of) => `${at} of ${of}`,
  noHit: (/** @type {number} */ count) => plural(count, {
    one: "Not in the message that is loaded", other: "Not in the # messages that are loaded",
  }),
  further: ": Enter looks further back",
  code: "Code",

  onTheirWay: "Your messages on their way",
  waiting: "Waiting…",
  sending: "Sending…",
  held: (/** @type {string} */ why) => `Not sent yet. ${why}`,
  failed: (/** @type {string} */ why) => `Not sent. ${why}`,
  retry: "Try again",
  edit: "Edit",
  discard: "Discard",
  tooManyBytes: (/** @type {number} */ bytes, /** @type {number} */ most) =>
    `That is ${bytes} bytes; ${most} can go.`,
  tooManyEscapes: (/** @type {number} */ most) =>
    `That is too long with all its control characters; ${most} bytes can go.`,
  tooManyCharacters: (/** @type {number} */ count, /** @type {number} */ most) =>
    `That is ${count} characters; ${most} can go.`,
  tooLong: "It is too long for the service.",
  hungUp: "The service closed the connection each time this was sent.",
  perhapsSent: "It may have been sent before the connection broke: look above first.",

  message: "Message",
  write: "Write a message",
  send: "Send",
  hint: "Enter sends, Shift+Enter starts a new line",
  touchHint: "Enter starts a new line",
  charactersLeft: (/** @type {number} */ count) => count < 0
    ? plural(-count, { one: "# character too many", other: "# characters too many" })
    : plural(count, { one: "# character left", other: "# characters left" }),
  bytesLeft: (/** @type {number} */ count) => count < 0
    ? plural(-count, { one: "# byte too many", other: "# bytes too many" })
    : plural(count, { one: "# byte left", other: "# bytes left" }),
  offered: "Suggestions",
  offers: (/** @type {number} */ count) => plural(count, {
    one: "# suggestion: Tab takes it", other: "# suggestions: arrows choose, Tab takes one",
  }),
  readOnly: "You may read this room, but not write in it.",
  noFiles: "Pictures and files cannot be sent here: only text can.",

  keyboard: "Keyboard shortcuts",

  errors: /** @type {Record<string, string>} */ ({}),
};

/** @type {typeof en} */
const de = {
  chat: "Chat",
  close: "Schließen",
  cancel: "Abbrechen",

  idle: "Nicht verbunden",
  connecting: "Verbindet…",
  connected: (replica) => `Verbunden mit ${replica}`,
  draining: "Der Dienst startet neu…",
  offline: "Sie sind offline",
  refused: (why) => `Der Dienst lehnt diese Seite ab: ${why}`,
  lost: "Verbindung verloren",
  closed: (why) => `Getrennt: ${why}`,
  closes: {
    1009: "Eine Nachricht war zu groß",
    1012: "Der Dienst startet neu",
    1013: "Diese Seite kam nicht nach",
  },
  again: (seconds) => `erneut in ${seconds} s`,
  now: "Jetzt",

  signedOut: "Sie sind nicht angemeldet",
  signIn: "Anmelden",
  signOut: "Abmelden",
  whoAreYou: "Wie heißen Sie?",
  name: "Name",
  start: "Los",
  rename: "Namen ändern",
  notify: "Benachrichtigen, wenn ich erwähnt werde",
  notAllowed: "Der Browser erlaubt dieser Seite keine Benachrichtigungen: seine Einstellungen können das.",
  update: "Es gibt eine neue Fassung dieser Seite.",
  reload: "Neu laden",

  rooms: "Räume",
  joinRoom: "Raum betreten",
  join: "Betreten",
  roomRule: "Nur Buchstaben, Ziffern und - _ .",
  leave: (room) => `${room} verlassen`,
  unread: (count) => `${count} neu`,
  mentions: (count) => plural(count, {
    one: "# Erwähnung von Ihnen", other: "# Erwähnungen von Ihnen",
  }),
  people: (count) => plural(count, { one: "# Person", other: "# Personen" }),
  tooManyPeople: "Zu viele, um sie zu nennen.",
  typing: (count) => plural(count, { one: " schreibt…", other: " schreiben…" }),
  severalType: "Mehrere Personen schreiben…",
  notIn: (why) => `Sie sind nicht in diesem Raum. ${why} `,
  joinAgain: "Erneut betreten",

  messagesIn: (room) => `Nachrichten in ${room}`,
  earlierIn: (room) => `Frühere Nachrichten in ${room}`,
  showEarlier: "Frühere Nachrichten zeigen",
  looking: "Sucht…",
  gap: "Sie waren länger weg, als der Verlauf reicht; dies sind die letzten Nachrichten.",
  namesake: (name) => `Mehrere Personen schreiben als ${name}; die Zahl unterscheidet sie.`,
  newSince: "Neu, seit Sie weg waren",
  latest: (count) => count
    ? `Zu den neuesten (${plural(count, { other: "# neu" })})`
    : "Zu den neuesten",
  quote: "Zitieren",
  edited: "bearbeitet",
  search: "In diesem Raum suchen",
  hit: (at, of) => `${at} von ${of}`,
  noHit: (count) => plural(count, {
    one: "Nicht in der geladenen Nachricht", other: "Nicht in den # geladenen Nachrichten",
  }),
  further: ": Enter sucht weiter zurück",
  code: "Code",

  onTheirWay: "Ihre Nachrichten auf dem Weg",
  waiting: "Wartet…",
  sending: "Wird gesendet…",
  held: (why) => `Noch nicht gesendet. ${why}`,
  failed: (why) => `Nicht gesendet. ${why}`,
  retry: "Noch einmal",
  edit: "Bearbeiten",
  discard: "Verwerfen",
  tooManyBytes: (bytes, most) => `Das sind ${bytes} Bytes; ${most} sind möglich.`,
  tooManyEscapes: (most) =>
    `Mit allen Steuerzeichen ist das zu lang; ${most} Bytes sind möglich.`,
  tooManyCharacters: (count, most) => `Das sind ${count} Zeichen; ${most} sind möglich.`,
  tooLong: "Sie ist zu lang für den Dienst.",
  hungUp: "Der Dienst hat jedes Mal getrennt, wenn sie gesendet wurde.",
  perhapsSent: "Sie wurde vielleicht schon gesendet, bevor die Verbindung abbrach: sehen Sie oben nach.",

  message: "Nachricht",
  write: "Nachricht schreiben",
  send: "Senden",
  hint: "Enter sendet, Umschalt+Enter beginnt eine neue Zeile",
  touchHint: "Enter beginnt eine neue Zeile",
  charactersLeft: (count) => count < 0
    ? plural(-count, { one: "# Zeichen zu viel", other: "# Zeichen zu viel" })
    : plural(count, { one: "noch # Zeichen", other: "noch # Zeichen" }),
  bytesLeft: (count) => count < 0
    ? plural(-count, { one: "# Byte zu viel", other: "# Bytes zu viel" })
    : plural(count, { one: "noch # Byte", other: "noch # Bytes" }),
  offered: "Vorschläge",
  offers: (count) => plural(count, {
    one: "# Vorschlag: Tab nimmt ihn", other: "# Vorschläge: Pfeile wählen, Tab nimmt einen",
  }),
  readOnly: "Diesen Raum dürfen Sie lesen, aber nicht darin schreiben.",
  noFiles: "Bilder und Dateien lassen sich hier nicht senden, nur Text.",

  keyboard: "Tastenkürzel",

  errors: {
    bad_cid: "Der Dienst hat die Nachricht nicht verstanden.",
    bad_room: "Diesen Raum gibt es nicht, oder er ist nicht für Sie.",
    bad_text: "Darin ist nichts zu sehen, oder ein Zeichen hat zu viele Akzente.",
    bad_user: "So kann niemand heißen: 1 bis 32 Zeichen, keine Steuerzeichen.",
    cid_used: "Unter ihrer Kennung wurde schon etwas anderes gesendet.",
    name_taken: "So heißt in diesem Raum schon jemand.",
    not_joined: "Sie sind nicht in diesem Raum.",
    read_only: "Diesen Raum dürfen Sie lesen, aber nicht darin schreiben.",
    rate_limited: "Das war zu schnell; gleich noch einmal.",
    slow: "Langsamer Modus: sie geht von selbst, sobald sie darf.",
    too_long: "Sie ist zu lang.",
    too_many_rooms: "Sie sind in so vielen Räumen, wie möglich ist: verlassen Sie einen.",
    unavailable: "Der Dienst erreicht seinen Speicher gerade nicht.",
  },
};

const base = navigator.language.split("-")[0];

/** The words in the language of the browser, or in English. */
export const t = base === "de" ? de : en;
/** The language of times and numbers: the browser's, if the words are in it, too. */
export const locale = base === "de" || base === "en" ? navigator.language : "en";

const rules = new Intl.PluralRules(locale);
const number = new Intl.NumberFormat(locale);

/**
 * @param {number} count
 * @param {Forms} forms
 */
function plural(count, forms) {
  const rule = rules.select(count);
  return ((rule === "one" && forms.one) || forms.other).replace("#", number.format(count));
}

/**
 * What the service says, in the page's language if it has words for it.
 * @param {string} code
 * @param {string} message
 */
export function explain(code, message) {
  return t.errors[code] ?? message;
}

/** Fill in the words of index.html: `data-text` names them, `data-text-label` an attribute's. */
export function fillIn() {
  document.documentElement.lang = locale;
  document.title = t.chat;
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = word(element.getAttribute("data-text"));
  }
  for (const attribute of ["aria-label", "placeholder", "title"]) {
    for (const element of document.querySelectorAll(`[data-${attribute}]`)) {
      element.setAttribute(attribute, word(element.getAttribute(`data-${attribute}`)));
    }
  }
}

/** @param {string | null} name */
function word(name) {
  const found = name && /** @type {Record<string, unknown>} */ (t)[name];
  if (typeof found !== "string") throw new Error(`texts.js has no "${name}"`);
  return found;
}
