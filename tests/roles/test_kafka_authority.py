"""An authority is replaced in steps that lose nobody, without a cluster.

The controller's part is real. A program stands in for the host's `sed`: it reads the host's files
below a folder. For a service to follow, as kafka.yml has it, is two copies.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_runs import QUICK, ansible_playbook
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

FIRST, SECOND = "CA of Kafka and ZooKeeper", "CA of Kafka and ZooKeeper 2"
SERVICES = ("zookeeper", "kafka")
# The last is the file, or it is sed's own.
SED = """#!/bin/sh
for each; do
  shift
  case $each in /etc/*) each=$FOLDER$each ;; esac
  set -- "$@" "$each"
done
/usr/bin/sed "$@" 2> /dev/null | /usr/bin/sed "s|^$FOLDER||"
"""

FAILED = "ansible_failed_result.results | default([ansible_failed_result])"

Tasks = list[dict[str, Any]]


def role(tasks_from: str) -> dict[str, Any]:
    name = "baremetal_chat.platform.kafka_tls"
    return {"ansible.builtin.include_role": {"name": name, "tasks_from": tasks_from}}


def command(line: str) -> dict[str, Any]:
    return {"ansible.builtin.shell": line}


def run_of(name: str, *, steps: int = 1, **variables: Any) -> Tasks:
    """A run of the playbook: it checks, takes steps, and says which; or it says what is wrong."""
    step = [
        role("step.yml"),
        {"ansible.builtin.debug": {"msg": "={{ kafka_tls_step.take }}="}},
        role("replace.yml"),
        role("authority.yml"),
    ]
    return [
        {
            "block": [role("preflight.yml"), *step * steps],
            "rescue": [
                {"ansible.builtin.debug": {"msg": f"={{{{ ({FAILED} | last).msg }}}}="}},
            ],
            "vars": {"kafka_tls_authority_name": name} | variables,
        }
    ]


def follow(*services: str) -> Tasks:
    """Services have what the controller has. The playbooks' certificate does for theirs."""
    line = "cp kafka-tls/ca.crt etc/{0}/ca.pem && cp kafka-tls/playbooks.pem etc/{0}/host.pem"
    return [command(line.format(service)) for service in services or SERVICES]


def keep(name: str) -> Tasks:
    return [command(f"cp -r kafka-tls {name}")]


@pytest.fixture
def play(tmp_path: Path) -> Any:
    """Run tasks after the installation of a cluster, and return what they say, between `=`."""
    (tmp_path / "sed").write_text(SED)
    (tmp_path / "sed").chmod(0o755)
    for service in SERVICES:
        (tmp_path / "etc" / service).mkdir(parents=True)

    def play(tasks: Tasks) -> list[str]:
        site = {
            "hosts": {"chat1": {}},
            "vars": {
                "ansible_connection": "local",
                "ansible_become": False,
                "kafka_tls_directory": str(tmp_path / "kafka-tls"),
                "kafka_tls_replaces": True,
            },
        }
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"children": {"kafka": site}}}))
        play = {
            "hosts": "kafka",
            "gather_facts": False,
            "environment": {"PATH": f"{tmp_path}:/usr/bin:/bin", "FOLDER": str(tmp_path)},
            "module_defaults": {"ansible.builtin.shell": {"chdir": str(tmp_path)}},
            "tasks": [
                *(role(each) for each in ("preflight.yml", "files.yml", "authority.yml")),
                *follow(),
                *tasks,
            ],
        }
        (tmp_path / "play.json").write_text(json.dumps([play]))
        done = ansible_playbook(
            f"--inventory={tmp_path / 'hosts.json'}", tmp_path / "play.json", **QUICK
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "PRIVATE KEY" not in done.stdout
        return re.findall(r'"msg": "=(.*)="', done.stdout)

    return play


def state_of(folder: Path) -> tuple[list[str], str]:
    """Who is trusted; and who signed the playbooks' certificate, and signs more with ca.key."""
    text = (folder / "playbooks.pem").read_bytes()
    shown, authority = x509.load_pem_x509_certificates(text[text.index(b"-----BEGIN CERT") :])
    shown.verify_directly_issued_by(authority)
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert key.public_key() == authority.public_key()
    trusted = x509.load_pem_x509_certificates((folder / "ca.crt").read_bytes())
    return [named(each) for each in trusted], named(authority)


def named(certificate: x509.Certificate) -> str:
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def test_an_authority_is_replaced_in_three_steps_that_wait_for_all_services(
    play: Any, tmp_path: Path
) -> None:
    assert play(
        [
            *keep("before"),
            # Clients are given both before the new one signs: not in the run that makes it,
            *run_of(SECOND, steps=2),
            # nor in the one that finishes the step, after an interruption.
            *follow("zookeeper"),
            *run_of(SECOND),
            *keep("trusted"),
            *follow(),
            *run_of(SECOND),
            *keep("signed"),
            *follow(),
            # A service that has not followed afterwards is not refused.
            *run_of(SECOND, steps=2),
            *run_of(SECOND),
        ]
    ) == ["trust", "", "", "sign", "drop", "", ""]
    assert state_of(tmp_path / "before") == ([FIRST], FIRST)
    assert state_of(tmp_path / "trusted") == ([FIRST, SECOND], FIRST)
    assert state_of(tmp_path / "signed") == ([FIRST, SECOND], SECOND)
    assert state_of(tmp_path / "kafka-tls") == ([SECOND], SECOND)
    assert not (tmp_path / "kafka-tls" / "ca-next.key").exists()


def test_what_would_lose_a_service_is_refused(play: Any, tmp_path: Path) -> None:
    said = play(
        [
            *run_of(SECOND, kafka_tls_replaces=False),
            *keep("before"),
            *run_of(FIRST.upper()),
            # Interrupted before the certificate was there: the next run makes another.
            *run_of(SECOND),
            command("cp before/ca.crt kafka-tls/"),
            *run_of(SECOND),
            *follow(),
            # Turned around while the old one signs, and again.
            *run_of(FIRST),
            *keep("turned"),
            *follow(),
            *run_of(SECOND),
            *follow(),
            *run_of("A third"),
            command("mv kafka-tls/ca-next.key ."),
            *run_of(SECOND),
            command("mv ca-next.key kafka-tls/"),
            *run_of(SECOND),
            *follow(),
            # Folders of before, from a backup. Nobody would trust the services' certificates,
            *keep("signed"),
            command("cp before/ca.crt before/ca.key kafka-tls/"),
            *run_of(FIRST),
            # or the key is another's.
            command("cp signed/ca.crt kafka-tls/ && mv before/playbooks.pem kafka-tls/ca.key"),
            *run_of(SECOND),
        ]
    )
    words = [
        f"kafka_tls_authority_name is '{SECOND}', and the authority of the cluster is '{FIRST}'.",
        f"kafka_tls_authority_name is '{FIRST.upper()}'. Give 1 to 64 characters, and for a new",
        "trust",
        "trust",
        "drop",
        "trust",
        f"{FIRST} is replaced by {SECOND}. Set it to one of these until that has ended.",
        f"ca-next.key' is not the key of '{SECOND}'",
        "sign",
        "kafka trusts another authority than kafka_tls_directory has",
        "ca.key' is the key of none of the authorities",
    ]
    assert len(said) == len(words), "\n".join(said)
    for each, word in zip(said, words, strict=True):
        assert word in each
    assert state_of(tmp_path / "turned") == ([FIRST], FIRST)
    assert not (tmp_path / "turned" / "ca-next.key").exists()
