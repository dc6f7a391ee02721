"""Rows of what tiles' own lengths and places make: places of pairs of tiles; slices longer than a tile and functions of
its begin and end, which stand in loops whose reference runs in the same tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .memory import Index
from .pointwise import TileNumber
from .table import Dims
from .table import Env
from .table import Expr
from .table import Row
from .table import add_row
from .values import Dim
from .values import Invalid
from .values import Value
from .values import settle

#: What becomes of a slice, {0}, of {n} elements -> least and largest number of elements' worth of it.
_REDUCED = {
    "sum": "{0}.sum(-1)",
    "amax": "{0}.amax(-1)",
    "weighted": "({0} * {arange}).sum(-1)",
    "doubled": "({0} + {0}).sum(-1)",
}


def _chunked(env: Env, name: str) -> Any:
    axis = env.axes.get(name)
    if axis is None or axis.kind != "tile" or not axis.chunked:
        raise Invalid("no such tile")
    return axis


class Halo(Row):
    """`x[..., t.begin - 2 : t.begin + t.block_size + 2]`, reduced; `hl.arange(t.block_size + 4)` beside it."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind == "bool" or len(dims) > 2 or any(d.axis is None and d.size == 0 for d in dims):
            return None
        own = {d.axis for d in dims}
        axes = [
            a for a in g.env.axes.values()
            if a.kind == "tile" and a.chunked and a.name not in own and a.name in g.axis_size
        ]  # fmt: skip
        if not axes:
            return None
        axis = g.choice(axes)
        form = g.choice((*_REDUCED, "positions") if kind == "int" and not dims else tuple(_REDUCED))
        attrs: dict[str, Any] = {
            "axis": axis.name,
            "form": form,
            "before": g.choice((0, 1, 2, 3)),
            "after": g.choice((0, 1, 2, 5)),
        }
        if form != "positions":
            shape = [*(g.key(d) for d in dims), g.axis_size[axis.name]]
            index: Index = [("all",) if d.axis is None else ("tile", d.axis, 0) for d in dims]
            p = g.param(shape, kind, torch.float32 if kind == "float" else g.choice((torch.int32, torch.int64)))
            attrs |= {"tensor": p.name, "index": index}
        return Expr(self.name, [], attrs)

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        axis, form = _chunked(env, e.attrs["axis"]), e.attrs["form"]
        n = axis.size + e.attrs["before"] + e.attrs["after"]
        if form == "positions":
            return Value(torch.int64, (), 0, n * n)
        x = env.memory.get(e.attrs["tensor"])
        if x is None or x.written or not x.defined or x.error or len(x.shape) != len(e.attrs["index"]) + 1:
            raise Invalid("no such tensor")
        dims = []
        for (kind, *rest), size in zip(e.attrs["index"], x.shape):
            other = env.axes.get(rest[0]) if kind == "tile" else None
            if kind == "tile" and (other is None or other.kind != "tile" or other.name == axis.name):
                raise Invalid("no such loop")
            if other is not None and (other.low < 0 or other.high >= size or size == 1 < other.size):
                raise Invalid("outside")
            dims.append(Dim(size) if other is None else Dim(other.size, other.name))
        low, high = min(x.low, 0), max(x.high, 0)
        if form == "amax":
            return Value(x.dtype, tuple(dims), low, high, x.step)
        times = n * {"sum": 1, "doubled": 2, "weighted": n}[form]
        dtype = x.dtype if x.dtype.is_floating_point else torch.int64
        # What is summed is of the dtype itself.
        settle(x.dtype, (), low * n, high * n, x.step)
        return settle(dtype, dims, low * times, high * times, x.step, 0.0, 2 * n)

    def _text(self, e: Expr, part: str, length: str) -> str:
        if e.attrs["form"] == "positions":
            return f"hl.arange({length}).sum(0)"
        return _REDUCED[e.attrs["form"]].format(part, arange=f"hl.arange({length})")

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        t, before, after = e.attrs["axis"], e.attrs["before"], e.attrs["after"]
        begin = f"{t}.begin - {before}" if before else f"{t}.begin"
        end = f"{t}.begin + {t}.block_size + {after}" if after else f"{t}.begin + {t}.block_size"
        at = [":" if kind == "all" else rest[0] for kind, *rest in e.attrs.get("index", ())]
        part = f"{e.attrs.get('tensor')}[{', '.join([*at, f'{begin} : {end}'])}]"
        return self._text(e, part, f"{t}.block_size + {before + after}")

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        t, before, after = e.attrs["axis"], e.attrs["before"], e.attrs["after"]
        at = ["slice(None)" if kind == "all" else rest[0] for kind, *rest in e.attrs.get("index", ())]
        at.append(f"slice({t}.start - {before}, {t}.stop + {after})")
        part = f"window({e.attrs.get('tensor')}, {', '.join(at)})"
        if e.value.dtype.is_floating_point:  # type: ignore[union-attr]
            part = f"{part}.double()"
        text = self._text(e, part, f"{t}.stop - {t}.start + {before + after}")
        return text.replace("hl.arange", "torch.arange")


#: A number of a tile, {0}, and what is made of it -> the kernel's, the reference's, and the function.
_FUNCTIONS = {
    "clamp": ("torch.clamp(hl.full([], {0}, dtype=torch.int64), min=0)", "torch.tensor({0}).clamp(min=0)"),
    "abs": ("torch.abs(hl.full([], {0}, dtype=torch.int64))", "torch.tensor({0}).abs()"),
    "larger": ("hl.full([], max({0}, 0), dtype=torch.int64)", "torch.tensor(max({0}, 0))"),
    "smaller": ("hl.full([], min({0}, 5), dtype=torch.int64)", "torch.tensor(min({0}, 5))"),
    "chosen": ("torch.where(hl.full([], {0}, dtype=torch.int64) > 3, 1, 0)", "torch.tensor(int({0} > 3))"),
}


class TileNumberFunction(TileNumber):
    """`torch.clamp(hl.full([], t.begin - 2), min=0)`: functions of a tile's numbers, as tensors."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        axes = [a for a in g.env.axes.values() if a.kind == "tile" and a.chunked]
        if kind != "int" or dims or not axes:
            return None
        what, by = g.choice(("begin", "end", "id", "count")), g.choice((-3, -1, 2))
        attrs = {"axis": g.choice(axes).name, "what": what, "function": False}
        return Expr(self.name, [], {**attrs, "form": g.choice(tuple(_FUNCTIONS)), "by": by})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        number = super().infer(e, args, env)
        most = number.magnitude + abs(e.attrs["by"])
        return Value(
            torch.int64, (), 0 if e.attrs["form"] in ("clamp", "abs", "larger", "chosen") else -most, max(most, 5)
        )

    def _moved(self, e: Expr, text: str) -> str:
        by = e.attrs["by"]
        return f"{text} {'+' if by > 0 else '-'} {abs(by)}"

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return _FUNCTIONS[e.attrs["form"]][0].format(self._moved(e, super().kernel(e, args, p)))

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return _FUNCTIONS[e.attrs["form"]][1].format(self._moved(e, super().oracle(e, args, p)))


class FlatPlace(Row):
    """`t.index[:, None] * n + u.index[None, :]`: a place in one dimension for each pair of two loops."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind != "int" or len(dims) != 2 or any(d.axis not in g.axis_size for d in dims) or dims[0] == dims[1]:
            return None
        return Expr(
            self.name,
            [],
            {"axes": (dims[0].axis, dims[1].axis), "size": g.axis_size[dims[1].axis], "down": g.chance(0.3)},
        )

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        rows, columns = (env.axes.get(name) for name in e.attrs["axes"])
        n = env.program.sizes.get(e.attrs["size"])
        if rows is None or columns is None or rows is columns or n is None or n < 1:
            raise Invalid("no such loops")
        if rows.kind != "tile" or columns.kind != "tile" or min(rows.low, columns.low) < 0 or columns.high >= n:
            raise Invalid("no such places")
        e.attrs["last"] = rows.high * n + n - 1
        return Value(torch.int32, (Dim(rows.size, rows.name), Dim(columns.size, columns.name)), 0, e.attrs["last"])

    def _text(self, e: Expr, rows: str, columns: str) -> str:
        text = f"{rows}[:, None] * {e.attrs['size']} + {columns}[None, :]"
        return f"{e.attrs['last']} - ({text})" if e.attrs["down"] else text

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return self._text(e, *(f"{name}.index" for name in e.attrs["axes"]))

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return self._text(e, *(f"index({name})" for name in e.attrs["axes"]))


add_row(Halo("halo", "halo slices", 4))
add_row(FlatPlace("flat_place", "positions", 1))
add_row(TileNumberFunction("tile_number_function", "tile attributes", 2))
