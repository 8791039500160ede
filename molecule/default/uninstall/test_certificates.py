"""The cluster's own certificates: certificates.yml shows those of each host, and renews those of
the hosts in --limit.
"""

import re
import ssl

import pytest
from hosts import address, group

from playbooks import run

HOSTS = group("microk8s")


def served() -> dict[str, str]:
    """The certificate that each host's API server shows."""
    return {name: ssl.get_server_certificate((address(name), 16443)) for name in HOSTS}


@pytest.mark.timeout(300)
def test_certificates_are_shown_for_all_hosts_and_renewed_on_the_chosen_ones() -> None:
    before = served()
    shown = run("playbooks/certificates.yml")
    assert shown.succeeded, shown.said
    assert set(shown.changed.values()) == {0}
    for name in HOSTS:
        assert re.search(rf"{name}: all is well: [^!:]*server\.crt 36\d days", shown.said)
        assert re.search(rf"{name}: all is well: [^!:]*kubelet\.crt 36\d\d days", shown.said)
    assert served() == before
    _, other, last = HOSTS
    asked = {"microk8s_renew_certificates": True}
    renewed = run("playbooks/certificates.yml", asked, options=(f"--limit={other},{last}",))
    assert renewed.succeeded, renewed.said
    changed = {name for name, certificate in served().items() if certificate != before[name]}
    assert changed == {other, last}
