"""Logic of the stand-in for MicroK8s that needs no host."""

from __future__ import annotations

import argparse

import pytest
from microk8s import apiserver_proxy, datastore


class Etcd:
    """etcd's member list: two voters, and at most one learner."""

    def __init__(self) -> None:
        self.members: dict[str, dict] = {}
        for address in ("10.0.0.1", "10.0.0.2"):
            self.put(address, name=f"host-{address[-1]}")

    def put(self, address: str, **more: object) -> None:
        identity = str(len(self.members) + 100)
        url = datastore.peer_url(address)
        self.members[identity] = {"ID": identity, "peerURLs": [url], **more}

    def ask(self, path: str, **body: object) -> dict:
        if path == "add":
            if any(each.get("isLearner") for each in self.members.values()):
                raise datastore.RefusedError("etcdserver: too many learner members in cluster")
            (url,) = body["peerURLs"]
            self.put(url.split("//")[1].split(":")[0], isLearner=True)
        elif path == "remove":
            del self.members[body["ID"]]
        return {"members": list(self.members.values())}


@pytest.fixture
def etcd(monkeypatch: pytest.MonkeyPatch) -> Etcd:
    etcd = Etcd()
    monkeypatch.setattr(datastore, "ask", etcd.ask)
    return etcd


def test_an_interrupted_join_can_be_repeated(etcd: Etcd) -> None:
    told = datastore.add("10.0.0.3")
    assert datastore.add("10.0.0.3") == told
    assert told.split(",") == [
        "host-1=https://10.0.0.1:12380",
        "host-2=https://10.0.0.2:12380",
        "joining=https://10.0.0.3:12380",
    ]
    assert len(etcd.members) == 3


def test_only_one_node_joins_at_a_time(etcd: Etcd) -> None:
    datastore.add("10.0.0.3")
    with pytest.raises(datastore.RefusedError, match="too many learner members"):
        datastore.add("10.0.0.4")
    assert len(etcd.members) == 3


def test_members_are_sorted_numerically_by_address(etcd: Etcd) -> None:
    etcd.put("10.0.0.10", name="ten")
    etcd.put("10.0.0.9", name="nine")
    listed = [each.address for each in datastore.members()]
    assert listed == ["10.0.0.1", "10.0.0.2", "10.0.0.9", "10.0.0.10"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("30s", 30), ("1m30s", 90), ("250ms", 0.25), ("1.5h", 5400)]
)
def test_durations_in_gos_notation_are_parsed(text: str, seconds: float) -> None:
    assert apiserver_proxy.seconds(text) == seconds


@pytest.mark.parametrize("text", ["30", "s", "5 m", "half an hour"])
def test_a_malformed_duration_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is no duration"):
        apiserver_proxy.seconds(text)
