"""The state of webhooks in the cluster: it survives, and only the last process writes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import requests
from conftest import until
from kubernetes_secrets import TOKEN, Kubernetes

from chat.client import Message
from chat.kubernetes import Secrets, field
from chat.settings import Settings
from chat.webhook import __main__ as program
from chat.webhook import secret
from chat.webhook.config import load
from chat.webhook.events import Kind, Missing, delivery_of
from chat.webhook.secret import Secret
from chat.webhook.state import State, StateError, Store, name_key

DEFAULTS = Settings()
NAME = "chat/webhooks-state"


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[Kubernetes]:
    (tmp_path / "token").write_text(TOKEN)
    with Kubernetes() as kubernetes:
        kubernetes.make(NAME)
        yield kubernetes


def taken_over(kubernetes: Kubernetes, folder: Path) -> Secret:
    """As a process that starts finds it."""
    return Secret(Secrets(kubernetes.url, folder), NAME)


def test_the_next_process_reads_what_was_written_and_has_the_same_name_in_the_chat(
    kubernetes: Kubernetes, tmp_path: Path
) -> None:
    first = taken_over(kubernetes, tmp_path)
    assert first.read("a.json") is None
    key = name_key(first)
    first.write("a.json", b"one")
    first.write("a.json", b"two")
    second = taken_over(kubernetes, tmp_path)
    assert second.read("a.json") == b"two"
    assert name_key(second) == key
    assert second.place("a.json") == "a.json of Secret chat/webhooks-state"


def test_the_configuration_names_the_secret(
    kubernetes: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_over(kubernetes, tmp_path).write("a.json", b"one")
    file = tmp_path / "webhooks.toml"
    webhook = '{name = "a", room = "lobby", url = "https://hook.example/", secret_file = "secret"}'
    file.write_text(
        f'chat = "https://chat.example.org/"\nstate = "secret:{NAME}"\nwebhooks = [{webhook}]\n'
    )
    (tmp_path / "secret").write_text("whsec_" + 32 * "A")
    (tmp_path / "secret").chmod(0o600)
    monkeypatch.setattr(program, "Secrets", lambda: Secrets(kubernetes.url, tmp_path))
    with program.keeping(load(file)) as keeper:
        assert keeper.read("a.json") == b"one"


def test_a_process_that_was_replaced_writes_nothing_any_more(
    kubernetes: Kubernetes, tmp_path: Path
) -> None:
    before = taken_over(kubernetes, tmp_path)
    after = taken_over(kubernetes, tmp_path)
    after.write("a.json", b"after")
    for _ in range(2):
        with pytest.raises(StateError, match="somebody else has changed it"):
            before.write("a.json", b"before")
    assert taken_over(kubernetes, tmp_path).read("a.json") == b"after"


async def test_what_several_webhooks_have_to_write_is_written_at_once(
    kubernetes: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = taken_over(kubernetes, tmp_path)
    gate = threading.Event()
    monkeypatch.setattr(secret.time, "sleep", lambda _: gate.wait(30))
    threads = [
        threading.Thread(target=keeper.write, args=(f"{number}.json", b"%d" % number))
        for number in range(10)
    ]
    threads[0].start()
    await until(lambda: kubernetes.patched)
    for thread in threads[1:]:
        thread.start()
    await until(lambda: len(keeper._unwritten) == 9)
    gate.set()
    for thread in threads:
        thread.join(30)
    assert len(kubernetes.patched) == 2
    again = taken_over(kubernetes, tmp_path)
    assert [again.read(f"{number}.json") for number in range(10)] == [
        b"%d" % number for number in range(10)
    ]


def test_what_the_cluster_did_not_take_is_written_with_the_next(
    kubernetes: Kubernetes, tmp_path: Path
) -> None:
    keeper = taken_over(kubernetes, tmp_path)
    (tmp_path / "token").write_text("expired")
    with pytest.raises(requests.HTTPError):
        keeper.write("a.json", b"a")
    (tmp_path / "token").write_text(TOKEN)
    keeper.write("b.json", b"b")
    (kept,) = kubernetes.secrets.values()
    assert (field(kept, "a.json"), field(kept, "b.json")) == (b"a", b"b")


def test_the_state_of_a_webhook_is_bounded_by_the_bounds_of_a_text() -> None:
    # Each of these is four bytes where JSON is written in JSON, and the rest stays what it is.
    text = '"' * DEFAULTS.text_graphemes
    text += "\u0301" * ((DEFAULTS.text_bytes - len(text)) // 2)
    message = Message("r" * 64, "p" * 64, '"' * 32, text, 0, "", "a" * 64, edited=0)
    gap = delivery_of(Missing(frozenset(Kind)), "r" * 64, Kind)
    state = State("r" * 64, "p" * 64, delivery_of(message, "r" * 64, Kind), gap, 1e10 / 3, True)
    # __chat_webhooks_state_bytes of role chat.
    bound = 2048 + DEFAULTS.text_bytes + 3 * DEFAULTS.text_graphemes
    assert bound == 16240
    assert bound - 1024 < len(msgspec.json.encode(state)) < bound


def test_a_state_that_is_none_is_named(kubernetes: Kubernetes, tmp_path: Path) -> None:
    taken_over(kubernetes, tmp_path).write("a.json", b"{")
    store = Store(taken_over(kubernetes, tmp_path), "a")
    with pytest.raises(StateError, match=r"^a\.json of Secret chat/webhooks-state: .*remove it"):
        store.load("lobby")
