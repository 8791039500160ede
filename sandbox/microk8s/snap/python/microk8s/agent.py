"""The cluster agent: serves joining nodes, and imports images [microk8s-cluster-agent].

HTTPS on port 25000 with the API server's certificate. It also applies the launch configuration,
which has to wait for the cluster. The agent can wait, because nothing waits for the agent.
"""

import json
import socket
import ssl
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from microk8s import (
    arguments,
    certificates,
    cluster,
    containers,
    datastore,
    kubernetes,
    launch,
    paths,
    services,
)
from microk8s.paths import ARGS, CERTS

# Tokens of joining nodes that still need signed certificates.
signing: set[str] = set()


class RefusedError(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def join(request: dict, here: str, there: str) -> dict:
    """What the node at address `there` needs. It reached this node at `here`."""
    if not cluster.accept_token(request.get("token", "")):
        raise RefusedError(500, "Invalid token")
    if here == there:
        raise RefusedError(503, f"the joining node has the same IP ({here}) as the node we contact")
    if any(each.address == there and not each.learner for each in datastore.members()):
        raise RefusedError(504, f'joining node "{there}" is already known to dqlite')
    answer = {
        "ca": (CERTS / "ca.crt").read_text(),
        "apiport": str(paths.API_PORT),
        "api_authz_mode": arguments.value("kube-apiserver", "--authorization-mode"),
        "kubelet_args": (ARGS / "kubelet").read_text(),
        "hostname_override": there,
        "callback_token": cluster.callback_token(),
        "ca_key": None,
    }
    if request.get("worker"):
        signing.update(f"{request['token']}-{program}" for program in ("kubelet", "proxy"))
        return answer
    if datastore.share(here):
        cluster.elect_leaders(True)
        services.restart("k8s-dqlite", "kubelite")
    return answer | {
        "ca_key": (CERTS / "ca.key").read_text(),
        "service_account_key": (CERTS / "serviceaccount.key").read_text(),
        "datastore": datastore.add(there),
    }


def sign(request: dict) -> dict:
    if request.get("token") not in signing:
        raise RefusedError(500, "Invalid token")
    signing.discard(request["token"])
    return {"certificate": certificates.sign(request["request"], request.get("addresses"))}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            if self.path == "/cluster/api/v2.0/image/import":
                answer = self.import_images(body)
            elif self.path == "/cluster/api/v2.0/join":
                here, there = self.connection.getsockname()[0], self.client_address[0]
                answer = join(json.loads(body), here, there)
            elif self.path == "/cluster/api/v2.0/datastore/promote":
                answer = self.promote(json.loads(body))
            elif self.path == "/cluster/api/v1.0/sign-cert":
                answer = sign(json.loads(body))
            else:
                raise RefusedError(404, "not found")
            self.answer(200, answer)
        except RefusedError as refused:
            self.answer(refused.status, {"error": str(refused)})
        except datastore.RefusedError as refused:
            self.answer(500, {"error": str(refused)})
        except (ValueError, KeyError) as error:
            self.answer(400, {"error": f"not a request of this API: {error}"})

    def check_callback_token(self) -> None:
        if self.headers.get("x-microk8s-callback-token") != cluster.callback_token():
            raise RefusedError(401, "Invalid token")

    def promote(self, request: dict) -> dict:
        """The real agent lacks this: in dqlite, members get their roles automatically."""
        self.check_callback_token()
        datastore.promote(request["address"])
        return {}

    def import_images(self, archive: bytes) -> dict:
        self.check_callback_token()
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            file.write(archive)
            file.flush()
            result = containers.ctr("images", "import", Path(file.name))
        if result.returncode != 0:
            raise RefusedError(500, result.stderr.strip())
        return {}

    def answer(self, status: int, body: dict) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, form: str, *words: object) -> None:
        print(form % words, file=sys.stderr)


def launch_once() -> None:
    if kubernetes.wait_for_ready(timeout=300):
        launch.at_first_start()


class Server(ThreadingHTTPServer):
    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Load the current certificate: `join` and `refresh-certs` replace it."""
        accepted, address = super().get_request()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTS / "server.crt", CERTS / "server.key")
        # Leave the handshake to the request's own thread.
        wrapped = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        return wrapped, address


def serve() -> int:
    server = Server(("", paths.AGENT_PORT), Handler)
    if not paths.WORKER.exists():
        threading.Thread(target=launch_once, daemon=True).start()
    server.serve_forever()
    return 0
