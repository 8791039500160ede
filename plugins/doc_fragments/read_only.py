"""Shared documentation of the modules that change nothing."""

from __future__ import annotations


class ModuleDocFragment:
    """Check mode makes no difference."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Changes nothing.
    support: full
"""
