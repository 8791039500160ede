"""A host that is down has the address that the inventory says."""

import json
import re
from pathlib import Path

from ansible_runs import ROOT, ansible_playbook

# Nothing listens there, so these are down. The address is one that nobody has (RFC 5737).
DOWN = {"ansible_port": 1, "ansible_ssh_common_args": "-o ProxyCommand=false"}
BROKERS = {
    "up": {"ansible_connection": "local", "kafka_address": "192.0.2.11"},
    "address": DOWN | {"ansible_host": "192.0.2.12"},
    "told": DOWN | {"ansible_host": "192.0.2.99", "kafka_address": "kafka3.example.org"},
    "192.0.2.14": DOWN | {"kafka_listeners": {"CLUSTER": {"port": 19093}}},
    "unknown.invalid": DOWN,
}


def test_the_chat_is_told_of_brokers_that_are_down(tmp_path: Path) -> None:
    hosts = {name: broker | {"kafka_broker_id": 1} for name, broker in BROKERS.items()}
    site = tmp_path / "hosts.json"
    site.write_text(json.dumps({"all": {"children": {"kafka": {"hosts": hosts}}}}))
    brokers = "groups['kafka'] | map('extract', hostvars)"
    reached = f"{{{{ {brokers} | map(attribute='kafka_endpoints.CLUSTER') }}}}"
    say = {
        "hosts": "up",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.debug": {"msg": f"reached={reached}"}}],
    }
    playbook = tmp_path / "play.json"
    chat = {"ansible.builtin.import_playbook": str(ROOT / "playbooks/chat.yml")}
    playbook.write_text(json.dumps([chat, say]))
    done = ansible_playbook(f"--inventory={site}", playbook)
    assert done.returncode == 0, done.stdout + done.stderr
    (told,) = re.findall(r'"msg": "reached=(.*)"', done.stdout)
    assert json.loads(told.replace("'", '"')) == [
        "192.0.2.11:9093",
        "192.0.2.12:9093",
        "kafka3.example.org:9093",
        "192.0.2.14:19093",
        # Which the role chat refuses.
        ":9093",
    ]
    said = " ".join(done.stdout.split())
    assert "address does not answer. The chat will look for its broker at 192.0.2.12:9093" in said
    assert "up does not answer" not in said
