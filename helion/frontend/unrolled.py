"""What may stand in a host loop around device loops: `for x, out in zip(xs, outs):` with an `hl.tile` loop in it.

Such a loop is unrolled while the kernel is traced, and the host function has nothing of it: all device loops are one
launch, which comes after the host code before them.  So its own statements only give names to tensors and numbers that
are there already; one that makes a tensor, or that changes a list, would have to run between two parts of a launch.
Not here: the walk over it (`statements`).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from typing import Any

from .. import exc
from ..numbers import cdiv
from ..numbers import next_power_of_2

#: More device loops than anybody wants in one kernel.
LIMIT = 256

_FUNCTIONS = (
    *(
        abs,
        bool,
        dict,
        enumerate,
        float,
        int,
        isinstance,
        len,
        list,
        max,
        min,
        range,
        reversed,
        sorted,
        sum,
        tuple,
        zip,
    ),
    *(cdiv, next_power_of_2),
    *(function for function in vars(math).values() if callable(function)),
)
_METHODS = ("dim", "element_size", "get", "items", "keys", "numel", "size", "stride", "values")
_STATEMENTS = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Pass, ast.Break, ast.Continue)


def check_names_only(node: ast.AST, callee: Callable[[ast.expr], Any]) -> None:
    """Check that a statement or expression neither makes nor changes anything.

    Args:
        node: of the loop's body, or what it runs over.
        callee: the object that a call's function expression names.

    Raises:
        exc.NestedGridLoop: it may.
    """
    if isinstance(node, ast.stmt) and not isinstance(node, _STATEMENTS):
        raise refused(node)
    for part in ast.walk(node):
        if isinstance(part, ast.Call):
            method = isinstance(part.func, ast.Attribute) and part.func.attr in _METHODS
            if not method and callee(part.func) not in _FUNCTIONS:
                raise refused(node)
        elif isinstance(part, (ast.Subscript, ast.Attribute)) and isinstance(part.ctx, ast.Store):
            raise refused(node)


def refused(node: ast.AST) -> exc.NestedGridLoop:
    """The error for a statement or expression that may do more than give names."""
    return exc.NestedGridLoop(
        f"{ast.unparse(node)!r} stands in a host loop around device loops, which is unrolled while compiling: beside "
        "them it may only give names to tensors and numbers that are there already",
        fix="make tensors before the loop, `outs = [torch.empty_like(x) for x in xs]`, and run over them: "
        "`for x, out in zip(xs, outs):`; where each decides or computes on its own, call the kernel for each.",
    )
