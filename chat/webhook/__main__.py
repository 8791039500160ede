"""`python -m chat.webhook FILE`: POST what happens in rooms to URLs, until SIGTERM or SIGINT.

Exit codes: 0: it was stopped, or there was only something to check. 1: it could not start. 2: the
configuration is invalid. 3: a part of it ended by itself; the last lines of the log say which, and
why.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import prometheus_client

from chat import logs
from chat.kubernetes import Secrets
from chat.webhook.config import ConfigError, Loaded, load
from chat.webhook.folder import opened
from chat.webhook.metrics import Metrics
from chat.webhook.receiver import Receiver
from chat.webhook.secret import Secret
from chat.webhook.sender import Sender
from chat.webhook.state import Keeper, StateError, Store, name_key

log = logging.getLogger("chat.webhook")

# Looking up a host's name may hang for longer than a request, and must not hold up others.
THREADS_PER_WEBHOOK = 4


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chat.webhook", description=__doc__)
    parser.add_argument("file", metavar="FILE", type=Path, help="the configuration, in TOML")
    parser.add_argument(
        "--check", action="store_true", help="only check the configuration, and the files it names"
    )
    arguments = parser.parse_args()
    try:
        loaded = load(arguments.file)
    except ConfigError as error:
        print(f"chat.webhook: {error}", file=sys.stderr)
        return 2
    if arguments.check:
        return 0
    logs.configure(loaded.config.log_level, loaded.config.log_format, socket.gethostname())
    try:
        with keeping(loaded) as keeper:
            metrics = Metrics()
            senders = make_senders(loaded, metrics, keeper)
            if address := loaded.config.metrics_address:
                prometheus_client.start_http_server(
                    address[1], address[0], registry=metrics.registry
                )
            return asyncio.run(run(senders))
    except (StateError, OSError) as error:
        print(f"chat.webhook: {error}", file=sys.stderr)
        return 1


def keeping(loaded: Loaded) -> contextlib.AbstractContextManager[Keeper]:
    """What keeps the state. Raises `StateError` and `OSError`."""
    if loaded.state_secret:
        return contextlib.nullcontext(Secret(Secrets(), loaded.state_secret))
    return opened(loaded.state)


def make_senders(loaded: Loaded, metrics: Metrics, keeper: Keeper) -> list[Sender]:
    """Raises `StateError` and `OSError`."""
    config, file = loaded.config, loaded.token_file
    key = name_key(keeper)
    return [
        Sender(
            webhook,
            Store(keeper, webhook.name),
            Receiver(webhook.url, loaded.secrets[webhook.name]),
            metrics,
            chat=config.chat,
            user=config.user,
            key=key,
            token=(lambda: file.read_text().strip()) if file else None,
            give_up_seconds=config.give_up_hours * 3600,
        )
        for webhook in config.webhooks
    ]


async def run(senders: Sequence[Sender]) -> int:
    """Run until a signal comes, or until a webhook fails by itself; return the exit code. A second
    signal ends the process as usual.
    """
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS_PER_WEBHOOK * len(senders)))
    stopped = asyncio.Event()
    code = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(sender.run()) for sender in senders]
            await stopped.wait()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            log.info("stopping: requests that are under way are finished")
            for task in running:
                task.cancel()
    except* Exception:
        log.critical("a webhook has ended: the process goes", exc_info=True)
        code = 3
    return code


if __name__ == "__main__":
    sys.exit(main())
