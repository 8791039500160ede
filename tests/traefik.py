"""Traefik as a program on this machine, from the image that the sandbox has."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

IMAGE = Path(__file__).parent.parent / ".artifacts/traefik/traefik.tar"
PATIENCE_SECONDS = 30.0


def unpack(folder: Path) -> Path:
    """The program. Raises `FileNotFoundError` if `sandbox/build traefik` has not been run."""
    with tarfile.open(IMAGE) as image:
        (layer,) = (each for each in image if each.isfile() and each.name.endswith(".tar"))
        with tarfile.open(fileobj=image.extractfile(layer)) as files:
            files.extract("usr/local/bin/traefik", folder)
    return folder / "usr/local/bin/traefik"


@contextlib.contextmanager
def traefik(
    folder: Path, port: int, settings: dict[str, Any], routing: dict[str, Any]
) -> Iterator[subprocess.Popen[bytes]]:
    """Traefik with static settings, in which an entry point for TLS has the port, and routing."""
    (folder / "routing.yml").write_text(yaml.safe_dump(routing))
    providers = {"file": {"filename": str(folder / "routing.yml"), "watch": False}}
    (folder / "traefik.yml").write_text(yaml.safe_dump(settings | {"providers": providers}))
    with (folder / "traefik.log").open("wb") as log:
        process = subprocess.Popen(
            [unpack(folder), f"--configFile={folder / 'traefik.yml'}"], stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _routes(port):
            log_text = (folder / "traefik.log").read_text()
            assert process.poll() is None, f"it ended:\n{log_text}"
            assert time.monotonic() < deadline, f"it does not route:\n{log_text}"
            time.sleep(0.05)
        yield process
    finally:
        # Ended otherwise, it would let its clients go on for as long as its settings say.
        process.kill()
        process.wait()


def _routes(port: int) -> bool:
    """Whether it has read its routing. Before that, it accepts connections and says nothing, and
    then it knows no path.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=1, context=context)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status != http.HTTPStatus.NOT_FOUND
    except OSError:
        return False
    finally:
        connection.close()
