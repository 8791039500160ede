"""The collection as a site installs it: from its archive, used from any folder."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def install(folder: Path) -> Path:
    """Build the archive and install it below an empty folder; return the collection's folder.

    Its dependencies are in the virtual environment, so nothing is downloaded.
    """
    _ansible_galaxy(folder, "build", str(ROOT))
    (archive,) = folder.glob("*.tar.gz")
    _ansible_galaxy(folder, "install", str(archive), f"--collections-path={folder}")
    (manifest,) = folder.glob("ansible_collections/*/*/MANIFEST.json")
    return manifest.parent


def elsewhere(folder: Path) -> dict[str, str]:
    """The environment of a site that has the collection below this folder, and no checkout."""
    ours = {name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"}
    return ours | {"ANSIBLE_COLLECTIONS_PATH": str(folder), "ANSIBLE_FORCE_COLOR": "false"}


def _ansible_galaxy(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["ansible-galaxy", "collection", *arguments],
        cwd=folder,
        env=elsewhere(folder),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
