"""Statements that hold statements: branches and loops, and the ranges of these.

What a tile loop means does not depend on its block size, unless it is `chunked`: the reference runs it once, over all
of its range, or in the same pieces.  A loop over a grid is a loop of the reference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch

from .statements import Assign
from .statements import Augment
from .statements import Statement
from .statements import infer_block
from .table import Axis
from .table import Env
from .table import Expr
from .table import infer
from .values import Dim
from .values import Invalid
from .values import Value
from .values import join
from .values import settle

if TYPE_CHECKING:
    from .printing import Printer

#: Iterations that inference follows one by one.
_MOST_ITERATIONS = 14


@dataclasses.dataclass
class If(Statement):
    """`if test:` on a scalar; variables that both branches assign live on."""

    test: Expr
    then: list[Statement]
    other: list[Statement]

    @property
    def feature(self) -> str:  # type: ignore[override]
        return {"number_test": "branch on a tile's place", "host_test": "branch on an argument"}.get(
            self.test.op, "branch on a value"
        )

    def expressions(self) -> list[Expr]:
        return [self.test]

    def blocks(self) -> list[list[Statement]]:
        return [self.then, self.other]

    def infer(self, env: Env) -> None:
        test = infer(self.test, env)
        if test.dtype is not torch.bool or test.dims:
            raise Invalid("test")
        before, certain = dict(env.values), env.certain
        env.certain = False
        infer_block(self.then, env)
        then, env.values = env.values, dict(before)
        infer_block(self.other, env)
        env.certain = certain
        env.values = {
            name: join(then[name], env.values[name]) for name in then if name in env.values and name in before
        }
        if not self.then and not self.other:
            raise Invalid("nothing to do")

    def print(self, p: Printer) -> None:
        p.line(f"if {p.expr(self.test)}:")
        p.block(self.then)
        if self.other:
            p.line("else:")
            p.block(self.other)


@dataclasses.dataclass
class Jump(Statement):
    """`if test: break` or `continue` in a loop over indices."""

    test: Expr
    word: str

    @property
    def feature(self) -> str:  # type: ignore[override]
        return f"{self.word} on a value"

    def expressions(self) -> list[Expr]:
        return [self.test]

    def infer(self, env: Env) -> None:
        test = infer(self.test, env)
        if test.dtype is not torch.bool or test.dims or test.weak or not env.jumps:
            raise Invalid("a jump")

    def print(self, p: Printer) -> None:
        p.line(f"if {p.expr(self.test)}:")
        with p.indented():
            p.line(self.word)


@dataclasses.dataclass
class While(Statement):
    """`while counter > 0:`, a loop on a number that memory holds and the body makes smaller."""

    counter: str
    start: Expr
    body: list[Statement]
    feature = "while on a value"

    def expressions(self) -> list[Expr]:
        return [self.start]

    def blocks(self) -> list[list[Statement]]:
        return [self.body]

    def infer(self, env: Env) -> None:
        start = infer(self.start, env)
        if start.dims or start.weak or start.dtype not in (torch.int32, torch.int64) or start.high > 6:
            raise Invalid("a counter")
        if not self.body or self.counter in env.values:
            raise Invalid("an empty loop")
        before, certain, jumps = dict(env.values), env.certain, env.jumps
        env.certain, env.jumps = False, False
        for _ in range(int(start.high)):
            env.values[self.counter] = Value(start.dtype, (), 1, max(start.high, 1))
            infer_block(self.body, env)
            env.values = {name: _carried(value, env.values.get(name)) for name, value in before.items()}
        env.certain, env.jumps = certain, jumps

    def print(self, p: Printer) -> None:
        p.line(f"{self.counter} = {p.expr(self.start)}")
        p.line(f"while {self.counter} > 0:")
        p.block(self.body)
        with p.indented():
            p.line(f"{self.counter} = {self.counter} - 1")


def _carried(before: Value, after: Value | None) -> Value:
    """What is known of a variable behind a loop that may not have run."""
    if after is None or after.dtype is not before.dtype or after.dims != before.dims:
        raise Invalid("a carried variable changes its type")
    return join(before, after)


@dataclasses.dataclass
class Bound:
    """A begin or an end of a loop: (kind, ...) with

    ("number", k), ("size", name), ("half", name), ("less", name, k), ("scalar", name), ("load", tensor, axis, plus),
    ("tile", axis, "begin" or "end"), ("lengths", variable), ("carried", variable, least, most), ("mixed", ((factor,
    name), ...), plus), whose names are of sizes, numbers and indices of grids.
    """

    spec: tuple[Any, ...]

    def range(self, env: Env) -> tuple[int, int]:
        """The least and largest it can be."""
        kind, *rest = self.spec
        if kind == "number":
            return rest[0], rest[0]
        if kind == "scalar":
            if rest[0] not in env.program.scalars:
                raise Invalid("no such number")
            value = int(env.program.scalars[rest[0]].value)
            return value, value
        if kind == "load":
            source, axis = env.memory.get(rest[0]), env.axes.get(rest[1])
            if source is None or axis is None or (axis.high + rest[2] >= source.shape[0] and axis.size):
                raise Invalid("bounds from nowhere")
            return int(source.low), int(source.high)
        if kind == "tile":
            axis = env.axes.get(rest[0])
            if axis is None or axis.kind != "tile":
                raise Invalid("no such tile")
            return (axis.low, axis.low) if rest[1] == "begin" else (axis.high + 1, axis.high + 1)
        if kind == "lengths":
            value = env.values.get(rest[0])
            if value is None:
                raise Invalid("no lengths")
            return int(value.low), int(value.high)
        if kind == "carried":
            value = env.values.get(rest[0])
            if value is None or value.dims or value.kind != "int" or value.low < rest[1] or value.high > rest[2]:
                raise Invalid("a carried bound beyond what it was drawn for")
            return rest[1], rest[2]
        if kind == "mixed":
            return self._mixed_range(env)
        n = env.program.sizes[rest[0]]
        found = {"size": n, "half": n // 2, "less": n - (rest[1] if kind == "less" else 0)}[kind]
        return found, found

    def _mixed_range(self, env: Env) -> tuple[int, int]:
        low = high = int(self.spec[2])
        for factor, name in self.spec[1]:
            axis, scalar = env.axes.get(name), env.program.scalars.get(name)
            if name in env.program.sizes:
                ends = (env.program.sizes[name],) * 2
            elif scalar is not None and isinstance(scalar.value, int):
                ends = (scalar.value,) * 2
            elif axis is not None and axis.kind == "grid":
                ends = axis.low, axis.high
            else:
                raise Invalid("no such number")
            low, high = low + min(factor * e for e in ends), high + max(factor * e for e in ends)
        return low, high

    @property
    def names(self) -> tuple[str, ...]:
        """What a mixed one is made of."""
        return tuple(name for _, name in self.spec[1]) if self.spec[0] == "mixed" else ()

    def text(self, oracle: bool) -> str:
        kind, *rest = self.spec
        if kind == "load":
            at = rest[1] if not rest[2] else f"{rest[1]} + {rest[2]}"
            return f"{rest[0]}[{at}]"
        if kind == "tile":
            return f"{rest[0]}.{({'begin': 'start', 'end': 'stop'}[rest[1]]) if oracle else rest[1]}"
        if kind == "half":
            return f"{rest[0]} // 2"
        if kind == "less":
            return f"{rest[0]} - {rest[1]}"
        if kind == "mixed":
            terms = [f"{factor} * {name}" if factor > 1 else name for factor, name in rest[0]]
            return " + ".join(terms) + (f" {'+' if rest[1] > 0 else '-'} {abs(rest[1])}" if rest[1] else "")
        return str(rest[0])


@dataclasses.dataclass
class AxisSpec:
    """One loop variable: its range, and its block size: a number, the name of a registered one, or None.

    Attributes:
        step: of a grid.
        length: elements that it runs over at most, once that is inferred.
    """

    name: str
    begin: Bound
    end: Bound
    block: int | str | None = None
    step: int = 1
    length: int = 16

    @property
    def partial(self) -> bool:
        """Whether only the program knows the range."""
        indices = [n for n in (*self.begin.names, *self.end.names) if n[0] == "i"]
        known = {self.begin.spec[0], self.end.spec[0]}
        return bool(indices) or self.step != 1 or known & {"load", "tile", "lengths", "carried"} != set()


@dataclasses.dataclass
class Loop(Statement):
    """A loop over tiles, a grid, or an unrolled one.

    Attributes:
        kind: "tile", "grid", "static_range", "range", "jagged".
        chunked: the meaning depends on block sizes.
        barrier: `hl.barrier()` stands before it (top-level loops).
        top: whether it is a top-level loop.
        when: a test of sizes that host code makes before it, `n0 > 1`; "" for none.
        twins: tensors -> others of their kind with which a host loop does it again, `for a, b in zip((x0, x1), ...):`.
    """

    kind: str
    axes: list[AxisSpec]
    body: list[Statement]
    chunked: bool = False
    barrier: bool = False
    top: bool = False
    when: str = ""
    twins: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def feature(self) -> str:  # type: ignore[override]
        level = "top-level" if self.top else "inner"
        kinds = {s.begin.spec[0] for s in self.axes} | {s.end.spec[0] for s in self.axes}
        words = {
            "load": "data-dependent ",
            "tile": "nested in a tile's range ",
            "carried": "carried-range ",
            "lengths": "",
        }
        for special in kinds & {*words}:
            return f"{level} {words[special]}{self.kind}"
        return f"{level} {self.kind}"

    def blocks(self) -> list[list[Statement]]:
        return [self.body]

    def infer_all(self, env: Env) -> None:
        """As `infer`, for the other tensors too."""
        if self.twins:
            memory = {**env.memory, **{name: env.memory[twin] for name, twin in self.twins.items()}}
            self.infer(dataclasses.replace(env, memory=memory, values=dict(env.values)))
        self.infer(env)

    def infer(self, env: Env) -> None:
        if not self.body:
            raise Invalid("an empty loop")
        outer_axes, before = env.axes, dict(env.values)
        env.axes = dict(env.axes)
        trips = 1
        for spec in self.axes:
            if spec.name in env.axes:
                raise Invalid("a loop variable twice")
            (begin, _), (_, end) = spec.begin.range(env), spec.end.range(env)
            if begin < (-16 if self.kind == "tile" else 0) or (self.kind == "tile" and end > 4096):
                raise Invalid("range")
            size = max(end - begin, 0)
            kind = {"static_range": "unrolled", "range": "unrolled"}.get(self.kind, self.kind)
            for bound in (spec.begin.spec, spec.end.spec):
                if bound[0] == "tile":
                    env.axes.pop(bound[1], None)  # the two tiles together would be a block of a diagonal
            registered = [b.name for b in env.program.blocks]
            if isinstance(spec.block, str) and "(" not in spec.block and spec.block not in registered:
                raise Invalid("no such block size")
            one = self.chunked and spec.block == 1
            env.axes[spec.name] = Axis(
                spec.name, kind, begin, max(end - 1, begin), size, self.chunked, spec.partial, one
            )
            spec.length = size
            trips *= size
        sequential = not self.top and (self.kind in ("grid", "static_range", "range") or self.chunked)
        if not sequential and not self.top:
            changed = _assigned(self.body) & set(before)
            if changed:
                raise Invalid("the order of tiles matters")
        certain, jumps = env.certain, env.jumps
        env.jumps = self.kind == "grid" and not self.top
        env.certain = certain and not any(isinstance(s, Jump) for s in self.body)
        # Once where there is no iteration: printing the body needs its values.
        for trip in range(max(1, min(trips, _MOST_ITERATIONS)) if sequential else 1):
            state = dict(env.values)
            infer_block(self.body, env)
            for name in list(env.values):
                if name not in before:
                    del env.values[name]
                elif env.values[name].dtype is not before[name].dtype or env.values[name].dims != before[name].dims:
                    raise Invalid("a carried variable changes its type")
                else:
                    env.values[name] = join(before[name], env.values[name])
            if trip and env.values == state:
                break
        else:
            if sequential and trips > _MOST_ITERATIONS:
                raise Invalid("too many iterations to follow")
        env.certain, env.jumps = certain, jumps
        if self.top:
            env.values = before
        env.axes = outer_axes

    def print(self, p: Printer) -> None:
        p.loop(self)


@dataclasses.dataclass
class EachTensor(Statement):
    """`for name in (x0, x1):`, a loop over tensors."""

    name: str
    tensors: list[str]
    body: list[Statement]
    feature = "loop over tensors"

    def blocks(self) -> list[list[Statement]]:
        return [self.body]

    def infer(self, env: Env) -> None:
        found = [env.memory.get(t) for t in self.tensors]
        if not found or not self.body or any(m is None or not m.defined or m.written for m in found):
            raise Invalid("no such tensors")
        before = dict(env.values)
        for m in found:
            env.memory[self.name] = dataclasses.replace(m)  # type: ignore[type-var]
            infer_block(self.body, env)
            for name, old in before.items():
                if env.values[name].dtype is not old.dtype or env.values[name].dims != old.dims:
                    raise Invalid("a carried variable changes its type")
            env.values = {n: v for n, v in env.values.items() if n in before}
        del env.memory[self.name]

    def print(self, p: Printer) -> None:
        p.line(f"for {self.name} in ({', '.join(self.tensors)},):")
        p.block(self.body)


@dataclasses.dataclass
class Lanes(Statement):
    """An accumulator with one lane for each element of a full tile of a loop, reduced behind it.

    Attributes:
        name: of the result.
        dims: of the result.
        block: the registered block size.
        spec: the loop.
        value: over `dims` and the loop.
    """

    name: str
    dims: tuple[Any, ...]
    block: str
    spec: AxisSpec
    value: Expr
    feature = "one lane per element"

    @property
    def axes(self) -> list[AxisSpec]:
        return [self.spec]

    def expressions(self) -> list[Expr]:
        return [self.value]

    def infer(self, env: Env) -> None:
        inner = env.copy()
        inner.axes = dict(env.axes)
        if self.block not in [b.name for b in env.program.blocks]:
            raise Invalid("no such block size")
        (begin, _), (_, end) = self.spec.begin.range(env), self.spec.end.range(env)
        axis = inner.axes[self.spec.name] = Axis(
            self.spec.name, "tile", begin, max(end - 1, begin), max(end - begin, 0)
        )
        value = infer(self.value, inner)
        dims = tuple(Dim(env.axes[d.axis].size, d.axis) for d in self.dims if d.axis in env.axes)
        if (
            len(dims) != len(self.dims)
            or value.dims != (*dims, Dim(axis.size, axis.name))
            or value.dtype is not torch.float32
        ):
            raise Invalid("lanes")
        n = axis.size
        low, high = min(0, n * value.low), max(0, n * value.high)
        env.values[self.name] = settle(torch.float32, dims, low, high, value.step, n * value.error, n + 2)

    def print(self, p: Printer) -> None:
        begin, end = self.spec.begin.text(p.oracle), self.spec.end.text(p.oracle)
        shape = p.shape(self.dims)
        if p.oracle:
            p.line(f"{self.name} = torch.zeros({shape}, dtype=torch.float64)")
            p.line(f"for {self.spec.name} in whole({begin}, {end}):")
        else:
            lanes = f"{shape[:-1]}, {self.block}]" if self.dims else f"[{self.block}]"
            p.line(f"{self.name} = hl.zeros({lanes}, dtype=torch.float32)")
            given = end if begin == "0" else f"{begin}, {end}"
            p.line(f"for {self.spec.name} in hl.tile({given}, block_size={self.block}):")
        with p.indented():
            text = p.expr(self.value, nested=True)
            p.line(f"{self.name} = {self.name} + {text}{'.sum(-1)' if p.oracle else ''}")
        if not p.oracle:
            p.line(f"{self.name} = {self.name}.sum({len(self.dims)})")


def _assigned(block: Sequence[Statement]) -> set[str]:
    """Variables that a block assigns other than by accumulation over the loop itself."""
    names = set()
    for s in block:
        if isinstance(s, (Assign, Augment)):
            names.add(s.name)
        for inner in s.blocks():
            names |= _assigned(inner)
    return names
