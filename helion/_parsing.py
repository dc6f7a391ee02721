"""Python text to syntax trees, in several threads at once.

CPython 3.11 counts how deep the constructor of syntax trees is for all threads together. A thread that gives up the GIL
in it (when garbage is collected, a finalizer may) lets another one change the count, and one of the two fails:
"SystemError: AST constructor recursion depth mismatch". So ours take turns. Threads that parse without us (Triton's
compiler does) cannot be made to, and what fails is tried again: the text is not at fault.
"""

from __future__ import annotations

import ast

from ._locks import new_lock

__all__ = ["parse", "parse_expression"]

_turn = new_lock()
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
