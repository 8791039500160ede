"""What the page is beyond its tab: without a network, after an update, and in notifications."""

from __future__ import annotations

import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from conftest import Process
from playwright.sync_api import Browser, Page, Worker, expect
from test_page import Open, browser, connected, open_page
from test_page_honesty import Start, state
from test_page_reading import Log, Visit, service, visit
from test_server import LATER

from chat.server import PAGE, WEB
from chat.server import Page as ServedPage

__all__ = ["browser", "open_page", "service", "visit"]


def worker_of(page: Page) -> Worker:
    """Once it has kept all that it needs."""
    page.evaluate("async () => { await navigator.serviceWorker.ready; }")
    [worker] = page.context.service_workers
    return worker


KEPT = """async () => {
    const cache = await caches.open("chat");
    return (await cache.keys()).map(({ url }) => url.split("/").slice(3).join("/"));
}"""
OLD = """async () => {
    const cache = await caches.open("chat");
    const document = new Response("<h1>old</h1>", { headers: { "Content-Type": "text/html" } });
    await cache.put("./", document);
    await cache.put("/000000000000/app.js", new Response("old"));
}"""


def test_it_is_shown_without_a_network_and_never_old_with_one(
    process: Start, open_page: Open
) -> None:
    replica = process()
    ada = open_page(replica, "Ada", service_workers="allow")
    worker_of(ada)
    ada.evaluate(OLD)
    ada.reload()
    connected(ada)
    # What was kept of the old one goes as soon as the new one is kept.
    old = "(await caches.open('chat')).match('/000000000000/app.js')"
    ada.wait_for_function(f"async () => !(await {old})")
    files = PAGE.files.keys() - {"index.html", "sw.js", "manifest.webmanifest", "icon.png"}
    files -= LATER
    assert set(ada.evaluate(KEPT)) == {"", *(f"{PAGE.version}/{name}" for name in files)}
    # Other addresses of this origin are not the page, such as those of a proxy for signing in.
    other = ada.context.new_page()
    other.goto(f"http://127.0.0.1:{replica.port}/icon.svg")
    expect(other.locator("svg")).to_be_visible()
    replica.popen.kill()
    replica.popen.wait()
    ada.reload()
    state(ada, "waiting")
    process(CHAT_PORT=str(replica.port))
    connected(ada)


class SignIn(BaseHTTPRequestHandler):
    """A proxy that asks people to sign in, at whatever address they come to."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b'<link href="/proxy/style.css"><form>Sign in</form>')


def test_a_form_of_a_proxy_to_sign_in_is_not_kept_in_its_place(
    process: Start, open_page: Open
) -> None:
    replica = process()
    ada = open_page(replica, "Ada", service_workers="allow")
    worker_of(ada)
    connected(ada)
    replica.popen.kill()
    replica.popen.wait()
    with ThreadingHTTPServer(("127.0.0.1", replica.port), SignIn) as proxy:
        serving = Thread(target=proxy.serve_forever)
        serving.start()
        ada.reload()
        expect(ada.get_by_text("Sign in")).to_be_visible()
        proxy.shutdown()
        serving.join()
    ada.reload()
    state(ada, "waiting")


def test_each_change_of_a_file_is_another_version(tmp_path: Path) -> None:
    for path in WEB.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert ServedPage(tmp_path).version == PAGE.version
    (tmp_path / "style.css").write_text("body { color: red }")
    assert ServedPage(tmp_path).version != PAGE.version


def test_a_page_that_is_older_than_the_service_says_so(visit: Visit) -> None:
    log = Log(lobby=[])
    page = visit(log)
    hint = page.get_by_role("alert").filter(has_text="new version")
    newer = re.sub(PAGE.version, "0" * 12, PAGE.files["index.html"].plain.decode())
    page.route("**/", lambda route: route.fulfill(body=newer, content_type="text/html"))
    page.clock.run_for(11_000)
    expect(hint).to_be_visible()
    page.unroute("**/")
    hint.get_by_role("button", name="Reload").click()
    connected(page)
    page.clock.run_for(11_000)
    expect(hint).to_be_hidden()


def test_a_mention_is_notified_when_it_was_asked_for_and_leads_to_its_room(visit: Visit) -> None:
    log = Log(lobby=[], kafka=[])
    page = visit(log, service_workers="allow", permissions=["notifications"])
    worker = worker_of(page)
    page.get_by_label("Join a room").fill("kafka")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=2).first).to_have_text("kafka")
    shown = "self.registration.getNotifications().then(all => all.map(it => [it.title, it.body]))"
    page.evaluate("Object.defineProperty(document, 'hidden', { get: () => true })")
    bell = page.get_by_role("button", name="Notify me")
    expect(bell).to_have_attribute("aria-pressed", "false")
    log.tell("not asked for, Ada")
    expect(page.locator("#rooms .mentioned:visible")).to_have_count(1)
    assert worker.evaluate(shown) == []
    bell.click()
    expect(bell).to_have_attribute("aria-pressed", "true")
    log.tell("for nobody")
    log.tell("for you, Ada")
    expect(page.locator("#rooms .mentioned:visible")).to_contain_text("2 mentions of you")
    page.wait_for_function(
        "() => navigator.serviceWorker.ready.then(it => it.getNotifications())"
        ".then(all => all.length === 1)"
    )
    assert worker.evaluate(shown) == [["Bob · lobby", "for you, Ada"]]
    worker.evaluate(
        """async () => {
            const [notification] = await self.registration.getNotifications();
            self.dispatchEvent(new NotificationEvent("notificationclick", { notification }));
        }"""
    )
    expect(page.get_by_role("heading", level=2).first).to_have_text("lobby")
    assert worker.evaluate(shown) == []


def test_scripts_are_named_by_one_policy_only(browser: Browser, service: Process) -> None:
    """Trusted Types: what others wrote cannot become a script, whatever this page does with it."""
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{service.port}/")
    refused = page.evaluate(
        """() => [
            () => { document.createElement("p").innerHTML = "<b>x</b>"; },
            () => { document.createElement("script").src = "x.js"; },
            () => trustedTypes.createPolicy("another", {}),
        ].map(act => { try { act(); return ""; } catch (error) { return error.name; } })"""
    )
    assert refused == ["TypeError"] * 3
    page.close()


def test_an_icon_is_there_as_the_manifest_and_apple_want_it(visit: Visit) -> None:
    page = visit(Log())
    errors = page.context.new_cdp_session(page).send("Page.getAppManifest")["errors"]
    assert errors == []
    icons = page.evaluate(
        """async () => {
            const manifest = document.querySelector("link[rel=manifest]").href;
            const { icons } = await (await fetch(manifest)).json();
            return Promise.all(icons.map(async ({ src, type, sizes }) => {
                const icon = await fetch(new URL(src, manifest));
                const image = await createImageBitmap(await icon.blob()).catch(() => null);
                return [icon.headers.get("content-type") === type,
                        image ? `${image.width}x${image.height}` : "any", sizes];
            }));
        }"""
    )
    assert icons == [[True, "any", "any"], [True, "512x512", "512x512"]]
    apple = page.locator("link[rel=apple-touch-icon]").get_attribute("href")
    # Apple paints black what is transparent.
    opaque = page.evaluate(
        """async (name) => {
            const image = await createImageBitmap(await (await fetch(name)).blob());
            const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
            context.drawImage(image, 0, 0);
            const { data } = context.getImageData(0, 0, image.width, image.height);
            return data.filter((_, n) => n % 4 === 3).every(opaque => opaque === 255);
        }""",
        apple,
    )
    assert opaque
