"""keepalived's configuration and check from role virtual_ip, without hosts."""

import json
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from ansible_runs import ROOT, ansible_playbook

HOSTS = {
    name: {
        "ansible_connection": "local",
        "__virtual_ip_source": f"192.0.2.{number}",
        "virtual_ip_address": "192.0.2.10",
        "virtual_ip_interface": "eth0",
        "virtual_ip_password": "secret",
        "virtual_ip_check_port": 80,
    }
    for number, name in enumerate(("chat1", "chat2"), start=11)
} | {
    # It does not respond.
    "chat3": {"ansible_host": "192.0.2.13"}
}


def test_hosts_send_adverts_only_to_each_other_and_do_not_preempt(
    tmp_path: Path,
) -> None:
    site = tmp_path / "hosts.json"
    site.write_text(json.dumps({"all": {"children": {"microk8s": {"hosts": HOSTS}}}}))
    write = {
        "ansible.builtin.template": {
            "src": str(ROOT / "roles/virtual_ip/templates/keepalived.conf.j2"),
            "dest": f"{tmp_path}/{{{{ inventory_hostname }}}}",
            "mode": "0600",
        }
    }
    play = {
        "hosts": "chat1:chat2",
        "gather_facts": False,
        "tasks": [write],
        "vars": {"virtual_ip_group": "microk8s", "virtual_ip_router_id": 51},
        "vars_files": [str(ROOT / "roles/virtual_ip/vars/main.yml")],
    }
    playbook = tmp_path / "play.json"
    playbook.write_text(json.dumps([play]))
    done = ansible_playbook(f"--inventory={site}", playbook)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (
        [line.split("#")[0].strip() for line in (tmp_path / name).read_text().splitlines()]
        for name in ("chat1", "chat2")
    )

    def peers(lines: list[str]) -> list[str]:
        start = lines.index("unicast_peer {")
        return lines[start + 1 : lines.index("}", start)]

    assert peers(first) == ["192.0.2.12", "192.0.2.13"]
    assert peers(second) == ["192.0.2.11", "192.0.2.13"]
    for lines in (first, second):
        assert {"state BACKUP", "nopreempt", "priority 100"} <= set(lines)
        assert "garp_master_refresh 5" in lines
        assert {"enable_script_security", "script_user keepalived_script"} <= set(lines)
        assert "vrrp_check_unicast_src" in lines
        assert 'script "/etc/keepalived/check-traefik 80"' in lines
        assert 'script "/etc/keepalived/check-traefik 80 routes"' in lines
        assert "routes weight -50" in lines
        assert "auth_pass secret" in lines
        assert "192.0.2.10/32 dev eth0" in lines


@pytest.mark.parametrize(
    ("status", "passes"),
    [(200, ["", "routes"]), (308, ["", "routes"]), (503, ["", "routes"]), (404, [""])],
)
def test_a_traefik_without_routes_passes_the_basic_check_but_not_the_check_for_routes(
    status: int, passes: list[str]
) -> None:
    class Edge(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    check = ROOT / "roles/virtual_ip/files/check-traefik"
    with HTTPServer(("127.0.0.1", 0), Edge) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        port = str(server.server_port)
        passed = [
            which
            for which in ("", "routes")
            if subprocess.run(["bash", check, port, which], check=False, timeout=10).returncode == 0
        ]
        server.shutdown()
    assert passed == passes
    # Nothing listens any more.
    assert subprocess.run(["bash", check, port], check=False, capture_output=True).returncode != 0
