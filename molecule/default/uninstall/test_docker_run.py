"""The talk's `docker run`, with the image from the cluster's registry: three containers, one room.

This test runs once. Those in the folder `tests` run again after the faults.
"""

import asyncio
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cluster import deployed_image
from hosts import ROOT, address, group
from kafka_clients import BROKERS, CERTIFICATES, kept_password

from chat.client import Message
from chat.client import connect as chat

PORTS = (3030, 3031, 3032)


def podman(*arguments: str) -> str:
    settings = {"CONTAINERS_CONF": str(ROOT / "sandbox" / "hosts" / "containers.conf")}
    done = subprocess.run(
        ["podman", *arguments], env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The image that the cluster runs, by its name outside the cluster."""
    name = deployed_image().replace("localhost", address(group("microk8s")[0]), 1)
    podman("pull", "--quiet", "--tls-verify=false", name)
    yield name
    podman("rmi", "--force", name)


@pytest.fixture
def urls(image: str, tmp_path: Path) -> Iterator[list[str]]:
    settings = {
        "KAFKA_ENABLED": "true",
        "KAFKA_BOOTSTRAP_SERVERS": ",".join(f"{address(name)}:9093" for name in BROKERS),
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_CA_FILE": "/kafka/ca.crt",
        "KAFKA_SASL_USERNAME": "chat",
        "KAFKA_SASL_PASSWORD_FILE": "/kafka/password",
    }
    # Copies, because the image's user may not read the originals.
    tmp_path.chmod(0o755)
    shutil.copy(CERTIFICATES / "ca.crt", tmp_path)
    (tmp_path / "password").write_text(kept_password("chat"))
    kafka = [f"--volume={tmp_path}:/kafka:ro"]
    kafka += [f"--env={name}={value}" for name, value in settings.items()]
    names = [f"docker-run-{port}" for port in PORTS]
    try:
        for name, port in zip(names, PORTS, strict=True):
            podman("run", "--name", name, "-p", f"{port}:8080", "-d", *kafka, image)
        yield [f"http://127.0.0.1:{port}/" for port in PORTS]
    finally:
        podman("rm", "--force", "--ignore", "--time=0", *names)


async def test_three_containers_share_a_room_through_kafka(urls: list[str]) -> None:
    name = f"room-{uuid.uuid4()}"
    async with AsyncExitStack() as stack:
        people = [
            await stack.enter_async_context(chat(url, f"user{number}"))
            for number, url in enumerate(urls)
        ]
        rooms = [one.room(name) for one in people]
        async with asyncio.timeout(30):
            for room in rooms:
                await room.joined()
            for number, one in enumerate(people):
                await one.send(name, f"Hello from {number}")
            heard = [[await anext(room) for _ in people] for room in rooms]
    assert all(isinstance(event, Message) for event in heard[0])
    # The same order and the same ids.
    assert heard[0] == heard[1] == heard[2]
    assert len({one.replica for one in people}) == len(PORTS)
