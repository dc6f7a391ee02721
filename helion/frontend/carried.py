"""Which variables the device loops of a function carry, by the lines of the loops: for ref mode, which runs a function
without tracing it (`runtime.eager.carried`).
"""

from __future__ import annotations

import ast
import functools
import types

from .. import exc
from .source import FunctionSource
from .source import assigned_names
from .source import source_of
from .source import target_names

_LOOPS: dict[str, type[ast.For] | type[ast.While]] = {"for": ast.For, "while": ast.While}


@functools.cache
def _source(code: types.CodeType) -> FunctionSource | None:
    closure = tuple(types.CellType() for _ in code.co_freevars)
    try:
        return source_of(types.FunctionType(code, {}, closure=closure))
    except exc.BaseError:  # a lambda, or text that is not there
        return None


@functools.cache
def carried_names(code: types.CodeType, line: int, loop: str) -> frozenset[str]:
    """The variables that a loop changes and that are needed after an iteration.

    Args:
        code: of the function.
        line: one that the head of the loop is on.
        loop: "for" or "while".
    """
    source = _source(code)
    for node in ast.walk(source.node) if source is not None else ():
        if not isinstance(node, _LOOPS[loop]):
            continue
        head = node.iter if isinstance(node, ast.For) else node.test
        if source is None or not head.lineno <= line <= (head.end_lineno or head.lineno):
            continue
        own = target_names(node.target) if isinstance(node, ast.For) else set()
        assigned = assigned_names([*node.body, *([head] if isinstance(node, ast.While) else [])])
        live = source.liveness
        needed = live.body_live_in.get(node, set()) | live.after.get(node, set())
        return frozenset(assigned & needed - own)
    return frozenset()
