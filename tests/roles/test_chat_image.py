"""The tag of the chat's image is a hash of its files, independent of the umask."""

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ansible_runs import ansible_playbook

# The modes of the folder's two files.
CHECKOUTS = {"usual": (0o644, 0o644), "private": (0o600, 0o600), "executable": (0o644, 0o755)}


class Registry(BaseHTTPRequestHandler):
    """A registry that has every image."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Docker-Content-Digest", "sha256:0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def registry() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_tag_changes_with_a_files_executable_bit_but_not_with_the_umask(
    tmp_path: Path,
) -> None:
    hosts = {}
    for name, modes in CHECKOUTS.items():
        for path, mode in zip(("__main__.py", "page.html"), modes, strict=True):
            file = tmp_path / name / path
            file.parent.mkdir(exist_ok=True)
            file.write_text(path)
            file.chmod(mode)
        hosts[name] = {"chat_source": str(tmp_path / name)}
    tasks = [
        {
            "ansible.builtin.include_role": {
                "name": "baremetal_chat.platform.chat",
                "tasks_from": "image.yml",
            }
        },
        {"ansible.builtin.debug": {"msg": "{{ inventory_hostname }}={{ __chat_tag }}"}},
    ]
    play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
    (tmp_path / "play.json").write_text(json.dumps([play]))
    with registry() as address:
        variables = {"ansible_connection": "local", "chat_registry": address}
        site = tmp_path / "hosts.json"
        site.write_text(json.dumps({"all": {"hosts": hosts, "vars": variables}}))
        done = ansible_playbook(f"--inventory={site}", tmp_path / "play.json")
    assert done.returncode == 0, done.stdout + done.stderr
    tags = dict(re.findall(r'"msg": "(\w+)=(\w+)"', done.stdout))
    assert tags["private"] == tags["usual"]
    assert tags["executable"] != tags["usual"]
