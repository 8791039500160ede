"""The browser in which the page is tried: Debian's Chromium, as it runs in containers, too."""

from playwright.sync_api import Browser, Playwright

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
