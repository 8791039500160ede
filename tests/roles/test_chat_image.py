"""What the chat's image is made of is the same whatever umask the checkout was made under."""

import contextlib
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The modes of the folder, of a module in it, and of another one.
CHECKOUTS = {
    "usual": (0o755, 0o644, 0o644),
    "private": (0o700, 0o600, 0o600),
    "executable": (0o755, 0o644, 0o755),
}


class Registry(BaseHTTPRequestHandler):
    """Has every image."""

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


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The image's tag for each checkout, and where the private one was unpacked for the build."""
    folder = tmp_path_factory.mktemp("chat-image")
    hosts = {}
    for name, (directory, module, other) in CHECKOUTS.items():
        source = folder / name
        (source / "web").mkdir(parents=True)
        for path, mode in (("__main__.py", module), ("web/page.html", other)):
            (source / path).write_text(path)
            (source / path).chmod(mode)
        (source / "web").chmod(directory)
        hosts[name] = {"chat_source": str(source)}

    def chat(tasks: str) -> dict[str, dict[str, str]]:
        return {"ansible.builtin.include_role": {"name": "chat", "tasks_from": tasks}}

    def say(variable: str) -> dict[str, dict[str, str]]:
        return {
            "ansible.builtin.debug": {"msg": f"{{{{ inventory_hostname }}}}={{{{ {variable} }}}}"}
        }

    tasks = [chat("image.yml"), say("__chat_tag")]
    build = [chat("context.yml"), say("__chat_build.path"), say("__chat_parcel.path")]
    with registry() as address:
        variables = {"ansible_connection": "local", "chat_registry": address}
        site = {"all": {"hosts": hosts, "vars": variables}}
        (folder / "hosts.json").write_text(json.dumps(site))
        plays = [
            {"hosts": "all", "gather_facts": False, "tasks": tasks},
            {"hosts": "private", "gather_facts": False, "tasks": build},
        ]
        (folder / "play.json").write_text(json.dumps(plays))
        done = subprocess.run(
            ["ansible-playbook", f"--inventory={folder / 'hosts.json'}", folder / "play.json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.findall(r'"msg": "(\w+)=([^"]+)"', done.stdout)
    *tags, (_, built), (_, parcel) = said
    yield dict(tags) | {"built": built}
    for left in (built, parcel):
        shutil.rmtree(left)


def test_everybody_may_read_what_goes_into_the_image(told: dict[str, str]) -> None:
    context = Path(told["built"]) / "chat"
    modes = {str(p.relative_to(context)): p.stat().st_mode & 0o777 for p in context.rglob("*")}
    assert modes == {"__main__.py": 0o644, "web": 0o755, "web/page.html": 0o644}


def test_a_private_checkout_makes_the_usual_image(told: dict[str, str]) -> None:
    assert told["private"] == told["usual"]


def test_a_file_that_becomes_executable_makes_another_image(told: dict[str, str]) -> None:
    assert told["executable"] != told["usual"]
