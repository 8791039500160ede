"""The hosts as an operator finds them after `site.yml`."""

import os
import subprocess

import pytest
from hosts import ROOT, connect, group

UNITS = [(name, unit) for unit in ("zookeeper", "kafka") for name in group(unit)] + [
    (name, f"snap.microk8s.daemon-{daemon}")
    for name in group("microk8s")
    for daemon in ("containerd", "k8s-dqlite", "kubelite")
]


@pytest.mark.parametrize(("name", "unit"), UNITS)
def test_every_service_runs_and_starts_at_boot(name: str, unit: str) -> None:
    service = connect(name).service(unit)
    assert service.is_running
    assert service.is_enabled


@pytest.mark.parametrize("name", group("all"))
def test_no_unit_has_failed(name: str) -> None:
    assert connect(name).check_output("systemctl --failed --no-legend") == ""


def test_the_chat_runs_by_digest_and_without_privileges() -> None:
    read = (
        "/snap/bin/microk8s kubectl --namespace chat get deployment chat --output "
        "jsonpath='{.spec.template.spec.containers[0].image} {.spec.template.spec"
        ".containers[0].securityContext} {.spec.template.spec.securityContext}'"
    )
    deployed = connect(group("microk8s")[0]).check_output(read)
    assert deployed.startswith("localhost:32000/chat@sha256:")
    for promise in ('"runAsNonRoot":true', '"readOnlyRootFilesystem":true', '"drop":["ALL"]'):
        assert promise in deployed


def test_validate_says_what_it_saw() -> None:
    run = subprocess.run(
        ["ansible-playbook", "playbooks/validate.yml"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "false"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    for line in run.stdout.splitlines():
        if "msg" in line:
            print(line.strip())
    for seen in ("3 of 3 members serve", "'Hello, World' went into TutorialTopic", "in one order"):
        assert seen in " ".join(run.stdout.split())
