"""What the sandbox does to cgroups of version 2, on a folder that stands for the hierarchy."""

from __future__ import annotations

from pathlib import Path

from microk8s import cgroups


def test_pods_get_every_controller_of_the_host_also_one_that_nobody_knows_yet(
    tmp_path: Path,
) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids tomorrow\n")
    cgroups.add_pods(tmp_path)
    assert (tmp_path / "kubelet").is_dir()
    passed_on = (tmp_path / "cgroup.subtree_control").read_text().split()
    assert passed_on == ["+cpuset", "+cpu", "+io", "+memory", "+hugetlb", "+pids", "+tomorrow"]
