"""Source text that knows how tightly it binds: parentheses stand where Python's grammar needs them, and nowhere else
but in `(a % b) * c`, where a reader does.

Expressions are built with Python's own operators on `Text`: ``Text("a") + 1`` is the text ``a + 1``, and three times
that is ``(a + 1) * 3``.  Not here: symbolic numbers (`expressions`), statements.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
from collections.abc import Callable
from collections.abc import Iterable

from .._parsing import parse_expression
from .expressions import literal


class Precedence(enum.IntEnum):
    """How tightly an expression binds, by its outermost operator."""

    TEST = 0  # conditional expressions, `or`, `and`, `not`
    COMPARE = 1
    OR = 2
    XOR = 3
    AND = 4
    SHIFT = 5
    SUM = 6
    QUOTIENT = 7  # `/`, `//` and `%`: to Python they bind like `*`
    PRODUCT = 8
    UNARY = 9
    POWER = 10
    NUMBER = 11  # less than a name: `1.to(x)` is no attribute of 1
    ATOM = 12


_OPERATORS: dict[type[ast.AST], Precedence] = {
    ast.BitOr: Precedence.OR,
    ast.BitXor: Precedence.XOR,
    ast.BitAnd: Precedence.AND,
    ast.LShift: Precedence.SHIFT,
    ast.RShift: Precedence.SHIFT,
    ast.Add: Precedence.SUM,
    ast.Sub: Precedence.SUM,
    ast.Mult: Precedence.PRODUCT,
    ast.MatMult: Precedence.QUOTIENT,
    ast.Div: Precedence.QUOTIENT,
    ast.FloorDiv: Precedence.QUOTIENT,
    ast.Mod: Precedence.QUOTIENT,
    ast.Not: Precedence.TEST,
    ast.Pow: Precedence.POWER,
}


def _binary(sign: str, precedence: Precedence) -> Callable[[Text, Text | float], Text]:
    # Operators group from the left, but `a < b < c` is one test of three.
    least = precedence + (precedence is Precedence.COMPARE)
    tighter = (Precedence.PRODUCT if precedence is Precedence.QUOTIENT else precedence) + 1

    def build(left: Text, right: Text | float) -> Text:
        return Text(f"{left.within(least)} {sign} {as_text(right).within(tighter)}", precedence)

    return build


@dataclasses.dataclass(slots=True, unsafe_hash=True)  # never altered: frozen, it takes three times as long to make
class Text:
    """An expression.

    Attributes:
        code: its text.
        precedence: how tightly that binds.
    """

    code: str
    precedence: Precedence = Precedence.ATOM

    def __str__(self) -> str:
        return self.code

    def within(self, least: int) -> str:
        """Its text where something at least that tight must stand."""
        return self.code if self.precedence >= least else f"({self.code})"

    @property
    def is_name(self) -> bool:
        """Whether it is a variable."""
        return self.code.isidentifier()

    @property
    def number(self) -> int | None:
        """Its value if it is a number of digits."""
        return int(self.code) if self.code.isdigit() else None

    __or__ = _binary("|", Precedence.OR)
    __xor__ = _binary("^", Precedence.XOR)
    __and__ = _binary("&", Precedence.AND)
    __lshift__ = _binary("<<", Precedence.SHIFT)
    __rshift__ = _binary(">>", Precedence.SHIFT)
    __add__ = _binary("+", Precedence.SUM)
    __sub__ = _binary("-", Precedence.SUM)
    __mul__ = _binary("*", Precedence.PRODUCT)
    __truediv__ = _binary("/", Precedence.QUOTIENT)
    __floordiv__ = _binary("//", Precedence.QUOTIENT)
    __mod__ = _binary("%", Precedence.QUOTIENT)
    __lt__ = _binary("<", Precedence.COMPARE)
    __le__ = _binary("<=", Precedence.COMPARE)
    __gt__ = _binary(">", Precedence.COMPARE)
    __ge__ = _binary(">=", Precedence.COMPARE)
    equals = _binary("==", Precedence.COMPARE)  # `==` of two texts asks whether they are the same
    differs = _binary("!=", Precedence.COMPARE)

    def __neg__(self) -> Text:
        return Text(f"-{self.within(Precedence.UNARY)}", Precedence.UNARY)

    def __invert__(self) -> Text:
        return Text(f"~{self.within(Precedence.UNARY)}", Precedence.UNARY)

    def at(self, places: str) -> Text:
        """`self[places]`."""
        return Text(f"{self.within(Precedence.ATOM)}[{places}]")

    def to(self, dtype: object, **options: object) -> Text:
        """`self.to(dtype)`, a cast."""
        return call(f"{self.within(Precedence.ATOM)}.to", dtype, **options)


def as_text(value: Text | float) -> Text:
    """A text, or a Python number as one."""
    return value if isinstance(value, Text) else parsed(literal(value))


@functools.lru_cache(4096)
def parsed(code: str) -> Text:
    """Text that was not made here: how tightly it binds is what Python's parser says."""
    node = parse_expression(code)
    # Where the expression is not the whole text, the rest is parentheses around it.
    return Text(code, _precedence(node)) if ast.get_source_segment(code, node) == code else Text(code)


def _precedence(node: ast.expr) -> Precedence:
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)]
    if isinstance(node, ast.UnaryOp):
        return _OPERATORS.get(type(node.op), Precedence.UNARY)
    if isinstance(node, ast.Compare):
        return Precedence.COMPARE
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Precedence.NUMBER
    loose = (ast.BoolOp, ast.IfExp, ast.Lambda, ast.Tuple)
    return Precedence.TEST if isinstance(node, loose) else Precedence.ATOM


def call(function: str, *arguments: object, **options: object) -> Text:
    """`function(arguments, option=...)`: texts, numbers, or code."""
    listed = [_argument(a) for a in arguments] + [f"{key}={_argument(value)}" for key, value in options.items()]
    return Text(f"{function}({', '.join(listed)})")


def listed(items: Iterable[object]) -> Text:
    """`[item, ...]`"""
    return Text(f"[{', '.join(map(_argument, items))}]")


def _argument(value: object) -> str:
    return literal(value) if isinstance(value, float) else str(value)


def total(texts: Iterable[Text]) -> Text:
    """The sum of some texts."""
    return functools.reduce(Text.__add__, texts)


def product(texts: Iterable[Text]) -> Text:
    """The product of some texts."""
    return functools.reduce(Text.__mul__, texts)
