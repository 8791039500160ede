"""Certificates of the site's own authority are tried before anything is changed.

Each case is a host with a folder of its own. Programs stand in for the host's `sed` and `grep`,
which read the host's files below a folder, and `systemctl`.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ansible_runs import SED, ansible_playbook
from authority import Authority, pem_of

NOTHING = "nothing was refused"
NAMES = ["192.0.2.11", "broker.example.org"]

OURS, OTHER = Authority("Of the site"), Authority("Of the site 2")
OURS_PEM, OTHER_PEM = OURS.pem, OTHER.pem
BETWEEN, ENDED = Authority("Between", by=OURS), Authority("Between", by=OURS, days=-2)


def service(authority: Authority = OURS, form: str = "PKCS8", **changed: Any) -> str:
    key, certificate = authority.issue(**{"name": "kafka", "names": NAMES} | changed)
    return pem_of(key, form) + certificate


def playbooks(authority: Authority = OURS) -> str:
    key, certificate = authority.issue("kafka-playbooks")
    return pem_of(key) + certificate


GIVEN = {"ca.crt": OURS_PEM, "playbooks.pem": playbooks(), "HOST.pem": service()}
INSTALLED = GIVEN["HOST.pem"][GIVEN["HOST.pem"].index("-----BEGIN CERT") :]
_, EXPIRED = OURS.issue("kafka", NAMES, days=-2)
BOTH = OURS_PEM + OTHER_PEM
THEIRS = {"HOST.pem": service(OTHER), "playbooks.pem": playbooks(OTHER)}


class Case(NamedTuple):
    """Files that the site gives, what is installed, and words of the refusal."""

    given: dict[str, str]
    said: str
    certificate: str = ""
    trusted: str = ""


CASES = {
    "certificates that can be": Case({}, NOTHING),
    "a key of another certificate": Case(
        {"HOST.pem": pem_of(OURS.key) + INSTALLED}, "KEY_VALUES_MISMATCH"
    ),
    "another subject": Case(
        {"HOST.pem": service(unit="Site")},
        "its subject is CN=kafka,organizationName=Site, and has to be CN=kafka. '",
    ),
    "the playbooks' subject for a host": Case(
        {"HOST.pem": service(name="kafka-playbooks")}, "and has to be CN=kafka. '"
    ),
    "a host's subject for the playbooks": Case(
        {"playbooks.pem": GIVEN["HOST.pem"]}, "and has to be CN=kafka-playbooks. '"
    ),
    "a name that is missing": Case(
        {"HOST.pem": service(names=NAMES[:1])}, "it is not for broker.example.org"
    ),
    "another authority": Case(THEIRS, "/ca.crt' as its CA: unable to get local issuer"),
    "a certificate that has ended": Case({"HOST.pem": service(days=-2)}, "has expired"),
    "no certificate for the host": Case({"HOST.pem": ""}, "cannot be read. Put there ca.crt"),
    "a key that Kafka cannot read": Case(
        {"HOST.pem": service(form="TraditionalOpenSSL")}, "openssl pkcs8 -topk8 -nocrypt"
    ),
    "a new authority, in its first step": Case({"ca.crt": BOTH}, NOTHING, INSTALLED, OURS_PEM),
    "a new authority, in its second step": Case(
        {"ca.crt": BOTH, **THEIRS}, NOTHING, INSTALLED, BOTH
    ),
    "a new authority, in its last step": Case({}, NOTHING, INSTALLED, BOTH),
    "a new authority without the first step": Case(
        {"ca.crt": BOTH, **THEIRS},
        "If it is a new root, first have all hosts trust it beside 'Of the site', with",
        INSTALLED,
        OURS_PEM,
    ),
    "an intermediate authority": Case(
        {"HOST.pem": service(BETWEEN) + BETWEEN.pem}, NOTHING, INSTALLED, OURS_PEM
    ),
    "an intermediate authority that the file lacks": Case(
        {"HOST.pem": service(BETWEEN)},
        "signed by 'Between', which kafka does not trust yet. If that is an intermediate"
        " authority, append its certificate to this file. If it is a new root, first",
        INSTALLED,
        OURS_PEM,
    ),
    "a new authority without the second step": Case(
        {"ca.crt": OTHER_PEM, **THEIRS}, "Keep the old authority in ca.crt", INSTALLED, BOTH
    ),
}


STAND_INS = {
    "sed": SED,
    "grep": '#!/bin/sh\nexec /usr/bin/grep "$1" "$2" "$FOLDER$3"\n',
    "systemctl": '#!/bin/sh\ncat "$FOLDER/state"\n',
}


def run_tasks(
    folder: Path, inventory: dict[str, Any], *options: str, files: tuple[str, ...]
) -> str:
    """Run files of the role's tasks, and return the output. A host's files are below its name."""
    for program, text in STAND_INS.items():
        (folder / program).write_text(text)
        (folder / program).chmod(0o755)
    inventory["vars"] |= {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "kafka_tls_names": NAMES,
    }
    (folder / "hosts.json").write_text(json.dumps({"all": inventory}))
    name = "baremetal_chat.platform.kafka_tls"
    play = {
        "hosts": "all",
        "gather_facts": False,
        "environment": {
            "PATH": f"{folder}:/usr/bin:/bin",
            "FOLDER": f"{folder}/{{{{ inventory_hostname }}}}",
        },
        "tasks": [
            {"ansible.builtin.include_role": {"name": name, "tasks_from": file}} for file in files
        ],
    }
    (folder / "play.json").write_text(json.dumps([play]))
    done = ansible_playbook(
        f"--inventory={folder / 'hosts.json'}",
        folder / "play.json",
        "-v",
        *options,
        ANSIBLE_FORCE_COLOR="false",
    )
    return done.stdout


def refusals(output: str) -> dict[str, str]:
    """What is refused, by the host."""
    failed = re.findall(r"^(?:fatal|failed): \[(\w+)[^\]]*\].*? => (.*)$", output, re.MULTILINE)
    return {host: json.loads(said)["msg"] for host, said in reversed(failed)}


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Check the certificates of a host per case, with options of Ansible, and return its output."""
    folder = tmp_path_factory.mktemp("site")
    hosts = {}
    soon = Case({"HOST.pem": service(days=20)}, "")
    for number, case in enumerate([*CASES.values(), soon]):
        name = f"host{number}"
        given, etc = folder / name / "given", folder / name / "etc" / "kafka"
        given.mkdir(parents=True)
        etc.mkdir(parents=True)
        for file, text in (GIVEN | case.given).items():
            if text:
                (given / file.replace("HOST", name)).write_text(text)
        if case.trusted:
            (etc / "host.pem").write_text(case.certificate)
            (etc / "ca.pem").write_text(case.trusted)
        hosts[name] = {"kafka_tls_site_directory": str(given)}
    variables = {"kafka_tls_directory": str(folder / "made")}
    inventory = {"hosts": hosts, "vars": variables}
    return lambda *options: run_tasks(
        folder, inventory, *options, files=("preflight.yml", "given.yml")
    )


def host_of(case: str) -> str:
    return f"host{list(CASES).index(case)}"


@pytest.fixture(scope="module")
def said(install: Callable[..., str]) -> Callable[[str], str]:
    """What is refused, by the case."""
    output = install()
    assert "PRIVATE KEY-----\\n" not in output
    assert not re.search(r"^changed: ", output, re.MULTILINE)
    found = refusals(output)
    assert f"host{len(CASES)}: '" in output
    assert "ends in 20 days. Put a new certificate there" in output
    return lambda case: found.get(host_of(case), NOTHING)


@pytest.mark.parametrize("case", CASES)
def test_certificates_that_would_not_work_are_refused_before_anything_changes(
    case: str, said: Callable[[str], str]
) -> None:
    assert CASES[case].said in said(case)


def test_another_authority_is_not_installed_on_a_part_of_the_hosts(
    install: Callable[..., str],
) -> None:
    host = host_of("a new authority, in its second step")
    assert f"the hosts that --limit {host} leaves out may trust only one" in install(
        f"--limit={host}"
    )


class Installed(NamedTuple):
    """A service, its host's group, and who of the chain is named as expired, if it is refused."""

    group: str
    service: str
    expired: str = ""
    chain: str = EXPIRED + OURS_PEM
    settings: str = "location=/etc/{}/host.pem"
    state: str = "active"


SETTINGS = {"zookeeper": "zoo.cfg", "kafka": "server.properties"}
_, OF_ENDED = ENDED.issue("kafka", NAMES)
INSTALLATIONS = {
    "broker": Installed("kafka", "kafka", "kafka"),
    "member": Installed("zookeeper", "zookeeper", "kafka"),
    "intermediate": Installed("kafka", "kafka", "Between", OF_ENDED + ENDED.pem),
    "stopped": Installed("kafka", "kafka", state="inactive"),
    "valid": Installed("kafka", "kafka", chain=INSTALLED + OURS_PEM),
    "without_tls_again": Installed("kafka", "kafka", settings="listeners=PLAINTEXT://"),
    "no_member_any_more": Installed("kafka", "zookeeper"),
}


@pytest.mark.parametrize("gives", ["the site", "the role"])
def test_only_services_that_run_with_expired_certificates_are_refused(
    gives: str, tmp_path: Path
) -> None:
    given, made = tmp_path / "given", tmp_path / "made"
    given.mkdir()
    made.mkdir()
    (made / "ca.crt").write_text(OURS_PEM)
    (made / "ca.key").write_text(pem_of(OURS.key))
    groups: dict[str, Any] = {name: {"hosts": {}} for name in SETTINGS}
    for name, installed in INSTALLATIONS.items():
        for file, text in GIVEN.items():
            (given / file.replace("HOST", name)).write_text(text)
        etc = tmp_path / name / "etc" / installed.service
        etc.mkdir(parents=True)
        (etc / "host.pem").write_text(installed.chain)
        (etc / "ca.pem").write_text(OURS_PEM)
        settings = installed.settings.format(installed.service)
        (etc / SETTINGS[installed.service]).write_text(settings)
        (tmp_path / name / "state").write_text(installed.state)
        groups[installed.group]["hosts"][name] = {}
    variables = {
        "kafka_tls_directory": str(made),
        "kafka_tls_authority_name": "Of the site",
        "kafka_tls_site_directory": str(given) if gives == "the site" else "",
    }
    inventory = {"children": groups, "vars": variables}
    output = run_tasks(tmp_path, inventory, files=("preflight.yml",))
    found = refusals(output)
    words = {
        name: f"{name}: in /etc/{each.service}/host.pem, the certificate of '{each.expired}' has"
        f" expired while {each.service} runs, so no health check can connect to it."
        for name, each in INSTALLATIONS.items()
        if each.expired
    }
    assert found.keys() == words.keys(), output
    for name, word in words.items():
        assert word in found[name]
