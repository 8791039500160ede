"""The image on one machine: replicas that share a room, isolated replicas, and compose.yml."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import requests
from chat_client import ChatClient
from conftest import ROOT, joined
from kafka_broker import free_port
from replicas import connect_elsewhere

from chat.client import Message, connect

ARTIFACTS = ROOT / ".artifacts"
Run = Callable[..., list[int]]


def podman(*arguments: str, command: str = "podman", **environment: str) -> str:
    settings = {"CONTAINERS_CONF": str(ROOT / "sandbox" / "hosts" / "containers.conf")}
    done = subprocess.run(
        [command, *arguments],
        env=os.environ | settings | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image, built as on a site without internet, from a checkout made under umask 077."""
    pip = tmp_path_factory.mktemp("pip") / "pip.conf"
    pip.write_text("[global]\nno-index = true\nfind-links = /run/wheels\n")
    subprocess.run([ROOT / "sandbox" / "hosts" / "leave-root-cgroup"], check=True)
    podman("load", "--quiet", "--input", str(ARTIFACTS / "python" / "python.tar"))
    source = tmp_path_factory.mktemp("source") / "chat"
    shutil.copytree(ROOT / "chat", source, ignore=shutil.ignore_patterns("*.pyc"))
    subprocess.run(["chmod", "--recursive", "go=", source], check=True)
    name = f"localhost/chat-test-{uuid.uuid4().hex[:8]}"
    wheels = (ARTIFACTS / "wheels").resolve()
    volumes = [f"--volume={wheels}:/run/wheels:ro", f"--volume={pip}:/etc/pip.conf:ro"]
    base = "--build-arg=BASE=localhost/python:3.11"
    podman("build", "--quiet", "--tag", name, base, *volumes, str(source))
    yield name
    podman("rmi", "--force", name)


@pytest.fixture
def run(image: str) -> Iterator[Run]:
    """Run three replicas as the cluster does, without privileges. Returns their ports."""
    containers: list[str] = []

    def run(**environment: str) -> list[int]:
        ports = []
        for _ in range(3):
            port = free_port()
            ports.append(port)
            told = environment | {"CHAT_PORT": str(port), "CHAT_INTERNAL_PORT": "0"}
            options = [f"--env={name}={value}" for name, value in told.items()]
            limits = ["--read-only", "--cap-drop=all", "--network=host"]
            containers.append(podman("run", "--detach", *limits, *options, image))
        for container in containers:
            deadline = time.monotonic() + 30
            while "page on port" not in (log := podman_logs(container)):
                assert time.monotonic() < deadline, f"it does not listen:\n{log}"
                time.sleep(0.1)
        return ports

    yield run
    podman("rm", "--force", "--time=0", *containers)


def podman_logs(container: str) -> str:
    done = subprocess.run(["podman", "logs", container], capture_output=True, text=True)
    return done.stdout + done.stderr


async def test_three_containers_share_a_room_through_kafka(run: Run, kafka: dict[str, str]) -> None:
    async with AsyncExitStack() as stack:
        people = [await stack.enter_async_context(ChatClient(port)) for port in run(**kafka)]
        for client in people:
            await joined(client)
        await people[0].send("lobby", "Hello from the first")
        for client in people:
            assert await client.texts("lobby", 1) == ["Hello from the first"]


async def test_without_kafka_each_container_is_an_island(run: Run) -> None:
    ports = run(KAFKA_ENABLED="false")
    async with ChatClient(ports[0]) as ada, ChatClient(ports[1]) as bob:
        for client in (ada, bob):
            await joined(client)
        await ada.send("lobby", "Is anybody there?")
        await bob.send("lobby", "Nobody told me")
        assert await bob.texts("lobby", 1) == ["Nobody told me"]


def test_the_image_has_all_that_webhooks_need(image: str, tmp_path: Path) -> None:
    """With files as Kubernetes mounts a Secret: of root, for the group of the pod."""
    texts = {
        "webhooks.toml": """
chat = "http://chat.chat.svc:8080/"
state = "secret:chat/webhooks-state"
webhooks = [{name = "a", room = "lobby", url = "https://example.org/", secret_file = "secret-0"}]
""",
        "secret-0": "whsec_" + 32 * "A",
    }
    tmp_path.chmod(0o755)
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o440)
        os.chown(tmp_path / name, 0, 10001)
    limits = ["--rm", "--read-only", "--cap-drop=all", "--entrypoint=python"]
    volume = f"--volume={tmp_path}:/config:ro"
    command = ["-m", "chat.webhook", "--check", "/config/webhooks.toml"]
    assert podman("run", *limits, volume, image, *command) == ""


def status(url: str) -> int | None:
    try:
        return requests.get(url, timeout=5).status_code
    except requests.ConnectionError:
        return None


@pytest.fixture
def composed(image: str, kafka_home: Path, tmp_path: Path) -> Iterator[str]:
    """compose.yml with local images. Returns the address of its Traefik."""
    podman("load", "--quiet", "--input", str(ARTIFACTS / "traefik" / "traefik.tar"))
    java = Path("/usr/bin/java").resolve().parent
    # This machine's Java, and Kafka's archive at the place where its published image has it.
    mounts = ["/usr:/usr:ro", "/etc/java-17-openjdk:/etc/java-17-openjdk:ro"]
    kafka = {
        "image": "localhost/python:3.11",
        "volumes": [*mounts, f"{kafka_home}:/opt/kafka:ro"],
        "environment": {"PATH": f"{java}:/usr/bin:/bin"},
    }
    services = dict.fromkeys(("zookeeper", "kafka", "topics"), kafka)
    here = tmp_path / "here.json"
    here.write_text(
        json.dumps({"services": services | {name: {"image": image} for name in ("chat1", "chat2")}})
    )
    port = str(free_port())
    files = [f"--file={ROOT / 'compose.yml'}", f"--file={here}"]
    project = [f"--project-name=compose-{uuid.uuid4().hex[:8]}", *files]
    try:
        podman(*project, "up", "--detach", "--no-build", command="podman-compose", PORT=port)
        url = f"http://127.0.0.1:{port}/"
        # Traefik answers 404 until it has read its file, and then 502 until a replica listens.
        deadline = time.monotonic() + 60
        while status(url) != 200:
            assert time.monotonic() < deadline, f"Traefik answers {status(url)}"
            time.sleep(0.1)
        yield url
    finally:
        podman(*project, "down", "--timeout=0", command="podman-compose", PORT=port)


async def test_compose_runs_two_replicas_behind_traefik(composed: str) -> None:
    async with (
        connect(composed, "ada", open_seconds=60) as ada,
        connect_elsewhere(composed, "bob", ada.replica) as bob,
        asyncio.timeout(60),
    ):
        room = bob.room("lobby")
        await room.joined()
        await ada.send("lobby", "Hello from the other replica")
        heard = await anext(room)
    assert isinstance(heard, Message)
    assert heard.text == "Hello from the other replica"
