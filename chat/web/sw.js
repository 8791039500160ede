// The service worker: the page without a network, and clicks on notifications.
//
// With a network, the document always comes from the service. The files it names have their version
// in their address, so what is kept of them is never old. Both are kept together: a document whose
// files are not all here is not kept.

const KEPT = "chat";
const DOCUMENT = "./";
const HERE = new URL(DOCUMENT, location.href).pathname;
const FILE = /\/[0-9a-f]{12}\/[^/]+$/;

/** @param {Response} response the document */
async function keep(response) {
  const text = await response.clone().text();
  const files = [...text.matchAll(/(?:href|src)="([0-9a-f]{12}\/[^"]+)"/g)]
    .map(([, file]) => new URL(file, response.url).href);
  // A page of a proxy for signing in.
  if (!files[0]) return;
  const cache = await caches.open(KEPT);
  const known = (await cache.keys()).map(({ url }) => url);
  await cache.addAll(files.filter((file) => !known.includes(file)));
  await cache.put(DOCUMENT, response);
  for (const url of known) {
    if (FILE.test(url) && !files.includes(url)) await cache.delete(url);
  }
}

/** @param {any} event */
async function answer({ request, waitUntil }) {
  const response = await fetch(request).catch(() => null);
  if (response?.ok) waitUntil(keep(response.clone()));
  // While no replica runs, the page says so itself.
  if (response && response.status < 500) return response;
  return await caches.match(DOCUMENT) ?? response ?? Response.error();
}

/** @param {string} room */
async function openRoom(room) {
  const { clients } = /** @type {any} */ (self);
  const [page] = await clients.matchAll({ type: "window" });
  if (!page) return clients.openWindow(`./#${room}`);
  page.postMessage({ room });
  // Browsers refuse it when the click is long ago.
  return page.focus().catch(() => {});
}

/** @type {Record<string, (event: any) => void>} */
const events = {
  install(event) {
    event.waitUntil(fetch(DOCUMENT).then(keep).then(() => /** @type {any} */ (self).skipWaiting()));
  },
  activate(event) { event.waitUntil(/** @type {any} */ (self).clients.claim()); },
  fetch(event) {
    const { request } = event;
    // Other addresses of this origin are not the page, such as those of a proxy for signing in.
    if (request.mode === "navigate" && new URL(request.url).pathname === HERE) {
      event.respondWith(answer({ request, waitUntil: event.waitUntil.bind(event) }));
    } else if (FILE.test(request.url)) {
      event.respondWith(caches.match(request).then((kept) => kept ?? fetch(request)));
    }
  },
  notificationclick(event) {
    event.notification.close();
    event.waitUntil(openRoom(event.notification.data));
  },
};
for (const [name, act] of Object.entries(events)) self.addEventListener(name, act);
