"""Statements of device code: what they do to what is known, and how they are printed.

What a tile loop means does not depend on its block size, unless it is `chunked`: the reference runs it once, over all of
its range, or in the same pieces.  A loop over a grid is a loop of the reference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch

from . import memory
from .pointwise import result_dtype
from .table import Axis
from .table import Env
from .table import Expr
from .table import infer
from .values import Dim
from .values import Invalid
from .values import Value
from .values import broadcast
from .values import join
from .values import settle
from .views import product

if TYPE_CHECKING:
    from .printing import Printer

#: Iterations that inference follows one by one.
_MOST_ITERATIONS = 14


class Statement:
    """One statement."""

    feature = ""

    def expressions(self) -> list[Expr]:
        return []

    def blocks(self) -> list[list[Statement]]:
        return []

    def infer(self, env: Env) -> None:
        raise NotImplementedError

    def print(self, p: Printer) -> None:
        raise NotImplementedError


def _rebind(env: Env, name: str, value: Value) -> None:
    """Assign; inside a loop or branch a variable keeps its type."""
    env.values[name] = value


@dataclasses.dataclass
class Assign(Statement):
    """`name = value`."""

    name: str
    value: Expr
    feature = "assignment"

    def expressions(self) -> list[Expr]:
        return [self.value]

    def infer(self, env: Env) -> None:
        value = infer(self.value, env)
        if value.weak:
            raise Invalid("a number")
        _rebind(env, self.name, value)

    def print(self, p: Printer) -> None:
        p.line(f"{self.name} = {p.expr(self.value)}")


@dataclasses.dataclass
class Augment(Statement):
    """`name += value`: keeps dtype and shape of the variable."""

    name: str
    op: str
    value: Expr
    feature = "augmented assignment"

    def expressions(self) -> list[Expr]:
        return [self.value]

    def infer(self, env: Env) -> None:
        if self.name not in env.values:
            raise Invalid("no such variable")
        old, value = env.values[self.name], infer(self.value, env)
        if old.kind != value.kind or old.kind == "bool" or broadcast([old.dims, value.dims]) != old.dims:
            raise Invalid("augmented assignment")
        sign = 1 if self.op == "+" else -1
        ends = (value.low, value.high) if sign > 0 else (-value.high, -value.low)
        step = None if old.step is None or value.step is None else min(old.step, value.step)
        wide = result_dtype("{0} + {1}", ((old.dtype, False, not old.dims), (value.dtype, value.weak, not value.dims)))
        summed = settle(wide, old.dims, old.low + ends[0], old.high + ends[1], step, old.error + value.error)
        _rebind(env, self.name, settle(old.dtype, old.dims, summed.low, summed.high, summed.step, summed.error))

    def print(self, p: Printer) -> None:
        text = p.expr(self.value)
        if p.oracle and self.value.value.kind == "int" and not self.value.value.weak:  # type: ignore[union-attr]
            old = p.program_values.get(self.name)
            text = f"({text})" + (f".to({old})" if old else "")
        p.line(f"{self.name} = {self.name} {self.op} {text}" if p.oracle else f"{self.name} {self.op}= {text}")


@dataclasses.dataclass
class Accumulate(Statement):
    """`acc = acc + value.sum(dim)` and its relatives over a tile of the loop around it."""

    name: str
    form: str
    place: int
    axis: str
    args: list[Expr]

    feature = "accumulation"

    def expressions(self) -> list[Expr]:
        return self.args

    def infer(self, env: Env) -> None:
        old = env.values.get(self.name)
        axis = env.axes.get(self.axis)
        if old is None or axis is None or axis.kind not in ("tile", "jagged"):
            raise Invalid("no accumulator")
        values = [infer(a, env) for a in self.args]
        n = axis.size
        mine = Dim(axis.size, axis.name)
        if self.form == "dot":
            a, b = values
            if len(a.dims) != 2 or len(b.dims) != 2 or a.dims[1] != mine or b.dims[0] != mine or a.dtype is not b.dtype:
                raise Invalid("shapes of a product")
            if a.dtype not in (torch.float32, torch.bfloat16, torch.float16) or old.dtype is not torch.float32:
                raise Invalid("dtypes of a product")
            new = product(a, b, n, (a.dims[0], b.dims[1]), torch.float32, old)
        else:
            (v,) = values
            if self.place >= len(v.dims) or v.dims[self.place] != mine:
                raise Invalid("not over this loop")
            dims = v.dims[: self.place] + v.dims[self.place + 1 :]
            if dims != old.dims or v.kind != old.kind or v.kind == "bool":
                raise Invalid("accumulator")
            if self.form == "sum":
                step = None if old.step is None or v.step is None else min(old.step, v.step)
                wide = torch.int64 if v.kind == "int" else v.dtype
                part = settle(wide, dims, min(0, n * v.low), max(0, n * v.high), v.step, n * v.error, n)
                new = settle(
                    old.dtype, dims, old.low + part.low, old.high + part.high, step, old.error + part.error, n + 1
                )
            else:
                if v.dtype is not old.dtype:
                    raise Invalid("dtype of a maximum")
                new = join(old, Value(v.dtype, dims, v.low, v.high, v.step, v.error))
        if new.dims != old.dims or new.dtype is not old.dtype:
            raise Invalid("type of an accumulator")
        _rebind(env, self.name, join(old, new))

    def print(self, p: Printer) -> None:
        texts = [p.expr(a, nested=True) for a in self.args]
        name = self.name
        if self.form == "dot":
            p.line(
                f"{name} = {name} + {texts[0]} @ {texts[1]}"
                if p.oracle
                else f"{name} = torch.addmm({name}, {texts[0]}, {texts[1]})"
            )
        elif self.form == "sum":
            dtype, mine = self.args[0].value.dtype, p.dtype_of(self.name)  # type: ignore[union-attr]
            kept = "" if dtype.is_floating_point and (p.oracle or dtype is mine) else f".to({mine})"
            p.line(f"{name} = {name} + {texts[0]}.sum({self.place}){kept}")
        else:
            p.line(f"{name} = torch.{self.form}imum({name}, {texts[0]}.a{self.form}({self.place}))")


@dataclasses.dataclass
class Store(Statement):
    """`tensor[index] = value`, or `hl.store` with a mask as last operand.

    Operands are the value, those of the index, and the mask.
    """

    tensor: str
    index: memory.Index
    args: list[Expr]
    form: str = "index"
    masked: bool = False

    @property
    def feature(self) -> str:  # type: ignore[override]
        if any(e[0] == "value" for e in self.index):
            return "scatter"
        return "masked store" if self.masked else "store"

    def expressions(self) -> list[Expr]:
        return self.args

    def infer(self, env: Env) -> None:
        target = env.memory.get(self.tensor)
        if target is None or not target.written:
            raise Invalid("no such tensor")
        values = [infer(a, env) for a in self.args]
        dims, leaves = memory.resolve(self.index, target.shape, values, env, self.masked)
        self.leaves, self.shape, self.dims = leaves, target.shape, dims
        value = values[0]
        if (
            len(value.dims) > len(dims)
            or broadcast([value.dims, dims]) != dims
            or any(e[0] == "one" for e in self.index)
        ):
            raise Invalid("shape of a store")
        if self.masked and (values[-1].dtype is not torch.bool or broadcast([values[-1].dims, dims]) != dims):
            raise Invalid("mask")
        if (value.kind == "float") != target.dtype.is_floating_point or (value.kind == "bool") != (
            target.dtype is torch.bool
        ):
            raise Invalid("kind of a store")
        if any(
            axis.kind == "tile" and not axis.chunked and not any(axis.name in e[1:2] for e in self.index)
            for axis in env.axes.values()
            if axis.size > 1
        ):
            if not any(e[0] == "value" for e in self.index):
                raise Invalid("every tile stores there")
        if env.certain and not self.masked and memory.covers(self.index, target.shape, env):
            target.defined = True
        new = settle(target.dtype, (), value.low, value.high, value.step, value.error)
        target.low, target.high = min(target.low, new.low), max(target.high, new.high)
        target.step = None if target.step is None or new.step is None else min(target.step, new.step)
        target.error = max(target.error, new.error)

    def print(self, p: Printer) -> None:
        texts = [p.expr(a) for a in self.args]
        holder = Expr("", self.args)
        if not p.oracle:
            at = memory.index_text(self.index, texts)
            if self.form == "index" and not self.masked:
                p.line(f"{self.tensor}[{', '.join(at)}] = {texts[0]}")
            else:
                at = ["slice(None)" if t == ":" else t for t in at]
                mask = f", extra_mask={texts[-1]}" if self.masked else ""
                p.line(f"hl.store({self.tensor}, [{', '.join(at)}], {texts[0]}{mask})")
            return
        cast = ""
        if not self.args[0].value.dtype.is_floating_point:  # type: ignore[union-attr]
            texts[0], cast = f"({texts[0]})", f".to({self.tensor}.dtype)"
        if self.masked:
            at_text = ", ".join(memory.gathered(self.index, holder, texts, self.shape, True)) if any(
                e[0] == "value" for e in self.index) else ", ".join(memory._span(e) for e in self.index)  # fmt: skip
            p.line(f"{self.tensor}[{at_text}] = torch.where({texts[-1]}, {texts[0]}{cast}, {self.tensor}[{at_text}])")
        elif any(e[0] == "value" for e in self.index):
            at_text = ", ".join(memory.gathered(self.index, holder, texts, self.shape, False))
            p.line(f"{self.tensor}[{at_text}] = {texts[0]}{cast}")
        elif self.leaves:
            spans = [f"slice(0, {n})" if e[0] == "all" else memory._span(e) for e, n in zip(self.index, self.shape)]
            p.line(f"put({self.tensor}, ({', '.join(spans)},), {texts[0]})")
        else:
            p.line(f"{self.tensor}[{', '.join(memory._span(e) for e in self.index)}] = {texts[0]}{cast}")


@dataclasses.dataclass
class Atomic(Statement):
    """`hl.atomic_add` and its relatives; operands are the value and those of the index.

    `result` names the old value where it is the same in every order of the programs.
    """

    op: str
    tensor: str
    index: memory.Index
    args: list[Expr]
    result: str = ""

    @property
    def feature(self) -> str:  # type: ignore[override]
        return f"atomic_{self.op}"

    def expressions(self) -> list[Expr]:
        return self.args

    def infer(self, env: Env) -> None:
        target = env.memory.get(self.tensor)
        if target is None or not target.written or not target.defined:
            raise Invalid("no such tensor")
        values = [infer(a, env) for a in self.args]
        dims, leaves = memory.resolve(self.index, target.shape, values, env, False)
        self.shape, self.dims = target.shape, dims
        value = values[0]
        if (
            leaves
            or value.dims != dims
            or value.dtype is not target.dtype
            or any(e[0] in ("one", "none") for e in self.index)
        ):
            raise Invalid("operand of an atomic")
        spread = {d.axis for d in dims} | {d.axis for v in values[1:] for d in v.dims}
        if self.op in ("add", "xor") and any(
            a.kind == "tile" and not a.chunked and a.size > 0 and a.name not in spread for a in env.axes.values()
        ):
            raise Invalid("once for each tile")
        if self.op == "add":
            times = 1
            for axis in env.axes.values():
                times *= max(axis.size, 1)
            times *= max([d.size for d in dims], default=1)
            low, high = target.low + times * min(value.low, 0), target.high + times * max(value.high, 0)
            step = None if target.step is None or value.step is None else min(target.step, value.step)
            new = settle(target.dtype, (), low, high, step, target.error + times * value.error, times)
            if new.error or value.error:
                raise Invalid("float atomics that round")
            target.low, target.high, target.step = new.low, new.high, new.step
            return
        if value.error:
            raise Invalid("an inexact atomic")
        if self.op in ("and", "or", "xor") and value.kind != "int":
            raise Invalid("bits of a float")
        new = settle(target.dtype, (), float("-inf"), float("inf")) if self.op in ("and", "or", "xor") else None
        low, high = (new.low, new.high) if new else (min(target.low, value.low), max(target.high, value.high))
        target.low, target.high = low, high
        target.step = None if target.step is None or value.step is None else min(target.step, value.step)

    def print(self, p: Printer) -> None:
        texts = [p.expr(a) for a in self.args]
        if not p.oracle:
            at = ["slice(None)" if t == ":" else t for t in memory.index_text(self.index, texts)]
            p.line(f"hl.atomic_{self.op}({self.tensor}, [{', '.join(at)}], {texts[0]})")
            return
        if any(e[0] == "value" for e in self.index):
            at_texts = memory.gathered(self.index, Expr("", self.args), texts, self.shape, False)
        else:
            at_texts = [f"torch.arange({n}){tail}" if e[0] == "all" else f"index({e[1]}, torch.int64){tail}" if e[0] == "tile" else str(e[1])
                        for (e, n), tail in zip(zip(self.index, self.shape), _tails(self.index))]  # fmt: skip
        p.line(f"atomic(torch.{_ATOMIC[self.op]}, {self.tensor}, ({', '.join(at_texts)},), {texts[0]})")


_ATOMIC = {
    "add": "add",
    "max": "maximum",
    "min": "minimum",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
}


def _tails(index: memory.Index) -> list[str]:
    own = [e[0] in ("tile", "all") for e in index]
    return [memory._trailing(sum(own[i + 1 :])) for i in range(len(index))]


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
class Bound:
    """A begin or an end of a loop: (kind, ...) with

    ("number", k), ("size", name), ("half", name), ("less", name, k), ("scalar", name), ("load", tensor, axis, plus),
    ("tile", axis, "begin" or "end"), ("lengths", variable).
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
        n = env.program.sizes[rest[0]]
        found = {"size": n, "half": n // 2, "less": n - (rest[1] if kind == "less" else 0)}[kind]
        return found, found

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
        return str(rest[0])


@dataclasses.dataclass
class AxisSpec:
    """One loop variable: its range, and its block size: a number, the name of a registered one, or None."""

    name: str
    begin: Bound
    end: Bound
    block: int | str | None = None

    @property
    def partial(self) -> bool:
        """Whether only the program knows the range."""
        return {self.begin.spec[0], self.end.spec[0]} & {"load", "tile", "lengths"} != set()


@dataclasses.dataclass
class Loop(Statement):
    """A loop over tiles, a grid, or an unrolled one.

    Attributes:
        kind: "tile", "grid", "static_range", "range", "jagged".
        chunked: the meaning depends on block sizes.
        barrier: `hl.barrier()` stands before it (top-level loops).
        top: whether it is a top-level loop.
    """

    kind: str
    axes: list[AxisSpec]
    body: list[Statement]
    chunked: bool = False
    barrier: bool = False
    top: bool = False

    @property
    def feature(self) -> str:  # type: ignore[override]
        level = "top-level" if self.top else "inner"
        kinds = {s.begin.spec[0] for s in self.axes} | {s.end.spec[0] for s in self.axes}
        for special, words in (("load", "data-dependent "), ("tile", "nested in a tile's range "), ("lengths", "")):
            if special in kinds:
                return f"{level} {words}{self.kind}"
        return f"{level} {self.kind}"

    def blocks(self) -> list[list[Statement]]:
        return [self.body]

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
            if begin < 0 or (self.kind == "tile" and end > 4096):
                raise Invalid("range")
            size = max(end - begin, 0)
            kind = {"static_range": "unrolled", "range": "unrolled"}.get(self.kind, self.kind)
            if isinstance(spec.block, str) and spec.block not in [b.name for b in env.program.blocks]:
                raise Invalid("no such block size")
            env.axes[spec.name] = Axis(spec.name, kind, begin, max(end - 1, begin), size, self.chunked, spec.partial)
            trips *= size
        sequential = not self.top and (self.kind in ("grid", "static_range", "range") or self.chunked)
        if not sequential and not self.top:
            changed = _assigned(self.body) & set(before)
            if changed:
                raise Invalid("the order of tiles matters")
        for trip in range(min(trips, _MOST_ITERATIONS) if sequential else 1):
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
        if self.top:
            env.values = before
        env.axes = outer_axes

    def print(self, p: Printer) -> None:
        p.loop(self)


def _assigned(block: Sequence[Statement]) -> set[str]:
    """Variables that a block assigns other than by accumulation over the loop itself."""
    names = set()
    for s in block:
        if isinstance(s, (Assign, Augment)):
            names.add(s.name)
        for inner in s.blocks():
            names |= _assigned(inner)
    return names


def infer_block(block: Sequence[Statement], env: Env) -> None:
    for statement in block:
        statement.infer(env)
