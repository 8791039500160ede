"""Helpers for servers on this machine that hosts and pods connect to."""

import socket
import subprocess
import time
from pathlib import Path

import requests

PATIENCE_SECONDS = 20


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def address_towards(other: str) -> str:
    """This machine's address in the network of `other`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((other, 9))
        found: str = probe.getsockname()[0]
        return found


def self_signed(folder: Path, address: str) -> tuple[Path, Path]:
    """A key, and a self-signed certificate for the address and for loopback."""
    key, certificate = folder / "server.key", folder / "server.crt"
    subject = "req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=server"
    names = f"-addext subjectAltName=IP:{address},IP:127.0.0.1"
    files = ["-keyout", key, "-out", certificate]
    command = ["openssl", *subject.split(), *names.split(), *files]
    subprocess.run(command, check=True, capture_output=True)
    return key, certificate


def await_answer(url: str, ca_file: Path, log: Path) -> None:
    """Wait until a server responds that has just been started. Raises RuntimeError with its log if
    it does not.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            requests.get(url, timeout=5, verify=str(ca_file)).raise_for_status()
        except requests.ConnectionError:
            if time.monotonic() > deadline:
                raise RuntimeError(log.read_text()) from None
            time.sleep(0.05)
        else:
            return
