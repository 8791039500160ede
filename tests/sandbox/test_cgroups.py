"""How the sandbox prepares cgroups of version 2, tested on a folder instead of the hierarchy."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from microk8s import cgroups

LEAVE_ROOT_CGROUP = Path(__file__).parent.parent.parent / "sandbox/hosts/leave-root-cgroup"


def test_pods_get_every_controller_of_the_host_including_unknown_ones(
    tmp_path: Path,
) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids tomorrow\n")
    cgroups.add_pods(tmp_path)
    for group in (tmp_path, tmp_path / "kubelet"):
        passed_on = (group / "cgroup.subtree_control").read_text().split()
        assert passed_on == ["+cpuset", "+cpu", "+io", "+memory", "+hugetlb", "+pids", "+tomorrow"]


def test_processes_in_a_containers_root_cgroup_are_moved_to_a_leaf(tmp_path: Path) -> None:
    (tmp_path / "cgroup.type").write_text("domain\n")
    (tmp_path / "cgroup.procs").write_text("1\n23\n")
    (tmp_path / "init").mkdir()
    subprocess.run([LEAVE_ROOT_CGROUP, tmp_path], check=True)
    assert (tmp_path / "init/cgroup.procs").read_text() == "1\n23\n"


@pytest.mark.parametrize(
    "root",
    [
        pytest.param({"cgroup.procs": "1\n23\n"}, id="a machine"),
        pytest.param({"cgroup.type": "domain\n", "cgroup.procs": ""}, id="systemd in a container"),
        pytest.param({}, id="version 1"),
    ],
)
def test_no_leaf_is_created_where_none_is_needed(root: dict[str, str], tmp_path: Path) -> None:
    for name, content in root.items():
        (tmp_path / name).write_text(content)
    subprocess.run([LEAVE_ROOT_CGROUP, tmp_path], check=True)
    assert not (tmp_path / "init").exists()
