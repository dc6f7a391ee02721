"""Expressions, and the table of what they may be: a `Row` knows how to make one, what is known of its value, and how it
is printed, as helion and as PyTorch over whole tensors.

A fault that was found becomes a feature of the generator by a row (here, or of `statements.STATEMENTS`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch

from .values import Dim
from .values import Invalid
from .values import Value

if TYPE_CHECKING:
    from .generate import Generator
    from .program import Program

Dims = tuple[Dim, ...]


@dataclasses.dataclass
class Expr:
    """A node: the name of its row, operands, and what else the row keeps.

    `value` is what the last inference found.
    """

    op: str
    args: list[Expr] = dataclasses.field(default_factory=list)
    attrs: dict[str, Any] = dataclasses.field(default_factory=dict)
    value: Value | None = None


@dataclasses.dataclass
class Axis:
    """What is known of a loop variable inside its loop: indices in [low, high], over `size` elements, or some of them
    where the range is known only to the program (`partial`); `one`: its tiles have one element, in the reference too.
    """

    name: str
    kind: str  # "tile", "grid", "jagged", "unrolled"
    low: int
    high: int
    size: int
    chunked: bool = False
    partial: bool = False
    one: bool = False


@dataclasses.dataclass
class Memory:
    """What is known of a host tensor's elements; `defined` once all of them are."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    low: float
    high: float
    step: float | None
    error: float = 0.0
    written: bool = False
    defined: bool = True


@dataclasses.dataclass
class Env:
    """What is known at one place of a program; `certain` unless a branch decides whether it is reached, `jumps` where
    `break` and `continue` may stand."""

    program: Program
    values: dict[str, Value] = dataclasses.field(default_factory=dict)
    memory: dict[str, Memory] = dataclasses.field(default_factory=dict)
    axes: dict[str, Axis] = dataclasses.field(default_factory=dict)
    certain: bool = True
    jumps: bool = False

    def copy(self) -> Env:
        memory = {k: dataclasses.replace(m) for k, m in self.memory.items()}
        return Env(self.program, dict(self.values), memory, self.axes, self.certain, self.jumps)


class Row:
    """One feature of expressions.

    Attributes:
        name: of the op.
        family: the class of ops under which coverage counts it.
        weight: how often it is drawn.
    """

    def __init__(self, name: str, family: str, weight: float = 1.0) -> None:
        self.name, self.family, self.weight = name, family, weight

    def make(self, g: Generator, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        """An expression with these dimensions, or None if it does not fit here."""
        raise NotImplementedError

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        raise NotImplementedError

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        raise NotImplementedError

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return self.kernel(e, args, p)


ROWS: dict[str, Row] = {}


def add_row(row: Row) -> None:
    assert row.name not in ROWS, row.name
    ROWS[row.name] = row


def infer(e: Expr, env: Env) -> Value:
    """What is known of an expression's value; raises Invalid."""
    values = [infer(a, env) for a in e.args]
    e.value = ROWS[e.op].infer(e, values, env)
    if env.program.special:
        _check_special(e, values, e.value)
    return e.value


#: Rows in which a factor that is 0 but for rounding would make of infinity what only it is.
_FACTORS = frozenset(
    ["mul", "addcmul", "lerp", "product", "packed_product", "linear", "vector_product", "sum_of_products", "prod"]
    + ["cumprod", "square", "helper", "epilogue", "number_power", "var"]
)


def _check_special(e: Expr, args: Sequence[Value], value: Value) -> None:
    """Refuse what is not definite of nan, infinities and -0.0."""
    floats = [a for a in args if a.dtype.is_floating_point]
    if floats and value.kind == "int" and ROWS[e.op].family in ("casts", "bit manipulation"):
        raise Invalid("an integer of no number")
    if e.op in _FACTORS and any(a.error for a in floats):
        raise Invalid("infinity times what rounds to 0")
    if e.op in ("bits_of_float", "gelu") or (e.op == "hl_reduce" and e.attrs["what"] == "larger" and floats):
        raise Invalid("the sign of 0, PyTorch's gelu of infinity on CPUs, or less than the neutral element")


def walk(e: Expr) -> list[Expr]:
    """An expression and all in it."""
    return [e, *(sub for a in e.args for sub in walk(a))]
