"""The snap's units."""

import subprocess

from microk8s.paths import WORKER

CONTROL_PLANE_ONLY = ("k8s-dqlite",)
WORKER_ONLY = ("apiserver-proxy",)
ALL = ("containerd", "k8s-dqlite", "apiserver-proxy", "kubelite", "cluster-agent")


def of_this_node() -> list[str]:
    elsewhere = CONTROL_PLANE_ONLY if WORKER.exists() else WORKER_ONLY
    return [service for service in ALL if service not in elsewhere]


def systemctl(*words: str) -> str:
    result = subprocess.run(["systemctl", *words], capture_output=True, text=True)
    return result.stdout.strip()


def unit(service: str) -> str:
    return f"snap.microk8s.daemon-{service}.service"


def start(*services: str) -> None:
    systemctl("enable", "--now", "--quiet", *map(unit, services))


def stop(*services: str) -> None:
    systemctl("disable", "--now", "--quiet", *map(unit, services))


def restart(*services: str) -> None:
    systemctl("restart", *map(unit, services))


def is_active(service: str) -> bool:
    return systemctl("is-active", unit(service)) == "active"
