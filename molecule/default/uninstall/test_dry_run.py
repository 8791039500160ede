"""A dry run on the installed system, before it is uninstalled.

This test runs once. Those in the folder `tests` run again after the faults.
"""

import pytest
from hosts import group

from playbooks import run


@pytest.mark.timeout(1200)
def test_a_dry_run_reports_only_changes_that_a_run_would_make() -> None:
    checked = run("site.yml", {"chat_namespace": "elsewhere"}, options=("--check", "--diff"))
    assert checked.succeeded, checked.said
    # Roles traefik and chat would both create the namespace. Traefik would look for routes there,
    # and lose its rights in the old one. Role chat creates its namespaces before the certificate,
    # and reports them again with its other objects. Objects in a namespace that does not exist
    # cannot be checked.
    assert checked.changed == dict.fromkeys(group("all"), 0) | {group("microk8s")[0]: 5}
