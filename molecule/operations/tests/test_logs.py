"""One folder with what one looks at, from all hosts that answer, and without secrets."""

from pathlib import Path

from hosts import connect
from kafka_clients import BROKERS

from playbooks import run

SECRETS = ["hunter2", "correct horse"]


def test_logs_are_fetched_without_secrets_and_without_a_host_that_is_down(tmp_path: Path) -> None:
    first = connect(BROKERS[0])
    first.check_output(
        "printf '%%s\\n' %s > /etc/kafka/client.properties",
        f'sasl.jaas.config=X required username="u" password="{SECRETS[0]}";\n'
        f"ssl.keystore.password={SECRETS[1]}",
    )
    more = tmp_path / "hosts.yml"
    more.write_text(
        "kafka: {hosts: {gone: {kafka_broker_id: 9, ansible_host: 192.0.2.1,"
        " ansible_ssh_common_args: -oConnectTimeout=1}}}\n"
    )
    folder = tmp_path / "logs"
    fetched = run("playbooks/logs.yml", {"logs_directory": str(folder)}, str(more))
    first.check_output("rm /etc/kafka/client.properties")
    assert "Not reached: gone." in fetched.said, fetched.said
    for name in BROKERS:
        assert "broker.id=" in (folder / name / "configuration.txt").read_text()
        assert "kafka.service" in (folder / name / "units.txt").read_text()
        assert (folder / name / "kafka.log").stat().st_size > 0
    everything = "".join(path.read_text() for path in folder.rglob("*.*") if path.is_file())
    assert "sasl.jaas.config=********" in everything
    assert not [secret for secret in SECRETS if secret in everything]
