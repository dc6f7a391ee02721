"""Schedules that are known to be good for matrix products: where a search begins.

A product has a handful of schedules that are near the best on every GPU with tensor cores, and they are far from the
default in five tunables at once, which a search that moves step by step finds late.  Not here: what is allowed or
hopeless (`spec.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...config_spec import ConfigSpec
from ...fragments import ListOf
from ...fragments import PowerOfTwoFragment

#: Rows and columns of the accumulator, warps, stages.  An accumulator takes 32 to 128 registers of each thread, and the
#: stages fill much of shared memory.  The like are in Triton's matrix multiplication tutorial.
_SHAPES = (
    (128, 128, 8, 4),
    (128, 256, 8, 3),
    (256, 128, 8, 3),
    (128, 64, 4, 4),
    (64, 128, 4, 4),
    (64, 64, 4, 5),
)
#: Bytes of a row of an operand's tile: one line of a cache, and the widest row that shared memory swizzles.
_LINE_BYTES = 128
#: Rows of tiles that are done together, so that their columns are read from the L2 cache.
_GROUP = 8


def product_starts(spec: ConfigSpec, roles: Sequence[set[str]], itemsize: int) -> list[dict[str, Any]]:
    """Good Configs for a kernel that multiplies matrices.

    Args:
        spec: the kernel's, complete; tells what is allowed and promising.
        roles: for each of `block_sizes`, whether it is `m`, `n` or `k` of products; empty for others, which keep their
            default.
        itemsize: of an operand's element, in bytes.

    Returns:
        Keys that differ from the default, best first, each promising; none for a kernel without products.
    """
    blocks = spec.fields.get("block_sizes")
    if not isinstance(blocks, ListOf) or not any(roles):
        return []
    found: dict[tuple[int, ...], dict[str, Any]] = {}
    neutral = {key: fragment.default() for key, fragment in spec.fields.items()}
    for m, n, warps, stages in _SHAPES:
        wanted = {"m": m, "n": n, "k": _LINE_BYTES // itemsize}
        # A dimension of two products, as the keys of attention are, is the smaller of what they want.
        sizes = [
            nearest(fragment, min(wanted[role] for role in own)) if own else fragment.default()
            for fragment, own in zip(blocks.items, roles)
        ]
        start = {"block_sizes": sizes, "num_warps": warps, "num_stages": stages}
        groups = spec.fields.get("l2_groupings")
        if isinstance(groups, ListOf):
            start["l2_groupings"] = [nearest(fragment, _GROUP) for fragment in groups.items]
        if spec.may_choose({**neutral, **start}):
            # A small dimension makes several shapes one: of those with as many warps, the first will do.
            found.setdefault((*sizes, warps), start)
    return list(found.values())


def nearest(fragment: Any, value: int) -> int:
    """The value if it is allowed, else the nearest bound."""
    assert isinstance(fragment, PowerOfTwoFragment)
    return min(max(value, fragment.low), fragment.high)
