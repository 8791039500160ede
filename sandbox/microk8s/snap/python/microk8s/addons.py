"""Add-ons: list, enable and disable them [microk8s-core-addons].

Whether an add-on is enabled is not stored. As in the real snap, it is derived from the names of
running objects. So a foreign pod called `registry-…` counts as well, and so does a broken add-on.
"""

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from microk8s import arguments, kubernetes, services
from microk8s.paths import ADDONS, COMMON, LOCKS

REPOSITORY = "core"
SIZE = re.compile(r"(^[2-9][0-9]{1,}|^[1-9][0-9]{2,})(Gi$)")
DNS_ADDRESS = "10.152.183.10"


def available() -> list[dict]:
    listed = yaml.safe_load((ADDONS / "addons.yaml").read_text())["microk8s-addons"]["addons"]
    return sorted(
        ({**addon, "repository": REPOSITORY} for addon in listed), key=lambda addon: addon["name"]
    )


def split() -> tuple[list[dict], list[dict]]:
    """The enabled add-ons, and the disabled ones."""
    running = kubernetes.kubectl("get", "all,ingress,ingressclass", "--all-namespaces").stdout
    running += kubernetes.kubectl("get", "clusterroles", "--show-kind", "--no-headers").stdout

    def is_on(addon: dict) -> bool:
        sign = addon["check_status"]
        return sign in running or Path(os.path.expandvars(sign)).is_file()

    listed = available()
    return [each for each in listed if is_on(each)], [each for each in listed if not is_on(each)]


def change(action: str, words: list[str]) -> None:
    """Change one add-on with options, or (deprecated) several, each as NAME[:ARGUMENTS]."""
    names = {addon["name"] for addon in available()}
    bare = [word.split(":")[0].removeprefix(f"{REPOSITORY}/") for word in words]
    if len(words) > 1 and set(bare) <= names:
        print("WARNING: Do not enable or disable multiple addons in one command.")
        print("         This form of chained operations will be DEPRECATED in the future.")
        print(f"         Please, {action} one addon at a time: 'microk8s {action} <addon>'")
        chosen = [parse(word, names) for word in words]
    else:
        repository, name, inline = parse(words[0], names)
        chosen = [(repository, name, inline + words[1:])]
    # One at a time, because add-ons restart daemons.
    with (LOCKS / "addons.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        on, off = split()
        for repository, name, options in chosen:
            if repository != REPOSITORY or name not in names:
                print(f"Addon {repository}/{name} not found")
                continue  # and the exit code stays 0, as the real one's does
            already = {addon["name"] for addon in (on if action == "enable" else off)}
            if name in already:
                print(f"Addon {repository}/{name} is already {action}d")
                continue
            kubernetes.wait_for_ready(timeout=30)
            ACTIONS[action, name](options)
            kubernetes.wait_for_ready(timeout=30)


def enable(words: list[str]) -> None:
    change("enable", words)


def disable(words: list[str]) -> None:
    change("disable", words)


def parse(word: str, names: set[str]) -> tuple[str, str, list[str]]:
    """Repository, name and inline arguments of [REPOSITORY/]NAME[:ARGUMENTS]."""
    address, _, inline = word.partition(":")
    repository, slash, name = address.rpartition("/")
    if not slash:
        if name not in names:
            print(f"Addon {name} was not found in any repository", file=sys.stderr)
            sys.exit(1)
        print(f"Infer repository {REPOSITORY} for addon {name}", file=sys.stderr)
    return repository or REPOSITORY, name, [inline] if inline else []


def manifest(addon: str, **values: str) -> str:
    text = (ADDONS / f"{addon}.yaml").read_text()
    for name, value in values.items():
        text = text.replace(f"${name}", value)
    return text


def apply(text: str, action: str = "apply") -> subprocess.CompletedProcess:
    options = ["--ignore-not-found"] if action == "delete" else []
    result = kubernetes.kubectl(action, "-f", "-", *options, given=text)
    print(result.stdout, end="")
    print(result.stderr, end="", file=sys.stderr)
    return result


def option(options: list[str], name: str, default: str | None = None) -> str | None:
    """The value of `--name VALUE` or `--name=VALUE` (or of the old inline form `name=VALUE`)."""
    words = iter(options)
    for word in words:
        if word == f"--{name}":
            return next(words, default)
        if word.removeprefix("--").startswith(f"{name}="):
            return word.partition("=")[2]
    return default


def dns_manifest(servers: str = "/etc/resolv.conf") -> str:
    return manifest("dns", NAMESERVERS=servers, DNSIP=DNS_ADDRESS)


def enable_dns(options: list[str]) -> None:
    print("Enabling DNS")
    servers = options[0].replace(",", " ") if options else "/etc/resolv.conf"
    print(f"Will use {servers} as upstream nameservers")
    print("Applying manifest")
    if apply(dns_manifest(servers)).returncode != 0:
        sys.exit(1)
    print(f"CoreDNS service deployed with IP address {DNS_ADDRESS}")
    if arguments.change(
        "kubelet", {"--cluster-domain": "cluster.local", "--cluster-dns": DNS_ADDRESS}
    ):
        print("Restarting kubelet")
        services.restart("kubelite")
    print("DNS is enabled")


def disable_dns(_options: list[str]) -> None:
    print("Disabling DNS")
    apply(dns_manifest(), "delete")
    arguments.change("kubelet", {"--cluster-domain": None, "--cluster-dns": None})
    services.restart("kubelite")
    print("DNS is disabled")


def authorise_by(modes: str) -> None:
    print("Reconfiguring apiserver")
    if arguments.change("kube-apiserver", {"--authorization-mode": modes}):
        print("Restarting apiserver")
        services.restart("kubelite")


def enable_rbac(_options: list[str]) -> None:
    print("Enabling RBAC")
    authorise_by("RBAC,Node")
    print("RBAC is enabled")


def disable_rbac(_options: list[str]) -> None:
    print("Disabling RBAC")
    authorise_by("AlwaysAllow")
    kubernetes.wait_for_ready(timeout=30)
    for kind in ("clusterroles", "clusterrolebindings"):
        kubernetes.kubectl(
            "delete", kind, "--selector", "kubernetes.io/bootstrapping=rbac-defaults"
        )
    print("RBAC is disabled")


def storage_manifest(policy: str = "Delete", default: str = "true") -> str:
    return manifest(
        "hostpath-storage", SNAP_COMMON=str(COMMON), RECLAIM_POLICY=policy, DEFAULT_CLASS=default
    )


def enable_hostpath_storage(options: list[str]) -> None:
    policy = option(options, "reclaim-policy", "Delete")
    default = option(options, "default-class", "true")
    if policy not in ("Delete", "Retain") or default not in ("true", "false"):
        print("\nPlease check submitted arguments.")
        sys.exit(1)
    print("Enabling default storage class.")
    print("WARNING: Hostpath storage is not suitable for production environments.")
    print("A hostpath volume can grow beyond the size limit of its claim.\n")
    (COMMON / "default-storage").mkdir(exist_ok=True)
    if apply(storage_manifest(policy, default)).returncode != 0:
        sys.exit(1)
    print("Storage will be available soon.")


def disable_hostpath_storage(_options: list[str]) -> None:
    print("Disabling default storage")
    apply(storage_manifest(), "delete")
    print("Storage removed")


def enable_registry(options: list[str]) -> None:
    """As upstream, the exit code shows neither a refused size nor a failed `kubectl apply`."""
    size = option(options, "size", "20Gi")
    storage_class = option(options, "storageclass")
    on, _ = split()
    if "hostpath-storage" not in (addon["name"] for addon in on):
        enable_hostpath_storage([])
    else:
        print("Addon core/hostpath-storage is already enabled")
    if storage_class and kubernetes.kubectl("get", "storageclass", storage_class).returncode != 0:
        print(f"Error: Storage class {storage_class} doesn't exit.")
        return
    if not SIZE.match(size):
        print(
            "The size of the registry should be higher or equal to 20Gi and match the regex: "
            f"{SIZE.pattern}"
        )
        return
    print(f"The registry will be created with the size of {size}.")
    if storage_class:
        print(f"Storage class {storage_class} will be used.")
    else:
        print("Default storage class will be used.")
    documents = list(yaml.safe_load_all(manifest("registry")))
    claim = next(each for each in documents if each["kind"] == "PersistentVolumeClaim")
    claim["spec"]["resources"]["requests"]["storage"] = size
    if storage_class:
        claim["spec"]["storageClassName"] = storage_class
    apply(yaml.safe_dump_all(documents))


def disable_registry(_options: list[str]) -> None:
    print("The registry is being disabled.")
    apply(manifest("registry"), "delete")
    print("The registry is disabled")


def enabling_ha(_options: list[str]) -> None:
    print("The stand-in is always ready for more control planes: ha-cluster cannot be changed.")
    sys.exit(1)


def not_here(_options: list[str]) -> None:
    print("This add-on pulls images and charts from the internet: not in the stand-in.")
    sys.exit(1)


ACTIONS = {
    ("enable", "dns"): enable_dns,
    ("disable", "dns"): disable_dns,
    ("enable", "ha-cluster"): enabling_ha,
    ("disable", "ha-cluster"): enabling_ha,
    ("enable", "hostpath-storage"): enable_hostpath_storage,
    ("disable", "hostpath-storage"): disable_hostpath_storage,
    ("enable", "ingress"): not_here,
    ("disable", "ingress"): not_here,
    ("enable", "rbac"): enable_rbac,
    ("disable", "rbac"): disable_rbac,
    ("enable", "registry"): enable_registry,
    ("disable", "registry"): disable_registry,
}
