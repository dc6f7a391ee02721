"""Environment variables that are switches: read in one way everywhere.

Settings of kernels are in `settings.py`; this is also for what is decided before there is a kernel.
"""

from __future__ import annotations

import os

TRUE = frozenset({"1", "true", "on", "yes"})
FALSE = frozenset({"", "0", "false", "off", "no"})


def is_set(name: str) -> bool:
    """Whether a variable is set to anything but what `FALSE` lists."""
    return os.environ.get(name, "").lower() not in FALSE
