"""What the sandbox's hosts share with machines."""

import subprocess
from pathlib import Path

from standin_hosts import Sandbox


def test_hosts_and_their_network_keep_hardware_addresses_through_a_power_cut(
    sandbox: Sandbox,
) -> None:
    """If one changed, whoever knew the old one would send to it for ten seconds and more."""
    inspect = ["podman", "network", "inspect", "sandbox-standin", "--format"]
    bridge = subprocess.check_output([*inspect, "{{.NetworkInterface}}"], text=True).strip()

    def addresses() -> list[str]:
        host = sandbox.host("host3").check_output("cat /sys/class/net/eth0/address")
        return [host, Path(f"/sys/class/net/{bridge}/address").read_text().strip()]

    before = addresses()
    sandbox.power_off("host3")
    sandbox.power_on("host3")
    assert addresses() == before
