"""containerd's containers: its client, image imports, and the end of running containers."""

import os
import signal
import subprocess
import time
from pathlib import Path

from microk8s import cgroups, paths
from microk8s.paths import COMMON, SIDELOAD, SNAP


def ctr(*words: str | Path) -> subprocess.CompletedProcess:
    command = [
        SNAP / "bin/ctr",
        "--address",
        paths.CONTAINERD_SOCKET,
        "--namespace",
        "k8s.io",
        *words,
    ]
    return subprocess.run(command, env=paths.environment(), capture_output=True, text=True)


def import_images() -> None:
    """Import the images of the snap and those in `sideload`, each once."""
    while ctr("version").returncode != 0:
        time.sleep(0.1)
    for archive in [*sorted((SNAP / "images").glob("*.tar")), *sorted(SIDELOAD.glob("*.tar"))]:
        stat = archive.stat()
        done = COMMON / "var/lib/sideloaded" / f"{archive.name}-{stat.st_size}-{stat.st_mtime_ns}"
        if done.exists():
            continue
        result = ctr("images", "import", archive)
        if result.returncode == 0:
            done.parent.mkdir(parents=True, exist_ok=True)
            done.touch()
        print(f"{archive}: {result.stdout.strip() or result.stderr.strip()}", flush=True)


def end_pods() -> None:
    """End every container and its shim. They are in no unit's cgroup, so systemd cannot do it."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            in_pod = f"/{cgroups.PODS}/" in (process / "cgroup").read_text()
            shim = (process / "comm").read_text().startswith("containerd-shim")
            if in_pod or shim:
                os.kill(int(process.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
