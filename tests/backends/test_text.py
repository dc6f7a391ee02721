"""Text with precedence: what is printed means what was built."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from typing import Any

import pytest

from helion.backends.text import Precedence
from helion.backends.text import Text
from helion.backends.text import as_text
from helion.backends.text import call
from helion.backends.text import listed
from helion.backends.text import parsed
from helion.backends.text import product
from helion.backends.text import total

#: How a tree is built of texts, and what it is worth.
_BINARY: list[tuple[Callable[[Any, Any], Text], Callable[[Any, Any], int]]] = [
    *((op, op) for op in (operator.add, operator.sub, operator.mul, operator.and_, operator.or_, operator.xor)),
    *((op, lambda a, b, op=op: int(op(a, b))) for op in (operator.lt, operator.le, operator.gt, operator.ge)),
    (Text.equals, lambda a, b: int(a == b)),
    (Text.differs, lambda a, b: int(a != b)),
    # Never by zero, and by no more than the width of a word.
    (lambda a, b: a // (b * b + 1), lambda a, b: a // (b * b + 1)),
    (lambda a, b: a % (b * b + 1), lambda a, b: a % (b * b + 1)),
    (lambda a, b: a << b % 5, lambda a, b: a << b % 5),
    (lambda a, b: a >> b % 5, lambda a, b: a >> b % 5),
]
_UNARY: list[tuple[Callable[[Text], Text], Callable[[int], int]]] = [
    (operator.neg, operator.neg),
    (operator.invert, operator.invert),
    (lambda a: call("abs", a), abs),
    (lambda a: listed([7, a]).at("1"), lambda a: a),
    (lambda a: call("max", a, -3), lambda a: max(a, -3)),
    (lambda a: call(f"{a.within(Precedence.ATOM)}.__add__", 1), lambda a: a + 1),
    (lambda a: parsed(str(a)), lambda a: a),
]


def tree(rng: random.Random, depth: int) -> tuple[Text, int]:
    """A random expression with its value, at most ``1 << 64`` in size."""
    if depth == 0 or rng.random() < 0.1:
        name, value = rng.choice(list(VARIABLES.items()))
        number = rng.choice([0, 1, 5, -2, -7])
        return rng.choice([(Text(name), value), (as_text(number), number)])
    if rng.random() < 0.3:
        build, meaning = rng.choice(_UNARY)
        text, value = tree(rng, depth - 1)
        return build(text), meaning(value)
    build2, meaning2 = rng.choice(_BINARY)
    (left, a), (right, b) = tree(rng, depth - 1), tree(rng, depth - 1)
    return build2(left, right), meaning2(a, b)


VARIABLES = {"a": 3, "b": -4, "c": 10, "d": 0}


@pytest.mark.parametrize("seed", range(20))
def test_random_expressions_are_worth_what_their_trees_are(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(200):
        text, value = tree(rng, rng.randint(1, 5))
        assert int(eval(str(text), {}, VARIABLES)) == value, f"seed {seed}: {text}"
        assert parsed(str(text)).precedence == text.precedence, f"seed {seed}: {text}"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (Text("a") + Text("b") + Text("c"), "a + b + c"),
        (Text("a") + (Text("b") + Text("c")), "a + (b + c)"),
        (Text("a") - (Text("b") - Text("c")), "a - (b - c)"),
        ((Text("a") + 1) * 2, "(a + 1) * 2"),
        (Text("a") * 2 + 1, "a * 2 + 1"),
        (Text("a") * 2 // 3, "a * 2 // 3"),
        (Text("a") % 2 * 3, "(a % 2) * 3"),
        (Text("a") // (Text("b") * 2), "a // (b * 2)"),
        ((Text("a") < 1) & (Text("b") < 2), "(a < 1) & (b < 2)"),
        ((Text("a") < 1).equals(Text("b") < 2), "(a < 1) == (b < 2)"),
        (-(~Text("a")), "-~a"),
        ((-Text("a")).to("tl.int32"), "(-a).to(tl.int32)"),
        (as_text(1).to("tl.int32", bitcast=True), "(1).to(tl.int32, bitcast=True)"),
        (as_text(-1) + 2, "-1 + 2"),
        ((Text("a") + 1).at(":, None"), "(a + 1)[:, None]"),
        (call("f", Text("a") + 1, 2.0, float("inf"), key=Text("b")), "f(a + 1, 2.0, float('inf'), key=b)"),
        (total([Text("a"), Text("b") - 1]), "a + (b - 1)"),
        (product([Text("a") + 1, Text("b")]), "(a + 1) * b"),
    ],
)
def test_parentheses_stand_where_they_are_needed(text: Text, wanted: str) -> None:
    assert str(text) == wanted


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("a", Precedence.ATOM),
        ("f(a + b)[c].d", Precedence.ATOM),
        ("(a + b)", Precedence.ATOM),
        ("((a) + (b))", Precedence.ATOM),
        ("(a) + (b)", Precedence.SUM),
        ("(a + b) * (c)", Precedence.PRODUCT),
        ("a * b // c", Precedence.QUOTIENT),
        ("a ** -b", Precedence.POWER),
        ("-a", Precedence.UNARY),
        ("a < b", Precedence.COMPARE),
        ("not a", Precedence.TEST),
        ("a if b else c", Precedence.TEST),
        ("1.5", Precedence.NUMBER),
        ("True", Precedence.ATOM),
        ("a + (\n    b)", Precedence.SUM),
        ("(\n    a + b\n)", Precedence.ATOM),
    ],
)
def test_text_from_elsewhere_binds_as_the_parser_says(code: str, wanted: Precedence) -> None:
    assert parsed(code).precedence == wanted


def test_equality_of_texts_is_of_what_they_say() -> None:
    assert Text("a") + 1 == parsed("a + 1")
    assert len({Text("a"), Text("a"), Text("b")}) == 2


def test_a_text_is_no_sequence() -> None:
    with pytest.raises(TypeError):
        list(Text("a"))  # type: ignore[call-overload]
