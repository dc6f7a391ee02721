"""Identifiers for generated code."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

#: Argument of a function on the device that does one of several loops: which part of it.
PART = "pid"
#: Names that generated device code reads, and those of a launch's options, which it has for arguments.
RESERVED = frozenset({
    *("tl", "triton", "torch", "libdevice", "range", "min", "max", "float", "int", "None"),
    *("num_warps", "num_stages", "num_ctas", "maxnreg", "grid", "warmup", "ptx_options", "launch_cooperative_grid"),
})  # fmt: skip


class Names:
    """Identifiers of one function: each is given out once.

    Args:
        taken: names that stand for something already.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def unique(self, wanted: str) -> str:
        """`wanted` as an identifier, with a number where it is taken."""
        base = re.sub(r"\W", "_", wanted) or "v"
        if base[0].isdigit() or keyword.iskeyword(base):
            base = f"v_{base}"
        name, n = base, 0
        while name in self._taken:
            n += 1
            name = f"{base}_{n}"
        self._taken.add(name)
        return name
