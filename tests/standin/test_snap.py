"""The contract of `snap`: the output that the module community.general.snap and people read."""

import json
import re
from collections.abc import Iterator

import pytest
from ansible_collections.community.general.plugins.modules.snap import Snap
from standin_hosts import COMMON, configure, install, kubectl, microk8s, until, upload
from testinfra.host import Host

CLASSIC = "published using classic confinement"


def notes(host: Host) -> list[str]:
    """The notes, parsed by the module's own regular expression."""
    line = host.check_output("snap list microk8s").splitlines()[1]
    return Snap._Snap__disable_re.match(line)["notes"].split(",")


def tracked(host: Host) -> dict[str, str]:
    lines = host.check_output("snap list").splitlines()[1:]
    return {m["name"]: m["channel"] for m in map(Snap._Snap__list_re.match, lines)}


def test_snap_list_without_snaps_has_exit_code_0(bare: Host) -> None:
    """snapd cmd/snap/cmd_list.go: on stderr, exit code 0, and nothing to parse on stdout."""
    result = bare.run("snap list")
    assert (result.rc, result.stdout) == (0, "")
    assert result.stderr.startswith("No snaps are installed yet.")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("install microk8s --channel=1.36/stable", CLASSIC),
        ("install microk8s --classic --channel=9.99/stable", "is not available on 9.99/stable"),
        ("install microk8s --classic --channel=1.36/brave", "invalid risk in channel name"),
        ("install no-such-snap", 'snap "no-such-snap" not found'),
        ("refresh microk8s", 'snap "microk8s" is not installed'),
        ("refresh --channel=1.36/edge", "a single snap name is needed to specify mode or channel"),
        ("restart microk8s", 'snap "microk8s" is not installed'),
        ("info no-such-snap", "no valid snaps given"),
    ],
)
def test_wrong_commands_are_refused(bare: Host, command: str, says: str) -> None:
    """snapd cmd/snap: `error: …` on stderr, exit code 1; the module matches the classic one."""
    result = bare.run(f"snap {command}")
    assert (result.rc, result.stdout) == (1, "")
    assert says in result.stderr
    assert "error: " in result.stderr


def test_only_root_can_install(bare: Host) -> None:
    """snapd client: `error: access denied (try with sudo)`."""
    with bare.sudo("nobody"):
        result = bare.run("snap install microk8s --classic")
    assert (result.rc, result.stderr) == (1, "error: access denied (try with sudo)\n")


@pytest.mark.parametrize(
    ("configuration", "says"),
    [
        ("version: [", "could not parse configuration"),
        ("addons: [{name: dns}]", 'could not parse config file version ""'),
        ("version: 9.0.0", "config file version is 9.0.0 but the maximum version supported is"),
        ("version: 0.0.1", "config file version is 0.0.1 but the minimum version required is"),
    ],
    ids=["not YAML", "no version", "too new", "too old"],
)
def test_a_wrong_launch_configuration_fails_the_installation(
    bare: Host, configuration: str, says: str
) -> None:
    """mk snap/hooks/install and ag pkg/k8sinit/schema.go: an error, and nothing stays installed."""
    configure(bare, configuration)
    result = install(bare)
    bare.check_output(f"rm {COMMON}/.microk8s.yaml")
    assert result.rc == 1
    assert 'Run install hook of "microk8s" snap if present' in result.stderr
    assert says in result.stderr
    assert bare.check_output("snap list") == ""
    assert not bare.file("/snap/bin/microk8s").exists
    assert not bare.file("/var/snap/microk8s/current").exists
    assert not bare.run("ls /etc/systemd/system/snap.microk8s.*").stdout


def test_the_module_reads_name_channel_and_notes(node: Host) -> None:
    """community.general plugins/modules/snap.py: its regular expressions match our columns."""
    assert tracked(node) == {"microk8s": "1.36/stable"}
    assert notes(node) == ["classic"]
    header, line = node.check_output("snap list").splitlines()
    assert header.split() == ["Name", "Version", "Rev", "Tracking", "Publisher", "Notes"]
    assert re.match(r"microk8s +v1\.36\.\d+ +\d+ +1\.36/stable +canonical\*\* +classic$", line)


def test_installing_again_changes_nothing(node: Host) -> None:
    """snapd cmd/snap/cmd_snap_op.go: says so on stderr, exit code 0."""
    result = install(node)
    assert (result.rc, result.stdout) == (0, "")
    assert "is already installed, see 'snap help refresh'" in result.stderr


def test_a_hold_is_in_the_notes_until_it_is_removed(node: Host) -> None:
    """snapd cmd/snap/notes.go: `held` after `classic`; a duration is given only after `=`."""
    said = node.check_output("snap refresh --hold microk8s")
    assert said == 'General refreshes of "microk8s" held indefinitely'
    assert notes(node) == ["classic", "held"]
    node.check_output("snap refresh --hold=72h microk8s")
    assert notes(node) == ["classic", "held"]
    node.check_output("snap refresh --unhold microk8s")
    assert notes(node) == ["classic"]


def test_a_refresh_changes_the_channel(node: Host) -> None:
    """snapd cmd/snap/cmd_snap_op.go; the module calls it when the tracked channel differs."""
    assert "refreshed" in node.check_output("snap refresh microk8s --channel=1.36/candidate")
    assert tracked(node) == {"microk8s": "1.36/candidate"}
    node.check_output("snap refresh microk8s --channel=1.36")
    assert tracked(node) == {"microk8s": "1.36/stable"}
    again = node.run("snap refresh microk8s")
    assert (again.rc, again.stderr) == (0, 'snap "microk8s" has no updates available\n')


@pytest.fixture
def newer(node: Host) -> Iterator[Host]:
    """The node, with a newer revision in its channel. Both have the same programs."""
    published = {"microk8s": {"1.36/stable": 8950}}
    upload(node, json.dumps(published).encode(), "/var/lib/snapd/published.json")
    yield node
    node.check_output("rm /var/lib/snapd/published.json")
    node.check_output("snap refresh --unhold microk8s")
    node.check_output("snap refresh microk8s")
    until(lambda: microk8s(node, "status").rc == 0, "the node is not ready again")


def test_a_refresh_installs_the_newer_revision_with_a_copy_of_the_data(newer: Host) -> None:
    """snapd overlord/snapstate/backend/snapdata.go: the old data is kept for a revert;
    cmd_snap_op.go; mk snapcraft.yaml: pods survive a restart of containerd."""
    info = newer.check_output("snap info microk8s")
    assert re.search(r"^ +1\.36/stable: +v1\.36\.\d+ .*\(8950\)", info, re.MULTILINE)
    assert re.search(r"^installed: +v1\.36\.\d+ .*\(8913\)", info, re.MULTILINE)
    dns = "get pods --all-namespaces --selector k8s-app=kube-dns --output jsonpath={.items[*]}"
    started = json.loads(kubectl(newer, dns))["status"]["containerStatuses"][0]["containerID"]
    newer.check_output("touch /var/snap/microk8s/current/args/ours")

    said = newer.check_output("snap refresh microk8s")
    assert re.fullmatch(r"microk8s \(1\.36/stable\) v1\.36\.\d+ from Canonical\*\* refreshed", said)
    assert newer.check_output("snap list microk8s").splitlines()[1].split()[2] == "8950"
    assert microk8s(newer, "version").stdout.endswith("revision 8950\n")
    for revision in ("8913", "8950", "current"):
        assert newer.file(f"/var/snap/microk8s/{revision}/args/ours").exists
    until(lambda: microk8s(newer, "status").rc == 0, "the node is not ready again")
    now = json.loads(kubectl(newer, dns))["status"]["containerStatuses"][0]["containerID"]
    assert now == started
    again = newer.run("snap refresh microk8s")
    assert (again.rc, again.stdout) == (0, "")
    assert again.stderr == 'snap "microk8s" has no updates available\n'


def test_a_held_snap_is_refreshed_only_if_it_is_named(newer: Host) -> None:
    """snapd#12035: general refreshes respect holds of single snaps, specific ones do not."""
    newer.check_output("snap refresh --hold microk8s")
    general = newer.run("snap refresh")
    assert (general.rc, general.stdout, general.stderr) == (0, "", "All snaps up to date.\n")
    assert "refreshed" in newer.check_output("snap refresh microk8s")
    assert notes(newer) == ["classic", "held"]


def test_a_service_can_be_restarted_by_name(node: Host) -> None:
    """snapd cmd/snap/cmd_services.go and its unit names, snap.SNAP.APP.service."""
    unit = "systemctl show --property MainPID --value snap.microk8s.daemon-cluster-agent"
    before = node.check_output(unit)
    said = node.check_output("snap restart microk8s.daemon-cluster-agent")
    assert said == "Restarted."
    assert node.check_output(unit) != before
    rows = [line.split() for line in node.check_output("snap services microk8s").splitlines()]
    assert rows[0] == ["Service", "Startup", "Current", "Notes"]
    assert ["microk8s.daemon-kubelite", "enabled", "active", "-"] in rows
    refused = node.run("snap restart microk8s.daemon-nothing")
    assert (refused.rc, refused.stderr) == (
        1,
        'error: snap "microk8s" has no service "daemon-nothing"\n',
    )


def test_snap_set_applies_a_new_launch_configuration(node: Host) -> None:
    """mk snap/hooks/configure: `snap set`; ag apply.go: null removes a flag."""
    setting = "config=version: 0.1.0\nextraKubeProxyArgs:\n  --v: {}\n"
    flags = node.file("/var/snap/microk8s/current/args/kube-proxy")
    node.check_output("snap set microk8s %s", setting.format(1))
    assert "--v=1\n" in flags.content_string
    node.check_output("snap set microk8s %s", setting.format("null"))
    assert "--v" not in flags.content_string
    assert node.check_output("snap get microk8s config") == setting[7:].format("null").strip()
    until(lambda: microk8s(node, "status").rc == 0, "the node is not ready again")


def test_snap_remove_leaves_nothing_behind(bare: Host) -> None:
    """snapd `snap remove`: services, links and data."""
    configure(bare, {"version": "0.1.0", "extraKubeletArgs": {"--fail-cgroupv1": "false"}})
    assert "installed" in install(bare).stdout
    assert microk8s(bare, "status --wait-ready --timeout 60").rc == 0
    assert bare.check_output("snap remove microk8s --purge") == "microk8s removed"
    assert not bare.file("/var/snap/microk8s").exists
    assert not bare.file("/snap/bin/microk8s").exists
    assert not bare.run("pgrep -x 'kubelet|containerd.*'").stdout
    assert not bare.run("grep /var/snap/microk8s /proc/mounts").stdout
