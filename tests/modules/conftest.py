"""Runs the project's Ansible modules like Ansible, in this process."""

import importlib.util
import json
import socket
import ssl
import threading
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from kafka_broker import KafkaCluster

PLUGINS = Path(__file__).parents[2] / "plugins"


@pytest.fixture
def run_module(capsys):
    """Run a module with the given options and return its answer, failed or not."""

    def run(name, /, *, check_mode=False, **options):
        specification = importlib.util.spec_from_file_location(
            name, PLUGINS / "modules" / f"{name}.py"
        )
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        arguments = options | {"_ansible_check_mode": check_mode}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        answer = json.loads(capsys.readouterr().out)
        return {"failed": False} | answer

    return run


@pytest.fixture
def zookeeper_server():
    """Starts a server that expects `question` and sends `answer`; returns its address."""
    listeners = []

    def serve(answer, question=b"", tls=None):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def respond():
            connection, _ = listener.accept()
            if tls:
                try:
                    connection = tls.wrap_socket(connection, server_side=True)
                except ssl.SSLError:
                    return
            with connection:
                assert connection.recv(64).startswith(question)
                connection.sendall(answer)

        threading.Thread(target=respond, daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for listener in listeners:
        listener.close()


@pytest.fixture(scope="session")
def three_brokers(kafka_home, tmp_path_factory):
    """A cluster that only these tests use; topics have two replicas by default."""
    folder = tmp_path_factory.mktemp("three-brokers")
    cluster = KafkaCluster(kafka_home, folder, {"default.replication.factor": "2"})
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
