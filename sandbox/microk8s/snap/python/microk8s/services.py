"""The snap's units."""

import subprocess

CONTROL_PLANE_ONLY = ("k8s-dqlite",)
ALL = ("containerd", "k8s-dqlite", "kubelite", "cluster-agent")


def systemctl(*words: str) -> str:
    result = subprocess.run(["systemctl", *words], capture_output=True, text=True)
    return result.stdout.strip()


def unit(service: str) -> str:
    return f"snap.microk8s.daemon-{service}.service"


def start(*services: str) -> None:
    systemctl("enable", "--now", "--quiet", *map(unit, services))


def stop(*services: str) -> None:
    systemctl("disable", "--now", "--quiet", *map(unit, services))


def restart(service: str) -> None:
    systemctl("restart", unit(service))


def is_active(service: str) -> bool:
    return systemctl("is-active", unit(service)) == "active"
