"""An identity provider for a test of the whole system: oidc-provider, over HTTPS."""

from __future__ import annotations

import json
import secrets
import subprocess
from pathlib import Path
from typing import Self

from servers import await_answer, free_port, self_signed

PROGRAMS = Path(__file__).resolve().parents[2] / ".artifacts" / "oidc-provider"
# Longer than any test, in seconds.
LONG = 86400


class Provider:
    """Runs within the block, at `issuer`. Its only client, `chat`, gets ID tokens that are valid
    for `life` seconds, and may redirect to `url`.
    """

    def __init__(self, folder: Path, address: str, url: str, life: int) -> None:
        self._folder = folder
        key, self.ca_file = self_signed(folder, address)
        port = free_port()
        self.issuer = f"https://{address}:{port}"
        self.client_secret = secrets.token_urlsafe(32)
        client = {
            "client_id": "chat",
            "client_secret": self.client_secret,
            "redirect_uris": [f"{url}oauth2/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        }
        lives = {"IdToken": life, "AccessToken": life, "RefreshToken": LONG, "Session": LONG}
        self._settings = {
            "issuer": self.issuer,
            "address": address,
            "port": port,
            "tls": {"key": key.read_text(), "cert": self.ca_file.read_text()},
            "clients": [client],
            "lifetimes": lives,
        }

    def __enter__(self) -> Self:
        with (self._folder / "provider.log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAMS / "node/bin/node", PROGRAMS / "provider.js"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._settings).encode())
        self._process.stdin.close()
        discovery = f"{self.issuer}/.well-known/openid-configuration"
        try:
            await_answer(discovery, self.ca_file, self._folder / "provider.log")
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
