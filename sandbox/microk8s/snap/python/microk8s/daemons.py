"""The snap's services: `python -m microk8s.daemons NAME`, run by the units daemon-NAME.

In the real snap, kubelite is one process with the API server, controller manager, scheduler,
kubelet and proxy. Here it is one unit with a process for each. When one of them ends, all end, and
systemd restarts the unit, as with the real one.
"""

import http.client
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

from microk8s import agent, apiserver_proxy, arguments, cgroups, containers, network, paths
from microk8s.paths import CERTS, SNAP


def start(program: str) -> subprocess.Popen:
    return subprocess.Popen(
        [SNAP / "bin" / program, *arguments.read(program)], env=paths.environment()
    )


def supervise(children: list[subprocess.Popen], grace: float = 2) -> int:
    """Wait until a child ends or a SIGTERM arrives. Then end all children, the last one first.

    The API server is first in the list and so ends last, because it waits for its clients. It would
    wait a minute for those in pods, so it gets at most `grace` seconds. Everything it has accepted
    is in etcd.
    """
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    while not told.wait(0.5):
        ended = next((child for child in children if child.poll() is not None), None)
        if ended:
            name = Path(ended.args[0]).name
            print(f"{name} ended with {ended.returncode}: ending the others", file=sys.stderr)
            break
    for child in reversed(children):
        child.terminate()
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            child.kill()
    return 0 if told.is_set() else 1


# --- containerd ---------------------------------------------------------------------------------


def containerd() -> int:
    template = (paths.ARGS / "containerd-template.toml").read_text()
    (paths.ARGS / "containerd.toml").write_text(os.path.expandvars(template))
    child = start("containerd")
    threading.Thread(target=containers.import_images, daemon=True).start()
    return supervise([child])


def end_pods_at_shutdown() -> int:
    """End the pods when the host shuts down: systemd would wait for shims that ignore signals."""
    state = subprocess.run(
        ["systemctl", "is-system-running"], capture_output=True, text=True
    ).stdout.strip()
    if state == "stopping":
        containers.end_pods()
    return 0


# --- kubelite -----------------------------------------------------------------------------------


def kubelite() -> int:
    prepare_node()
    children = []
    if not paths.WORKER.exists():
        children.append(start("kube-apiserver"))
        wait_for_api_server(children[0])
        children += [start("kube-controller-manager"), start("kube-scheduler")]
    children += [start("kube-proxy"), start("kubelet")]
    threading.Thread(target=network.keep, daemon=True).start()
    return supervise(children)


def prepare_node() -> None:
    """Do what the boot of a container omits: a cgroup for pods, and propagated mounts."""
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    cgroups.add_pods()


def wait_for_api_server(process: subprocess.Popen) -> None:
    context = ssl.create_default_context(cafile=CERTS / "ca.crt")
    context.load_cert_chain(CERTS / "client.crt", CERTS / "client.key")
    while process.poll() is None:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", paths.API_PORT, context=context, timeout=2
        )
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass  # not listening yet
        finally:
            connection.close()
        time.sleep(0.2)
    sys.exit(f"kube-apiserver ended with {process.returncode}")


# --- the others ---------------------------------------------------------------------------------


def k8s_dqlite() -> int:
    paths.BACKEND.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ["NODE_ADDRESS"] = paths.default_address()
    os.execve(SNAP / "bin/etcd", ["etcd", *arguments.read("k8s-dqlite")], paths.environment())


SERVICES = {
    "apiserver-proxy": apiserver_proxy.main,
    "containerd": containerd,
    "cluster-agent": agent.serve,
    "k8s-dqlite": k8s_dqlite,
    "kubelite": kubelite,
}

if __name__ == "__main__":
    if sys.argv[2:] == ["end-pods-at-shutdown"]:
        sys.exit(end_pods_at_shutdown())
    sys.exit(SERVICES[sys.argv[1]]())
