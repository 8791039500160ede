"""Pebble: Let's Encrypt's own ACME server for tests, with a DNS server for the test's names."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Self

import requests
from servers import await_answer, free_port, self_signed

PROGRAMS = Path(__file__).resolve().parents[2] / ".artifacts" / "pebble"


class Pebble:
    """Runs within the block. It validates all names at `http_port` of `target`.

    Clients reach it at `address`. Its files are in `folder`.
    """

    def __init__(self, folder: Path, address: str, target: str, http_port: int) -> None:
        self._folder = folder
        self._address = address
        self._target = target
        self._port, self._management, self._dns = free_port(), free_port(), free_port()
        key, self.ca_file = self_signed(folder, address)
        settings = {
            "listenAddress": f"{address}:{self._port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(self.ca_file),
            "privateKey": str(key),
            "httpPort": http_port,
            "keyAlgorithm": "ecdsa",
            "retryAfter": {"authz": 1, "order": 1},
        }
        self._config = folder / "pebble.json"
        self._config.write_text(json.dumps({"pebble": settings}))

    def __enter__(self) -> Self:
        dns = f"127.0.0.1:{self._dns}"
        # By default, Pebble delays validations by up to 15 s and refuses one nonce in twenty.
        quick = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        off = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-management", ""]
        names = ["-dnsserver", dns, "-defaultIPv4", self._target, "-defaultIPv6", ""]
        with (self._folder / "pebble.log").open("ab") as log:
            self._processes = [
                subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | quick)
                for command in (
                    [PROGRAMS / "pebble-challtestsrv", *off, *names],
                    [PROGRAMS / "pebble", "-config", self._config, "-dnsserver", dns],
                )
            ]
        try:
            await_answer(self.directory, self.ca_file, self._folder / "pebble.log")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    @property
    def directory(self) -> str:
        return f"https://{self._address}:{self._port}/dir"

    @property
    def root(self) -> str:
        """The signing authority's certificate in PEM. Each start makes a new one."""
        url = f"https://127.0.0.1:{self._management}/roots/0"
        return requests.get(url, timeout=5, verify=str(self.ca_file)).text
