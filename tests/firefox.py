"""Debian's Firefox by WebDriver BiDi, which it speaks itself. Playwright needs its own Firefox,
and Debian 12 has no geckodriver. Only what tests of the page's main paths need.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PROGRAM = "/usr/bin/firefox-esr"
PATIENCE_SECONDS = 30.0
# Of the keys that are no characters; https://www.w3.org/TR/webdriver/#keyboard-actions
KEYS = {
    "Tab": "\ue004",
    "Enter": "\ue007",
    "Shift": "\ue008",
    "Escape": "\ue00c",
    "ArrowUp": "\ue013",
}


class Tab:
    """A window of its own, with storage of its own, as of another person."""

    def __init__(self, firefox: Firefox, context: str) -> None:
        self.firefox = firefox
        self.context = context

    def goto(self, url: str) -> None:
        self.firefox.ask("browsingContext.navigate", context=self.context, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, as JSON has it."""
        result = self.firefox.ask(
            "script.evaluate",
            expression=f"JSON.stringify({expression})",
            target={"context": self.context},
            awaitPromise=True,
        )
        assert result["type"] == "success", result
        return json.loads(result["result"].get("value", "null"))

    def press(self, *keys: str) -> None:
        """Press each key, or each letter of a text. Shift is held for the next one."""
        actions = []
        held = False
        for key in keys:
            for value in [KEYS[key]] if key in KEYS else key:
                actions.append({"type": "keyDown", "value": value})
                if key == "Shift":
                    held = True
                    continue
                actions.append({"type": "keyUp", "value": value})
                if held:
                    actions.append({"type": "keyUp", "value": KEYS["Shift"]})
                    held = False
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        self.firefox.ask("input.performActions", context=self.context, actions=[keyboard])

    def sees(self, expression: str, value: object) -> None:
        """Wait until an expression has a value."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := self.evaluate(expression)) != value:
            assert time.monotonic() < deadline, f"{expression}: {found!r}, not {value!r}"
            time.sleep(0.05)


class Firefox:
    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        # What pages logged as an error.
        self.errors: list[str] = []
        # Nobody told this browser of authorities that a site makes.
        capabilities = {"alwaysMatch": {"acceptInsecureCerts": True}}
        self.ask("session.new", capabilities=capabilities)
        self.ask("session.subscribe", events=["log.entryAdded"])

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._connection.recv(timeout=PATIENCE_SECONDS))
            if answer.get("method") == "log.entryAdded" and answer["params"]["level"] == "error":
                self.errors.append(answer["params"]["text"])
            if answer.get("id") == number:
                assert answer["type"] == "success", answer
                result: dict[str, Any] = answer["result"]
                return result

    def open(self) -> Tab:
        user = self.ask("browser.createUserContext")["userContext"]
        created = self.ask("browsingContext.create", type="window", userContext=user)
        return Tab(self, created["context"])


@contextlib.contextmanager
def firefox(folder: Path) -> Iterator[Firefox]:
    """A Firefox with a new profile. It asks nobody for anything that the pages did not ask for."""
    profile = folder / "profile"
    profile.mkdir()
    (profile / "user.js").write_text(
        'user_pref("remote.active-protocols", 1);\n'
        'user_pref("intl.accept_languages", "en-GB");\n'
        'user_pref("browser.startup.page", 0);\n'
        'user_pref("app.update.enabled", false);\n'
        'user_pref("network.connectivity-service.enabled", false);\n'
        'user_pref("network.captive-portal-service.enabled", false);\n'
        'user_pref("datareporting.policy.dataSubmissionEnabled", false);\n'
        'user_pref("services.settings.server", "data:,");\n'
    )
    log = folder / "firefox.log"
    command = [PROGRAM, "--headless", "--no-remote", "--profile", str(profile)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--remote-debugging-port", "0", "about:blank"],
            env=os.environ | {"HOME": str(folder)},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := re.search(r"BiDi listening on (ws://\S+)", log.read_text())):
            assert process.poll() is None, f"it ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"it does not listen:\n{log.read_text()}"
            time.sleep(0.05)
        with connect(f"{found[1]}/session", max_size=None) as connection:
            yield Firefox(connection)
    finally:
        process.terminate()
        process.wait()
