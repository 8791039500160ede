"""The launch configuration: sets up a node without commands [microk8s-cluster-agent pkg/k8sinit].

It is applied in two steps. Before the daemons start (in the install hook), everything that concerns
files: an error there fails the installation. After they have started (in the cluster agent, so that
`snap install` does not wait), everything that needs a cluster: joining and add-ons.
"""

import os
import sys
from pathlib import Path

import yaml

from microk8s import arguments, certificates, paths
from microk8s.paths import ARGS, CERTS, COMMON, CREDENTIALS, SNAP

# The first file that exists is used.
CANDIDATES = (
    Path("/etc/microk8s.yaml"),
    Path(os.environ.get("SNAP_USER_COMMON", "/root/snap/microk8s/common")) / ".microk8s.yaml",
    COMMON / ".microk8s.yaml",
    SNAP / "microk8s.default.yaml",
)
VERSIONS = ((0, 1, 0), (0, 2, 0))  # oldest and newest
FLAGS = {
    "extraContainerdArgs": "containerd",
    "extraDqliteArgs": "k8s-dqlite",
    "extraKubeAPIServerArgs": "kube-apiserver",
    "extraKubeControllerManagerArgs": "kube-controller-manager",
    "extraKubeProxyArgs": "kube-proxy",
    "extraKubeSchedulerArgs": "kube-scheduler",
    "extraKubeletArgs": "kubelet",
}
# Accepted, but without effect here.
WITHOUT_EFFECT = {
    "addonRepositories",
    "extraCNIEnv",
    "extraContainerdEnv",
    "extraConfigFiles",
    "extraDqliteEnv",
    "extraFIPSEnv",
    "extraKubeliteEnv",
}
KEYS = {
    "version",
    "addons",
    "containerdRegistryConfigs",
    "extraSANs",
    "join",
    "persistentClusterToken",
    *FLAGS,
    *WITHOUT_EFFECT,
}


class MistakeError(Exception):
    """The launch configuration is invalid."""


def parse(text: str) -> list[dict]:
    """The YAML documents of the file. Raises MistakeError."""
    try:
        parts = [part for part in yaml.safe_load_all(text) if part is not None]
    except yaml.YAMLError as error:
        raise MistakeError(f"could not parse configuration: {error}") from None
    for part in parts:
        if not isinstance(part, dict):
            raise MistakeError(f"could not parse configuration: {part!r} is not a mapping")
        check_version(str(part.get("version", "")))
        if unknown := part.keys() - KEYS:
            print(
                f"WARNING: configuration may contain unknown fields ({', '.join(sorted(unknown))})."
            )
            print("Any unknown fields will be ignored")
    return parts


def check_version(text: str) -> None:
    try:
        version = tuple(int(number) for number in text.split("."))
    except ValueError:
        version = ()
    oldest, newest = VERSIONS
    if len(version) != 3:
        raise MistakeError(f'could not parse config file version "{text}"')
    if not oldest <= version <= newest:
        bound, limit = ("minimum", oldest) if version < oldest else ("maximum", newest)
        word = "required" if bound == "minimum" else "supported"
        raise MistakeError(
            f"config file version is {text} but the {bound} version {word} is "
            f"{'.'.join(map(str, limit))}"
        )


def apply_files(parts: list[dict]) -> set[str]:
    """Apply everything that concerns files. Returns the daemons whose files changed."""
    changed = set()
    for part in parts:
        for key, daemon in FLAGS.items():
            flags = part.get(key) or {}
            if any(not str(flag).startswith("-") for flag in flags):
                raise MistakeError(
                    f"failed to configure {key}: flags start with '-': {', '.join(flags)}"
                )
            if flags and arguments.change(
                daemon, {k: None if v is None else str(v) for k, v in flags.items()}
            ):
                changed.add(daemon)
        if names := part.get("extraSANs"):
            file = CERTS / "extra-sans"
            text = "\n".join(map(str, names)) + "\n"
            if not file.exists() or file.read_text() != text:
                file.parent.mkdir(exist_ok=True)
                file.write_text(text)
                if (CERTS / "ca.key").exists():
                    certificates.make_server()
                changed.add("kube-apiserver")
        if token := part.get("persistentClusterToken"):
            CREDENTIALS.mkdir(exist_ok=True)
            (CREDENTIALS / "persistent-cluster-token").write_text(f"{token}\n")
        for host, toml in (part.get("containerdRegistryConfigs") or {}).items():
            folder = ARGS / "certs.d" / host
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "hosts.toml").write_text(toml if toml.endswith("\n") else toml + "\n")
    return changed


def apply_to_cluster(parts: list[dict]) -> None:
    """Join, then enable add-ons, in the file's order."""
    from microk8s import addons, cluster  # they need a cluster; the rest of this module must not

    for part in parts:
        if join := part.get("join"):
            cluster.join(join["url"], worker=bool(join.get("worker")))
            continue
        for addon in part.get("addons") or []:
            action = addons.disable if addon.get("disable") else addons.enable
            action([addon["name"], *map(str, addon.get("args") or [])])


def find() -> Path:
    return next(path for path in CANDIDATES if path.is_file())


def at_install() -> None:
    source = find()
    print(f"Found config file {source}, will use to initialize cluster.")
    paths.LAUNCH.parent.mkdir(parents=True, exist_ok=True)
    paths.LAUNCH.write_text(source.read_text())
    apply_files(parse(paths.LAUNCH.read_text()))


def at_first_start() -> None:
    done = paths.LOCKS / "launched.lock"
    if done.exists() or not paths.LAUNCH.exists():
        return
    try:
        apply_to_cluster(parse(paths.LAUNCH.read_text()))
    except SystemExit as stopped:
        print(f"launch configuration: gave up with exit code {stopped.code}", file=sys.stderr)
    done.touch()
