"""What the code of a function says without being run: whether it has a device loop, and where it draws numbers."""

from __future__ import annotations

import dis
import itertools
from collections.abc import Callable
from typing import Any

from ...language.loops import grid
from ...language.loops import jagged_tile
from ...language.loops import tile
from ...language.memory import load

_LANGUAGE = load.__module__


def names_a_loop(fn: Callable[..., Any]) -> bool:
    """Whether a function that ran no device loop has one all the same, behind a `return`."""
    names = fn.__code__.co_names
    loops = (tile, grid, jagged_tile)
    return any(name in ("tile", "grid", "jagged_tile") or fn.__globals__.get(name) in loops for name in names)


def draws_of(fn: Callable[..., Any]) -> int:
    """How many places in a function draw random numbers of torch's; those of `hl` have seeds of their own."""
    names = ("rand", "randn", "rand_like", "randn_like", "randint", "dropout")
    code = list(dis.get_instructions(fn))
    return sum(
        i.opname.startswith("LOAD_")
        and i.argval in names
        and getattr(fn.__globals__.get(str(before.argval)), "__name__", None) != _LANGUAGE
        for before, i in itertools.pairwise(code)
    )
