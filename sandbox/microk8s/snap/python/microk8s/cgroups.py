"""The cgroup of all pods. A host in a container has none, and systemd makes none for kubelet."""

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PODS = "kubelet"  # kubelet's --cgroup-root


def add_pods(root: Path = ROOT) -> None:
    """Add the cgroup, whichever version of cgroups the machine has."""
    if (root / "cgroup.controllers").exists():
        add_pods_v2(root)
    else:
        add_pods_v1()


def add_pods_v2(root: Path) -> None:
    """Pass on every controller the host has, or kubelet refuses to start.

    systemd passes on only those it knows, hugetlb not among them, and takes back those that no unit
    needs whenever it starts one. It cannot take what the pods' cgroup passes on in turn.
    """
    pods = root / PODS
    pods.mkdir(exist_ok=True)
    controllers = (root / "cgroup.controllers").read_text().split()
    for group in (root, pods):
        (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))


def add_pods_v1() -> None:
    """Version 1 has a hierarchy for each controller."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _separator, kind = line.partition(" - ")
        if not kind.startswith("cgroup "):
            continue
        hierarchy = Path(mount.split()[4])
        (hierarchy / PODS).mkdir(exist_ok=True)
        # A new group of version 1 has no CPUs and then takes no process.
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / file).exists():
                (hierarchy / PODS / file).write_text((hierarchy / file).read_text())
