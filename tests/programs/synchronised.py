"""Statements in which programs of the grid wait for each other, by flags (`hl.signal`, `hl.wait`) and by locks made of
atomics; and buffers with a place for each block of a registered size.

They stand in a top-level loop over one range of indices, or of tiles.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from .generate import Generator
from .program import Block
from .program import Param
from .scope import output
from .scope import statement
from .statements import Statement
from .table import Axis
from .table import Env
from .table import Expr
from .table import infer
from .values import Invalid
from .values import settle

if TYPE_CHECKING:
    from .printing import Printer


def _index_loop(env: Env) -> Axis:
    """The loop over indices that is the only one around."""
    axes = list(env.axes.values())
    if len(axes) != 1 or axes[0].kind != "grid" or axes[0].partial or not env.certain:
        raise Invalid("other loops around")
    return axes[0]


def _written(env: Env, name: str, low: float, high: float) -> None:
    target = env.memory[name]
    target.low, target.high = min(target.low, low), max(target.high, high)


@dataclasses.dataclass
class Chain(Statement):
    """`sums[i] = sums[i - 1] + value`, where each program waits for the flag of the one before."""

    name: str
    axis: str
    tensor: str
    flags: str
    value: Expr
    begin: int = 0
    feature = "signal and wait"

    def expressions(self) -> list[Expr]:
        return [self.value]

    @property
    def written(self) -> list[str]:
        return [self.tensor, self.flags]

    def infer(self, env: Env) -> None:
        axis, value = _index_loop(env), infer(self.value, env)
        if axis.name != self.axis or value.dims or value.weak or value.dtype is not torch.int64 or value.error:
            raise Invalid("a chain")
        if any(env.memory[n].shape[0] <= axis.high for n in (self.tensor, self.flags)):
            raise Invalid("a chain of another length")
        self.begin = axis.low
        total = settle(torch.int64, (), *(max(axis.size, 1) * max(value.magnitude, 1) * s for s in (-1, 1)))
        _written(env, self.tensor, total.low, total.high)
        _written(env, self.flags, 0, 1)
        env.values[self.name] = total

    def print(self, p: Printer) -> None:
        i, begin = self.axis, self.begin
        p.line(f"{self.name} = {p.expr(self.value)}")
        p.line(f"if {i} > {begin}:")
        with p.indented():
            if not p.oracle:
                p.line(f"hl.wait({self.flags}, [{i} - 1])")
            p.line(f"{self.name} = {self.name} + {self.tensor}[{i} - 1]")
        p.line(f"{self.tensor}[{i}] = {self.name}")
        p.line(f"{self.flags}[{i}] = 1" if p.oracle else f"hl.signal({self.flags}, [{i}])")


@dataclasses.dataclass
class Locked(Statement):
    """A sum and a maximum of some programs each, at a loaded place, under a lock of the place's own."""

    place: str
    axis: str
    tensor: str
    most: str
    locks: str
    places: Expr
    value: Expr
    feature = "lock"

    def expressions(self) -> list[Expr]:
        return [self.places, self.value]

    @property
    def written(self) -> list[str]:
        return [self.tensor, self.most, self.locks]

    def infer(self, env: Env) -> None:
        axis, places, value = _index_loop(env), infer(self.places, env), infer(self.value, env)
        if axis.name != self.axis or places.dims or places.kind != "int" or places.weak or places.dtype is torch.uint8:
            raise Invalid("places")
        if value.dims or value.weak or value.dtype is not torch.int64:
            raise Invalid("a sum under a lock")
        if places.low < 0 or any(env.memory[n].shape[0] <= places.high for n in (self.tensor, self.most, self.locks)):
            raise Invalid("a place outside")
        total = settle(torch.int64, (), *(max(axis.size, 1) * max(value.magnitude, 1) * s for s in (-1, 1)))
        _written(env, self.tensor, total.low, total.high)
        _written(env, self.most, value.low, value.high)
        env.values[self.place] = places

    def print(self, p: Printer) -> None:
        at = self.place
        p.line(f"{at} = {p.expr(self.places)}")
        value = p.expr(self.value, nested=True)
        if not p.oracle:
            p.line(f'while hl.atomic_cas({self.locks}, [{at}], 0, 1, sem="acquire") != 0:')
            with p.indented():
                p.line("pass")
        p.line(f"{self.tensor}[{at}] = {self.tensor}[{at}] + {value}")
        p.line(f"{self.most}[{at}] = torch.maximum({self.most}[{at}], {value})")
        if not p.oracle:
            p.line(f'hl.atomic_xchg({self.locks}, [{at}], 0, sem="release")')


@dataclasses.dataclass
class Parts(Statement):
    """The sum of each block of a row, into a buffer of so many columns as there are blocks."""

    name: str
    block: str
    size: str
    axis: str
    tensor: str
    source: str
    feature = "registered size of a buffer"

    @property
    def written(self) -> list[str]:
        return [self.tensor]

    def infer(self, env: Env) -> None:
        axis, source, target = env.axes.get(self.axis), env.memory.get(self.source), env.memory.get(self.tensor)
        if axis is None or axis.kind != "grid" or source is None or target is None or source.written:
            raise Invalid("a buffer")
        n = env.program.sizes.get(self.size)
        if self.block not in [b.name for b in env.program.blocks] or n is None or n < 1 or len(source.shape) != 2:
            raise Invalid("no such block size")
        if source.shape[1] != n or min(source.shape[0], target.shape[0]) <= axis.high or source.error:
            raise Invalid("a buffer of another size")
        total = settle(source.dtype, (), n * min(source.low, 0), n * max(source.high, 0), source.step)
        _written(env, self.tensor, total.low, total.high)

    def print(self, p: Printer) -> None:
        n, block, i, b = self.size, self.block, self.axis, self.name
        count = f"helion.cdiv({n}, {block})"
        if p.oracle:
            p.line(f"for {b} in range({count}):")
            with p.indented():
                part = f"{self.source}[{i}, {b} * {block} : ({b} + 1) * {block}]"
                p.line(f"{self.tensor}[{i}, {b}] = {part}.sum()")
            return
        p.line(f"for {b} in hl.grid({count}):")
        with p.indented():
            p.line(f"lanes_{b} = {b} * {block} + hl.arange({block})")
            p.line(f"part_{b} = hl.load({self.source}, [{i}, lanes_{b}], extra_mask=lanes_{b} < {n})")
            p.line(f"{self.tensor}[{i}, {b}] = part_{b}.sum()")


def _long(g: Generator) -> Expr:
    return g.cast(g.small(g.expr((), "int", True, 2)), torch.int64)


@statement(1.6, depth=2)
def chain(g: Generator, depth: int) -> list[Statement]:
    axis = _index_loop(g.env)
    size = g.axis_size[axis.name]
    value = _long(g)
    tensor, flags = (output(g, [size], dtype, "zeros") for dtype in (torch.int64, torch.int32))
    return [Chain(g.name("sum"), axis.name, tensor, flags, value)]


@statement(1.6, depth=2)
def locked(g: Generator, depth: int) -> list[Statement]:
    axis = _index_loop(g.env)
    count = g.size(1, 9)
    p = Param(
        f"x{len(g.program.params)}", torch.int64, [g.axis_size[axis.name]], 0, g.program.sizes[count] - 1,
        seed=g.rng.randrange(99),
    )  # fmt: skip
    g.add_param(p)
    places = Expr("load", [], {"tensor": p.name, "index": [("grid", axis.name)], "form": "index"})
    value = _long(g)
    tensor, most, locks = (output(g, [count], d, "zeros") for d in (torch.int64, torch.int64, torch.int32))
    return [Locked(g.name("at"), axis.name, tensor, most, locks, places, value)]


@statement(0.7, depth=2)
def parts(g: Generator, depth: int) -> list[Statement]:
    axis = _index_loop(g.env)
    size = g.size(1, 40)
    name = f"block{len(g.program.blocks)}"
    g.program.blocks.append(Block(name, size))
    source = g.param([g.axis_size[axis.name], size], "int", torch.int64)
    if source.written or axis.low:
        raise Invalid("a buffer")
    tensor = output(g, [g.axis_size[axis.name], f"helion.cdiv({size}, {name})"], torch.int64, "zeros")
    return [Parts(g.name("b"), name, size, axis.name, tensor, source.name)]
