"""Where each symbol of a symbolic size or scalar comes from.

Sizes and scalars are sympy expressions (inside torch.SymInt / SymFloat).  A symbol stands for something
that exists either on the host when the kernel is launched (an argument's size, a scalar argument) or on
the device while it runs (a block size, the offset of the current tile).  The table from symbol to `Origin`
is what lets host code and device code print the same expression in their own words.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import sympy
import torch


class OriginKind(enum.Enum):
    HOST = "host"  # `text` is a host expression: "n", "x.size(0)", "args.scale"
    BLOCK_SIZE = "block size"  # index: block id
    TILE_BEGIN = "tile begin"  # index: axis id; also the index of an hl.grid loop
    TILE_END = "tile end"  # index: axis id; clipped at the end of the range
    TILE_ID = "tile id"  # index: axis id
    TUNABLE = "tunable"  # `text` is the config key; with a `function`: computed from block sizes and tunables


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a symbol stands for; `name` is how generated code calls it.

    `once`: the host expression `text` gives another value each time, so the host function evaluates it once.
    `args`: numbers that `text` is computed from, which has `{}` in their places.
    `function`: what `text` calls; the number is what it gives for the values of `args`.
    `configured`: the Config has a part in a number of the host function's, so a trace does not know it.
    """

    kind: OriginKind
    name: str
    text: str = ""
    index: int = -1
    dtype: type = int
    once: bool = False
    args: tuple[sympy.Expr, ...] = ()
    function: Callable[..., int] | None = None
    configured: bool = False

    def host_text(self, print_number: Callable[[sympy.Expr], str]) -> str:
        """The host expression that gives the number."""
        return self.text.format(*map(print_number, self.args)) if self.args else self.text

    @property
    def on_device(self) -> bool:
        """Whether the value is not known on the host before a Config is chosen, or before the kernel runs."""
        return self.kind is not OriginKind.HOST or self.configured


def expr_of(value: Any) -> sympy.Expr:
    """The sympy expression of a number, symbolic or not."""
    if type(value) is int:
        return sympy.Integer(value)
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return value.node.expr
    return sympy.sympify(value)


def evaluated(expr: sympy.Expr, constants: Mapping[sympy.Symbol, Any]) -> sympy.Expr:
    """An expression with the symbols that have a value replaced by it; in a tenth of the time of `subs`."""
    if not expr.args:
        return _number(constants[expr]) if expr in constants else expr
    values = {symbol: _number(constants[symbol]) for symbol in expr.free_symbols if symbol in constants}
    return expr.xreplace(values) if values else expr


def _number(value: float) -> sympy.Expr:
    return sympy.Float(value) if isinstance(value, float) else sympy.Integer(value)


def symbols_of(value: Any) -> set[sympy.Symbol]:
    """The free symbols of a number; none for a plain one."""
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return set(value.node.expr.free_symbols)
    return set()


def is_symbolic(value: Any) -> bool:
    return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))


def plain(value: Any) -> Any:
    """A number of the type that calls have where a trace has a symbol, whatever its value."""
    numbers: dict[type, Any] = {torch.SymInt: 0, torch.SymFloat: 0.0, torch.SymBool: False}
    return numbers.get(type(value), value)


def as_key(value: Any) -> Any:
    """What a dict or a set finds a value by: of a symbolic number, which has no hash, the number that it is. Calls are
    told apart by it from then on.
    """
    if isinstance(value, torch.SymInt):
        return int(value)
    if isinstance(value, torch.SymFloat):
        return float(value)
    return tuple(map(as_key, value)) if type(value) is tuple else value


def shape_exprs(shape: Iterable[Any]) -> tuple[sympy.Expr, ...]:
    """A shape as sympy expressions, comparable without guards."""
    return tuple(expr_of(s) for s in shape)
