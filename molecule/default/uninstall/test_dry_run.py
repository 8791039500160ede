"""The last look at the system, before it is taken away: what a dry run says about it.

Once is enough, and what is in the folder `tests` runs after the faults again.
"""

import pytest
from hosts import group

from playbooks import run


@pytest.mark.timeout(1200)
def test_a_dry_run_finds_what_is_new_and_pretends_nothing_else() -> None:
    checked = run("site.yml", {"chat_namespace": "elsewhere"}, options=("--check", "--diff"))
    assert checked.succeeded, checked.said
    # Roles traefik and chat would both create the namespace, and Traefik would look for routes
    # there, and lose its rights where the chat was. Role chat creates its namespaces first, so that
    # a certificate is there, and says it again with its other objects. What will be in the
    # namespaces cannot be tried before they are there.
    assert checked.changed == dict.fromkeys(group("all"), 0) | {group("microk8s")[0]: 5}
