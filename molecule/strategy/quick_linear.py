"""Strategy quick_linear: Ansible's `linear` on mitogen, with one Python on each host for all tasks.

Results are those of `linear`, with about half of the processor's time. Scenario `default` is run
without it, as sites are.
"""

import ansible_mitogen.affinity
from ansible.plugins.loader import filter_loader, test_loader
from ansible.plugins.strategy.linear import StrategyModule as Linear
from ansible_mitogen.strategy import StrategyMixin

# Mitogen pins processes to cores: of two, all tasks would share one.
ansible_mitogen.affinity.policy = ansible_mitogen.affinity.Policy()

# Each task of each host is a fork of this process: what is loaded here is not loaded in each.
for loader in (filter_loader, test_loader):
    list(loader.all())


class StrategyModule(StrategyMixin, Linear):
    """See the top of this file."""
