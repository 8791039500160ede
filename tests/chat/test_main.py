"""The service as a process: start, end, and log output."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest
from chat_client import ChatClient
from conftest import ENVIRONMENT, ROOT, Process, Replica, joined
from test_server import get

Start = Callable[..., Process]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chat", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_setting_that_cannot_work_is_one_line_and_exit_code_2() -> None:
    ended = run(CHAT_PORT="eighty")
    assert ended.returncode == 2
    assert ended.stderr == "chat: CHAT_PORT='eighty': give a whole number from 0 to 65535\n"
    assert ended.stdout == ""


def test_a_port_that_is_taken_is_one_line_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run(**ENVIRONMENT | {"CHAT_PORT": port})
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert f"port {port}" in ended.stderr


def test_help_names_every_variable() -> None:
    ended = run("--help")
    assert ended.returncode == 0
    assert "KAFKA_BOOTSTRAP_SERVERS" in ended.stdout
    assert "CHAT_DRAIN_SECONDS" in ended.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_with_0(
    process: Start, log: dict[str, str], number: signal.Signals
) -> None:
    replica = process(log)
    async with ChatClient(replica.port) as ada:
        await joined(ada)
        await ada.send("lobby", "hello")
        replica.popen.send_signal(number)
        code, reason = await ada.closed()
        assert code == 1012
        assert "retry_after=" in reason
    assert await asyncio.to_thread(replica.popen.wait, 20) == 0
    assert "drained" in replica.log.read_text()
    assert "Traceback" not in replica.log.read_text()


async def test_a_client_that_does_not_answer_does_not_hold_it_up(process: Start) -> None:
    replica = process(CHAT_DRAIN_SECONDS="0.5")
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: chat\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    replica.popen.terminate()
    assert await asyncio.to_thread(replica.popen.wait, 10) == 0
    writer.close()


async def test_without_kafka_each_process_is_an_island(process: Start) -> None:
    one, other = process(), process()
    async with ChatClient(one.port, "ada") as ada, ChatClient(other.port, "bob") as bob:
        here, there = await ada.join("lobby"), await bob.join("lobby")
        await ada.send("lobby", "anybody?")
        await bob.send("lobby", "alone")
        assert await bob.texts("lobby", 1) == ["alone"]
        # And their positions show it: each rejects those of the other.
        assert (await bob.join("lobby", since=here["position"]))["recovered"] is False
        assert here["position"] != there["position"]


async def test_the_log_says_which_client_and_room_and_never_what_was_written(
    process: Start,
) -> None:
    replica = process(CHAT_LOG_FORMAT="json", CHAT_LOG_LEVEL="debug", CHAT_REPLICA="chat-one")
    async with ChatClient(replica.port, "ada") as ada:
        await ada.join("kitchen")
        await ada.send("kitchen", "the key is under the mat")
        await ada.refused(type="send", room="kitchen", text="\a", cid="1")
    replica.popen.terminate()
    assert await asyncio.to_thread(replica.popen.wait, 20) == 0
    written = replica.log.read_text()
    lines = [json.loads(line) for line in written.splitlines()]
    assert {line["replica"] for line in lines} == {"chat-one"}
    about = [(one["message"], one.get("client"), one.get("room")) for one in lines]
    assert ("joined", 1, "kitchen") in about
    assert ("refused: bad_text", 1, "kitchen") in about
    assert ("gone", 1, None) in about
    assert "under the mat" not in written
    assert "ada" not in written


async def test_by_default_clients_come_and_go_without_a_word(process: Start) -> None:
    replica = process()
    before = replica.log.read_text()
    for _ in range(3):
        async with ChatClient(replica.port, "ada") as ada:
            await ada.join("lobby")
            await ada.refused(type="dance")
    assert replica.log.read_text() == before


async def test_why_a_replica_is_not_ready_is_logged_once_per_change(
    replica: Replica, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chat")
    server = await replica(CHAT_DRAIN_DELAY_SECONDS="0.2")
    for _ in range(3):
        await get(server.internal_port, "/readyz")
    draining = asyncio.create_task(server.drain())
    await asyncio.sleep(0)
    for _ in range(3):
        await get(server.internal_port, "/readyz")
    await draining
    said = [line.message for line in caplog.records if "ready" in line.message]
    assert said == ["ready", "not ready: restarting"]
