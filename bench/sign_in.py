"""What a handshake costs where browsers sign in: the processor time of Traefik, oauth2-proxy and
the chat together, for a client that connects, says `hello` and disconnects.

Three ways take turns. `off`: through Traefik to a chat that asks nobody who they are. `token`:
through Traefik to a chat that requires tokens, with one. `cookie`: the same with the cookie of
somebody who has signed in, which Traefik shows to oauth2-proxy. Traefik and oauth2-proxy have the
settings of the roles; the provider is the one of the tests.

    .venv/bin/python bench/sign_in.py --rounds 5

Run `sandbox/build traefik` and `sandbox/build --from sandbox/test-artifacts` first.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import websockets.asyncio.client as websockets
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), *(str(ROOT / name) for name in ("tests/chat", "tests"))]

from test_sign_in import (  # noqa: E402
    KEY,
    UNVERIFIED,
    Program,
    Site,
    bot_token,
    cookie_of,
    jwks,
    provider_on,
    registered,
    signing_in,
)

from bench.edge import replica, routing  # noqa: E402
from bench.run import cpu_seconds  # noqa: E402
from tests.chromium import launch, sign_in  # noqa: E402
from tests.kafka_broker import free_port  # noqa: E402
from tests.traefik import traefik  # noqa: E402

AT_ONCE = 10
PARTS = "Traefik", "oauth2-proxy", "chat"


@contextlib.contextmanager
def site_of(folder: Path) -> Iterator[Site]:
    port, provider_port = free_port(), free_port()
    keys = folder / "bots.json"
    keys.write_bytes(jwks(KEY))
    issuers = [
        {"issuer": f"http://127.0.0.1:{provider_port}", "audience": "chat"},
        {"issuer": "bots", "audience": "chat", "jwks": str(keys)},
    ]

    def provider(client: dict[str, str]) -> Program:
        lifetimes = dict.fromkeys(("IdToken", "AccessToken", "RefreshToken", "Session"), 3600)
        return provider_on(
            provider_port, folder, {"clients": [registered(client)], "lifetimes": lifetimes}
        )

    with signing_in(folder, port, provider, issuers, oauth2_proxy_token_seconds=3600) as site:
        yield site


def cookie(site: Site) -> str:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_context(ignore_https_errors=True, service_workers="block").new_page()
        page.goto(site.address)
        found = cookie_of(sign_in(page, "ada"))
        browser.close()
    return found


async def shake(port: int, headers: dict[str, str], count: int) -> None:
    async def one() -> None:
        async with turns:
            client = await websockets.connect(
                f"wss://localhost:{port}/ws",
                ssl=UNVERIFIED,
                additional_headers=headers,
                compression=None,
                open_timeout=60,
            )
            await client.send(json.dumps({"type": "hello", "user": "ada"}))
            assert json.loads(await client.recv())["type"] == "welcome"
            client.transport.abort()

    turns = asyncio.Semaphore(AT_ONCE)
    await asyncio.gather(*(one() for _ in range(count)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument("--clients", type=int, default=300, help="handshakes in each (300)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as ending:
        folder = Path(name)
        site = ending.enter_context(site_of(folder))
        (folder / "off").mkdir()
        chat, chat_port = ending.enter_context(replica(folder / "off" / "replica.log"))
        port = free_port()
        settings = {"entryPoints": {"websecure": {"address": f"127.0.0.1:{port}"}}}
        way_in = ending.enter_context(traefik(folder / "off", port, settings, routing([chat_port])))
        assert site.proxy.popen is not None
        pids = [site.traefik.pid, site.proxy.popen.pid, site.chats[0].popen.pid]
        ways = {
            "off": (port, {}, [way_in.pid, site.proxy.popen.pid, chat]),
            "token": (site.port, {"Authorization": f"Bearer {bot_token()}"}, pids),
            "cookie": (site.port, {"Cookie": cookie(site)}, pids),
        }
        spent: dict[str, list[list[float]]] = {way: [] for way in ways}
        for number in range(-1, options.rounds):
            for way, (where, headers, whose) in ways.items():
                before = [cpu_seconds(pid) for pid in whose]
                asyncio.run(shake(where, headers, options.clients))
                used = [
                    (cpu_seconds(pid) - then) / options.clients * 1e3
                    for pid, then in zip(whose, before, strict=True)
                ]
                # The first round warms up.
                if number >= 0:
                    spent[way].append(used)
    print(f"ms of CPU time per handshake, {options.clients} in each of {options.rounds} rounds;")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    for way, rounds in spent.items():
        parts = (
            f"{name} {statistics.median(used[number] for used in rounds):.2f}"
            for number, name in enumerate(PARTS)
        )
        more = [sum(one) - sum(off) for one, off in zip(rounds, spent["off"], strict=True)]
        print(
            f"{way:7} {', '.join(parts)}; all {statistics.median(map(sum, rounds)):.2f};"
            f" more than off {statistics.median(more):+.2f} ({min(more):+.2f} to {max(more):+.2f})"
        )


if __name__ == "__main__":
    main()
