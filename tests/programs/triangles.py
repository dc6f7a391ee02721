"""Rows of triangle masks over two tiles, of products as a rule, and of powers and shifts by numbers of the kernel."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch

from .pointwise import result_dtype
from .table import ROWS
from .table import Dims
from .table import Env
from .table import Expr
from .table import Row
from .table import add_row
from .values import Invalid
from .values import Value
from .values import settle


def masked(g: Any, value: Expr) -> Expr:
    """A triangle of a value over two tiles."""
    attrs = {"test": g.choice(("<", "<=", ">", ">=")), "plus": g.choice((0, 0, 1, -1, 3, -5))}
    return Expr("triangle", [value], {**attrs, "turned": g.chance(0.5), "other": g.chance(0.4)})


class Triangle(Row):
    """`torch.where(t1.index[:, None] >= t2.index[None, :] + 3, value, 0)`: the lower or the upper part."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        axes = [d.axis for d in dims]
        if kind == "bool" or len(dims) != 2 or None in axes or axes[0] == axes[1]:
            return None
        value = ROWS["product"].make(g, dims, kind, exact, depth - 1) if kind == "float" and g.chance(0.6) else None
        return masked(g, value or g.expr(dims, kind, exact, depth - 1))

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,) = args
        axes = [env.axes.get(d.axis or "") for d in a.dims]
        if a.weak or len(axes) != 2 or any(axis is None or axis.kind != "tile" for axis in axes):
            raise Invalid("no two tiles")
        return Value(a.dtype, a.dims, min(a.low, 0), max(a.high, 0), a.step, a.error)

    def _text(self, e: Expr, value: str, places: Sequence[str]) -> str:
        rows, columns = f"{places[0]}[:, None]", f"{places[1]}[None, :]"
        plus = e.attrs["plus"]
        shifted = f" {'+' if plus > 0 else '-'} {abs(plus)}" if plus else ""
        left, right = (columns, rows) if e.attrs["turned"] else (rows, columns)
        chosen = (0, value) if e.attrs["other"] else (value, 0)
        return f"torch.where({left} {e.attrs['test']} {right}{shifted}, {chosen[0]}, {chosen[1]})"

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return self._text(e, args[0], [f"{d.axis}.index" for d in e.value.dims])  # type: ignore[union-attr]

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return self._text(e, args[0], [f"index({d.axis})" for d in e.value.dims])  # type: ignore[union-attr]


#: Source, and what it is of an element and a number.
_FORMS: dict[str, tuple[str, Callable[[float, int], float]]] = {
    "power of two": ("{0} * 2 ** {1}", lambda v, n: v * 2.0**n),
    "shifted one": ("{0} * (1 << {1})", lambda v, n: v * 2.0**n),
    "plus a power": ("{0} + {1} ** 2", lambda v, n: v + n**2),
    "shift up": ("{0} << {1}", lambda v, n: v * 2.0**n),
    "shift down": ("{0} >> {1}", lambda v, n: v // 2**n),
}


class NumberPower(Row):
    """A value beside a power or shift of a number of the kernel: an argument, a size, an index."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind == "bool":
            return None
        form = g.choice(tuple(_FORMS))
        if form.startswith("shift ") and kind == "float":
            return None
        args = [g.expr(dims, kind, exact, depth - 1), g.number("int")]
        return Expr(self.name, args, {"form": form})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a, n), meaning = args, _FORMS[e.attrs["form"]][1]
        if a.weak or not n.weak or n.kind != "int" or not 0 <= n.low <= n.high <= 6 or a.kind == "bool":
            raise Invalid("exponent")
        if e.attrs["form"].startswith("shift ") and a.kind != "int":
            raise Invalid("bits of a float")
        limit = 2.0**n.high if "plus" not in e.attrs["form"] else n.high**2
        if a.kind == "int" and limit > torch.iinfo(a.dtype).max:
            raise Invalid("a number that the dtype does not hold")
        if e.attrs["form"] == "plus a power" and e.args[1].op == "number" and "value" in e.args[1].attrs:
            raise Invalid("a constant")
        ends = [meaning(v, int(i)) for v in (a.low, a.high) for i in (n.low, n.high)]
        dtype = result_dtype("{0} * {1}", ((a.dtype, False, not a.dims), (torch.int64, True, True)))
        return settle(dtype, a.dims, min(ends), max(ends), a.step, a.error * 2.0**n.high)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return _FORMS[e.attrs["form"]][0].format(*args)


for _row in [Triangle("triangle", "triangles", 2), NumberPower("number_power", "powers of numbers", 1.5)]:
    add_row(_row)
