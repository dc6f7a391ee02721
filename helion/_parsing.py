"""Python text to syntax trees, in several threads at once.

CPython 3.11 before 3.11.8 and 3.12 before 3.12.2 count how deep the constructor of syntax trees is for all threads
together (gh-106905). A thread that gives up the GIL in it (when garbage is collected, a finalizer may) lets another one
change the count, and one of the two fails: "SystemError: AST constructor recursion depth mismatch". So ours take turns,
and `_compat_triton` has Triton's compiler take them too, which would be left with a wrong hash of its kernel. Others
that parse cannot be made to, and what fails is tried again: the text is not at fault.
"""

from __future__ import annotations

import ast
import sys

from ._locks import new_rlock

__all__ = ["NEEDS_TURNS", "parse", "parse_definition", "parse_expression", "unindented"]

#: Whether two threads that parse at the same time may fail in this Python.
NEEDS_TURNS = (3, 11) <= sys.version_info < (3, 11, 8) or (3, 12) <= sys.version_info < (3, 12, 2)

_turn = new_rlock()  # a finalizer that runs in the constructor may parse too
_ATTEMPTS = 100


def parse(text: str) -> ast.Module:
    """The tree of some statements.

    Raises:
        SyntaxError: they are none.
    """
    tree = _parse(text, "exec")
    assert isinstance(tree, ast.Module)
    return tree


def parse_definition(text: str) -> ast.Module:
    """The tree of statements that may stand indented, as the lines of a function in a class do.

    They are taken as they stand: a string over several lines may begin its lines anywhere, and so may comments, so that
    taking off what all lines begin with leaves the function indented, or changes the string.

    Raises:
        SyntaxError: they are none.
    """
    if not text.startswith((" ", "\t")):
        return parse(text)
    tree = parse(f"if True:\n{text}")
    (block,) = tree.body
    assert isinstance(block, ast.If)
    tree.body = block.body
    ast.increment_lineno(tree, -1)
    return tree


def unindented(text: str) -> str:
    """The text of a definition as it reads at the margin; what stands left of its first line stays there."""
    margin = text[: len(text) - len(text.lstrip(" \t"))]
    return "".join(line.removeprefix(margin) for line in text.splitlines(keepends=True))


def parse_expression(text: str) -> ast.expr:
    """The tree of an expression.

    Raises:
        SyntaxError: it is none.
    """
    tree = _parse(text, "eval")
    assert isinstance(tree, ast.Expression)
    return tree.body


def _parse(text: str, mode: str) -> ast.AST:
    for _ in range(_ATTEMPTS - 1):
        try:
            with _turn:
                return ast.parse(text, mode=mode)
        except SystemError:
            pass
    return ast.parse(text, mode=mode)
