"""Rows of statements that are a pattern of several: stencils, loops that change an argument one after the other, sums
over all dimensions of several loops, tuples that a condition chooses, numbers of Python's that a loop carries.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from . import memory
from .control import Loop
from .generate import Generator
from .inlined import HELPERS
from .loops import loop_axis
from .program import Param
from .scope import LARGEST_LOOP
from .scope import enter
from .scope import output
from .scope import place_of_store
from .scope import some_dims
from .scope import statement
from .scope import tile_dims
from .statements import Assign
from .statements import Statement
from .statements import Store
from .table import Env
from .table import Expr
from .table import infer
from .values import Dim
from .values import Invalid
from .values import Value
from .values import elements
from .values import join
from .values import settle

if TYPE_CHECKING:
    from .printing import Printer


@dataclasses.dataclass
class AccumulateAll(Statement):
    """`acc = acc + value.sum((1, 2))` over all dimensions of the loop around it, which are the value's last ones."""

    name: str
    form: str
    axes_of: list[str]
    value: Expr
    feature = "accumulation over several dimensions"

    def expressions(self) -> list[Expr]:
        return [self.value]

    def infer(self, env: Env) -> None:
        old, value = env.values.get(self.name), infer(self.value, env)
        mine = tuple(Dim(env.axes[a].size, a) for a in self.axes_of if a in env.axes)
        if old is None or len(mine) != len(self.axes_of) or value.dims != (*old.dims, *mine):
            raise Invalid("no accumulator")
        if value.kind == "bool" or value.dtype is not old.dtype:
            raise Invalid("dtype of an accumulator")
        n = elements(mine)
        if self.form == "sum":
            part = settle(
                value.dtype, old.dims, min(0, n * value.low), max(0, n * value.high), value.step, n * value.error, n
            )
            step = None if old.step is None or part.step is None else min(old.step, part.step)
            ends = old.low + part.low, old.high + part.high
            new = settle(old.dtype, old.dims, *ends, step, old.error + part.error, n + 1)
        else:
            new = dataclasses.replace(value, dims=old.dims)
        env.values[self.name] = join(old, new)

    def print(self, p: Printer) -> None:
        rank, name, text = len(self.axes_of), self.name, p.expr(self.value, nested=True)
        over = ", ".join(str(-i) for i in range(1, rank + 1))
        if self.form == "sum":
            dtype = self.value.value.dtype  # type: ignore[union-attr]
            kept = "" if dtype.is_floating_point else f".to({dtype})"
            p.line(f"{name} = {name} + {text}.sum(({over})){kept}")
        else:
            p.line(f"{name} = torch.{self.form}imum({name}, {text}.a{self.form}(({over})))")


@dataclasses.dataclass
class Unpack(Statement):
    """`low, high = both_ends(a, b)`: the two results of a function of the module."""

    names: list[str]
    args: list[Expr]
    feature = "two results of a function"

    def expressions(self) -> list[Expr]:
        return self.args

    def infer(self, env: Env) -> None:
        a, b = (infer(e, env) for e in self.args)
        if a.kind != b.kind or a.kind == "bool" or a.weak or b.weak:
            raise Invalid("operands of a function")
        low = Expr("minimum", self.args)
        high = Expr("add", [Expr("add", [Expr("maximum", self.args), low]), low])
        results = [infer(low, env), infer(high, env)]
        env.values.update(zip(self.names, results))

    def print(self, p: Printer) -> None:
        p.needs(HELPERS["both_ends"][0])
        p.line(f"{', '.join(self.names)} = both_ends({', '.join(map(p.expr, self.args))})")


@statement(0.8)
def two_results(g: Generator, depth: int) -> list[Statement]:
    dims, kind = some_dims(g), g.choice(("float", "int"))
    args = [g.expr(dims, kind, False, 2), g.expr(g.part_of(dims), kind, False, 2)]
    return [Unpack([g.name("v"), g.name("v")], args)]


@dataclasses.dataclass
class AtomicSum(Statement):
    """`hl.atomic_add(out, [t1], value.sum((0, 2)))`: what a program has of the sums over some of its tiles."""

    tensor: str
    kept: list[str]
    value: Expr
    feature = "sums over tiles by atomics"

    def expressions(self) -> list[Expr]:
        return [self.value]

    @property
    def written(self) -> list[str]:
        return [self.tensor]

    def infer(self, env: Env) -> None:
        target, value = env.memory.get(self.tensor), infer(self.value, env)
        tiles = {a.name for a in env.axes.values() if a.kind == "tile"}
        own = [d.axis for d in value.dims]
        if target is None or value.dtype is not target.dtype or value.error or value.kind == "bool":
            raise Invalid("operand of an atomic")
        if len(tiles) != len(env.axes) or set(own) != tiles or len(own) != len(tiles) or not set(self.kept) < tiles:
            raise Invalid("once for each tile")
        sizes = [env.axes[a] for a in own if a in self.kept]
        if [a.name for a in sizes] != self.kept or any(a.high >= n or a.low < 0 for a, n in zip(sizes, target.shape)):
            raise Invalid("another place")
        n = elements(value.dims)
        summed = settle(target.dtype, (), n * min(value.low, 0), n * max(value.high, 0), value.step)
        if summed.error:
            raise Invalid("float atomics that round")
        both = settle(target.dtype, (), target.low + summed.low, target.high + summed.high, summed.step)
        target.low, target.high = both.low, both.high
        target.step = None if target.step is None or both.step is None else min(target.step, both.step)

    def print(self, p: Printer) -> None:
        dims = self.value.value.dims  # type: ignore[union-attr]
        dtype = self.value.value.dtype  # type: ignore[union-attr]
        over = [i for i, d in enumerate(dims) if d.axis not in self.kept]
        text = p.expr(self.value, nested=True)
        summed = f"{text}.sum({over[0]})" if len(over) == 1 else f"{text}.sum({tuple(over)})"
        summed += "" if dtype.is_floating_point else f".to({dtype})"
        at = ", ".join(self.kept) or "0"
        p.line(f"{self.tensor}[{at}] += {summed}" if p.oracle else f"hl.atomic_add({self.tensor}, [{at}], {summed})")


@dataclasses.dataclass
class Chosen(Statement):
    """`a, b = (x, y) if test else (y, x)`."""

    names: tuple[str, str]
    args: list[Expr]
    feature = "a tuple that a value chooses"

    def expressions(self) -> list[Expr]:
        return self.args

    def infer(self, env: Env) -> None:
        test, first, second = (infer(a, env) for a in self.args)
        if test.dtype is not torch.bool or test.dims or test.weak or first.weak or second.weak:
            raise Invalid("a choice")
        for name in self.names:
            env.values[name] = join(first, second)

    def print(self, p: Printer) -> None:
        test, first, second = (p.expr(a, nested=True) for a in self.args)
        p.line(f"{', '.join(self.names)} = ({first}, {second}) if {test} else ({second}, {first})")


@dataclasses.dataclass
class StartNumber(Statement):
    """`name = 0`, a number of Python's that a loop carries: a tensor in it and after it."""

    name: str
    number: float
    feature = "a number that a loop carries"

    def infer(self, env: Env) -> None:
        dtype = torch.float32 if isinstance(self.number, float) else torch.int64
        env.values[self.name] = Value(dtype, (), self.number, self.number, 0.5)

    def print(self, p: Printer) -> None:
        p.line(f"{self.name} = torch.tensor({self.number})" if p.oracle else f"{self.name} = {self.number}")


def _load(tensor: str, index: memory.Index) -> Expr:
    return Expr("load", [], {"tensor": tensor, "index": index, "form": "index"})


@statement(1)
def stencil(g: Generator, depth: int) -> list[Statement]:
    """Neighbours of an element: `x[t - 1] + x[t + 1] - 2 * x[t]`, in a tile or of a loop over indices."""
    kind = g.choice(("float", "int"))
    dims = tuple(tile_dims(g))
    grids = [a for a in g.env.axes.values() if a.kind == "grid" and a.name in g.axis_size]
    if grids and (not dims or g.chance(0.5)):
        axis = g.choice(grids)
        x = g.param([axis.high + 3, *(g.key(d) for d in dims)], kind, torch.float32 if kind == "float" else torch.int32)
        rest: memory.Index = [("tile", d.axis, 0) for d in dims]
        loads = [_load(x.name, [("grid", axis.name, by), *rest]) for by in (0, 1, 2)]
    elif dims:
        at = g.rng.randrange(len(dims))
        x = g.param([g.key(d) for d in dims], kind, torch.float32 if kind == "float" else torch.int32)
        whole: memory.Index = [("tile", d.axis, 0) for d in dims]
        far = g.choice((1, 1, 2))
        loads = [_load(x.name, [*whole[:at], ("tile", dims[at].axis, by), *whole[at + 1 :]]) for by in (-far, 0, far)]
    else:
        raise Invalid("no neighbours")
    if x.written:
        raise Invalid("written")
    left, middle, right = loads
    twice = Expr("mul", [middle, Expr("number", [], {"value": 2 if kind == "int" else 2.0})])
    forms = (
        Expr("sub", [Expr("add", [left, right]), twice]),
        Expr("maximum", [Expr("maximum", [left, middle]), right]),
        Expr("sub", [right, left]),
    )
    return [Assign(g.name("v"), g.choice(forms))]


@statement(1, depth=1)
def siblings(g: Generator, depth: int) -> list[Statement]:
    """Loops after each other that change an argument in place; the last one reads it from its other end."""
    dims, index, shape = place_of_store(g, extra=False)
    size = g.size(1, 40)
    n = g.program.sizes[size]
    if len(dims) > 1 or elements((*dims, Dim(n))) > LARGEST_LOOP:
        raise Invalid("too large")
    dtype = g.choice((torch.float32, torch.int32, torch.int64, torch.float64))
    kind = "float" if dtype.is_floating_point else "int"
    p = Param(f"x{len(g.program.params)}", dtype, [*shape, size], 0, 6, seed=g.rng.randrange(99), written=True)
    g.add_param(p)
    found: list[Statement] = []
    for _ in range(g.rng.randint(1, 2)):
        spec = loop_axis(g, "k")
        spec.begin.spec, spec.end.spec = ("number", 0), ("size", size)
        g.axis_size[spec.name] = size
        if isinstance(spec.block, str):
            spec.block = None
        own: memory.Index = [*index, ("tile", spec.name, 0)]

        def fill(own: memory.Index = own, axis: str = spec.name) -> list[Statement]:
            other = g.cast(g.within(g.expr((*dims, Dim(n, axis)), kind, True, 2), -20, 20), dtype)
            new = Expr(g.choice(("add", "sub", "maximum")), [_load(p.name, own), other])
            return [Store(p.name, own, [Expr("clamp", [new], {"low": -40, "high": 40})])]

        found.append(enter(g, Loop("tile", [spec], []), fill))
    spec = loop_axis(g, "k")
    spec.begin.spec, spec.end.spec, spec.block = ("number", 0), ("size", size), g.choice((None, None, 4))
    g.axis_size[spec.name] = size
    mirrored = Expr("computed_place", [], {"axis": spec.name, "size": size, "factor": -1, "plus": n - 1})
    again = Expr("load", [mirrored], {"tensor": p.name, "index": [*index, ("value", 0)], "form": "index"})
    store = Store(output(g, [*shape, size], dtype, "zeros"), [*index, ("tile", spec.name, 0)], [again])
    return [*found, enter(g, Loop("tile", [spec], []), lambda: [store])]


@statement(1, depth=1)
def accumulate_all(g: Generator, depth: int) -> list[Statement]:
    """A sum over all of an inner loop of two or three dimensions."""
    dims = tuple(d for d in tile_dims(g) if g.chance(0.6))[:1]
    specs = [loop_axis(g, "k", 0, 16) for _ in range(g.choice((2, 2, 3)))]
    form = g.choice(("sum", "sum", "max", "min"))
    dtype = g.choice((torch.float32, torch.float32, torch.int32, torch.int64))
    start = Assign(g.name("acc"), Expr("full", [], {"dims": dims, "value": 0, "dtype": dtype, "form": "hl"}))

    def fill() -> list[Statement]:
        g.env.values[start.name] = g.value(start.value)
        g.hidden.add(start.name)
        mine = tuple(Dim(g.env.axes[s.name].size, s.name) for s in specs)
        if elements((*dims, *mine)) > LARGEST_LOOP:
            raise Invalid("too large")
        value = g.expr((*dims, *mine), "float" if dtype.is_floating_point else "int", False, 2)
        g.hidden.discard(start.name)
        return [AccumulateAll(start.name, form, [s.name for s in specs], g.cast(value, dtype))]

    return [start, enter(g, Loop("tile", specs, []), fill)]


@statement(1, depth=0)
def atomic_sum(g: Generator, depth: int) -> list[Statement]:
    dims = g.shuffled(tuple(tile_dims(g)))
    kept = [d for d in dims if g.chance(0.5)][: max(len(dims) - 1, 0)]
    if not dims or len(dims) != len(g.env.axes):
        raise Invalid("not of tiles alone")
    dtype = g.choice((torch.float32, torch.int32, torch.int64))
    value = g.cast(g.small(g.expr(dims, "float" if dtype.is_floating_point else "int", True, 3)), dtype)
    name = output(g, [g.key(d) for d in kept] or [1], dtype, "zeros")
    return [AtomicSum(name, [d.axis for d in kept if d.axis], value)]


@statement(1, depth=0)
def chosen(g: Generator, depth: int) -> list[Statement]:
    dims, kind = some_dims(g, 2), g.choice(("float", "int"))
    first = g.expr(dims, kind, True, 2)
    second = g.cast(g.expr(dims, kind, True, 2), g.value(first).dtype)
    return [Chosen((g.name("v"), g.name("v")), [g.expr((), "bool", True, 2), first, second])]


@statement(1, depth=1)
def carried_number(g: Generator, depth: int) -> list[Statement]:
    """`s = 0`, and a loop over indices that changes it."""
    kind = g.choice(("float", "int"))
    start = StartNumber(g.name("c"), g.choice((0, 1, -1)) if kind == "int" else g.choice((0.0, 1.0, -0.5)))
    spec = loop_axis(g, "i", 0, 9, tile=False)

    def fill() -> list[Statement]:
        start.infer(g.env)
        old = Expr("variable", [], {"name": start.name})
        value = g.load((), kind, True, 0, "load")
        if value is None:
            raise Invalid("nothing to load")
        dtype = torch.float32 if kind == "float" else torch.int64
        value = g.within(value, -9, 9)
        if kind == "float" or g.value(value).dtype is torch.uint8 or g.chance(0.3):
            value = g.cast(value, dtype)  # others widen as they meet the number
        new = Expr(g.choice(("add", "sub", "maximum", "minimum")), [old, value])
        return [Assign(start.name, Expr("clamp", [new], {"low": -60, "high": 60}))]

    return [start, enter(g, Loop("grid", [spec], []), fill)]
