"""Filters for the stages between a cluster with plaintext and one with TLS (playbooks/secure.yml).

    plaintext  no TLS
    prepared   takes TLS beside plaintext; uses plaintext among its own
    moved      takes both; uses TLS among its own
    tls        no plaintext

Services at neighbouring stages work together. So each stage takes one roll, and ZooKeeper's members
and the brokers take turns (PATH). Where a cluster is, its files tell: a stage is written only when
all services run at the one before.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, NamedTuple

from ansible.errors import AnsibleFilterError

# Of a member, where this project keeps it.
CERTIFICATE = "/etc/zookeeper/host.pem"
STAGES = ["plaintext", "prepared", "moved", "tls"]


class Place(NamedTuple):
    """A stage of ZooKeeper's members, and one of the brokers."""

    zookeeper: str
    kafka: str


PATH = [
    Place("plaintext", "plaintext"),
    Place("prepared", "plaintext"),
    Place("moved", "plaintext"),
    Place("moved", "prepared"),
    Place("moved", "moved"),
    Place("moved", "tls"),
    Place("tls", "tls"),
]


def _settings(lines: Iterable[str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines if "=" in line)


def broker_stage(lines: Iterable[str]) -> str:
    """The stage that a broker's settings have, lines of its server.properties; '' without any."""
    settings = _settings(lines)
    if not settings:
        return ""
    mapped = settings.get("listener.security.protocol.map", "").split(",")
    names = {listener.partition(":")[0] for listener in mapped}
    if "INTERNAL_TLS" not in names:
        return "plaintext"
    if "INTERNAL" not in names:
        return "tls"
    return "moved" if settings.get("inter.broker.listener.name") == "INTERNAL_TLS" else "prepared"


def member_stage(lines: Iterable[str]) -> str:
    """The stage that a member's settings have, lines of its zoo.cfg; '' without any.

    Without this project's TLS, a member may have a port for it, by `zookeeper_config`.
    """
    settings = _settings(lines)
    if "clientPort" in settings:
        if settings.get("ssl.keyStore.location") != CERTIFICATE:
            return "plaintext"
        return "moved" if settings.get("sslQuorum") == "true" else "prepared"
    return "tls" if "secureClientPort" in settings else ""


def stage_of_all(stages: Iterable[str], security: str) -> str:
    """The stage of services that are on their way to `security`: the one that the first have, and
    that the others get next. '' if none is installed."""
    found = sorted((stage for stage in stages if stage), key=STAGES.index)
    if not found:
        return ""
    return found[-1] if security == "tls" else found[0]


def newer_listeners(brokers: Iterable[Iterable[str]], security: str) -> str:
    """Which listeners have the ports of the meantime, or get them on the way to `security`: those
    that came later, "plaintext" or "tls".

    As long as a broker has both, the ports in its file tell: they stay although the goal changes.
    """
    for lines in brokers:
        listeners = _settings(lines).get("advertised.listeners", "").split(",")
        ports = {
            name: int(address.rpartition(":")[2])
            for name, _, address in (
                listener.partition("://") for listener in listeners if listener
            )
        }
        if ports.keys() >= {"INTERNAL", "INTERNAL_TLS"}:
            return "tls" if ports["INTERNAL_TLS"] > ports["INTERNAL"] else "plaintext"
    return security


def security_path(zookeeper: str, kafka: str, security: str) -> list[dict[str, Any]]:
    """The rolls that are left on the way to `security`, in their order.

    Each has the stage of both, which of them `moves`, and its number on the whole way.
    """
    path = PATH if security == "tls" else PATH[::-1]
    if Place(zookeeper, kafka) not in path:
        raise AnsibleFilterError(
            f"ZooKeeper's members are at the stage '{zookeeper}' and the brokers at '{kafka}': no"
            " cluster is at both on its way. See docs/operations/security.md for the stages, and"
            " correct zoo.cfg or server.properties by hand"
        )
    here = path.index(Place(zookeeper, kafka))
    return [
        {
            **place._asdict(),
            "moves": "zookeeper" if place.zookeeper != before.zookeeper else "kafka",
            "number": number,
            "of": len(path) - 1,
        }
        for number, (before, place) in enumerate(pairwise(path), start=1)
        if number > here
    ]


class FilterModule:
    """Ansible looks for this class."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "broker_stage": broker_stage,
            "member_stage": member_stage,
            "stage_of_all": stage_of_all,
            "newer_listeners": newer_listeners,
            "security_path": security_path,
        }
