"""Certificates of the site's own authority are tried before anything is changed.

Each case is a host with a folder of its own. Programs stand in for the host's `sed`, which reads
the host's files below a folder, and `systemctl`.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from ansible_runs import SED, ansible_playbook
from authority import Authority, pem_of

NOTHING = "nothing was refused"
NAMES = ["192.0.2.11", "broker.example.org"]

OURS, OTHER = Authority("Of the site"), Authority("Of the site 2")
OURS_PEM, OTHER_PEM = OURS.pem, OTHER.pem


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
    runs: bool = True


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
    "new certificates for services that run with expired ones": Case(
        {}, "the certificate of kafka has expired while it runs, so no health", EXPIRED, OURS_PEM
    ),
    "new certificates for stopped services": Case({}, NOTHING, EXPIRED, OURS_PEM, runs=False),
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
        "signed by 'Of the site 2', which kafka does not trust yet. First have all hosts trust it"
        " beside 'Of the site', with",
        INSTALLED,
        OURS_PEM,
    ),
    "a new authority without the second step": Case(
        {"ca.crt": OTHER_PEM, **THEIRS}, "Keep the old authority in ca.crt", INSTALLED, BOTH
    ),
}


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Check the certificates of a host per case, with options of Ansible, and return its output."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sed").write_text(SED)
    (folder / "sed").chmod(0o755)
    (folder / "systemctl").write_text('#!/bin/sh\ncat "$FOLDER/state"\n')
    (folder / "systemctl").chmod(0o755)
    hosts = {}
    soon = Case({"HOST.pem": service(days=20)}, "")
    for number, case in enumerate([*CASES.values(), soon]):
        name = f"host{number}"
        given, etc = folder / name / "given", folder / name / "etc" / "kafka"
        given.mkdir(parents=True)
        etc.mkdir(parents=True)
        (folder / name / "state").write_text("active" if case.runs else "inactive")
        for file, text in (GIVEN | case.given).items():
            if text:
                (given / file.replace("HOST", name)).write_text(text)
        if case.trusted:
            (etc / "host.pem").write_text(case.certificate)
            (etc / "ca.pem").write_text(case.trusted)
        hosts[name] = {"kafka_tls_site_directory": str(given)}
    variables = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "kafka_tls_directory": str(folder / "made"),
        "kafka_tls_names": NAMES,
    }
    (folder / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts, "vars": variables}}))
    name = "baremetal_chat.platform.kafka_tls"
    tasks = [
        {"ansible.builtin.include_role": {"name": name, "tasks_from": file}}
        for file in ("preflight.yml", "given.yml")
    ]
    environment = {
        "PATH": f"{folder}:/usr/bin:/bin",
        "FOLDER": f"{folder}/{{{{ inventory_hostname }}}}",
    }
    play = {
        "hosts": "all",
        "gather_facts": False,
        "environment": environment,
        "tasks": tasks,
    }
    (folder / "play.json").write_text(json.dumps([play]))

    def installed(*options: str) -> str:
        done = ansible_playbook(
            f"--inventory={folder / 'hosts.json'}",
            folder / "play.json",
            "-v",
            *options,
            ANSIBLE_FORCE_COLOR="false",
        )
        return done.stdout

    return installed


def host_of(case: str) -> str:
    return f"host{list(CASES).index(case)}"


@pytest.fixture(scope="module")
def said(install: Callable[..., str]) -> Callable[[str], str]:
    """What is refused, by the case."""
    output = install()
    assert "PRIVATE KEY-----\\n" not in output
    assert not re.search(r"^changed: ", output, re.MULTILINE)
    failed = re.findall(r"^(?:fatal|failed): \[(\w+)[^\]]*\].*? => (.*)$", output, re.MULTILINE)
    found = {host: json.loads(said)["msg"] for host, said in reversed(failed)}
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
