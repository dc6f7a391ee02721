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

__all__ = ["NEEDS_TURNS", "parse", "parse_expression"]

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
