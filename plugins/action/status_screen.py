"""Action status_screen: show what playbooks/status.yml has found, in one or a few lines per layer.

It runs on the controller and makes no requests. Problems are marked, with the known reason. It
fails only if no host could be examined.

    - name: Show it
      baremetal_chat.platform.status_screen:
        hosts: {chat1: {...}}              # result of host_status, if it ran
        unreached: {chat1: ""}             # why a host is unreachable
        members: {chat1: "192.0.2.11:2181"}  # "" for a host that is down
        ensemble: {...}                    # result of zookeeper_info
        brokers: {chat1: "1"}              # ids
        cluster: {...}                     # result of kafka_cluster_info
        cluster_hosts: [chat1]
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

WIDTH = 120
# Limits for long lists and for error messages, so that everything fits on one screen.
SHOWN = 5
REASON = 150
# The leader of Kubernetes' controllers renews its lease every 2 s; the rest is for clocks that
# differ.
LEASE_SECONDS = 15
# systemd's word for a running unit.
RUNS = "active"


class Line(NamedTuple):
    """One line: the layer, whether it is healthy, and the text."""

    layer: str
    well: bool
    text: str

    def __str__(self) -> str:
        head = f"{'  ' if self.well else '!!'} {self.layer:<13}"
        indent = " " * (len(head) + 2)
        return textwrap.fill(
            self.text, WIDTH, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False
        )


def some(names: Iterable[Any]) -> str:
    """The first few of many names."""
    known = [str(name) for name in names]
    more = len(known) - SHOWN
    return ", ".join(known[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def reason(said: str) -> str:
    """An error of SSH or a module on one line. Of SSH errors, only SSH's own words at the end."""
    return " ".join(said.split()).rpartition("ssh: ")[2][:REASON]


def told(seen: Mapping[str, Any]) -> list[str]:
    """Hosts that reported what runs on them."""
    return [name for name, said in seen.items() if "services" in said]


def shortened(image: str) -> str:
    """A short name of an image: the start of the digest is enough."""
    name, _, digest = image.partition("@sha256:")
    return f"{name.removeprefix('docker.io/library/')}{'@' + digest[:8] if digest else ''}"


def host_lines(seen: Mapping[str, Any], unreached: Mapping[str, str]) -> Iterator[Line]:
    alive = told(seen)
    yield Line("Hosts", len(alive) == len(seen), f"{len(alive)} of {len(seen)} up")
    for name, host in seen.items():
        if name not in alive:
            why = unreached[name] or host.get("msg") or "not asked in this run"
            connected = "msg" in host and not unreached[name]
            what = "NO STATUS" if connected else "NOT REACHED"
            yield Line("", False, f"{name}: {what}: {reason(why)}")
            continue
        said = [
            " ".join([unit, service["version"], service["state"]]).replace("  ", " ")
            for unit, service in host["services"].items()
        ]
        said += [f"microk8s {host['microk8s']}"] if host["microk8s"] else []
        said += [f"{part}: {reason(problem)}" for part, problem in host["problems"].items()]
        run = all(service["state"] == RUNS for service in host["services"].values())
        yield Line("", run and not host["problems"], f"{name}: {', '.join(said)}")


def zookeeper_line(members: Mapping[str, str], ensemble: Mapping[str, Any]) -> Line:
    if not members:
        return Line("ZooKeeper", True, "skipped: the inventory has no host in the group zookeeper")
    names = {server: name for name, server in members.items() if server}
    modes, failed = ensemble.get("modes", {}), ensemble.get("failed_servers", {})
    # Among several members, "standalone" means not a member. zookeeper_info cannot know that when
    # it asks a single server.
    alone = len(members) > 1
    serve = [server for server, mode in modes.items() if not (alone and mode == "standalone")]
    leaders = [
        names.get(server, server) for server in ensemble.get("leaders", []) if server in serve
    ]
    text = f"{len(serve)} of {len(members)} members serve, leader: {some(leaders) or 'none'}"
    if len(serve) * 2 <= len(members):
        text += "; NO QUORUM"
    text += "".join(f"; {names.get(server, server)}: {why}" for server, why in failed.items())
    return Line("ZooKeeper", len(serve) == len(members) and len(leaders) == 1, text)


def kafka_lines(brokers: Mapping[str, str], cluster: Mapping[str, Any]) -> Iterator[Line]:
    if not brokers:
        yield Line("Kafka", True, "skipped: the inventory has no host in the group kafka")
        return
    if "brokers" not in cluster:
        why = cluster.get("msg", "no broker's host was reached")
        yield Line("Kafka", False, f"0 of {len(brokers)} brokers: {reason(why)}")
        return
    names = {broker: name for name, broker in brokers.items()}
    silent = cluster["silent"]
    answer = [str(b["id"]) for b in cluster["brokers"] if str(b["id"]) not in silent]
    missing = [name for broker, name in names.items() if broker not in answer]
    controller = str(cluster["controller"])
    # A dead broker stays the controller until its session expires.
    leads = names.get(controller, controller) if controller in answer else "none"
    text = f"{len(answer)} of {len(brokers)} brokers, controller: {leads}"
    text += f"; not there: {some(missing)}" if missing else ""
    yield Line("Kafka", not missing and leads != "none", text)
    kinds = {
        "under-replicated": cluster["under_replicated"],
        "too few in sync to write": cluster["under_min_isr"],
        "without a leader": cluster["offline"],
    }
    text = "; ".join(
        f"{len(partitions)} {kind}{' (' + some(partitions) + ')' if partitions else ''}"
        for kind, partitions in kinds.items()
    )
    yield Line("Partitions", not any(kinds.values()), text)


def cluster_lines(hosts: list[str], seen: Mapping[str, Any]) -> Iterator[Line]:
    if not hosts:
        yield Line("Nodes", True, "skipped: the inventory has no host in the group microk8s")
        return
    alive = [name for name in told(seen) if name in hosts]
    # Any host that answers knows the whole cluster, but one that has not joined knows only itself.
    cluster = max((seen[name] for name in alive), key=lambda host: len(host["nodes"]), default={})
    if not cluster.get("nodes"):
        yield Line("Nodes", False, f"0 of {len(hosts)}: no cluster host answers for the cluster")
        return
    ready = [name for name, is_ready in cluster["nodes"].items() if is_ready]
    others = [name for name in cluster["nodes"] if name not in ready]
    text = f"{len(ready)} of {len(hosts)} ready: {some(ready)}"
    text += f"; not ready: {some(others)}" if others else ""
    led = True
    if controllers := cluster["controllers"]:
        led = controllers["silent"] <= LEASE_SECONDS
        text += f"; controllers: {controllers['leader'] if led else 'NO LEADER'}"
    yield Line("Nodes", len(ready) == len(hosts) and not others and led, text)
    yield from pod_lines(cluster["workloads"])
    images = {name: seen[name]["registry"] for name in alive}
    answers = [name for name, count in images.items() if count is not None]
    text = f"answers on {len(answers)} of {len(hosts)} hosts"
    text += f", {max(images[name] for name in answers)} images" if answers else ""
    yield Line("Registry", len(answers) == len(hosts), text)
    yield chat_line(cluster["replicas"])


def pod_lines(workloads: list[Mapping[str, Any]]) -> Iterator[Line]:
    """One line for each of our workloads. Of the cluster's own workloads, only those that are not
    ready.
    """
    well = [each for each in workloads if each["ready"] >= each["wanted"]]
    for each in workloads:
        if each["ours"] or each not in well:
            images = ", ".join(shortened(image) for image in each["images"])
            text = f"{each['name']}: {each['ready']} of {each['wanted']} ready, {images}"
            yield Line("Pods", each in well, text)
    rest = [each["name"] for each in well if not each["ours"]]
    yield Line("Pods", True, f"others ready: {some(rest) or 'none'}")


def chat_line(replicas: Mapping[str, Any]) -> Line:
    said = {name: measured for name, measured in replicas.items() if measured}
    clients = sum(measured["clients"] for measured in said.values())
    each = ", ".join(f"{name} {measured['clients']}" for name, measured in said.items())
    text = f"{clients} clients connected" + (f": {each}" if each else ", no replica answers")
    text += "".join(f"; {name}: no answer" for name in replicas if name not in said)
    behind = max((measured["behind"] for measured in said.values()), default=0)
    text += f"; {behind} records behind the log"
    return Line("Chat", bool(said) and len(said) == len(replicas), text)


def certificate_line(seen: Mapping[str, Any]) -> Line:
    """Certificates in secrets are listed once, those on hosts per host.

    First those that expire soon, then those that chat clients see, then the others.
    """
    found: dict[str, int] = {}
    ending: set[str] = set()
    for host in told(seen):
        for path, days in seen[host]["certificates"].items():
            name = path if not path.startswith("/") else f"{host}:{path.rpartition('/')[2]}"
            found[name] = days
            ending |= {name} if path in seen[host]["ending"] else set()
    soonest = sorted(
        found.items(), key=lambda item: (item[0] not in ending, ":" in item[0], item[1])
    )
    text = some(
        f"{name} {days} days" if days >= 0 else f"{name} HAS ENDED" for name, days in soonest
    )
    return Line("Certificates", not ending, text or "none")


def screen(options: Mapping[str, Any]) -> list[Line]:
    """All lines, ordered by the dependencies of the layers."""
    seen, hosts = options["hosts"], options["cluster_hosts"]
    return [
        *host_lines(seen, options["unreached"]),
        zookeeper_line(options["members"], options["ensemble"]),
        *kafka_lines(options["brokers"], options["cluster"]),
        *cluster_lines(hosts, seen),
        certificate_line(seen),
    ]


def summary(lines: list[Line]) -> str:
    layers = []
    for line in lines:
        if not line.well:
            layer = line.layer or "Hosts"
            layers += [layer] if layer not in layers else []
    return f"!! Look at: {', '.join(layers)}" if layers else "   All is as it should be."


class ActionModule(ActionBase):
    """See the top of this file."""

    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        options = self._task.args
        lines = screen(options)
        for line in ["", *map(str, lines), summary(lines)]:
            Display().display(line)
        result["changed"] = False
        if not told(options["hosts"]):
            msg = "No host told its status. Busy hosts need more time: -e status_seconds=15"
            result |= {"failed": True, "msg": msg}
        return result
