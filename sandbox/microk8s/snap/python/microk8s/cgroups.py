"""The cgroup of all pods. A host in a container has none, and systemd creates none for kubelet."""

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PODS = "kubelet"  # kubelet's --cgroup-root


def add_pods(root: Path = ROOT) -> None:
    """Add the cgroup, for version 1 or 2 of cgroups."""
    if (root / "cgroup.controllers").exists():
        add_pods_v2(root)
    else:
        add_pods_v1()


def add_pods_v2(root: Path) -> None:
    """Enable every controller of the host for pods, or kubelet refuses to start.

    systemd enables only the controllers it knows, which do not include hugetlb. Whenever it starts
    a unit, it disables those that no unit needs. It cannot disable controllers that the pods'
    cgroup has enabled for its children.
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
        # A new cgroup of version 1 has no CPUs, and then accepts no process.
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / file).exists():
                (hierarchy / PODS / file).write_text((hierarchy / file).read_text())
