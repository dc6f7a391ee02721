"""What statements are drawn in: loops around, blocks, outputs; and the table of statements.

`statement` adds a builder to the table: a function that draws one construct of the language, or raises Invalid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from . import memory
from .control import Loop
from .generate import Generator
from .program import Output
from .statements import Statement
from .table import Axis
from .table import Dims
from .values import Dim
from .values import Invalid

Builder = Callable[[Generator, int], list[Statement]]
#: Elements that a loop over tiles covers at most.
LARGEST_LOOP = 30_000


@dataclasses.dataclass(frozen=True)
class Construct:
    """A row of the table of statements.

    Attributes:
        weight: how often it is drawn.
        depth: of loops inside, which it needs.
        build: draws it, given the depth.
    """

    weight: float
    depth: int
    build: Builder


STATEMENTS: dict[str, Construct] = {}


def statement(weight: float, depth: int = 0) -> Callable[[Builder], Builder]:
    """Add a builder to the table, under its name."""

    def add(build: Builder) -> Builder:
        STATEMENTS[build.__name__] = Construct(weight, depth, build)
        return build

    return add


def tile_dims(g: Generator) -> list[Dim]:
    return [Dim(a.size, a.name) for a in g.env.axes.values() if a.kind == "tile"]


def some_dims(g: Generator, most: int = 3) -> Dims:
    """Dimensions for a value: some of the tiles around, and maybe a constant one."""
    dims = [d for d in tile_dims(g) if g.chance(0.8)]
    if len(dims) < most and g.chance(0.4):
        extra = g.constant_dim(tuple(dims))
        if extra is not None and extra.axis is None:
            dims.insert(g.rng.randint(0, len(dims)), extra)
    return tuple(dims[:most])


def enter(g: Generator, loop: Loop, fill: Callable[[], list[Statement]]) -> Loop:
    """Draw the body of a loop with its variables in scope; the loop is not inferred yet."""
    saved = g.env
    inner = g.env.copy()
    inner.axes = dict(inner.axes)
    kind = {"static_range": "unrolled", "range": "unrolled"}.get(loop.kind, loop.kind)
    for spec in loop.axes:
        for bound in (spec.begin.spec, spec.end.spec):
            if bound[0] == "tile":
                inner.axes.pop(bound[1], None)
    for spec in loop.axes:
        (begin, _), (_, end) = spec.begin.range(g.env), spec.end.range(g.env)
        size, one = max(end - begin, 0), loop.chunked and spec.block == 1
        inner.axes[spec.name] = Axis(spec.name, kind, begin, max(end - 1, begin), size, loop.chunked, spec.partial, one)
    g.env = inner
    try:
        loop.body = fill()
    finally:
        g.env = saved
        g.remember()
    return loop


def accept(g: Generator, block: list[Statement], statements: list[Statement]) -> None:
    """Add statements that have just been drawn to a block, if they mean something; else raise Invalid."""
    trial = g.env.copy()
    for s in statements:
        s.infer(trial)
    block += statements
    g.env.values, g.env.memory = trial.values, trial.memory


def body(g: Generator, depth: int, least: int = 1, only: tuple[str, ...] = ()) -> list[Statement]:
    """A block of random statements."""
    block: list[Statement] = []
    wanted = g.rng.randint(least, least + 2)
    for _ in range(12):
        if len(block) >= wanted:
            break
        names = only or tuple(n for n, c in STATEMENTS.items() if c.depth <= depth)
        weights = [STATEMENTS[n].weight * g.statement_weights.get(n, 1) + 1e-9 for n in names]
        builder = STATEMENTS[g.rng.choices(names, weights)[0]].build
        outputs, params = len(g.program.outputs), len(g.program.params)
        try:
            accept(g, block, builder(g, depth))
        except Invalid:
            g.forget(outputs, params)
    return block


def output(g: Generator, shape: list[str | int], dtype: torch.dtype, fill: str) -> str:
    name = f"out{len(g.program.outputs)}"
    g.program.outputs.append(Output(name, dtype, shape, fill))
    value = 7 if fill == "full" else 0
    extents = tuple(g.program.extent(s) for s in shape)
    g.initial[name] = memory.Memory(dtype, extents, value, value, 1, written=True, defined=fill != "empty")
    g.remember()
    return name


def place_of_store(g: Generator, extra: bool = True) -> tuple[Dims, memory.Index, list[str | int]]:
    """Dimensions, index and shape of a store that is every program's own."""
    dims = list(g.shuffled(tuple(tile_dims(g))))
    if extra and len(dims) < 3 and g.chance(0.35):
        more = g.constant_dim(tuple(dims))
        if more is not None and more.axis is None:
            dims.insert(g.rng.randint(0, len(dims)), more)
    index: memory.Index = [("all",) if d.axis is None else ("tile", d.axis, 0) for d in dims]
    shape = [g.key(d) for d in dims]
    for a in g.env.axes.values():
        if a.kind in ("grid", "unrolled") and a.name in g.axis_size:
            at = g.rng.randint(0, len(index))
            index.insert(at, ("grid", a.name))
            shape.insert(at, g.axis_size[a.name])
    if not index:
        raise Invalid("nowhere to store")
    return tuple(dims), index, shape


def covers(g: Generator, index: memory.Index) -> bool:
    """Whether the loops around write all of the output."""
    for kind, *rest in index:
        if kind in ("tile", "grid"):
            axis = g.env.axes[rest[0]]
            n = g.program.sizes[g.axis_size[rest[0]]]
            if axis.low != 0 or axis.size != n or axis.partial:
                return False
        elif kind != "all":
            return False
    return g.env.certain
