"""Kafka's archive: mirrors are tried in order, checksum and signature are verified."""

import hashlib
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hosts import connect, gateway

from playbooks import Run, run

NAME = "kafka_2.13-9.9.9"
DIRECTORY = "/opt/unpacked"


@dataclass
class Mirror:
    """A web server's URL, and the requested paths."""

    url: str
    asked: list[str]


def make_archive(folder: Path, script: str) -> Path:
    """A small archive with the layout of Kafka's."""
    folder.mkdir()
    (folder / "script").write_text(script)
    with tarfile.open(folder / f"{NAME}.tgz", "w:gz") as packed:
        packed.add(folder / "script", f"{NAME}/bin/kafka-topics.sh")
    return folder / f"{NAME}.tgz"


def sign(archive: Path, home: Path) -> Path:
    """Sign with a new key; return the file with its public half."""
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--batch", "--quiet", "--homedir", str(home), "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", home.name, "ed25519", "sign"], check=True)
    subprocess.run([*gpg, "--armor", "--detach-sign", str(archive)], check=True)
    subprocess.run([*gpg, "--armor", "--output", str(home / "KEYS"), "--export"], check=True)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)
    return home / "KEYS"


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    """A web server for the test's folder, on the hosts' network."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, *_: object) -> None:
            asked.append(self.path)

    serve = partial(Handler, directory=str(tmp_path))
    with ThreadingHTTPServer((gateway(), 0), serve) as server:
        Thread(target=server.serve_forever).start()
        yield Mirror(f"http://{server.server_address[0]}:{server.server_port}", asked)
        server.shutdown()


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    connect("host1").check_output("rm -rf %s", DIRECTORY)


def unpack(archive: Path, sources: list[str], **variables: Any) -> Run:
    return run(
        "molecule/kafka/tests/unpack.yml",
        {
            "kafka_distribution_version": "9.9.9",
            "kafka_distribution_directory": DIRECTORY,
            "kafka_distribution_sha512": hashlib.sha512(archive.read_bytes()).hexdigest(),
            "kafka_distribution_archive": [f"{source}/{NAME}.tgz" for source in sources],
        }
        | variables,
    )


def unpacked() -> list[str]:
    return connect("host1").check_output("cat %s/*/bin/kafka-topics.sh", DIRECTORY).splitlines()


def test_the_first_mirror_with_a_complete_signed_archive_is_used(
    mirror: Mirror, tmp_path: Path
) -> None:
    archive = make_archive(tmp_path / "good", "signed\n")
    keys = sign(archive, tmp_path / "signer")
    (tmp_path / "spare").symlink_to(archive.parent)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / archive.name).write_bytes(archive.read_bytes()[:100])
    in_use = connect("host1").file("/opt/kafka").linked_to
    done = unpack(
        archive,
        [f"{mirror.url}/{at}" for at in ("gone", "half", "good", "spare")],
        kafka_distribution_keys=str(keys),
    )
    assert done.succeeded, done.said
    assert unpacked() == ["signed"]
    archives = [path for path in mirror.asked if path.endswith(".tgz")]
    assert archives == [f"/{at}/{archive.name}" for at in ("gone", "half", "good")]
    assert connect("host1").file("/opt/kafka").linked_to == in_use


def test_an_archive_with_a_wrong_checksum_or_signature_is_not_unpacked(
    mirror: Mirror, tmp_path: Path
) -> None:
    first = make_archive(tmp_path / "first", "first\n")
    assert unpack(first, [f"{mirror.url}/first"]).succeeded
    second = make_archive(tmp_path / "second", "second\n")
    refused = unpack(second, [f"{mirror.url}/first"])
    assert not refused.succeeded
    assert "kafka_distribution_sha512" in refused.said
    sign(second, tmp_path / "somebody")
    stranger = sign(make_archive(tmp_path / "third", "third\n"), tmp_path / "stranger")
    refused = unpack(second, [str(second.parent)], kafka_distribution_keys=str(stranger))
    assert not refused.succeeded
    assert "no good signature" in refused.said
    assert unpacked() == ["first"]
