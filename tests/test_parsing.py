"""Syntax trees in several threads at once."""

from __future__ import annotations

import ast
import gc
import threading
import time

import pytest
import triton
import triton.language as tl

import helion._compat_triton  # noqa: F401  (has Triton take turns)
from helion._parsing import NEEDS_TURNS
from helion._parsing import parse
from helion._parsing import parse_definition
from helion._parsing import parse_expression
from helion._parsing import unindented
from helion.frontend.source import source_of


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


def test_triton_parses_again_what_another_thread_spoilt(monkeypatch):
    """Its hash would stay a placeholder, which all kernels of this name share."""

    @triton.jit
    def kernel(x):
        tl.store(x, 1)

    expected = triton.jit(kernel.fn).cache_key
    failing(monkeypatch, 3 if NEEDS_TURNS else 0)
    assert kernel.cache_key == expected
    assert "recursion" not in kernel.cache_key


def test_threads_of_ours_and_of_triton_parse_at_the_same_time():
    """Garbage whose finalizers give up the GIL is what makes the constructor of syntax trees change threads."""

    class Slow:
        def __init__(self):
            self.me = self  # only the collector frees it

        def __del__(self):
            time.sleep(0.0005)

    @triton.jit
    def kernel(x):
        tl.store(x, 1)

    text = "\n".join(f"x{i} = (a[{i}] + b(c, d=[1, 2, {{'k': e.f}}]))" for i in range(60))
    errors = []

    def work(once):
        try:
            for _ in range(15):
                Slow()
                once()
        except BaseException as error:
            errors.append(error)

    threshold = gc.get_threshold()
    gc.set_threshold(5)
    try:
        ours = [threading.Thread(target=work, args=(lambda: parse(text),)) for _ in range(4)]
        tritons = [threading.Thread(target=work, args=(kernel.parse,)) for _ in range(4)]
        for thread in ours + tritons:
            thread.start()
        for thread in ours + tritons:
            thread.join()
    finally:
        gc.set_threshold(*threshold)
    assert errors == []


def test_what_fails_for_ever_is_an_error(monkeypatch):
    failing(monkeypatch, 1 << 30)
    with pytest.raises(SystemError):
        parse("x = 1")


def test_text_that_is_not_python_is_a_syntax_error():
    with pytest.raises(SyntaxError):
        parse("for")
    with pytest.raises(SyntaxError):
        parse_expression("x = 1")


def left_of_the_margin():
    def indented(v):
        # fmt: off
        # a comment
        return v, """
first
    second
"""
        # fmt: on

    return indented


def test_a_function_with_text_left_of_its_first_line_is_read_as_it_stands():
    indented = left_of_the_margin()
    source = source_of(indented)
    returned = next(node for node in ast.walk(source.node) if isinstance(node, ast.Return))
    assert source.location(returned).text.strip().startswith("return v")
    assert ast.literal_eval(returned.value.elts[1]) == indented(0)[1] == "\nfirst\n    second\n"
    compile(source.text, "text", "exec")


def test_statements_keep_their_lines_and_columns():
    node = parse_definition("    a = 1\n    b = (2,\n3)\n").body[1]
    assert (node.lineno, node.col_offset, node.end_lineno) == (2, 4, 3)
    assert unindented("    a = 1\n    b = (2,\n3)\n") == "a = 1\nb = (2,\n3)\n"
