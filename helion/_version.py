"""Versions: helion's own, and those of its dependencies that it was tested with.

On its own so that setup.py can read it without importing the package.
"""

from __future__ import annotations

import logging
import re

__version__ = "0.1.0"

#: Package -> the oldest and the newest minor version that the test suite has passed with.
TESTED: dict[str, tuple[str, str]] = {"torch": ("2.11", "2.13"), "triton": ("3.6", "3.7")}


def outside_tested(package: str, version: str) -> str | None:
    """Why nobody knows whether helion works with a version of a package; None if it was tested.

    >>> outside_tested("triton", "3.9.0")
    'triton 3.9.0 is newer than what helion 0.1.0 was tested with (3.6 to 3.7)'
    >>> outside_tested("triton", "3.7.1")
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        return f"{package} {version} is no version that helion {__version__} knows"
    this = (int(found[1]), int(found[2]))
    oldest, newest = TESTED[package]
    low, high = (tuple(int(part) for part in bound.split(".")) for bound in (oldest, newest))
    if low <= this <= high:
        return None
    side = "older" if this < low else "newer"
    return f"{package} {version} is {side} than what helion {__version__} was tested with ({oldest} to {newest})"


def warn_if_untested(package: str, version: str) -> None:
    """One line in the log, if nobody knows whether helion works with a version of a package."""
    problem = outside_tested(package, version)
    if problem is not None:
        logging.getLogger("helion").warning("%s; run your tests with it, or install a version of that range", problem)
