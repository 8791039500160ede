"""One role installs packages. It contacts a mirror only if a package is missing."""

import json
from pathlib import Path

from ansible_runs import ROOT, ansible_playbook

ROLE = "baremetal_chat.platform.packages"


def test_no_mirror_is_contacted_if_all_packages_are_installed(tmp_path: Path) -> None:
    play = {
        "hosts": "localhost",
        "gather_subset": ["!all", "pkg_mgr"],
        "roles": [{"role": ROLE, "packages_names": ["bash", "coreutils"]}],
    }
    playbook = tmp_path / "play.json"
    playbook.write_text(json.dumps([play]))
    done = ansible_playbook("--inventory=localhost,", "--connection=local", "--check", playbook)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok=3 " in done.stdout, done.stdout
    assert "skipped=1 " in done.stdout, done.stdout


def test_no_other_role_installs_packages() -> None:
    for path in (ROOT / "roles").glob("*/tasks/*.yml"):
        if path.parts[-3] != "packages":
            assert "ansible.builtin.apt:" not in path.read_text(), path
            assert "ansible.builtin.package:" not in path.read_text(), path
