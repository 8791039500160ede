"""HTTPS from outside, at every cluster host and at the virtual IP."""

import json
import subprocess
from itertools import product

import pytest
import requests
from cluster import kubectl
from hosts import CA_FILE, address, connect, group, virtual_ip

ADDRESSES = [*map(address, group("microk8s")), virtual_ip()]
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
# Removes the accepted cipher suites of TLS 1.2 from a list: all others must be refused.
STRONG = "!ECDHE+AESGCM:!ECDHE+CHACHA20"


@pytest.mark.parametrize("edge", ADDRESSES)
def test_clients_with_the_authoritys_certificate_trust_every_address(edge: str) -> None:
    page = requests.get(f"https://{edge}/", timeout=10, verify=str(CA_FILE))
    assert page.status_code == 200
    assert page.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_other_clients_do_not_trust_the_certificate() -> None:
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://{virtual_ip()}/", timeout=10)


@pytest.mark.parametrize("edge", ADDRESSES)
@pytest.mark.parametrize("path", ["", "ws"])
def test_plain_http_only_redirects_to_https(edge: str, path: str) -> None:
    answer = requests.get(
        f"http://{edge}/{path}",
        headers=UPGRADE if path == "ws" else {},
        allow_redirects=False,
        timeout=10,
    )
    assert answer.status_code in (301, 308)
    assert answer.headers["Location"] == f"https://{edge}/{path}"


def shake_hands(edge: str, *options: str) -> str:
    """The output of `openssl s_client` with these options."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"{edge}:443", "-CAfile", CA_FILE, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("edge", ADDRESSES)
def test_old_tls_versions_and_weak_cipher_suites_are_refused(edge: str) -> None:
    for version in ("-tls1_2", "-tls1_3"):
        assert "Verify return code: 0 (ok)" in shake_hands(edge, version, "-verify_ip", edge)
    for version in ("-tls1", "-tls1_1"):
        refused = shake_hands(edge, version, "-cipher", "ALL:@SECLEVEL=0")
        assert "alert protocol version" in refused
    weak = f"ALL:COMPLEMENTOFALL:{STRONG}:@SECLEVEL=0"
    assert "alert handshake failure" in shake_hands(edge, "-tls1_2", "-cipher", weak)


# Verb, resource and namespace.
QUESTIONS = [
    *product(["get", "list"], ["secrets"], ["chat", "chat-ca", "traefik", "kube-system"]),
    *product(["create"], ["pods", "pods/exec", "secrets"], ["chat", "chat-ca", "traefik"]),
    ("patch", "deployments.apps", "chat"),
    ("list", "nodes", ""),
    ("impersonate", "users", ""),
]
TRAEFIK = "system:serviceaccount:traefik:traefik-ingress-controller"


def test_service_accounts_have_no_right_except_traefiks_on_secrets() -> None:
    listed = "jsonpath={range .items[*]}{.metadata.namespace}:{.metadata.name} {end}"
    accounts = [
        f"system:serviceaccount:{name}"
        for name in kubectl(f"get serviceaccounts --all-namespaces --output '{listed}'").split()
        if name.split(":")[0] in ("chat", "chat-ca", "traefik")
    ]
    assert TRAEFIK in accounts
    assert "system:serviceaccount:chat:chat" in accounts
    reviews = []
    for user, (verb, resource, namespace) in product(accounts, QUESTIONS):
        plural, _, subresource = resource.partition("/")
        name, _, api_group = plural.partition(".")
        attributes = {"verb": verb, "resource": name, "namespace": namespace, "group": api_group}
        groups = [f"system:serviceaccounts:{user.split(':')[2]}", "system:serviceaccounts"]
        spec = {
            "user": user,
            "groups": [*groups, "system:authenticated"],
            "resourceAttributes": attributes | {"subresource": subresource},
        }
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
        reviews.append(review | {"spec": spec})
    shown = (
        "jsonpath={.status.allowed} {.spec.user} {.spec.resourceAttributes.verb}"
        ' {.spec.resourceAttributes.resource} {.spec.resourceAttributes.namespace}{"\\n"}'
    )
    answers = connect(group("microk8s")[0]).check_output(
        "printf '%%s' %s | /snap/bin/microk8s kubectl create --filename - --output %s",
        json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews}),
        shown,
    )
    assert len(answers.splitlines()) == len(reviews)
    allowed = {line for line in answers.splitlines() if not line.startswith("false ")}
    assert allowed == {
        f"true {TRAEFIK} {verb} secrets {namespace}"
        for verb, namespace in product(["get", "list"], ["chat", "traefik"])
    }
