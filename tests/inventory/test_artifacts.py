"""artifacts.yml lists all downloads, and fetches them for a site without internet access."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
KAFKA = yaml.safe_load((ROOT / "roles/kafka_distribution/defaults/main.yml").read_text())[
    "kafka_distribution_version"
]


def artifacts(inventory: str, *options: str) -> str:
    return subprocess.run(
        [
            "ansible-playbook",
            f"--inventory=inventory/{inventory}",
            "playbooks/artifacts.yml",
            *options,
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "false"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_every_download_of_the_roles_is_listed_with_a_checksum_or_a_digest() -> None:
    listed = artifacts("example")
    for source in (
        f"https://archive.apache.org/dist/kafka/{KAFKA}/kafka_2.13-{KAFKA}.tgz",
        "sha512:01186a5086b5ae75",
        "https://repo1.maven.org/maven2/io/prometheus/jmx/jmx_prometheus_javaagent/1.0.1/",
        "sha256:7d61f737fd661610",
        "kubernetes-crd-definition-v1.yml",
        "sha256:1d5e8558803804",
        "docker.io/library/traefik:v",
        "docker.io/library/python@sha256:",
        "snap download microk8s --channel=1.36/stable",
        "--require-hashes",
    ):
        assert source in listed


def test_fetched_files_are_verified_and_set_as_the_roles_variables(tmp_path: Path) -> None:
    signature = tmp_path / "signature"
    signature.write_text("signed")
    artifacts(
        "sandbox",
        f"--extra-vars=artifacts_directory={tmp_path}",
        "--extra-vars=kafka_distribution_keys=/srv/KEYS",
        "--extra-vars",
        json.dumps({"kafka_distribution_signature": [str(tmp_path / "gone"), str(signature)]}),
    )
    variables = yaml.safe_load((tmp_path / "variables.yml").read_text())
    assert variables == {
        "kafka_distribution_archive": [str(tmp_path / f"kafka_2.13-{KAFKA}.tgz")],
        "kafka_distribution_signature": [str(tmp_path / f"kafka_2.13-{KAFKA}.tgz.asc")],
        "jmx_exporter_jar": [str(tmp_path / "jmx_prometheus_javaagent-1.0.1.jar")],
        "traefik_crds": [str(tmp_path / "traefik-crds.yml")],
    }
    assert Path(variables["kafka_distribution_signature"][0]).read_text() == "signed"
    built = (ROOT / f".artifacts/kafka/kafka_2.13-{KAFKA}.tgz.sha512").read_text().split()[0]
    fetched = Path(variables["kafka_distribution_archive"][0]).read_bytes()
    assert hashlib.sha512(fetched).hexdigest() == built
