#!/usr/bin/python
"""Ansible module chat_probe: see DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: chat_probe
short_description: Test a running chat service with two clients
description:
  - >-
    Connects until two clients are on different replicas (with C(replicas=1): on any), lets them
    exchange messages in a separate room, and returns what it measured. It fails unless both
    received every message, in the same order.
  - It leaves messages in the service's log, in a room with a random name.
  - >-
    A service that requires sign-in (C(sign_in)) needs a C(token) for that. Without one, the module
    fails unless the service refuses a client that has none with 401.
  - It connects directly and ignores proxies in the environment.
options:
  url:
    description: Public address of the service, for example C(https://chat.example.org/).
    type: str
    required: true
  ca:
    description: >-
      File with the certificates of the authorities to trust, in PEM. By default, those of the
      system.
    type: path
  sign_in:
    description: Whether the service lets in only clients with a token.
    type: bool
    default: false
  token:
    description: >-
      A token that the service accepts. Its person must be allowed to write in rooms of any name
      that begins with C(probe-).
    type: str
  replicas:
    description: Number of replicas that the two clients must be on.
    type: int
    choices: [1, 2]
    default: 2
  messages:
    description: Number of messages that each client sends.
    type: int
    default: 10
  timeout:
    description: Maximum time in total, in seconds, including the start of the service.
    type: int
    default: 60
requirements:
  - websockets >= 15
attributes:
  check_mode:
    description: Changes nothing on any host.
    support: full
author:
  - baremetal-chat (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Chat across two replicas
  baremetal_chat.platform.chat_probe:
    url: https://192.0.2.11/
    ca: /srv/chat-ca.crt
  delegate_to: localhost
"""

RETURN = r"""
replicas:
  description: Names of the two clients' replicas. Empty if there was no token to connect with.
  returned: success
  type: list
  elements: str
  sample: [chat-5b8f7d9c6d-8xk2p, chat-5b8f7d9c6d-q9v7z]
messages:
  description: Number of messages that both clients received; 0 if there was no token.
  returned: success
  type: int
  sample: 20
milliseconds:
  description: >-
    Time from sending a message until the other client receives it. Null if there was no token.
  returned: success
  type: dict
  sample: {median: 9.1, longest: 17.4}
cookie:
  description: Name of the cookie in the first client's 101 response, or null without one.
  returned: success
  type: str
  sample: chat_affinity
sticky:
  description: >-
    Whether a client with this cookie reached the same replica. Null without a cookie.
  returned: success
  type: bool
  sample: true
certificate_days:
  description: >-
    Days until the service's certificate ends. Null without TLS, and if there was no token.
  returned: success
  type: int
  sample: 371
"""

import asyncio
import json
import ssl
import statistics
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from http.cookies import SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

# Not websockets.sync: it reads and writes a TLS connection in two threads, which OpenSSL does not
# allow. In about one of fifty handshakes, the request was never sent (Python 3.11).
try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import InvalidStatus, WebSocketException
except ImportError:
    connect = None

PAUSE_SECONDS = 0.3
# Duration of a handshake on a busy machine. None starts later than this before the deadline.
HANDSHAKE_SECONDS = 1.0


class Service(NamedTuple):
    """Where clients connect, the CAs they trust (None: no TLS), and the token that they have
    (empty: none).
    """

    url: str
    trust: ssl.SSLContext | None
    token: str


class ProbeError(Exception):
    """The service does not work as promised. The text says what is wrong and where to look."""


class Client:
    """One person's connection. It knows which replica serves it."""

    def __init__(self, connection: ClientConnection, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self.cookies: SimpleCookie = SimpleCookie()
        for value in connection.response.headers.get_all("Set-Cookie"):
            self.cookies.load(value)
        self.certificate_days = certificate_days(connection)
        self.replica = "a replica"

    async def greet(self, user: str) -> None:
        """Say hello, and note the replica."""
        await self.say(type="hello", user=user)
        self.replica = (await self.hear("welcome"))["replica"]

    async def say(self, **frame: str) -> None:
        """Send one frame."""
        await self._connection.send(json.dumps(frame))

    async def hear(self, kind: str) -> dict[str, Any]:
        """Return the next frame of this type, and drop others."""
        while True:
            try:
                async with asyncio.timeout(left(self._deadline)):
                    frame = json.loads(await self._connection.recv())
            except TimeoutError:
                raise ProbeError(f"{self.replica} sent no '{kind}' in time") from None
            if frame["type"] == "error":
                raise ProbeError(f"{self.replica} answered {frame['code']}: {frame['message']}")
            if frame["type"] == kind:
                return frame


def certificate_days(connection: ClientConnection) -> int | None:
    """Days until the certificate of the connection expires."""
    certificate = connection.transport.get_extra_info("peercert")
    if certificate is None:
        return None
    ends = ssl.cert_time_to_seconds(certificate["notAfter"])
    return int((ends - time.time()) // 86400)


@asynccontextmanager
async def client(
    service: Service, user: str, deadline: float, cookie: str | None = None
) -> AsyncIterator[Client]:
    """Connect and say hello."""
    headers = {"Cookie": cookie} if cookie else {}
    if service.token:
        headers["Authorization"] = f"Bearer {service.token}"
    # Connect directly: the service belongs to the site, and a proxy in the environment is for
    # downloads.
    async with connect(
        service.url,
        ssl=service.trust,
        additional_headers=headers,
        open_timeout=left(deadline),
        proxy=None,
    ) as connection:
        connected = Client(connection, deadline)
        await connected.greet(user)
        yield connected


def left(deadline: float) -> float:
    """Seconds until the deadline; more than zero, which would mean no deadline."""
    return max(deadline - time.monotonic(), 0.001)


async def probe(
    service: Service, seconds: int, *, replicas: int, messages: int, sign_in: bool
) -> dict[str, Any]:
    """Return the values described in RETURN. Raises ProbeError with one sentence if that fails."""
    deadline = time.monotonic() + seconds
    if sign_in and not service.token:
        await refuses_strangers(service, deadline)
        return {"replicas": [], "messages": 0} | dict.fromkeys(
            ("milliseconds", "cookie", "sticky", "certificate_days")
        )
    async with AsyncExitStack() as stack:
        first = await first_client(stack, service, deadline)
        second = await second_client(
            stack, service, deadline, other_than=first.replica, replicas=replicas
        )
        cookie = next(iter(first.cookies.values()), None)
        return {
            "replicas": [first.replica, second.replica],
            "cookie": cookie and cookie.key,
            "sticky": cookie
            and await sticks(service, f"{cookie.key}={cookie.value}", first, deadline),
            "certificate_days": first.certificate_days,
            **await converse(first, second, messages),
        }


async def refuses_strangers(service: Service, deadline: float) -> None:
    """Wait until the service refuses a client without a token."""
    while True:
        try:
            async with client(service, "probe-1", deadline):
                problem = "it lets in who has none"
        except InvalidStatus as refused:
            if refused.response.status_code == 401:
                return
            problem = reason(refused)
        except (OSError, WebSocketException, ProbeError) as error:
            problem = reason(error)
        if time.monotonic() + PAUSE_SECONDS >= deadline:
            raise ProbeError(f"{service.url} does not ask for a token: {problem}")
        await asyncio.sleep(PAUSE_SECONDS)


async def first_client(stack: AsyncExitStack, service: Service, deadline: float) -> Client:
    """Connect as soon as the service accepts a connection."""
    refusal: Exception | None = None
    while True:
        try:
            return await stack.enter_async_context(client(service, "probe-1", deadline))
        except (OSError, WebSocketException) as error:
            # The service's last answer is more useful than our own timeout.
            if refusal is None or not isinstance(error, TimeoutError):
                refusal = error
            if time.monotonic() + PAUSE_SECONDS >= deadline:
                raise ProbeError(f"{service.url} lets nobody in: {reason(refusal)}") from None
            await asyncio.sleep(PAUSE_SECONDS)


async def second_client(
    stack: AsyncExitStack, service: Service, deadline: float, *, other_than: str, replicas: int
) -> Client:
    """Connect without a cookie, until the load balancer chooses another replica if one is
    required.
    """
    tries = 0
    while True:
        tries += 1
        second = await stack.enter_async_context(client(service, "probe-2", deadline))
        if replicas == 1 or second.replica != other_than:
            return second
        if time.monotonic() + PAUSE_SECONDS + HANDSHAKE_SECONDS >= deadline:
            raise ProbeError(
                f"{service.url} led {tries} clients without a cookie to {other_than} and none"
                " elsewhere: is another replica ready?"
            )
        await asyncio.sleep(PAUSE_SECONDS)


async def sticks(service: Service, cookie: str, first: Client, deadline: float) -> bool:
    """Whether a client with the first one's cookie reaches the same replica."""
    async with client(service, "probe-3", deadline, cookie) as again:
        return again.replica == first.replica


async def converse(first: Client, second: Client, messages: int) -> dict[str, Any]:
    """Let the two clients take turns, and compare what each received."""
    room = f"probe-{uuid.uuid4().hex}"
    for client in (first, second):
        await client.say(type="join", room=room)
        await client.hear("joined")
    seen: dict[Client, list[str]] = {first: [], second: []}
    milliseconds = []
    for speaker, listener in [(first, second), (second, first)] * messages:
        cid = str(uuid.uuid4())
        said = time.monotonic()
        await speaker.say(type="send", room=room, text=f"said by {speaker.replica}", cid=cid)
        seen[listener].append((await listener.hear("message"))["id"])
        milliseconds.append((time.monotonic() - said) * 1000)
        seen[speaker].append((await speaker.hear("message"))["id"])
    if seen[first] != seen[second]:
        raise ProbeError(
            f"{first.replica} and {second.replica} show the same room differently:"
            f" {seen[first]} and {seen[second]}"
        )
    return {
        "messages": len(milliseconds),
        "milliseconds": {
            "median": round(statistics.median(milliseconds), 1),
            "longest": round(max(milliseconds), 1),
        },
    }


def reason(error: Exception) -> str:
    """The text of an error, or at least its name."""
    return str(error) or type(error).__name__


def websocket_url(url: str) -> str:
    """The WebSocket URL of the service's page: /ws, below the page."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ProbeError(
            f"url={url!r}: give the address of the page, http://HOST/ or https://HOST/"
        )
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/ws", "", ""))


def trust(url: str, ca: str | None) -> ssl.SSLContext | None:
    """The trusted CAs for a service with TLS: those in the file `ca`, or the system's."""
    if not url.startswith("wss:"):
        return None
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ProbeError(f"ca={ca!r}: give a file with certificates in PEM: {error}") from None


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "ca": {"type": "path"},
            "sign_in": {"type": "bool", "default": False},
            "token": {"type": "str", "no_log": True},
            "replicas": {"type": "int", "choices": [1, 2], "default": 2},
            "messages": {"type": "int", "default": 10},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    if connect is None:
        module.fail_json(msg=missing_required_lib("websockets"))
    options = dict(module.params)
    url, ca, token = options.pop("url"), options.pop("ca"), options.pop("token") or ""
    try:
        address = websocket_url(url)
        service = Service(address, trust(address, ca), token)
        seen = asyncio.run(probe(service, options.pop("timeout"), **options))
    except ProbeError as error:
        module.fail_json(msg=str(error))
    except (OSError, WebSocketException) as error:
        module.fail_json(msg=f"{url}: {reason(error)}")
    module.exit_json(changed=False, **seen)


if __name__ == "__main__":
    main()
