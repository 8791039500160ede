"""The chat's certificate from an authority, by ACME: obtained, served, renewed.

These tests run once. Those in the folder `tests` run again after the faults. The chat keeps this
certificate afterwards, because no later test looks at it.
"""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import kubectl
from drill import Conversation, await_recovery, holders_of_virtual_ip, on_demand
from hosts import address, eventually, group, powered_off, virtual_ip
from pebble import Pebble
from servers import address_towards

from playbooks import run

NAME = "chat.example.org"
EDGES = [*map(address, group("microk8s")), virtual_ip()]
ACCOUNT = "system:serviceaccount:chat:acme"
TRAEFIK = "system:serviceaccount:traefik:traefik-ingress-controller"


@pytest.fixture(scope="module")
def pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    folder = tmp_path_factory.mktemp("pebble")
    with Pebble(
        folder, address_towards(virtual_ip()), target=virtual_ip(), http_port=80
    ) as running:
        yield running


def served(edge: str, root: str) -> str:
    """The serial number of the certificate that a client gets, verified against `root`."""
    trusting = ssl.create_default_context(cadata=root)
    with (
        socket.create_connection((edge, 443), timeout=5) as connection,
        trusting.wrap_socket(connection, server_hostname=NAME) as client,
    ):
        shown = client.getpeercert()
    assert shown
    return str(shown["serialNumber"])


def traefiks() -> str:
    """Traefik's pods and their restart counts."""
    shown = "{.metadata.name} {.status.containerStatuses[0].restartCount}"
    pods = "get pods --namespace traefik --selector app.kubernetes.io/name=traefik"
    return kubectl(f"{pods} --output 'jsonpath={{range .items[*]}}{shown} {{end}}'")


def may(account: str, verb: str, secret: str, namespace: str) -> bool:
    asked = f"auth can-i {verb} {secret} --namespace {namespace} --as {account}"
    return kubectl(f"{asked} || true") == "yes"


@pytest.fixture(scope="module")
def site(pebble: Pebble, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return {
        "chat_acme": True,
        "chat_acme_production": True,
        "chat_acme_directory": pebble.directory,
        "chat_acme_ca": pebble.ca_file.read_text() + pebble.root,
        # The playbook opens chat_url, which has the virtual IP, and verifies the certificate.
        "chat_acme_names": [NAME, virtual_ip()],
        "chat_tls_ca_file": str(tmp_path_factory.mktemp("site") / "ca.crt"),
    }


def renew(name: str) -> None:
    """Renew early, by the commands of docs/operations/tls.md."""
    kubectl("annotate secret chat-tls baremetal-chat/acme-", via=group("microk8s")[-1])
    kubectl(f"create job --from=cronjob/acme {name}", via=group("microk8s")[-1])
    done = f"wait job/{name} --for=condition=Complete --timeout=60s"
    kubectl(done, via=group("microk8s")[-1])


@pytest.mark.timeout(900)
def test_a_certificate_is_obtained_served_and_renewed_without_a_restart(
    pebble: Pebble, site: dict[str, object]
) -> None:
    before = traefiks()
    obtained = run("playbooks/chat.yml", site)
    assert obtained.succeeded, obtained.said
    (first,) = {served(edge, pebble.root) for edge in EDGES}

    renew("renew")

    def renewed() -> bool:
        serials = {served(edge, pebble.root) for edge in EDGES}
        return len(serials) == 1 and first not in serials

    eventually(renewed, 10, "every host serves the new certificate")
    assert traefiks() == before

    assert may(ACCOUNT, "patch", "secret/chat-tls", "chat")
    assert may(ACCOUNT, "patch", "secret/account", "chat-acme")
    for account, verb, secret, namespace in (
        (ACCOUNT, "list", "secrets", "chat"),
        (ACCOUNT, "create", "secrets", "chat"),
        (ACCOUNT, "get", "secret/chat-files", "chat"),
        (ACCOUNT, "get", "secret/ca", "chat-ca"),
        (TRAEFIK, "get", "secret/account", "chat-acme"),
    ):
        assert not may(account, verb, secret, namespace)


@on_demand
@pytest.mark.timeout(900)
def test_a_certificate_is_renewed_while_a_host_is_down_and_connections_stay_open(
    pebble: Pebble, site: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run("playbooks/chat.yml", site)
    trusted = tmp_path / "trusted.crt"
    trusted.write_text(pebble.root)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    down, *_ = (name for name in group("microk8s")[:-1] if name not in holders_of_virtual_ip())
    edges = [edge for edge in EDGES if edge != address(down)]
    with Conversation() as conversation, powered_off(down):
        conversation.goes_on(within=90, what="messages flow without the host")
        (before,) = {served(edge, pebble.root) for edge in edges}
        connections = len(conversation.somebody.replicas)
        renew("renew-without-a-host")

        def renewed() -> bool:
            serials = {served(edge, pebble.root) for edge in edges}
            return len(serials) == 1 and before not in serials

        eventually(renewed, 10, "every host that is up serves the new certificate")
        conversation.goes_on(within=10, what="messages flow again")
        assert len(conversation.somebody.replicas) == connections
    await_recovery()
