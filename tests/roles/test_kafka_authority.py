"""An authority is replaced in steps that lose nobody, without a cluster.

The controller's part is real. A program stands in for the host's `sed`: it reads the host's files
below a folder. For a service to follow, as kafka.yml has it, is two copies.
"""

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_runs import ROOT, SED, ansible_playbook
from authority import Authority, pem_of
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from kubernetes_api import KubernetesApi

FIRST, SECOND = "CA of Kafka and ZooKeeper", "CA of Kafka and ZooKeeper 2"
SERVICES = ("zookeeper", "kafka")

FAILED = "ansible_failed_result.results | default([ansible_failed_result])"

Tasks = list[dict[str, Any]]


def role(tasks_from: str) -> dict[str, Any]:
    name = "baremetal_chat.platform.kafka_tls"
    return {"ansible.builtin.include_role": {"name": name, "tasks_from": tasks_from}}


def command(line: str) -> dict[str, Any]:
    return {"ansible.builtin.shell": line}


def run_of(name: str, *, steps: int = 1, **variables: Any) -> Tasks:
    """A run of the playbook that is interrupted after its last step, before services follow.

    It checks, has services finish the last step, takes the next one, and says which; or it says
    what is wrong.
    """
    step = [
        *follow(),
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


def follow() -> Tasks:
    """Services have what the controller has. The playbooks' certificate does for theirs."""
    line = "cp kafka-tls/ca.crt etc/{0}/ca.pem && cp kafka-tls/playbooks.pem etc/{0}/host.pem"
    return [command(" && ".join(line.format(service) for service in SERVICES))]


def keep(name: str) -> Tasks:
    return [command(f"cp -r kafka-tls {name}")]


def below(folder: Path) -> dict[str, str]:
    """An environment in which the host's files are below a folder."""
    (folder / "sed").write_text(SED)
    (folder / "sed").chmod(0o755)
    for service in SERVICES:
        (folder / "etc" / service).mkdir(parents=True)
    return {"PATH": f"{folder}:/usr/bin:/bin", "FOLDER": str(folder)}


def run_in(
    folder: Path,
    environment: dict[str, str],
    tasks: Tasks,
    *plays: Any,
    groups: tuple[str, ...] = SERVICES,
    options: tuple[str, ...] = (),
    **variables: Any,
) -> subprocess.CompletedProcess[str]:
    """Run tasks on the only host, whose files are below a folder, and further plays."""
    known = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "kafka_tls_directory": str(folder / "kafka-tls"),
        "kafka_tls_replaces": True,
    }
    site = {"hosts": {"chat1": {}}, "vars": known | variables}
    inventory = {"all": {"children": dict.fromkeys(groups, site)}}
    (folder / "hosts.json").write_text(json.dumps(inventory))
    play = {
        "hosts": "kafka",
        "gather_facts": False,
        "environment": environment,
        "module_defaults": {"ansible.builtin.shell": {"chdir": str(folder)}},
        "tasks": tasks,
    }
    (folder / "play.json").write_text(json.dumps([play, *plays]))
    return ansible_playbook(
        f"--inventory={folder / 'hosts.json'}",
        folder / "play.json",
        *options,
        ANSIBLE_FORCE_COLOR="false",
    )


@pytest.fixture
def play(tmp_path: Path) -> Any:
    """Run tasks after the installation of a cluster, and return what they say, between `=`."""
    environment = below(tmp_path)

    def play(tasks: Tasks) -> list[str]:
        installed = [role(each) for each in ("preflight.yml", "files.yml", "authority.yml")]
        done = run_in(tmp_path, environment, [*installed, *follow(), *tasks])
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
            *keep("trusted"),
            # nor in the next one, if no report has told people to.
            *run_of(SECOND),
            role("reported.yml"),
            *run_of(SECOND),
            *keep("signed"),
            *run_of(SECOND),
            # A service that has not followed afterwards is not refused.
            *run_of(SECOND),
        ]
    ) == ["trust", "", "", "sign", "drop", ""]
    assert state_of(tmp_path / "before") == ([FIRST], FIRST)
    assert state_of(tmp_path / "trusted") == ([FIRST, SECOND], FIRST)
    assert state_of(tmp_path / "signed") == ([FIRST, SECOND], SECOND)
    assert state_of(tmp_path / "kafka-tls") == ([SECOND], SECOND)
    assert list((tmp_path / "kafka-tls").glob("ca-next*")) == []


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
            # Turned around while the old one signs, and again.
            role("reported.yml"),
            *run_of(FIRST),
            *keep("turned"),
            *run_of(SECOND),
            *follow(),
            *run_of(SECOND),
            role("reported.yml"),
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
        "",
        f"{FIRST} is replaced by {SECOND}. Set it to one of these until that has ended.",
        f"ca-next.key' is not the key of '{SECOND}'",
        "sign",
        f"kafka is signed by '{SECOND}', and '{tmp_path}/kafka-tls/ca.crt' has only '{FIRST}'. If",
        "ca.key' is the key of none of the authorities",
    ]
    assert len(said) == len(words), "\n".join(said)
    for each, word in zip(said, words, strict=True):
        assert word in each
    assert state_of(tmp_path / "turned") == ([FIRST], FIRST)
    assert list((tmp_path / "turned").glob("ca-next*")) == []


def test_services_with_certificates_of_the_site_take_those_of_an_authority_that_they_trust(
    play: Any, tmp_path: Path
) -> None:
    """Back from a site's own certificates. Those are not signed by this run as long as they are
    trusted, and the site's authority is trusted as long as there may be some.
    """
    site = Authority("Of the site")
    (tmp_path / "site").write_text(site.pem)
    (tmp_path / "leaf").write_text(site.issue("kafka")[1])
    serve = [command(f"cp leaf etc/{service}/host.pem") for service in SERVICES]
    trust = [command(f"cat kafka-tls/ca.crt site > etc/{service}/ca.pem") for service in SERVICES]
    skip = [command(f"cp site etc/{service}/ca.pem") for service in SERVICES]
    check = {"block": [role("preflight.yml"), {"ansible.builtin.debug": {"msg": "=goes on="}}]}
    fails = {"ansible.builtin.debug": {"msg": f"={{{{ ({FAILED} | last).msg }}}}="}}
    limited = {"vars": {"ansible_limit": "chat1"}}
    checked = [check | {"rescue": [fails]}]
    said = play(
        [
            *serve,
            *skip,
            *checked,
            *trust,
            *checked,
            command("cp kafka-tls/ca.crt alone && cat site >> kafka-tls/ca.crt"),
            *checked,
            *follow(),
            command("cp alone kafka-tls/ca.crt"),
            *[each | limited for each in checked],
            *checked,
        ]
    )
    for each, word in zip(
        said,
        [
            "It trusts 'Of the site'. Name the folder",
            f"zookeeper is signed by 'Of the site', and '{tmp_path}/kafka-tls/ca.crt' has only",
            "goes on",
            "leaves out may have certificates of it. Run this without --limit.",
            "goes on",
        ],
        strict=True,
    ):
        assert word in each


def make_authority(key: Path, name: str) -> str:
    """Return its certificate."""
    made = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    done = subprocess.run(
        ["openssl", *made, "-subj", f"/CN={name}", "-keyout", key],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.fixture
def halfway(tmp_path: Path) -> Any:
    """Run plays when people know that all services trust both authorities, and the old one signs.
    Return the exit code and the output.

    The authorities' certificates, `old` and `new`, do for those of services.
    """
    environment = below(tmp_path)
    folder = tmp_path / "kafka-tls"
    folder.mkdir()
    old = make_authority(folder / "ca.key", FIRST)
    new = make_authority(folder / "ca-next.key", SECOND)
    (folder / "ca.crt").write_text(old + new)
    (folder / "ca-next.reported").touch()
    (tmp_path / "old").write_text(old)
    (tmp_path / "new").write_text(new)
    for service in SERVICES:
        (tmp_path / "etc" / service / "host.pem").write_text(old)
        (tmp_path / "etc" / service / "ca.pem").write_text(old + new)

    def halfway(tasks: Tasks, *plays: Any, options: tuple[str, ...] = (), **variables: Any) -> Any:
        done = run_in(
            tmp_path,
            environment,
            tasks,
            *plays,
            groups=(*SERVICES, "microk8s_entry"),
            options=options,
            kafka_tls_authority_name=SECOND,
            **variables,
        )
        return done.returncode, done.stdout + done.stderr

    return halfway


def test_no_step_is_taken_while_a_service_does_not_answer_or_lags(halfway: Any) -> None:
    say = {"ansible.builtin.debug": {"msg": "={{ kafka_tls_step.take }}="}}
    fails = {"ansible.builtin.debug": {"msg": f"={{{{ ({FAILED} | last).msg }}}}="}}
    step = [{"block": [role("step.yml"), say], "rescue": [fails]}]
    # What this reads, before the service lags, does not count.
    read = {"vars": {"kafka_tls_service": "kafka", "kafka_tls_renew_days": 1}}
    code, said = halfway(
        [
            role("main.yml") | read,
            *step,
            command("cp old etc/kafka/ca.pem"),
            *step,
            # The new one signs.
            command("cp kafka-tls/ca.crt etc/kafka/ca.pem"),
            command("cp kafka-tls/ca-next.key kafka-tls/ca.key && cp new etc/zookeeper/host.pem"),
            *step,
            command("rm etc/kafka/host.pem"),
            *step,
            command("cp new etc/kafka/host.pem"),
            *step,
        ]
    )
    assert code == 0, said
    lags = "chat1: kafka has not finished the last step: it needs a certificate of '{}'"
    words = ["sign", lags.format(FIRST), lags.format(SECOND), lags.format(SECOND), "drop"]
    found = re.findall(r'"msg": "=(.*)="', said)
    assert [each[: len(word) or None] for each, word in zip(found, words, strict=True)] == words


def deploy(api: KubernetesApi, namespace: str, *pods: tuple[str, str]) -> None:
    """A chat of pods, each with its phase and what it trusts at brokers."""
    path = f"/api/v1/namespaces/{namespace}"
    for kind in ("Secret", "Pod"):
        items: list[dict[str, Any]] = []
        for number, (phase, trusted) in enumerate(pods):
            name = f"chat-files-{number}"
            item: dict[str, Any] = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
            if kind == "Secret":
                texts = {"kafka-ca.crt": trusted, "kafka-password": "battery staple"}
                data = {file: base64.b64encode(text.encode()) for file, text in texts.items()}
                item["data"] = {file: text.decode() for file, text in data.items()}
            else:
                volumes: list[dict[str, Any]] = [{"emptyDir": {}}, {"secret": {"secretName": name}}]
                item |= {"spec": {"volumes": volumes}, "status": {"phase": phase}}
            items.append(item)
        found: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": f"{kind}List",
            "metadata": {},
            "items": items,
        }
        api.objects[f"{path}/{kind.lower()}s"] = found


def test_the_new_authority_signs_only_when_every_replica_of_the_chat_trusts_it(
    halfway: Any, tmp_path: Path
) -> None:
    """A site without a chat goes on, and pods that have ended do not count."""
    old, new = ((tmp_path / name).read_text() for name in ("old", "new"))
    read = {"name": "baremetal_chat.platform.chat", "tasks_from": "kafka_authorities.yml"}
    plays: list[dict[str, Any]] = []
    for namespace in ("none", "both", "old"):
        plays += [
            {
                "hosts": "microk8s_entry",
                "gather_facts": False,
                "tasks": [{"ansible.builtin.include_role": read}],
                "vars": {"chat_namespace": namespace},
            },
            {"import_playbook": str(ROOT / "playbooks" / "kafka_authority_step.yml")},
        ]
    with KubernetesApi(tmp_path) as api:
        deploy(api, "none")
        deploy(api, "both", ("Running", old + new), ("Failed", old))
        deploy(api, "old", ("Running", old + new), ("Pending", old))
        code, said = halfway(
            [role("preflight.yml")],
            *plays,
            options=("--check", "-vvv"),
            chat_kubeconfig=api.kubeconfig,
        )
    assert code == 2, said
    # Refused only the third time.
    assert said.count("Step 2 of 3: ") == 3, said
    refused = f"Replicas of the chat trust '{FIRST}' and not '{SECOND}': they would lose the"
    assert refused in said, said
    for secret in ("battery staple", base64.b64encode(b"battery staple").decode(), "PRIVATE KEY"):
        assert secret not in said


# Nothing listens on this port.
GONE = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "users": [{"name": "u", "user": {"token": "none"}}],
    "current-context": "c",
}
ANYWAY = {"kafka_allow_disconnect": True}


@pytest.fixture
def ask(tmp_path: Path) -> Any:
    """Check a run of kafka.yml up to what the chat trusts: once, or for each of these variables.
    Return the exit code and the output, on one line.

    Services trust the role's authority and the site's. One of them has signed their certificates,
    and the other one signs now.
    """
    environment = below(tmp_path)
    authorities = {"role": Authority(FIRST), "site": Authority("Of the site")}
    both = "".join(each.pem for each in authorities.values())
    folders = {"role": tmp_path / "kafka-tls", "site": tmp_path / "given"}
    for name, folder in folders.items():
        folder.mkdir()
        (folder / "ca.crt").write_text(both)
        (folder / "ca.key").write_text(pem_of(authorities[name].key))
    authorities["site"].give(folders["site"], {"chat1": []})

    def ask(
        *runs: dict[str, Any],
        signed: str = "role",
        signs: str = "site",
        groups: tuple[str, ...] = ("microk8s",),
        cluster: bool = True,
    ) -> Any:
        _, certificate = authorities[signed].issue("kafka")
        for service in SERVICES:
            (tmp_path / "etc" / service / "ca.pem").write_text(both)
            chain = certificate + authorities[signed].pem
            (tmp_path / "etc" / service / "host.pem").write_text(chain)
        trust = str(ROOT / "playbooks" / "chat_trust.yml")
        with KubernetesApi(tmp_path) as api:
            deploy(api, "none")
            deploy(api, "both", ("Running", both))
            deploy(api, "role", ("Running", both), ("Running", authorities["role"].pem))
            deploy(api, "site", ("Running", authorities["site"].pem))
            deploy(api, "elsewhere", ("Running", Authority("Of others").pem))
            done = run_in(
                tmp_path,
                environment,
                [role("preflight.yml")],
                *({"import_playbook": trust, "vars": each} for each in runs or [{}]),
                groups=(*SERVICES, *groups),
                kafka_tls_site_directory=str(folders["site"]) if signs == "site" else "",
                **{"microk8s_kubeconfig": api.kubeconfig} if cluster else {},
            )
        said = " ".join((done.stdout + done.stderr).split())
        assert "Traceback" not in said
        return done.returncode, said

    return ask


def test_another_authority_signs_only_when_every_replica_of_the_chat_trusts_it(ask: Any) -> None:
    """To the site's authority, and back. A site without a chat, or with one at another Kafka, goes
    on.
    """
    goes_on = [{"chat_namespace": each} for each in ("none", "both", "elsewhere")]
    lost = {"chat_namespace": "role"}
    code, said = ask({"microk8s_kubeconfig": GONE} | ANYWAY, *goes_on, lost | ANYWAY, lost)
    assert code == 2, said
    assert f"Replicas of the chat trust '{FIRST}' and not 'Of the site': they would lose" in said
    assert said.count("PLAY [Refuse certificates that the chat does not trust]") == 6, said

    code, said = ask({"chat_namespace": "site"}, signed="site", signs="role")
    assert code == 2, said
    assert f"Replicas of the chat trust 'Of the site' and not '{FIRST}': they would lose" in said


def test_a_run_says_what_to_do_if_the_cluster_does_not_say_what_the_chat_trusts(ask: Any) -> None:
    code, said = ask({"microk8s_kubeconfig": GONE})
    assert code == 2, said
    assert "chat1 does not say what the chat trusts. " in said
    assert "no host of the group microk8s says whether the chat trusts it. Start the" in said


def test_a_run_for_the_same_authority_does_not_ask_the_cluster(ask: Any) -> None:
    code, said = ask({"microk8s_kubeconfig": GONE}, signs="role")
    assert code == 0, said
    assert "does not say what the chat trusts" not in said


@pytest.mark.parametrize("groups", [(), ("microk8s",)])
def test_a_site_without_a_cluster_goes_on(ask: Any, groups: tuple[str, ...]) -> None:
    code, said = ask(groups=groups, cluster=False)
    assert code == 0, said


def test_kafka_yml_asks_what_the_chat_trusts_before_it_changes_anything() -> None:
    plays = yaml.safe_load((ROOT / "playbooks" / "kafka.yml").read_text())
    imported = [play["import_playbook"] for play in plays[1:] if "import_playbook" in play]
    assert imported == ["kafka_preflight.yml", "chat_trust.yml"]
    assert [play for play in plays if play.get("import_playbook")] == plays[1:3]
