"""kafka_certificate renews a running broker's certificate, and keeps the old one if it cannot."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import ssl
import struct
import time

import pytest
from cryptography.hazmat.primitives import serialization
from kafka.admin import AlterConfigOp, ConfigResource, ConfigResourceType
from kafka_broker import free_port
from secured_broker import Authority

LISTENERS = ("SASL_SSL", "SSL", "MUTUAL")


def pair(authority, name="broker", **wanted):
    """A new key and its certificate, in one text.

    The certificate has a name that the broker's first one lacks. The broker does not go back to
    certificates with fewer names.
    """
    certificate, key = authority.issue(name, also="broker.example", **wanted)
    return key.read_text() + certificate.read_text()


def await_served(text, served):
    """Wait until only the certificate of this text is served."""
    deadline = time.monotonic() + 30
    while served() != {certificate_of(text)}:
        assert time.monotonic() < deadline, "the broker serves another certificate"


def certificate_of(text):
    return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE") :])


@pytest.fixture
def served(secured_broker):
    """Returns the set of certificates that the listeners serve now."""

    def served(*names):
        context = ssl.create_default_context(cafile=secured_broker.authority.file)
        context.load_cert_chain(secured_broker.store)
        found = set()
        for name in names or LISTENERS:
            host, port = secured_broker.servers[name].split(":")
            with (
                socket.create_connection((host, int(port)), 20) as plain,
                context.wrap_socket(plain, server_hostname=host) as secured,
            ):
                found.add(secured.getpeercert(binary_form=True))
        return found

    return served


@pytest.fixture
def offer(run_module, secured_broker):
    """Offer a new certificate to the running broker."""

    def offer(content, *, listeners=LISTENERS, check_mode=False, **changed):
        servers = {name: secured_broker.servers[name] for name in listeners}
        reload = {"broker_id": 0, "listeners": servers, "admin_listener": listeners[-1]}
        options = {
            "content": content,
            "path": str(secured_broker.store),
            "owner": getpass.getuser(),
            "ca_file": str(secured_broker.authority.file),
            "common_name": "broker",
            "names": ["127.0.0.1"],
            "reload": reload,
        }
        answer = run_module("kafka_certificate", check_mode=check_mode, **options | changed)
        assert "PRIVATE KEY" not in str({**answer, "invocation": None})
        return answer

    return offer


@pytest.fixture
def dynamic(run_module, secured_broker):
    """The broker's dynamic settings, as ZooKeeper keeps them."""

    def dynamic():
        servers = [secured_broker.broker.zookeeper_server]
        node = run_module("zookeeper_node", servers=servers, path="/config/brokers/0")
        return json.loads(node["content"])["config"]

    return dynamic


def test_every_listener_serves_a_renewed_certificate_without_a_restart(
    secured_broker, offer, served
):
    pid, times = secured_broker.broker.pid, secured_broker.store.stat().st_mtime_ns
    with contextlib.closing(secured_broker.client_by_certificate()) as open_before:
        # The first one has one more name than the current one, the second one the same names.
        for _ in range(2):
            renewed = pair(secured_broker.authority)
            answer = offer(renewed)
            assert answer["changed"], answer
            assert answer["reloaded"]
            assert served() == {certificate_of(renewed)}
            assert secured_broker.store.read_text() == renewed
            # An unchanged modification time means that no restart is needed.
            assert secured_broker.store.stat().st_mtime_ns == times
            again = offer(renewed)
            assert (again["changed"], again["reloaded"]) == (False, True)
        # The broker already serves the certificate. First the file's end differs, then the file is
        # missing.
        for content in (renewed + "\n", renewed):
            answer = offer(content)
            assert (answer["changed"], answer["reloaded"]) == (True, True), answer
            assert secured_broker.store.read_text() == content
            assert secured_broker.store.stat().st_mtime_ns <= times
            secured_broker.store.unlink()
        assert offer(renewed)["reloaded"]
        assert open_before.describe_cluster()["brokers"]
    assert secured_broker.broker.pid == pid
    assert not secured_broker.broker.ended


@pytest.fixture
def reaches(secured_broker, tmp_path):
    """Whether a client is served that trusts an authority, and shows a certificate of another."""

    def reaches(trusts, shows):
        shown = tmp_path / "client.pem"
        shown.write_text(pair(shows))
        context = ssl.create_default_context(cadata=trusts)
        context.load_cert_chain(shown)
        host, port = secured_broker.servers["MUTUAL"].split(":")
        try:
            with (
                socket.create_connection((host, int(port)), 20) as plain,
                context.wrap_socket(plain, server_hostname=host) as secured,
            ):
                # Which versions of requests it knows: only its answer says that it took the client.
                secured.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
                return len(secured.recv(4)) > 0
        except (ssl.SSLError, ConnectionError):
            return False

    return reaches


def test_an_authority_is_replaced_while_the_broker_runs(
    secured_broker, offer, reaches, tmp_path, dynamic
):
    """There and back. Each step is loaded, so that the next one loses no client that has both."""
    pid = secured_broker.broker.pid
    files = (secured_broker.store, secured_broker.authority.file)
    times = [file.stat().st_mtime_ns for file in files]
    first, second = secured_broker.authority, Authority(tmp_path, "second")
    texts = {authority: authority.file.read_text() for authority in (first, second)}
    both = texts[first] + texts[second]
    for old, new in ((first, second), (second, first)):
        assert not reaches(texts[old], shows=new)
        answer = offer(pair(old), ca_content=both)
        assert (answer["changed"], answer["reloaded"]) == (True, True), answer
        assert reaches(texts[old], shows=new)
        answer = offer(pair(new), ca_content=both)
        assert answer["reloaded"], answer
        assert not reaches(texts[old], shows=old)
        assert reaches(both, shows=old)
        assert reaches(texts[new], shows=new)
        answer = offer(pair(new), ca_content=texts[new])
        assert answer["reloaded"], answer
        assert not reaches(texts[new], shows=old)
        assert reaches(texts[new], shows=new)
        assert secured_broker.authority.file.read_text() == texts[new]
        assert secured_broker.authority.file.stat().st_mode & 0o777 == 0o644
    assert [file.stat().st_mtime_ns for file in files] == times
    assert dynamic() == {}
    assert secured_broker.broker.pid == pid


def test_what_is_trusted_comes_back_with_the_certificate_that_the_broker_refuses(
    secured_broker, offer, tmp_path
):
    before = secured_broker.authority.file.read_text()
    both = before + Authority(tmp_path, "second").file.read_text()
    answer = offer(in_older_form(pair(secured_broker.authority)), ca_content=both)
    assert "it answers with Kafka's error 40: " in answer["msg"], answer["msg"]
    assert secured_broker.authority.file.read_text() == before


def test_no_dynamic_setting_is_left_that_would_override_server_properties(
    secured_broker, offer, served, dynamic, tmp_path
):
    """Otherwise a later change of the path, or the move back to plaintext, would have no effect."""
    offer(pair(secured_broker.authority))
    assert dynamic() == {}
    elsewhere = tmp_path / "by-hand.pem"
    elsewhere.write_text(pair(secured_broker.authority))
    name = "listener.name.mutual.ssl.keystore.location"
    by_hand = ConfigResource(
        ConfigResourceType.BROKER, "0", {name: (AlterConfigOp.SET, str(elsewhere))}
    )
    with secured_broker.admin() as admin:
        admin.alter_configs([by_hand], raise_on_unknown=False)
    # The broker hears from ZooKeeper that the setting is there, and that it is gone.
    await_served(elsewhere.read_text(), lambda: served("MUTUAL"))
    renewed = pair(secured_broker.authority)
    answer = offer(renewed)
    assert answer["reloaded"], answer
    assert dynamic() == {}
    await_served(renewed, served)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"name": "other"}, "its subject is CN=other, and has to be CN=broker"),
        ({"address": "127.0.0.2"}, "it is not for 127.0.0.1"),
        ({"days": -1}, "certificate has expired"),
    ],
)
def test_a_certificate_that_clients_would_refuse_is_not_installed(
    secured_broker, offer, served, changed, words
):
    assert_refused(secured_broker, offer, served, pair(secured_broker.authority, **changed), words)


def test_a_certificate_of_a_foreign_authority_or_for_another_key_is_not_installed(
    secured_broker, offer, served, tmp_path
):
    foreign = Authority(tmp_path, "authority")
    refused = {
        pair(foreign): "with '" + str(secured_broker.authority.file) + "' as its CA: ",
        (
            foreign.issue("broker")[1].read_text()
            + secured_broker.authority.issue("broker")[0].read_text()
        ): "its key and certificate do not work: KEY_VALUES_MISMATCH",
        secured_broker.authority.issue("broker")[0].read_text(): "its key and certificate do not",
        "nonsense": "its key and certificate do not work: ",
    }
    for content, words in refused.items():
        assert_refused(secured_broker, offer, served, content, words)
    # Without a certificate there, Python trusts the system's authorities.
    answer = offer(pair(secured_broker.authority), ca_content="")
    assert f"no CA certificate for '{secured_broker.authority.file}'" in answer["msg"], answer


def assert_refused(secured_broker, offer, served, content, words):
    before = secured_broker.store.read_text()
    answer = offer(content)
    assert answer["failed"]
    assert words in answer["msg"], answer["msg"]
    assert f"'{secured_broker.store}' stays as it is" in answer["msg"]
    assert secured_broker.store.read_text() == before
    assert served() == {certificate_of(before)}


def test_a_certificate_that_the_broker_refuses_is_replaced_by_the_old_one(
    secured_broker, offer, served
):
    store, authority = secured_broker.store, secured_broker.authority
    before, times = store.read_text(), store.stat().st_mtime_ns
    refused = in_older_form(pair(authority))
    for content, words in (
        (refused, [f"{name} ({secured_broker.servers[name]}) serves" for name in LISTENERS]),
        (in_older_form(before), ["Every listener serves it from memory"]),
    ):
        answer = offer(content)
        assert answer["failed"]
        assert "it answers with Kafka's error 40: " in answer["msg"], answer["msg"]
        for word in [*words, f"The old file is back in '{store}'"]:
            assert word in answer["msg"], answer["msg"]
        assert store.read_text() == before
        assert store.stat().st_mtime_ns == times
        assert served() == {certificate_of(before)}
    # The broker serves the certificate from memory, and the file is missing.
    store.unlink()
    answer = offer(refused)
    assert f"'{store}' did not exist before, and is removed again" in answer["msg"], answer["msg"]
    assert not store.exists()
    store.write_text(before)
    os.utime(store, ns=(times, times))


def in_older_form(pair):
    """The pair with its key in PKCS #1 or SEC 1 form, which OpenSSL reads and Kafka does not."""
    key = serialization.load_pem_private_key(pair.encode(), None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return key.decode() + pair[pair.index("-----BEGIN CERTIFICATE") :]


def test_a_temporary_key_file_of_a_killed_run_is_removed(secured_broker, offer):
    store = secured_broker.store
    left = store.with_name(f".{store.name}.new-x1y2")
    left.write_text("key")
    offer(store.read_text(), check_mode=True)
    assert left.exists()
    assert not offer(store.read_text())["failed"]
    assert not left.exists()


def test_a_listener_that_keeps_the_old_certificate_is_named(secured_broker, offer, served):
    """This listener's settings name another file. The new file stays; the next run restarts."""
    times = secured_broker.store.stat().st_mtime_ns
    renewed = pair(secured_broker.authority)
    answer = offer(renewed, listeners=("APART", *LISTENERS), timeout=1)
    assert answer["failed"]
    assert "does not serve it everywhere after 1 s. APART (" in answer["msg"], answer["msg"]
    assert "SSL (" not in answer["msg"]
    assert "run the playbook again, which restarts the broker" in answer["msg"]
    assert served() == {certificate_of(renewed)}
    assert secured_broker.store.stat().st_mtime_ns > times
    os.utime(secured_broker.store, ns=(times, times))


def test_a_certificate_that_needs_a_restart_is_only_written(
    secured_broker, offer, served, tmp_path
):
    """The file is then newer than the process, which causes the restart."""
    before = served()
    lacks = pair(secured_broker.authority, address="127.0.0.2")
    waits = {
        "names": ([], lacks, "serves a certificate that is also for 127.0.0.1"),
        "stopped": (["127.0.0.1"], pair(secured_broker.authority), "Connection refused"),
    }
    for case, (names, content, words) in waits.items():
        path = tmp_path / f"{case}.pem"
        path.write_text("before")
        os.utime(path, (0, 0))
        changed = {"path": str(path), "names": names}
        if case == "stopped":
            listeners = {"SSL": f"127.0.0.1:{free_port()}"}
            changed["reload"] = {"broker_id": 0, "listeners": listeners, "admin_listener": "SSL"}
        answer = offer(content, **changed)
        assert (answer["changed"], answer["reloaded"]) == (True, False), answer
        assert words in answer["restart_because"]
        assert path.read_text() == content
        assert path.stat().st_mtime > 0
        assert path.stat().st_mode & 0o777 == 0o600
        assert served() == before


def test_an_expired_certificate_can_be_replaced_only_by_a_restart(secured_broker, offer):
    """Between brokers, Kafka tries a handshake of the old certificate with the new one."""
    renewed = pair(secured_broker.authority, "expired")
    answer = offer(renewed, listeners=("EXPIRED",), common_name="expired", check_mode=True)
    assert answer["changed"], answer
    assert answer["restart_because"].endswith("certificate has expired")


def test_check_mode_changes_nothing(secured_broker, offer, served):
    before = secured_broker.store.read_text()
    for content in ("", pair(secured_broker.authority)):
        answer = offer(content, check_mode=True)
        assert (answer["changed"], answer["reloaded"]) == (True, False), answer
    assert secured_broker.store.read_text() == before
    assert served() == {certificate_of(before)}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"content": ""}, "content is empty: give a private key and its certificate"),
        ({"owner": "nobody-here"}, "owner='nobody-here' is no user of this host"),
        (
            {"reload": {"broker_id": 0, "listeners": {"A": "b:1"}, "admin_listener": "C"}},
            "admin_listener='C' is none of the listeners A",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(secured_broker, offer, changed, words):
    before = secured_broker.store.read_text()
    answer = offer(**{"content": "key"} | changed)
    assert answer["failed"]
    assert words in answer["msg"], answer["msg"]
    assert secured_broker.store.read_text() == before
