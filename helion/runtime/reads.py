"""Numbers that host functions read from tensors at each call."""

from __future__ import annotations

from .. import exc


def check_read(holds: bool, condition: str) -> None:
    """Check what a kernel was compiled for about numbers that its host code reads from tensors.

    Raises:
        exc.InvalidAPIUsage: it does not hold; nothing has been launched.
    """
    if not holds:
        raise exc.InvalidAPIUsage(
            f"a number that host code reads from a tensor is not one that this kernel was compiled for: {condition}",
            fix="use it for bounds of loops and sizes of new tensors; pass what else depends on it as an argument.",
        )
