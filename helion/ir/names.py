"""Identifiers for generated code."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable


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
