"""The load generator counts what is delivered, however it is cut up, and accepts nothing less.

A server of a few lines plays what the real ones might do.
"""

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
WSLOAD = ROOT / ".artifacts" / "wsload" / "wsload"
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, 1.3

# What a member is sent for the frames that were said in its room: any number of writes.
Deliver = Callable[[list[bytes]], Iterable[bytes]]


def whole(frames: list[bytes]) -> Iterable[bytes]:
    return frames


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    subprocess.run([ROOT / "sandbox" / "build", "--from", "bench", "wsload"], check=True)


async def put_load_on(deliver: Deliver, *options: str) -> tuple[dict[str, Any], str]:
    """Result and complaint of the load."""
    members: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n".encode())
        members.add(writer)
        try:
            while chunk := await reader.read(65536):
                frames = [server_frame(text) for text in texts(chunk)]
                for member in members:
                    for piece in deliver(frames):
                        member.write(piece)
                        # What is written in one turn of the loop would arrive in one piece.
                        await member.drain()
                        await asyncio.sleep(0)
        except ConnectionError:
            pass
        finally:
            members.discard(writer)
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        load = await asyncio.create_subprocess_exec(
            WSLOAD,
            "--clients=3",
            "--warm-up=0",
            "--seconds=0.1",
            "--interval=0.01",
            *options,
            str(port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, complaint = await load.communicate()
    return json.loads(output or "{}"), complaint.decode()


def texts(chunk: bytes) -> Iterable[bytes]:
    """The texts of a client's frames; a chunk has whole ones, for they are small."""
    while chunk:
        length, header = chunk[1] & 127, 2
        if length == 126:
            length, header = int.from_bytes(chunk[2:4]), 4
        mask = chunk[header : header + 4]
        masked = chunk[header + 4 : header + 4 + length]
        yield bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked))
        chunk = chunk[header + 4 + length :]


def server_frame(text: bytes) -> bytes:
    if len(text) < 126:
        return bytes([0x81, len(text)]) + text
    return b"\x81\x7e" + len(text).to_bytes(2) + text


@pytest.mark.parametrize("size", [100, 190])
@pytest.mark.parametrize("step", [1, 2, 3, 50, 191, 100_000])
async def test_every_delivery_is_counted_wherever_the_stream_is_cut(step: int, size: int) -> None:
    def cut(frames: list[bytes]) -> Iterable[bytes]:
        stream = b"".join(frames)
        return (stream[i : i + step] for i in range(0, len(stream), step))

    result, complaint = await put_load_on(cut, "--burst=3", f"--size={size}")
    assert complaint == ""
    assert result["messages"] > 0
    assert result["messages"] % 3 == 0
    assert result["deliveries"] == 3 * result["messages"]
    assert result["delivered_bytes"] == size


async def test_several_messages_in_one_frame_are_each_a_delivery() -> None:
    def joined(frames: list[bytes]) -> Iterable[bytes]:
        return [server_frame(b"\n".join(frame[frame.index(b"@@") :] for frame in frames))]

    result, complaint = await put_load_on(joined, "--burst=10")
    assert complaint == ""
    assert result["deliveries"] == 3 * result["messages"]


async def test_pings_and_frames_that_are_no_messages_are_not_counted() -> None:
    def with_noise(frames: list[bytes]) -> Iterable[bytes]:
        return [b"\x89\x00", *frames, server_frame(b"anything else")]

    result, complaint = await put_load_on(with_noise, "--seconds=0.02")
    assert complaint == ""
    assert result["deliveries"] == 3 * result["messages"]


@pytest.mark.parametrize(
    ("deliver", "complaint"),
    [
        (lambda frames: frames[:1] + frames[2:], "message 4 of client 0 after message 2"),
        (
            lambda frames: frames[:1] + frames[:1] + frames[1:],
            "message 1 of client 0 after message 1",
        ),
        (lambda frames: frames[::-1], "message 4 of client 0 after message 1"),
    ],
    ids=["lost", "repeated", "misordered"],
)
async def test_a_run_that_breaks_the_order_has_no_result(deliver: Deliver, complaint: str) -> None:
    result, said = await put_load_on(deliver, "--burst=3")
    assert complaint in said
    assert result == {}


async def test_a_server_that_closes_has_no_result() -> None:
    result, said = await put_load_on(lambda _: [b"\x88\x05\x03\xf5\x66\x75\x6c"], "--burst=3")
    assert "closed the connection: 1013 ful" in said
    assert result == {}


async def test_every_sender_is_followed_in_its_own_room() -> None:
    """Three clients in three rooms would hear of each other from a server that knows one room."""
    _, said = await put_load_on(whole, "--senders=3", "--rooms=3", "--rate=1000")
    assert "is in another room" in said
    result, said = await put_load_on(whole, "--senders=3", "--rate=1000")
    assert said == ""
    assert result["deliveries"] > 0


async def test_a_window_keeps_as_many_messages_under_way() -> None:
    result, said = await put_load_on(whole, "--senders=2", "--window=4")
    assert said == ""
    assert result["deliveries"] > 0


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--clients=none", "--clients 'none': give a number from 1 to 65535"),
        ("--dialect=irc", "no dialect is called 'irc'"),
        ("--senders=5", "3 clients cannot be 5 senders"),
        ("--size=20", "give --size at least that"),
    ],
)
async def test_an_option_that_cannot_work_is_named(option: str, complaint: str) -> None:
    _, said = await put_load_on(whole, option)
    assert complaint in said
