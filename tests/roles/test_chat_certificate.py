"""The chat's own authority and certificate: created once, renewed in time, keys never shown.

The tasks run against a stand-in for the Kubernetes API. `openssl` verifies the results.
"""

import base64
import copy
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_runs import LINEAR, ansible_playbook
from kubernetes_api import KubernetesApi

CA = "/api/v1/namespaces/chat-ca/secrets/ca"
LEAF = "/api/v1/namespaces/chat/secrets/chat-tls"
VARIABLES = {
    "ansible_connection": "local",
    "ansible_python_interpreter": "{{ ansible_playbook_python }}",
    "chat_url": "https://chat.example.org/",
    "virtual_ip_address": "192.0.2.10",
    "chat_tls_names": ["Chat.internal", "2001:db8::1"],
}
# deploy.yml runs these tasks before it applies the objects.
TASKS = [
    {
        "ansible.builtin.include_role": {
            "name": "baremetal_chat.platform.chat",
            "tasks_from": "{{ item }}",
        },
        "loop": ["tls.yml", "ca.yml"],
        "vars": {"__chat_missing_namespaces": []},
    },
]


class Site:
    """A controller with its folder, and a cluster (the stand-in)."""

    def __init__(self, folder: Path, api: KubernetesApi) -> None:
        self.objects = api.objects
        self.ca_file = folder / "ca.crt"
        self._folder = folder
        self._kubeconfig = api.kubeconfig
        play = {"hosts": "host1", "gather_facts": False, "tasks": TASKS}
        (folder / "play.json").write_text(json.dumps([play]))

    def run(self, *options: str, **variables: Any) -> tuple[int, str]:
        """Run the tasks; return the number of changes and the output."""
        known = {"chat_kubeconfig": self._kubeconfig, "chat_tls_ca_file": str(self.ca_file)}
        site = self._folder / "hosts.json"
        hosts = {"hosts": {"host1": VARIABLES | known | variables}}
        site.write_text(json.dumps({"all": hosts}))
        done = ansible_playbook(
            f"--inventory={site}",
            self._folder / "play.json",
            *options,
            ANSIBLE_FORCE_COLOR="false",
            **(LINEAR if "-vvv" in options else {}),
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        changes = re.search(r"^host1 +: .* changed=(\d+)", said, re.MULTILINE)
        assert changes, said
        return int(changes[1]), said

    def secret(self, path: str, key: str) -> str:
        return base64.b64decode(self.objects[path]["data"][key]).decode()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("certificate")
    with KubernetesApi(folder) as api:
        api.make_namespaces("chat", "chat-ca")
        yield Site(folder, api)


@pytest.fixture(scope="module")
def first(site: Site) -> str:
    """The output of the first run, with -vvv."""
    changes, said = site.run("-vvv", "--diff")
    # The authority, the certificate, and the file.
    assert changes == 3
    return said


def openssl(command: str, given: str) -> str:
    done = subprocess.run(
        ["openssl", *command.split()], input=given, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.mark.usefixtures("first")
def test_clients_with_the_authoritys_certificate_trust_every_name(site: Site) -> None:
    leaf = site.secret(LEAF, "tls.crt")
    ways = (
        *("-verify_hostname chat.example.org", "-verify_hostname chat.internal"),
        *("-verify_ip 192.0.2.10", "-verify_ip 192.0.2.11", "-verify_ip 2001:db8::1"),
    )
    for way in ways:
        openssl(f"verify -x509_strict -purpose sslserver -CAfile {site.ca_file} {way}", leaf)
    public = openssl("pkey -pubout", site.secret(LEAF, "tls.key"))
    assert openssl("x509 -noout -pubkey", leaf) == public


def test_the_output_and_the_public_file_contain_no_key(site: Site, first: str) -> None:
    assert "PRIVATE KEY" not in first
    for path in (CA, LEAF):
        key = site.secret(path, "tls.key")
        body = "".join(line for line in key.splitlines() if "PRIVATE" not in line)
        for part in (body, site.objects[path]["data"]["tls.key"]):
            # Nor with its line breaks removed or escaped.
            assert part[:60] not in first.replace("\\n", "").replace("\n", "")
    assert "PRIVATE KEY" not in site.ca_file.read_text()


@pytest.mark.usefixtures("first")
def test_a_run_keeps_the_acme_jobs_secrets_and_does_not_show_them(site: Site) -> None:
    account, trial = (
        f"/api/v1/namespaces/chat-acme/secrets/{name}" for name in ("account", "trial")
    )
    written = {"account.key": "d3JpdHRlbi1ieS10aGUtam9i"}
    meta = {"name": "account", "namespace": "chat-acme"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": written}
    site.objects[account] = secret
    _, said = site.run("-vvv", "--diff", chat_acme=True)
    assert site.objects.pop(account)["data"] == written
    assert "data" not in site.objects.pop(trial)
    assert written["account.key"] not in said


@pytest.mark.usefixtures("first")
def test_a_second_run_changes_nothing(site: Site) -> None:
    before = json.dumps(site.objects)
    changes, _ = site.run()
    assert changes == 0
    assert json.dumps(site.objects) == before


@pytest.mark.usefixtures("first")
def test_another_controller_gets_the_authoritys_certificate_from_the_cluster(site: Site) -> None:
    before = site.ca_file.read_text()
    site.ca_file.unlink()
    changes, _ = site.run()
    assert changes == 1
    assert site.ca_file.read_text() == before


@pytest.mark.usefixtures("first")
def test_a_certificate_that_lacks_a_name_is_replaced_under_the_same_authority(site: Site) -> None:
    authority, before = site.objects[CA], site.objects[LEAF]
    changes, _ = site.run("--check", chat_tls_names=["other.example.org"])
    assert (changes, site.objects[LEAF]) == (1, before)
    changes, _ = site.run(chat_tls_names=["other.example.org"])
    assert (changes, site.objects[CA]) == (1, authority)
    openssl(
        f"verify -CAfile {site.ca_file} -verify_hostname other.example.org",
        site.secret(LEAF, "tls.crt"),
    )


@pytest.mark.usefixtures("first")
def test_a_certificate_from_acme_is_kept_until_acme_is_switched_off(site: Site) -> None:
    got = site.objects[LEAF] = copy.deepcopy(site.objects[LEAF])
    del got["data"]["ca.crt"]
    got["metadata"]["annotations"] = {"baremetal-chat/acme": "https://acme.example.org/dir name"}
    changes, _ = site.run(chat_acme=True, chat_acme_production=True, chat_tls_names=["another"])
    # Only the Secrets for the job are new.
    assert (changes, site.objects[LEAF]) == (1, got)
    changes, _ = site.run()
    assert (changes, set(site.objects[LEAF]["data"])) == (1, {"tls.crt", "tls.key", "ca.crt"})
    # If ACME is switched on again, this one is replaced.
    assert site.objects[LEAF]["metadata"]["annotations"] == {"baremetal-chat/acme": ""}


@pytest.mark.usefixtures("first")
def test_a_certificate_that_expires_soon_is_replaced_together_with_its_key(site: Site) -> None:
    authority, before = site.objects[CA], site.objects[LEAF]
    changes, _ = site.run(chat_tls_renew_days=397)
    assert (changes, site.objects[CA]) == (1, authority)
    assert site.objects[LEAF]["data"]["tls.key"] != before["data"]["tls.key"]
    openssl(f"verify -x509_strict -CAfile {site.ca_file}", site.secret(LEAF, "tls.crt"))
