"""Syntax trees in several threads at once."""

from __future__ import annotations

import ast

import pytest

from helion._parsing import parse
from helion._parsing import parse_expression


def failing(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Makes the next calls of `ast.parse` fail as they do when another thread parses at the same time."""
    real, left = ast.parse, [times]

    def fails(*args, **kwargs):
        if left[0]:
            left[0] -= 1
            raise SystemError("AST constructor recursion depth mismatch (before=30, after=23)")
        return real(*args, **kwargs)

    monkeypatch.setattr(ast, "parse", fails)


def test_what_another_thread_spoilt_is_parsed_again(monkeypatch):
    failing(monkeypatch, 3)
    assert ast.unparse(parse("x = 1\ny = 2")) == "x = 1\ny = 2"
    failing(monkeypatch, 3)
    assert ast.unparse(parse_expression("a + b * c")) == "a + b * c"


def test_what_fails_for_ever_is_an_error(monkeypatch):
    failing(monkeypatch, 1 << 30)
    with pytest.raises(SystemError):
        parse("x = 1")


def test_text_that_is_not_python_is_a_syntax_error():
    with pytest.raises(SyntaxError):
        parse("for")
    with pytest.raises(SyntaxError):
        parse_expression("x = 1")
