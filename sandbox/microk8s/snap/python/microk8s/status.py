"""`microk8s status` [canonical/microk8s scripts/wrappers/status.py]. Writes YAML by hand, as
there.
"""

import argparse

from microk8s import addons, datastore, kubernetes

NOT_RUNNING = "microk8s is not running. Use microk8s inspect for a deeper inspection."


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="microk8s status", description="Microk8s cluster status check."
    )
    parser.add_argument("--format", choices=["pretty", "yaml", "short"], default="pretty")
    parser.add_argument("-w", "--wait-ready", action="store_true")
    parser.add_argument("-t", "--timeout", type=int, default=0, help="seconds; 0 waits for ever")
    parser.add_argument("-a", "--addon", default="all")
    options = parser.parse_args(words)

    ready = (
        kubernetes.wait_for_ready(options.timeout) if options.wait_ready else kubernetes.is_ready()
    )
    if not ready:
        if options.format == "yaml":
            print(f"microk8s:\n  running: False\nmessage: {NOT_RUNNING}")
        else:
            print(NOT_RUNNING)
        return 1
    enabled, disabled = addons.split()
    if options.addon != "all":
        wanted = options.addon.removeprefix(f"{addons.REPOSITORY}/")
        print("enabled" if any(addon["name"] == wanted for addon in enabled) else "disabled")
        return 0
    {"pretty": pretty, "yaml": as_yaml, "short": short}[options.format](enabled, disabled)
    return 0


def availability() -> tuple[bool, dict[str, str]]:
    """Whether the datastore survives the loss of a member, and the members' addresses and roles."""
    roles = {f"{each.address}:{datastore.STATUS_PORT}": each.role for each in datastore.members()}
    return list(roles.values()).count("voter") > 2, roles


def pretty(enabled: list[dict], disabled: list[dict]) -> None:
    print("microk8s is running")
    highly, roles = availability()
    print(f"high-availability: {'yes' if highly else 'no'}")
    for title, role in (("master", "voter"), ("standby", "standby")):
        listed = " ".join(address for address, its in roles.items() if its == role)
        print(f"  datastore {title} nodes: {listed or 'none'}")
    print("addons:")
    for title, group in (("enabled", enabled), ("disabled", disabled)):
        print(f"  {title}:")
        for addon in group:
            print(f"    {addon['name']:<20} # ({addon['repository']}) {addon['description']}")


def as_yaml(enabled: list[dict], disabled: list[dict]) -> None:
    print("microk8s:\n  running: True")
    highly, roles = availability()
    print(f"high-availability:\n  enabled: {highly}\n  nodes:")
    for address, role in roles.items():
        print(f"    - address: {address}\n      role: {role}")
    print("addons:")
    for status, group in (("enabled", enabled), ("disabled", disabled)):
        for addon in group:
            print(f"  - name: {addon['name']}\n    repository: {addon['repository']}")
            print(
                f"    description: {addon['description']}\n    version: {addon['version']}\n"
                f"    status: {status}"
            )


def short(enabled: list[dict], disabled: list[dict]) -> None:
    print("microk8s is running")
    print("addons:")
    for status, group in (("enabled", enabled), ("disabled", disabled)):
        for addon in group:
            print(f"{addon['repository']}/{addon['name']}: {status}")
