"""The browser in which the page is tried: Debian's Chromium, as it runs in containers, too."""

from playwright.sync_api import Browser, Page, Playwright, expect

PROGRAM = "/usr/bin/chromium"
ARGUMENTS = [
    # A container or a confined machine has no room for its own sandbox.
    "--no-sandbox",
    "--disable-gpu",
    # It asks nobody for anything that the page did not ask for.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=PROGRAM, args=ARGUMENTS)


def sign_in(page: Page, who: str) -> Page:
    """Give a name, and wait until the page is connected."""
    give_name(page, who)
    expect(page.get_by_role("status")).to_have_attribute("data-state", "connected")
    return page


def give_name(page: Page, who: str) -> None:
    """Follow the page's link, and give a name on the pages of oidc-provider."""
    page.get_by_role("link", name="Sign in").click()
    page.locator("[name=login]").fill(who)
    page.locator("[name=password]").fill("x")
    page.get_by_role("button").click()
    page.get_by_role("button", name="Continue").click()
