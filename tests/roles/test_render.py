"""playbooks/render.yml writes the same objects for GitOps that the roles apply.

The roles run against a stand-in for the Kubernetes API, which stores the applied objects.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ansible_runs import ROOT, ansible_playbook
from kubernetes_api import KubernetesApi

from chat.webhook.config import load
from chat.webhook.events import Kind

# One of Traefik's resource definitions is enough. `sandbox/build traefik` creates the file.
(DEFINITION,) = [
    item
    for item in yaml.safe_load_all((ROOT / ".artifacts" / "traefik" / "crds.yml").read_text())
    if item["metadata"]["name"] == "ingressroutes.traefik.io"
]
DEFINITIONS = yaml.safe_dump(DEFINITION)
PASSWORD = "of Kafka"
BOTS = '{"keys": []}'
HOOK_SECRET = "whsec_" + base64.b64encode(b"of a receiver, and long enough").decode()
HOOK_TOKEN = "of the webhooks"
KEY = "-----BEGIN PRIVATE KEY-----\nof the site\n-----END PRIVATE KEY-----"
SITE: dict[str, Any] = {
    "traefik_crds_sha256": hashlib.sha256(DEFINITIONS.encode()).hexdigest(),
    "traefik_namespaces": ["chat", "forum"],
    "kafka_security": "plaintext",
    "chat_image": f"registry.example.org/chat@sha256:{64 * '0'}",
    "chat_url": "https://chat.example.org/",
    "chat_replicas_max": 6,
    "chat_tls_certificate": "-----BEGIN CERTIFICATE-----",
    "chat_tls_key": KEY,
    "chat_config": {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_USERNAME": "chat"},
    "chat_kafka_sasl_password": PASSWORD,
    "chat_files": {"bots.json": BOTS},
    "chat_webhooks": [
        {
            "name": "first",
            "room": "lobby",
            "url": 'https://hooks.example.org/a"\\b',
            "secret": HOOK_SECRET,
        },
        {
            "name": "second",
            "room": "staff",
            "url": "http://127.0.0.1:8000/",
            "secret": f"{HOOK_SECRET}\n{HOOK_SECRET}",
            "events": ["message.deleted"],
            "plain_http": True,
        },
    ],
    "chat_webhooks_config": {"give_up_hours": 24, "user": "Größe"},
    "chat_webhooks_token": HOOK_TOKEN,
}
# This host does not respond: render.yml must connect to none.
HOST = {"ansible_host": "192.0.2.11", "kafka_broker_id": 1}
ROLE = "ansible.builtin.include_role"


def run(folder: Path, *arguments: str | Path, **variables: Any) -> subprocess.CompletedProcess[str]:
    groups = {group: {"hosts": {"host1": HOST}} for group in ("kafka", "microk8s")}
    definitions, inventory = folder / "crds.yml", folder / "hosts.json"
    definitions.write_text(DEFINITIONS)
    known = SITE | {"traefik_crds": [str(definitions)]} | variables
    site = {name: value for name, value in known.items() if value is not None}
    inventory.write_text(json.dumps({"all": {"vars": site, "children": groups}}))
    return ansible_playbook(f"--inventory={inventory}", *arguments, ANSIBLE_FORCE_COLOR="false")


def render(folder: Path, **variables: Any) -> subprocess.CompletedProcess[str]:
    variables = {"manifests_directory": str(folder / "manifests")} | variables
    return run(folder, "playbooks/render.yml", **variables)


@dataclass(frozen=True)
class Rendered:
    folder: Path
    said: str

    @property
    def files(self) -> dict[str, str]:
        """The text of each file, by its path."""
        manifests = self.folder / "manifests"
        return {
            str(path.relative_to(manifests)): path.read_text()
            for path in manifests.rglob("*.yml")
            if path.is_file()
        }


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    folder = tmp_path_factory.mktemp("site")
    done = render(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return Rendered(folder, done.stdout)


def path(item: dict[str, Any]) -> str:
    meta = item["metadata"]
    return f"{meta.get('namespace', '_cluster')}/{item['kind'].lower()}-{meta['name']}.yml"


def test_rendered_objects_equal_applied_objects_except_secrets(
    rendered: Rendered, tmp_path: Path
) -> None:
    def include(role: str, *files: str) -> list[dict[str, Any]]:
        name = f"baremetal_chat.platform.{role}"
        return [{ROLE: {"name": name, "tasks_from": file}} for file in files]

    tasks = [
        *include("kafka", "endpoints.yml"),
        *include("traefik", "preflight.yml", "install.yml"),
        *include("chat", "preflight.yml", "deploy.yml"),
    ]
    play = tmp_path / "play.json"
    play.write_text(json.dumps([{"hosts": "host1", "gather_facts": False, "tasks": tasks}]))
    with KubernetesApi(tmp_path) as api:
        done = run(
            tmp_path,
            play,
            microk8s_kubeconfig=api.kubeconfig,
            ansible_connection="local",
            ansible_python_interpreter="{{ ansible_playbook_python }}",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        applied = {path(item): item for item in api.objects.values()}
    secrets = {name for name in applied if "/secret-" in name}
    assert secrets == {
        "chat/secret-chat-files-x7k2p.yml",
        "chat/secret-chat-tls.yml",
        "chat/secret-webhooks-files-x7k2p.yml",
        "chat/secret-webhooks-state.yml",
    }
    files = applied["chat/secret-chat-files-x7k2p.yml"]["data"]
    assert {name: base64.b64decode(text).decode() for name, text in files.items()} == {
        "kafka-password": PASSWORD,
        "bots.json": BOTS,
    }
    check_what_webhooks_read(applied["chat/secret-webhooks-files-x7k2p.yml"], tmp_path / "hooks")
    assert "data" not in applied["chat/secret-webhooks-state.yml"]
    deployment = applied["chat/deployment-chat.yml"]["spec"]
    # Rendered, `replicas` would undo the autoscaler's choice with each synchronisation.
    assert deployment.pop("replicas") == 2
    # The role creates a Secret for each content. A Secret created by hand has a fixed name.
    for name, secret in {"chat": "chat-files", "webhooks": "webhooks-files"}.items():
        pod = applied[f"chat/deployment-{name}.yml"]["spec"]["template"]["spec"]
        (volume,) = pod["volumes"]
        assert volume["secret"]["secretName"] == f"{secret}-x7k2p"
        volume["secret"]["secretName"] = secret

    written = {name: yaml.safe_load(text) for name, text in rendered.files.items()}
    assert written.keys() == applied.keys() - secrets
    for name, item in written.items():
        assert item == applied[name], name


def check_what_webhooks_read(secret: dict[str, Any], folder: Path) -> None:
    """The program itself does."""
    assert secret["immutable"] is True
    folder.mkdir()
    for name, text in secret["data"].items():
        (folder / name).write_bytes(base64.b64decode(text))
        (folder / name).chmod(0o600)
    loaded = load(folder / "webhooks.toml")
    config = loaded.config
    assert (config.chat, config.user) == ("http://chat.chat.svc:8080/", "Größe")
    assert (config.give_up_hours, config.metrics_address) == (24, ("0.0.0.0", 9090))
    assert loaded.state_secret == "chat/webhooks-state"
    assert loaded.token_file is not None
    assert loaded.token_file.read_text() == HOOK_TOKEN
    first, second = config.webhooks
    assert (first.name, first.room, first.events) == ("first", "lobby", set(Kind))
    assert first.url == SITE["chat_webhooks"][0]["url"]
    assert (second.url, second.events) == ("http://127.0.0.1:8000/", {Kind.DELETED})
    assert [str(loaded.secrets[name]) for name in ("first", "second")] == [
        "<1 secrets>",
        "<2 secrets>",
    ]


def test_a_dry_run_skips_objects_in_namespaces_that_do_not_exist_yet(tmp_path: Path) -> None:
    chat = "baremetal_chat.platform.chat"
    files = ("preflight.yml", "cluster.yml", "deploy.yml")
    tasks = [{ROLE: {"name": chat, "tasks_from": file}} for file in files]
    play = tmp_path / "play.json"
    play.write_text(json.dumps([{"hosts": "host1", "gather_facts": False, "tasks": tasks}]))
    # The chat runs with the role's own authority. This run would introduce ACME.
    acme = {"chat_tls_certificate": None, "chat_tls_key": None, "chat_acme": True}
    with KubernetesApi(tmp_path) as api:
        api.make_namespaces("chat", "chat-ca")
        before = json.dumps(api.objects)
        done = run(
            tmp_path,
            "--check",
            "playbooks/render.yml",
            play,
            **acme,
            manifests_directory=str(tmp_path / "manifests"),
            chat_kafka_bootstrap_servers="192.0.2.11:9093",
            microk8s_kubeconfig=api.kubeconfig,
            ansible_connection="local",
            ansible_python_interpreter="{{ ansible_playbook_python }}",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.dumps(api.objects) == before
    assert "chat-acme/account, type Opaque, empty" in done.stdout


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_empty_list_of_webhooks_removes_all_their_objects(
    rendered: Rendered, tmp_path: Path, interrupted: bool
) -> None:
    chat = "baremetal_chat.platform.chat"
    play = tmp_path / "play.json"
    tasks = [{ROLE: {"name": chat, "tasks_from": "deploy.yml"}}]
    play.write_text(json.dumps([{"hosts": "host1", "gather_facts": False, "tasks": tasks}]))
    applied = [yaml.safe_load(text) for text in rendered.files.values()]
    objects = [item for item in applied if item["metadata"]["name"] == "webhooks"]
    assert len(objects) == 5
    meta = {"namespace": "chat", "labels": objects[0]["metadata"]["labels"]}
    objects += [
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta | {"name": name}}
        for name in ("webhooks-state", "webhooks-files-x7k2p")
    ]
    with KubernetesApi(tmp_path) as api:
        for item in objects:
            # An earlier run has removed the Deployment, and no more.
            if item["kind"] != "Deployment" or not interrupted:
                api.make(item)
        done = run(
            tmp_path,
            play,
            chat_webhooks=[],
            chat_kafka_bootstrap_servers="192.0.2.11:9093",
            microk8s_kubeconfig=api.kubeconfig,
            ansible_connection="local",
            ansible_python_interpreter="{{ ansible_playbook_python }}",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert [path for path in api.objects if "webhooks" in path] == []


def test_acme_that_is_switched_off_leaves_no_object_although_a_run_was_interrupted(
    tmp_path: Path,
) -> None:
    chat = "baremetal_chat.platform.chat"
    play = tmp_path / "play.json"
    tasks = [{ROLE: {"name": chat, "tasks_from": "deploy.yml"}}]
    play.write_text(json.dumps([{"hosts": "host1", "gather_facts": False, "tasks": tasks}]))
    listed = yaml.safe_load((ROOT / "roles/chat/vars/main.yml").read_text())["__chat_acme_objects"]
    with KubernetesApi(tmp_path) as api:
        for acme in (True, False):
            done = run(
                tmp_path,
                play,
                chat_tls_certificate=None,
                chat_tls_key=None,
                chat_tls_ca_file=str(tmp_path / "chat-ca.crt"),
                chat_acme=acme,
                chat_acme_ca="of the authority",
                chat_kafka_bootstrap_servers="192.0.2.11:9093",
                microk8s_kubeconfig=api.kubeconfig,
                ansible_connection="local",
                ansible_python_interpreter="{{ ansible_playbook_python }}",
            )
            assert done.returncode == 0, done.stdout + done.stderr
            # What is in the job's own namespace goes with it.
            found = {
                path: item["kind"]
                for path, item in api.objects.items()
                if path.endswith("acme") and "/chat-acme/" not in path
            }
            if acme:
                kinds = [*(item["kind"] for item in listed), "Namespace"]
                assert sorted(found.values()) == sorted(kinds)
                # An earlier run has removed the job, and no more.
                (job,) = (path for path, kind in found.items() if kind == "CronJob")
                del api.objects[job]
                # Another chat of this cluster has its own.
                mine = "/api/v1/namespaces/chat-acme"
                another = copy.deepcopy(api.objects[mine])
                another["metadata"]["name"] = "forum-acme"
                api.objects[mine.replace("chat", "forum")] = another
        assert [*found] == ["/api/v1/namespaces/forum-acme"]


def test_a_configuration_of_webhooks_that_cannot_be_checked_is_reported_with_the_reason(
    tmp_path: Path,
) -> None:
    chat = "baremetal_chat.platform.chat"
    tasks = [{ROLE: {"name": chat, "tasks_from": "webhooks.yml"}}]
    missing = {"ansible.builtin.tempfile": {"path": str(tmp_path / "missing")}}
    play = tmp_path / "play.json"
    known = {"hosts": "host1", "gather_facts": False, "module_defaults": missing, "tasks": tasks}
    play.write_text(json.dumps([known]))
    done = run(tmp_path, play)
    assert done.returncode == 2
    (error,) = re.findall(r"\[ERROR\]: (.*)", done.stdout + done.stderr)
    assert f"No such file or directory: '{tmp_path}/missing/" in error


def test_rendered_files_have_only_fields_that_kubernetes_knows(rendered: Rendered) -> None:
    for text in rendered.files.values():
        item = yaml.safe_load(text)
        # test_manifests.py validates Traefik's own objects.
        if not item["apiVersion"].startswith("traefik.io/"):
            kubernetes_validate.validate(item, "1.36", strict=True)


def test_secrets_are_listed_by_name_but_not_written(rendered: Rendered) -> None:
    for text in (*rendered.files.values(), rendered.said):
        assert PASSWORD not in text
        assert "PRIVATE KEY" not in text
        assert HOOK_SECRET not in text
        assert HOOK_TOKEN not in text
        assert "hooks.example.org" not in text
    assert "chat/chat-tls, type kubernetes.io/tls, keys tls.crt, tls.key" in rendered.said
    assert "chat/chat-files, type Opaque, keys kafka-password, bots.json" in rendered.said
    files = "webhooks.toml, secret-0, secret-1, token"
    assert f"chat/webhooks-files, type Opaque, keys {files}" in rendered.said
    assert "chat/webhooks-state, type Opaque, empty" in rendered.said


def test_a_second_run_removes_only_outdated_files_of_the_first_run(rendered: Rendered) -> None:
    before = rendered.files
    manifests = rendered.folder / "manifests"
    text = before["chat/service-chat.yml"]
    gone = manifests / "chat" / "configmap-chat-0123456789.yml"
    # Copies of rendered files that a site made.
    ours = [manifests / "chat" / "ours.yml", manifests / "overlays" / "chat" / "service-chat.yml"]
    for path in (gone, *ours):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with (manifests / "rendered.txt").open("a") as written:
        written.write("chat/configmap-chat-0123456789.yml\n../hosts.json\n")
    # Another spelling of the same directory.
    done = render(rendered.folder, manifests_directory=f"{rendered.folder}/./manifests/")
    assert done.returncode == 0, done.stdout + done.stderr
    # Two changes: the removed file, and the list.
    assert re.findall(r"changed=(\d+)", done.stdout) == ["2"]
    assert not gone.exists()
    assert (rendered.folder / "hosts.json").exists()
    for path in ours:
        assert path.read_text() == text
        path.unlink()
    assert rendered.files == before


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"manifests_directory": "manifests"}, "manifests_directory is 'manifests'. Give the abs"),
        ({"chat_image": ""}, "chat_image is empty: playbooks/chat.yml would build the image"),
        ({"chat_url": None}, "Set chat_url or virtual_ip_address."),
    ],
)
def test_variables_that_chat_yml_gets_from_hosts_are_required(
    tmp_path: Path, variables: dict[str, Any], words: str
) -> None:
    done = render(tmp_path, **variables)
    assert done.returncode == 2
    assert words in " ".join(done.stdout.split())
    assert not (tmp_path / "manifests").exists()
