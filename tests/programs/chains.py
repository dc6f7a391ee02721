"""Rows of statements in which several products share a tile: the forward and backward passes of attention, and products
whose operand is also summed up.

A loop's software pipeline keeps as many buffers as it believes that a loaded tile is used.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from . import memory
from .control import AxisSpec
from .control import Bound
from .control import Loop
from .generate import Generator
from .loops import loop_axis
from .scope import LARGEST_LOOP
from .scope import enter
from .scope import output
from .scope import statement
from .scope import tile_dims
from .statements import Accumulate
from .statements import Assign
from .statements import Rename
from .statements import Statement
from .statements import Store
from .table import Axis
from .table import Dims
from .table import Env
from .table import Expr
from .table import infer
from .triangles import masked
from .values import Dim
from .values import Invalid
from .values import Value
from .values import elements

if TYPE_CHECKING:
    from .printing import Printer

_OPERANDS = (torch.float32, torch.bfloat16, torch.float16)


def _tile_of(g: Generator, dims: Dims, dtype: torch.dtype) -> Expr:
    """A load of a whole tile of an argument of small integers."""
    p = g.param([g.key(d) for d in dims], "float", dtype)
    if p.written:
        raise Invalid("written")
    index: memory.Index = [("all",) if d.axis is None else ("tile", d.axis, 0) for d in dims]
    return Expr("load", [], {"tensor": p.name, "index": index, "form": "index"})


def _named(block: list[Statement], g: Generator, value: Expr) -> Expr:
    """Assign a value to a new variable."""
    assigned = Assign(g.name("v"), value)
    assigned.infer(g.env)
    block.append(assigned)
    return Expr("variable", [], {"name": assigned.name})


def _start(g: Generator, dims: Dims) -> Assign:
    return Assign(g.name("acc"), Expr("full", [], {"dims": dims, "value": 0.0, "dtype": torch.float32, "form": "hl"}))


def _kept(g: Generator, name: str, dims: Dims) -> Store:
    """A store of a variable, in every tile and for every index around."""
    others = [d for d in tile_dims(g) if d not in dims]
    index: memory.Index = [("tile", d.axis, 0) for d in others]
    grids = [a for a in g.env.axes.values() if a.kind in ("grid", "unrolled") and a.name in g.axis_size]
    index += [("grid", a.name) for a in grids] + [("all",) if d.axis is None else ("tile", d.axis, 0) for d in dims]
    shape = [*map(g.key, others), *(g.axis_size[a.name] for a in grids), *map(g.key, dims)]
    if elements(others) * elements(dims) > LARGEST_LOOP:
        raise Invalid("too large")
    return Store(output(g, shape, torch.float32, "zeros"), index, [Expr("variable", [], {"name": name})])


@statement(0.6)
def delay_line(g: Generator, depth: int) -> list[Statement]:
    """Two variables that begin with one value, of which a loop lets one be what the other was."""
    dims = tuple(tile_dims(g)[:2])
    start = Assign(g.name("d"), g.cast(g.within(g.expr(dims, "float", True, 1), 0, 30), torch.float32))
    before = Rename(g.name("d"), Expr("variable", [], {"name": start.name}))
    spec = loop_axis(g, "i", 0, 6, tile=False)
    loop = Loop("grid", [spec], [])

    def fill() -> list[Statement]:
        for begun in (start, before):
            g.env.values[begun.name] = g.value(begun.value)
        now, last = (Expr("variable", [], {"name": begun.name}) for begun in (start, before))
        total = Expr(
            "add", [Expr("sub", [now, last]), g.cast(g.expr(g.part_of(dims), "float", True, 1), torch.float32)]
        )
        following = Assign(g.name("d"), Expr("clamp", [g.cast(total, torch.float32)], {"low": -60, "high": 60}))
        new = Expr("variable", [], {"name": following.name})
        return [following, Rename(before.name, now), Rename(start.name, new)]

    return [start, before, enter(g, loop, fill), _kept(g, start.name, dims), _kept(g, before.name, dims)]


@statement(2, depth=1)
def chained_products(g: Generator, depth: int) -> list[Statement]:
    """`s = q @ k.T` and what is made of it times `k`, or another tile, again; sums of these tiles beside it."""
    if g.program.special:
        raise Invalid("infinity times what rounds to 0")
    rows = [d for d in tile_dims(g) if 0 < d.size <= 64]
    if not rows:
        raise Invalid("no rows")
    m, dtype = g.choice(rows), g.choice(_OPERANDS)
    heads = [Dim(g.program.sizes[g.size(1, 33)]) for _ in range(2)]
    start: list[Statement] = []
    saved = g.env
    g.env = g.env.copy()
    try:
        outer = [_named(start, g, g.small(_tile_of(g, (m, h), dtype))) for h in heads]
        return [*start, *_chain(g, m, heads, outer, dtype)]
    finally:
        g.env = saved
        g.remember()


def _chain(g: Generator, m: Dim, heads: list[Dim], outer: list[Expr], dtype: torch.dtype) -> list[Statement]:
    spec = loop_axis(g, "k")
    accumulators = [_start(g, (m, h)) for h in heads]
    sums = _start(g, (heads[0],)) if g.chance(0.5) else None

    def fill() -> list[Statement]:
        mine = Dim(g.env.axes[spec.name].size, spec.name)
        if elements((m, mine)) > LARGEST_LOOP:
            raise Invalid("too large")
        block: list[Statement] = []
        for begun in (*accumulators, *([sums] if sums else [])):
            g.env.values[begun.name] = g.value(begun.value)
        tiles = [_named(block, g, g.small(_tile_of(g, (mine, h), dtype))) for h in heads]
        scores = []
        for left, right in zip(outer, tiles):
            turned = Expr("permute", [right], {"order": [1, 0]})
            made = Expr("product", [left, turned], {"form": g.choice(("matmul", "hl.dot"))})
            score = Expr("clamp", [g.cast(made, torch.float32)], {"low": -4, "high": 4})
            scores.append(_named(block, g, masked(g, score) if g.chance(0.3) else score))
        if g.chance(0.5):
            mixed = Expr(g.choice(("mul", "add", "sub", "maximum")), scores)
            scores[1] = _named(block, g, Expr("clamp", [mixed], {"low": -4, "high": 4}))
        made_of = [(a, s, t) for a, s, t in zip(accumulators, scores, tiles)]
        for begun, score, tile in made_of if g.chance(0.7) else made_of[:1]:
            block.append(Accumulate(begun.name, "dot", 0, spec.name, [g.cast(score, dtype), tile]))
        if sums:
            value = tiles[0] if g.chance(0.7) else Expr("mul", [tiles[0], tiles[0]])
            wide = Expr("cast", [value], {"dtype": torch.float32})
            block.insert(g.rng.randint(2, len(block)), Accumulate(sums.name, "sum", 0, spec.name, [wide]))
        return block

    loop = enter(g, Loop("tile", [spec], []), fill)
    stores = [_kept(g, a.name, (m, h)) for a, h in zip(accumulators, heads)]
    stores += [_kept(g, sums.name, (heads[0],))] if sums else []
    return [*accumulators, *([sums] if sums else []), loop, *stores]


@dataclasses.dataclass
class Attention(Statement):
    """`softmax(q @ k.T) @ v` with a running maximum; causal ones end at the row's own place.

    Attributes:
        name: of the result, [rows, columns of v].
        spec: the loop over keys.
        args: q, and k and v inside the loop.
        causal: scores of keys behind a row are -inf.
        own_end: the loop ends with the tile of rows, as later keys are masked.
    """

    name: str
    spec: AxisSpec
    args: list[Expr]
    causal: bool
    kind = "tile"
    chunked = False
    feature = "attention"

    @property
    def axes(self) -> list[AxisSpec]:
        return [self.spec]

    def expressions(self) -> list[Expr]:
        return self.args

    def infer(self, env: Env) -> None:
        inner = env.copy()
        inner.axes = dict(env.axes)
        (begin, _), (_, end) = self.spec.begin.range(env), self.spec.end.range(env)
        axis = inner.axes[self.spec.name] = Axis(self.spec.name, "tile", begin, end - 1, end - begin)
        q = infer(self.args[0], env)
        k, v = (infer(a, inner) for a in self.args[1:])
        mine = Dim(axis.size, axis.name)
        if begin or end < 1 or len(q.dims) != 2 or k.dims != (mine, q.dims[1]) or v.dims[:1] != (mine,):
            raise Invalid("no attention")
        rows = env.axes.get(q.dims[0].axis or "")
        if len(v.dims) != 2 or rows is None or rows.kind != "tile" or rows.low or rows.size > end:
            raise Invalid("rows without a key")
        if not (q.dtype is k.dtype is v.dtype in _OPERANDS) or q.error or k.error or v.error or q.dims[1].size > 64:
            raise Invalid("operands of attention")
        if q.magnitude * k.magnitude * q.dims[1].size > 100 * 8:
            raise Invalid("scores too large")
        off = {torch.float32: 2.0**-9, torch.float16: 2.0**-8, torch.bfloat16: 2.0**-6}[q.dtype]
        m = v.magnitude
        env.values[self.name] = Value(torch.float32, (q.dims[0], v.dims[1]), -m, m, None, m * off)

    def print(self, p: Printer) -> None:
        q, name, axis = p.expr(self.args[0]), self.name, self.spec.name
        rows, columns = self.args[0].value.dims[0], self.args[2].value.dims[1]  # type: ignore[union-attr]
        begin, end = self.spec.begin.text(p.oracle), self.spec.end.text(p.oracle)
        place = "index({0})" if p.oracle else "{0}.index"
        later = f"{place.format(axis)}[None, :] > {place.format(rows.axis)}[:, None]"
        if p.oracle:
            p.line(f"for {axis} in whole({begin}, {end}):")
            with p.indented():
                k, v = p.expr(self.args[1], nested=True), p.expr(self.args[2], nested=True)
                score = f"({q}) @ {k}.t() * 0.125"
                score = f"({score}).masked_fill({later}, -torch.inf)" if self.causal else score
                p.line(f"{name} = torch.softmax({score}, -1) @ {v}")
            return
        dtype = self.args[0].value.dtype  # type: ignore[union-attr]
        p.line(f"q_{name} = {q}")
        p.line(f"m_{name} = hl.full([{rows.axis}], -1e30, dtype=torch.float32)")
        p.line(f"l_{name} = hl.zeros([{rows.axis}], dtype=torch.float32)")
        p.line(f"{name} = hl.zeros({p.shape((rows, columns))}, dtype=torch.float32)")
        p.line(f"for {axis} in hl.tile({end}):")
        with p.indented():
            k, v = p.expr(self.args[1], nested=True), p.expr(self.args[2])
            p.line(f"k_{name} = {k}")
            p.line(f"s_{name} = hl.dot(q_{name}, k_{name}.transpose(0, 1)) * 0.125")
            if self.causal:
                p.line(f"s_{name} = torch.where({later}, -torch.inf, s_{name})")
            p.line(f"n_{name} = torch.maximum(m_{name}, s_{name}.amax(-1))")
            p.line(f"p_{name} = torch.exp(s_{name} - n_{name}[:, None])")
            p.line(f"a_{name} = torch.exp(m_{name} - n_{name})")
            p.line(f"l_{name} = l_{name} * a_{name} + p_{name}.sum(-1)")
            p.line(f"{name} = torch.addmm({name} * a_{name}[:, None], p_{name}.to({dtype}), {v})")
            p.line(f"m_{name} = n_{name}")
        p.line(f"{name} = {name} / l_{name}[:, None]")


@statement(1, depth=1)
def attention(g: Generator, depth: int) -> list[Statement]:
    if g.program.special:
        raise Invalid("infinity times what rounds to 0")
    rows = [d for d in tile_dims(g) if 0 < d.size <= 64 and g.env.axes[d.axis or ""].low == 0]
    rows = [d for d in rows if g.program.sizes[g.axis_size[d.axis or ""]] == d.size]
    if not rows:
        raise Invalid("no rows")
    m, dtype = g.choice(rows), g.choice(_OPERANDS)
    assert m.axis is not None
    head, columns = (Dim(g.program.sizes[g.size(1, 33)]) for _ in range(2))
    causal = g.chance(0.5)
    size = g.axis_size[m.axis] if causal else g.size(m.size, 100)
    end = Bound(("size", size))
    if causal and g.chance(0.6) and not g.env.axes[m.axis].partial:
        end = Bound(("tile", m.axis, "end"))
    spec = AxisSpec(g.name("k"), Bound(("number", 0)), end)
    g.axis_size[spec.name] = size
    mine = Dim(g.program.sizes[size], spec.name)
    q, k, v = (_load_of(g, dims, dtype) for dims in ((m, head), (mine, head), (mine, columns)))
    made = Attention(g.name("o"), spec, [q, k, v], causal)
    return [made, _kept(g, made.name, (m, columns))]


def _load_of(g: Generator, dims: Dims, dtype: torch.dtype) -> Expr:
    load = _tile_of(g, dims, dtype)
    low = g.program.param(load.attrs["tensor"])
    high = max(abs(low.low), abs(low.high)) * low.step
    return load if high <= 8 else Expr("clamp", [load], {"low": -4, "high": 4})
