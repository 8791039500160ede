"""What our modules that only look share in their documentation."""

from __future__ import annotations


class ModuleDocFragment:
    """The same in check mode as otherwise."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Changes nothing.
    support: full
"""
