"""`microk8s COMMAND`. Exit codes are those of the real snap, even misleading ones."""

import argparse
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import NoReturn

import yaml

from microk8s import (
    addons,
    certificates,
    cluster,
    containers,
    kubernetes,
    paths,
    services,
    status,
)
from microk8s.paths import CREDENTIALS, DATA, SNAP, STOPPED, WORKER

Words = list[str]


# --- checks before a command --------------------------------------------------------------------


def refuse_on_worker(remedy: str = "\nPlease use the control plane node.") -> None:
    if WORKER.exists():
        print(f"This MicroK8s deployment is acting as a node in a cluster.{remedy}")
        sys.exit(0)


def refuse_when_stopped(code: int = 0) -> None:
    if STOPPED.exists():
        print("microk8s is not running, try microk8s start")
        sys.exit(code)


def refuse_without_permission() -> None:
    if not os.access(CREDENTIALS / "client.config", os.R_OK):
        user = os.environ.get("USER", "$USER")
        print("Insufficient permissions to access MicroK8s.")
        print(
            f"You can either try again with sudo or add the user {user} to the 'microk8s' group:\n"
        )
        print(f"    sudo usermod -a -G microk8s {user}\n    sudo chown -R {user} ~/.kube\n")
        print("After this, reload the user groups: reboot, or run 'newgrp microk8s'.")
        sys.exit(1)


def refuse_unless_root() -> None:
    if os.geteuid() != 0:
        print("Elevated permissions are needed for this command. Please use sudo.")
        sys.exit(1)


# --- commands -----------------------------------------------------------------------------------


def show_status(words: Words) -> int:
    refuse_without_permission()
    refuse_when_stopped()
    refuse_on_worker()
    return status.main(words)


def enable(words: Words) -> int:
    return change_addons("enable", words)


def disable(words: Words) -> int:
    return change_addons("disable", words)


def change_addons(action: str, words: Words) -> int:
    if not words:
        print(
            f"Usage: microk8s {action} [OPTIONS] ADDONS...\n\nError: Missing argument 'ADDONS...'.",
            file=sys.stderr,
        )
        return 2
    refuse_without_permission()
    refuse_on_worker()
    refuse_when_stopped(code=1)
    addons.change(action, words)
    return 0


def kubectl(words: Words) -> NoReturn:
    refuse_on_worker(" Please use the microk8s kubectl on the control plane.")
    refuse_when_stopped()
    refuse_without_permission()
    command = kubernetes.kubectl_command(*words)
    os.execv(command[0], command)


def ctr(words: Words) -> NoReturn:
    refuse_unless_root()
    refuse_when_stopped()
    command = ["ctr", "--address", str(paths.CONTAINERD_SOCKET), "--namespace", "k8s.io", *words]
    os.execve(SNAP / "bin/ctr", command, paths.environment())


def config(words: Words) -> int:
    parser = argparse.ArgumentParser(
        prog="microk8s config", description="Retrieve the client config"
    )
    parser.add_argument("-l", "--use-loopback", action="store_true")
    options = parser.parse_args(words)
    refuse_on_worker()
    refuse_without_permission()
    text = (CREDENTIALS / "client.config").read_text()
    print(
        text if options.use_loopback else text.replace("127.0.0.1", paths.default_address()), end=""
    )
    return 0


def add_node(words: Words) -> int:
    parser = argparse.ArgumentParser(
        prog="microk8s add-node",
        description="Produce a connection string for a node to join the cluster.",
    )
    parser.add_argument("-l", "--token-ttl", type=int, default=-1)
    parser.add_argument("-t", "--token")
    parser.add_argument(
        "--format",
        default="pretty",
        choices=["pretty", "short", "token", "token-check", "json", "yaml"],
    )
    options = parser.parse_args(words)
    refuse_without_permission()
    refuse_on_worker()
    token = cluster.add_token(options.token, options.token_ttl)
    check = certificates.fingerprint()
    url = f"{paths.default_address()}:{paths.AGENT_PORT}/{token}/{check}"
    document = {"token": f"{token}/{check}", "urls": [url]}
    if options.format == "pretty":
        print("From the node you wish to join to this cluster, run the following:")
        print(f"microk8s join {url}\n")
        print(
            "Use the '--worker' flag to join a node as a worker not running the control plane, eg:"
        )
        print(f"microk8s join {url} --worker\n")
        print(
            "If the node you are adding is not reachable through the default interface "
            "you can use one of the following:"
        )
        print(f"microk8s join {url}")
    else:
        print(
            {
                "short": f"microk8s join {url}",
                "token": token,
                "token-check": document["token"],
                "json": json.dumps(document, indent=2),
                "yaml": yaml.dump(document, indent=2).rstrip(),
            }[options.format]
        )
    return 0


def join(words: Words) -> int:
    parser = argparse.ArgumentParser(prog="microk8s join", description="Join the node to a cluster")
    parser.add_argument("connection")
    parser.add_argument("--worker", action="store_true")
    parser.add_argument("--skip-verify", action="store_true")
    parser.add_argument("--disable-low-memory-guard", action="store_true")
    options = parser.parse_args(words)
    refuse_unless_root()
    cluster.join(options.connection, options.worker, verify=not options.skip_verify)
    return 0


def leave(_words: Words) -> int:
    refuse_unless_root()
    cluster.leave()
    return 0


def remove_node(words: Words) -> int:
    parser = argparse.ArgumentParser(
        prog="microk8s remove-node", description="Remove a node from the cluster"
    )
    parser.add_argument("node")
    parser.add_argument("--force", action="store_true")
    options = parser.parse_args(words)
    refuse_without_permission()
    refuse_on_worker()
    cluster.remove_node(options.node, options.force)
    return 0


def start(_words: Words) -> int:
    refuse_unless_root()
    STOPPED.unlink(missing_ok=True)
    services.start(*services.of_this_node())
    print("Started.")
    return 0


def stop(_words: Words) -> int:
    refuse_on_worker("\nUse 'snap stop microk8s' to stop services on this node.")
    refuse_unless_root()
    services.stop("kubelite")
    containers.end_pods()
    services.stop(*services.ALL)
    STOPPED.touch()
    print("Stopped.")
    return 0


def images(words: Words) -> int:
    """`images import [FILE]` on every node. Failures are printed; the exit code stays 0."""
    if words[:1] != ["import"]:
        print("Usage: microk8s images import [IMAGE]", file=sys.stderr)
        return 2
    try:
        archive = (
            Path(words[1]).read_bytes()
            if words[1:] and words[1] != "-"
            else sys.stdin.buffer.read()
        )
    except OSError as error:
        print(f"Error: failed to read {words[1]}: {error}", file=sys.stderr)
        return 1
    nodes = json.loads(kubernetes.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    for node in nodes:
        address = next(
            each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP"
        )
        target = f"{address}:{paths.AGENT_PORT}"
        print(f"Pushing OCI images to {target}")
        try:
            connection = http.client.HTTPSConnection(
                target, context=ssl._create_unverified_context(), timeout=120
            )
            connection.request(
                "POST",
                f"{cluster.API}/v2.0/image/import",
                archive,
                {"x-microk8s-callback-token": cluster.callback_token()},
            )
            response = connection.getresponse()
            if response.status != 200:
                print(f"Failed to import images on {target}: {response.read().decode()}")
        except OSError as error:
            print(f"Failed to reach {target}: {error}")
    return 0


def refresh_certs(words: Words) -> int:
    """Keys stay. Certificates that the authority signs for daemons and nodes cannot be replaced."""
    parser = argparse.ArgumentParser(
        prog="microk8s refresh-certs", description="Replace the certificates"
    )
    parser.add_argument("-c", "--check", action="store_true", help="show the days left")
    parser.add_argument("-u", "--undo", action="store_true", help="revert the last refresh")
    parser.add_argument("-e", "--cert", choices=["ca.crt", "server.crt", "front-proxy-client.crt"])
    options = parser.parse_args(words)
    if options.check + options.undo + bool(options.cert) > 1:
        print("Please select only one of the options -c, -u or -e.")
        return 2
    refuse_unless_root()
    if options.check:
        for name, label in (
            ("ca", "CA"),
            ("server", "server"),
            ("front-proxy-client", "front proxy client"),
        ):
            print(f"The {label} certificate will expire in {certificates.days_left(name)} days.")
        return 0
    if options.undo:
        return undo_refresh()
    if not options.cert:
        print("Please use the '--cert' flag to select the certificate you need refreshed.")
        return 3
    if options.cert == "ca.crt":
        print("The stand-in does not replace the CA.")
        return 1
    print(f"Taking a backup of the current certificates under {certificates.BACKUP}/")
    certificates.back_up()
    print("Creating new certificates")
    if options.cert == "server.crt":
        certificates.make_server()
        restarted = ["kubelite", "cluster-agent"]
    else:
        certificates.make_front_proxy_client()
        restarted = ["kubelite"]
    certificates.protect()
    for service in restarted:
        print(f"Restarting service {service}.")
        services.restart(service)
    return 0


def undo_refresh() -> int:
    """Revert the last refresh, and restart everything, including pods."""
    if not certificates.BACKUP.exists():
        print("No previous backup found")
        return 1
    certificates.restore()
    print("Restarting, please wait.")
    stop([])
    start([])
    return 0


def inspect(_words: Words) -> int:
    refuse_unless_root()
    print("Inspecting system\nInspecting Certificates\nInspecting services")
    folder = DATA / "inspection-report"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for service in services.of_this_node():
        name = services.unit(service).removesuffix(".service")
        running = services.is_active(service)
        print(
            f"  Service {name} is running" if running else f" FAIL:  Service {name} is not running"
        )
        log = subprocess.run(
            ["journalctl", "-u", name, "-n", "3000", "--no-pager"], capture_output=True
        )
        (folder / f"{name}.log").write_bytes(log.stdout)
    archive = DATA / time.strftime("inspection-report-%Y%m%d_%H%M%S.tar.gz")
    print("Building the report tarball")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "inspection-report")
    print(f"  Report tarball is at {archive}")
    return 0


def version(_words: Words) -> int:
    print(f"MicroK8s {os.environ['SNAP_VERSION']} revision {os.environ['SNAP_REVISION']}")
    return 0


COMMANDS = {
    "add-node": add_node,
    "config": config,
    "ctr": ctr,
    "disable": disable,
    "enable": enable,
    "images": images,
    "inspect": inspect,
    "join": join,
    "kubectl": kubectl,
    "leave": leave,
    "refresh-certs": refresh_certs,
    "remove-node": remove_node,
    "start": start,
    "status": show_status,
    "stop": stop,
    "version": version,
}


def main() -> int:
    name, *words = sys.argv[1:] or [""]
    if name in COMMANDS:
        return COMMANDS[name](words)
    if name and name not in ("help", "--help", "-h"):
        print(f"'{name}' is not a valid MicroK8s subcommand.")
    print("Available subcommands are:")
    for command in COMMANDS:
        print(f"\t{command}")
    return 0 if name in ("help", "--help", "-h") else 1


if __name__ == "__main__":
    sys.exit(main())
