// What the page is beyond its tab: a service worker that shows it without a network, a hint when
// there is a new version, notifications of mentions, and a number on its icon. Browsers have most
// of this only with HTTPS, or on localhost.

import { between } from "./connection.js";
import { notice, page } from "./dom.js";
import { store, stored } from "./store.js";
import { t } from "./texts.js";

/** @typedef {import("./messages.js").Message} Message */

// Pages that come back together, after a restart, do not ask all at once.
const ASK_MS = [1_000, 10_000];

const VERSION = /([0-9a-f]{12})\/install\.js/;
const version = VERSION.exec(import.meta.url)?.[1];

/**
 * After each connection: the service may have been updated meanwhile.
 * @param {() => boolean} live whether the connection is still there
 */
export function lookForUpdate(live) {
  if (!version) return;
  setTimeout(async () => {
    if (!live()) return;
    const response = await fetch("./", { cache: "no-cache" }).catch(() => null);
    const there = response?.ok && VERSION.exec(await response.text())?.[1];
    page.update.hidden = !there || there === version;
  }, between(ASK_MS[0], ASK_MS[1]));
}

/** @type {Promise<ServiceWorkerRegistration> | null} */
let worker = null;

const wanted = () => worker !== null && Notification.permission === "granted"
  && stored("notify", false);

/**
 * @param {Message} message in which one is mentioned
 * @param {string} label of its room
 */
export async function notify({ room, user, text }, label) {
  if (!document.hidden || !wanted()) return;
  const registration = await worker;
  // One for each room: what is new there is in the page.
  await registration?.showNotification(`${user} · ${label}`, {
    body: text.slice(0, 200), tag: room, data: room, silent: true, icon: "icon.svg",
  });
}

/** @param {number} unread */
export function setBadge(unread) {
  /** @type {any} */ (navigator).setAppBadge?.(unread)?.catch(() => {});
}

function drawWanted() {
  page.notify.setAttribute("aria-pressed", String(wanted()));
}

/** @param {(room: string) => void} show */
export function setUpInstall(show) {
  page.reload.addEventListener("click", () => location.reload());
  if (!("serviceWorker" in navigator)) return;
  navigator.serviceWorker.addEventListener("message", ({ data }) => show(data.room));
  // Trusted Types: the only script that the page ever names.
  const { trustedTypes } = /** @type {any} */ (window);
  const policy = trustedTypes?.createPolicy("chat", { createScriptURL: () => "sw.js" });
  const registered = navigator.serviceWorker.register(policy?.createScriptURL("") ?? "sw.js");
  registered.catch(() => { worker = null; });
  if (!("Notification" in window)) return;
  worker = registered;
  page.notify.hidden = false;
  drawWanted();
  page.notify.addEventListener("click", async () => {
    const allowed = wanted() || await Notification.requestPermission() === "granted";
    if (!allowed) notice(t.notAllowed);
    store("notify", allowed && !wanted());
    drawWanted();
  });
}
