"""Whether a condition on the place of a loop elects one of its tiles, `tile.id == 0`: what that one does alone.

Worked out with the numbers of the traced call, for the smallest tiles that a Config may have.  Not here: conditions on
data, of which nothing is known while compiling.
"""

from __future__ import annotations

from typing import Any

import sympy

from .device_ir import Axis
from .device_ir import DeviceIR
from .symbols import expr_of

#: Tiles for which a condition is worked out: the first ones, and the last ones of a longer loop.
_FIRST, _LAST = 32, 4


def elects(ir: DeviceIR, axis: Axis, condition: Any, holds: bool) -> bool:
    """Whether a condition on the place of a loop holds (or not) for one tile at most, as far as is known.

    Args:
        ir: the graphs.
        axis: the loop.
        condition: a number of the trace, which knows the loop's place.
        holds: False for the tiles for which it does not hold.
    """
    begin, end = ir.space.hint(axis.begin), ir.space.hint(axis.end)
    size = axis.block.low if axis.block.fixed is None else axis.block.fixed
    if begin is None or end is None or not isinstance(size, int):
        return True
    expr = expr_of(condition)
    hints = axis.offset.node.shape_env.backed_var_to_val
    known = {symbol: hints[symbol] for symbol in expr.free_symbols if symbol in hints}
    bound = expr_of(axis.end)
    if getattr(bound, "is_Symbol", False):  # the same code serves longer loops
        end = max(end, begin + _LAST * size)
        known[bound] = end
    count = -(-(end - begin) // size)
    found = 0
    for number in range(count) if count <= _FIRST + _LAST else [*range(_FIRST), *range(count - _LAST, count)]:
        offset = begin + number * size
        place = ((axis.offset, offset), (axis.tile_id, number), (axis.clipped_end, min(offset + size, end)))
        value = expr.subs({**known, axis.block.symbol: size, **{symbol.node.expr: n for symbol, n in place}})
        if value not in (sympy.true, sympy.false):
            return True
        found += bool(value) is holds
    return found < 2
