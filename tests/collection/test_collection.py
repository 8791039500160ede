"""The collection, installed by `ansible-galaxy collection install`: complete without a checkout."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from collection import ROOT, elsewhere, install

NAME = "baremetal_chat.platform"
MODULES = sorted(path.stem for path in ROOT.glob("plugins/modules/*.py"))
# Input and output of each filter.
FILTERS = {
    "java_properties": ({"a": "b"}, r"a=b\n"),
    "masked": ("password=x", "password=********"),
    "systemd_escaped": ("100%", "100%%"),
}

# Replaces the script that ansible-test downloads to install pip into its virtual environments.
GET_PIP = """
import ensurepip, subprocess, sys
ensurepip.bootstrap()
packages = [argument for argument in sys.argv[1:] if not argument.startswith("--no-")]
subprocess.check_call([sys.executable, "-m", "pip", "install", *packages])
"""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("collections"))


@pytest.fixture
def ansible_playbook(installed: Path, tmp_path: Path):
    """Runs ansible-playbook in an empty folder; returns the output."""

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            ["ansible-playbook", *arguments],
            cwd=tmp_path,
            env=elsewhere(installed.parents[2]),
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_the_archive_contains_only_what_sites_need(installed: Path) -> None:
    assert {path.name for path in installed.iterdir()} == {
        *("CHANGELOG.md", "CONTRIBUTING.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md"),
        *("changelogs", "chat", "docs", "inventory", "meta", "monitoring", "playbooks", "plugins"),
        *("requirements.txt", "roles"),
    }
    assert [path.name for path in installed.glob("inventory/*")] == ["example"]
    assert not [*installed.rglob("*.pyc")]


def test_the_archive_has_the_same_chat_as_the_checkout(installed: Path) -> None:
    """The image's tag is a hash of these files, so other files would give another image."""

    def sources(folder: Path) -> dict[str, bytes]:
        files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    assert sources(installed / "chat") == sources(ROOT / "chat")


def test_every_playbook_can_be_called_by_its_full_name(ansible_playbook, installed: Path) -> None:
    names = [f"{NAME}.{path.stem}" for path in installed.glob("playbooks/*.yml")]
    inventory = f"--inventory={installed}/inventory/example"
    accepted = ansible_playbook(inventory, "--syntax-check", *names)
    assert "ERROR" not in accepted
    assert f"{NAME}.site" in names
    tasks = ansible_playbook(inventory, "--list-tasks", f"{NAME}.site")
    for role in ("kafka_distribution", "zookeeper", "kafka", "microk8s", "traefik", "chat"):
        assert f"{NAME}.{role} : " in tasks, role


def test_every_module_and_filter_can_be_called_by_its_full_name(
    ansible_playbook, tmp_path: Path
) -> None:
    """A module checks its arguments only if it and all its imports were found."""
    tasks = [
        *({f"{NAME}.{module}": {"nonsense": 1}, "ignore_errors": True} for module in MODULES),
        *(
            {"ansible.builtin.debug": {"msg": f"{{{{ {before!r} | {NAME}.{name} }}}}"}}
            for name, (before, _) in FILTERS.items()
        ),
    ]
    play = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
    (tmp_path / "play.json").write_text(json.dumps([play]))
    said = ansible_playbook("play.json")
    complaints = re.findall('"msg": "(?:missing required arguments|Unsupported parameters)', said)
    assert len(complaints) == len(MODULES), said
    for _, after in FILTERS.values():
        assert f'"msg": "{after}"' in said, said


def test_a_role_of_the_archive_refuses_a_misspelt_variable(
    ansible_playbook, tmp_path: Path
) -> None:
    """The action plugin for this reads files of its role."""
    (tmp_path / "hosts").write_text(
        "[microk8s]\nhost ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n"
    )
    said = ansible_playbook(
        *("--inventory=hosts", "--check", f"{NAME}.preflight", "-e", "microk8s_chanel=1"), code=2
    )
    assert "microk8s_chanel (did you mean microk8s_channel?)" in said, said


# The first run creates the virtual environments.
@pytest.mark.timeout(900)
def test_ansible_tests_sanity_checks_pass(installed: Path, tmp_path: Path) -> None:
    """tests/sanity lists ignored errors with reasons. ruff replaces pep8 and pylint."""
    home = ROOT / ".cache" / "ansible-test"
    get_pip = home / ".ansible" / "test" / "cache" / "get_pip_24_2.py"
    get_pip.parent.mkdir(parents=True, exist_ok=True)
    get_pip.write_text(GET_PIP)
    # The checks require this path, and write beside the files that they check.
    tree = tmp_path / installed.relative_to(installed.parents[2])
    shutil.copytree(installed, tree)
    shutil.copytree(ROOT / "tests" / "sanity", tree / "tests" / "sanity")
    done = subprocess.run(
        [
            *("ansible-test", "sanity", "--local", "--python=3.11"),
            *("--skip-test=pep8", "--skip-test=pylint", "meta/", "plugins/", "tests/"),
        ],
        cwd=tree,
        env=elsewhere(tmp_path) | {"HOME": str(home), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_version_has_an_entry_in_the_changelog() -> None:
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    changes = yaml.safe_load((ROOT / "changelogs" / "changelog.yaml").read_text())
    assert version in changes["releases"]
