"""Statements of device code: what they do to what is known, and how they are printed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from . import memory
from .pointwise import result_dtype
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


class Statement:
    """One statement."""

    feature = ""

    @property
    def written(self) -> list[str]:
        """Tensors that it stores to, blocks in it aside."""
        return []

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


class Rename(Assign):
    """`name = other`: a second name of a value."""

    feature = "a second name of a value"


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
        if p.oracle and p.lengths_of(self.axis):
            dtype = self.args[0].value.dtype  # type: ignore[union-attr]
            least, most = f"torch.iinfo({dtype}).min", f"torch.iinfo({dtype}).max"
            if dtype.is_floating_point:
                least, most = "-torch.inf", "torch.inf"
            neutral = {"sum": "0", "max": least, "min": most}[self.form]
            texts = [f"inside({texts[0]}, {p.lengths_of(self.axis)}, {self.axis}, {neutral})"]
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
        if any(e[0] == "from" for e in self.index):
            return "store to a slice from a loaded number on"
        return "masked store" if self.masked else "store"

    @property
    def written(self) -> list[str]:
        return [self.tensor]

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
        if leaves and (self.masked or any(e[0] == "from" for e in self.index)):
            raise Invalid("the reference has no such store")
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
                at = memory.in_list(at)
                mask = f", extra_mask={texts[-1]}" if self.masked else ""
                p.line(f"hl.store({self.tensor}, [{', '.join(at)}], {texts[0]}{mask})")
            return
        cast = ""
        if not self.args[0].value.dtype.is_floating_point and not self.args[0].value.weak:  # type: ignore[union-attr]
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
            value = f"torch.tensor({texts[0]})" if self.args[0].value.weak else texts[0]  # type: ignore[union-attr]
            p.line(f"put({self.tensor}, ({', '.join(spans)},), {value})")
        else:
            p.line(f"{self.tensor}[{', '.join(memory._span(e, texts) for e in self.index)}] = {texts[0]}{cast}")


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

    @property
    def written(self) -> list[str]:
        return [self.tensor]

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
        apart = all(e[0] in ("tile", "grid") for e in self.index) and not any(
            a.size > 0 and a.name not in {e[1] for e in self.index} for a in env.axes.values() if a.size != 1
        )
        if (self.result or self.op in ("xchg", "cas")) and not apart:
            raise Invalid("the order of programs matters")
        if self.result:
            env.values[self.result] = Value(target.dtype, dims, target.low, target.high, target.step, target.error)
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
        if value.error or (env.program.special and value.kind == "float"):
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
            at = memory.in_list(memory.index_text(self.index, texts))
            old = f"{self.result} = " if self.result else ""
            if self.op == "cas":
                texts[0] = f"1, {texts[0]}"
            p.line(f"{old}hl.atomic_{self.op}({self.tensor}, [{', '.join(at)}], {texts[0]})")
            return
        if any(e[0] == "value" for e in self.index):
            at_texts = memory.gathered(self.index, Expr("", self.args), texts, self.shape, False)
        else:
            made = {"all": "torch.arange({n}){tail}", "tile": "index({at}, torch.int64){tail}"}
            at_texts = [
                made.get(e[0], "{at}").format(n=n, tail=tail, at=e[1] if len(e) > 1 else "")
                for e, n, tail in zip(self.index, self.shape, _tails(self.index))
            ]
        if self.result:
            p.line(f"{self.result} = {self.tensor}[{', '.join(memory._span(e) for e in self.index)}].clone()")
        p.line(f"atomic({_ATOMIC[self.op]}, {self.tensor}, ({', '.join(at_texts)},), {texts[0]})")


_ATOMIC = {
    "add": "torch.add",
    "max": "torch.maximum",
    "min": "torch.minimum",
    "and": "torch.bitwise_and",
    "or": "torch.bitwise_or",
    "xor": "torch.bitwise_xor",
    "xchg": "lambda old, new: new",
    "cas": "lambda old, new: torch.where(old == 1, new, old)",
}


def _tails(index: memory.Index) -> list[str]:
    own = [e[0] in ("tile", "all") for e in index]
    return [memory._trailing(sum(own[i + 1 :])) for i in range(len(index))]


def infer_block(block: Sequence[Statement], env: Env) -> None:
    for statement in block:
        statement.infer(env)
