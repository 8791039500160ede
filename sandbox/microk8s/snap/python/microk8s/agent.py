"""The cluster agent: answers nodes that join, and takes images [microk8s-cluster-agent].

HTTPS on port 25000 with the API server's certificate. It also applies the launch configuration:
that has to wait for the cluster, and nothing waits for the agent.
"""

import json
import ssl
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from microk8s import certificates, cluster, containers, kubernetes, launch, paths
from microk8s.paths import ARGS, CERTS

# Tokens that joining nodes hold while they have their certificates signed.
signing: set[str] = set()


class RefusedError(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def join(request: dict) -> dict:
    if not cluster.accept_token(request.get("token", "")):
        raise RefusedError(500, "Invalid token")
    if not request.get("worker"):
        raise RefusedError(501, "the stand-in has one control plane: only workers join")
    signing.update(f"{request['token']}-{program}" for program in ("kubelet", "proxy"))
    return {
        "ca": (CERTS / "ca.crt").read_text(),
        "apiport": str(paths.API_PORT),
        "kubelet_args": (ARGS / "kubelet").read_text(),
        "hostname_override": request["hostname"],
        "callback_token": cluster.callback_token(),
        "ca_key": None,
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
                answer = join(json.loads(body))
            elif self.path == "/cluster/api/v1.0/sign-cert":
                answer = sign(json.loads(body))
            else:
                raise RefusedError(404, "not found")
            self.answer(200, answer)
        except RefusedError as refused:
            self.answer(refused.status, {"error": str(refused)})
        except (ValueError, KeyError) as error:
            self.answer(400, {"error": f"not a request of this API: {error}"})

    def import_images(self, archive: bytes) -> dict:
        if self.headers.get("x-microk8s-callback-token") != cluster.callback_token():
            raise RefusedError(401, "Invalid token")
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


def serve() -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "server.crt", CERTS / "server.key")
    server = ThreadingHTTPServer(("", paths.AGENT_PORT), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    if not paths.WORKER.exists():
        threading.Thread(target=launch_once, daemon=True).start()
    server.serve_forever()
    return 0
