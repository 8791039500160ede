"""The webhooks while the host of their pod is down."""

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from cluster import kubectl
from drill import Conversation, await_recovery, on_demand
from hosts import eventually, gateway, powered_off

from playbooks import run

SECRET = f"whsec_{base64.b64encode(bytes(32)).decode()}"


class Receiver:
    """Takes every event. `ids` are those of the messages, in the order in which they came."""

    def __init__(self, server: ThreadingHTTPServer, ids: list[str]) -> None:
        self.url = f"http://{server.server_address[0]}:{server.server_port}/"
        self.ids = ids


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on the hosts' network."""
    ids: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            ids.append(event["data"]["id"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((gateway(), 0), Handler) as server:
        Thread(target=server.serve_forever).start()
        yield Receiver(server, ids)
        server.shutdown()


@on_demand
@pytest.mark.timeout(1200)
def test_webhooks_send_every_message_in_order_when_their_host_loses_power(
    receiver: Receiver,
) -> None:
    conversation = Conversation()
    hook = {"name": "drill", "room": conversation.room, "url": receiver.url, "secret": SECRET}
    deployed = run("playbooks/chat.yml", {"chat_webhooks": [hook | {"plain_http": True}]})
    assert deployed.succeeded, deployed.said
    try:
        with conversation:
            eventually(lambda: receiver.ids, within=60, what="the first message was sent")
            down = kubectl(
                "get pods --selector app.kubernetes.io/name=webhooks"
                " --output jsonpath={.items[0].spec.nodeName}"
            )
            with powered_off(down):
                conversation.goes_on(within=90, what="messages flow without the host")
                sent = len(receiver.ids)
                eventually(
                    lambda: len(receiver.ids) > sent,
                    within=120,
                    what="another host sends the webhooks",
                )
            conversation.goes_on(within=60, what="messages flow again")
        # A webhook begins with the next message after it has joined.
        written = conversation.acknowledged[conversation.acknowledged.index(receiver.ids[0]) :]
        eventually(
            lambda: set(written) <= {*receiver.ids}, within=120, what="every message was sent"
        )
        # An event may come twice.
        events = [identity for identity in receiver.ids if identity in written]
        print(f"{len(events)} events for {len(written)} messages")
        assert [*dict.fromkeys(events)] == written
    finally:
        removed = run("playbooks/chat.yml")
    assert removed.succeeded, removed.said
    await_recovery()
