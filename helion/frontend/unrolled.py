"""What may stand in a host loop around device loops: `for x, out in zip(xs, outs):` with an `hl.tile` loop in it.

Such a loop is unrolled while the kernel is traced, and the host function has nothing of it: all device loops are one
launch, which comes after the host code before them.  So its own statements only give names to tensors and numbers that
are there already; one that makes a tensor, or that changes a list, would have to run between two parts of a launch.
A view of a tensor that is there is made before the launch (`before_launch`).
Not here: the walk over it (`kernel_body`).
"""

from __future__ import annotations

import ast
import copy
import math
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import torch

from .. import exc
from .._parsing import parse_expression
from ..numbers import cdiv
from ..numbers import next_power_of_2

#: More device loops than anybody wants in one kernel.
LIMIT = 256
#: Rounds of a loop that runs while tracing: in host code, and of a `while` in device code, where each is code.
_ROUNDS, _DEVICE_ROUNDS = 100_000, 1000

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
#: Of what they give `before_launch` knows whether it is a view.
_VIEWS = (
    *("as_strided", "diagonal", "expand", "expand_as", "flatten", "movedim", "narrow", "permute", "ravel", "reshape"),
    *("select", "squeeze", "swapaxes", "t", "transpose", "unflatten", "unfold", "unsqueeze", "view", "view_as"),
)
_STATEMENTS = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Pass, ast.Break, ast.Continue)


def check_rounds(count: int, *, of_device_while: bool = False) -> None:
    """Check how often a loop has run while tracing.

    Raises:
        exc.InvalidAPIUsage: more often than anybody would have it unrolled.
    """
    if count < (_DEVICE_ROUNDS if of_device_while else _ROUNDS):
        return
    raise exc.InvalidAPIUsage(
        f"a loop runs more than {count} times while tracing",
        fix="a `while` on numbers that are known while compiling is unrolled; `for i in hl.grid(n):` is a loop of the "
        "kernel."
        if of_device_while
        else None,
    )


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
            method = isinstance(part.func, ast.Attribute) and part.func.attr in (*_METHODS, *_VIEWS)
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
        "`for x, out in zip(xs, outs):`; views have a name each, `flat = x.view(-1)`; where each decides or computes "
        "on its own, call the kernel for each.",
    )


def constant_text(value: Any) -> str | None:
    """A number of Python's, a string or None as generated code has it; None for anything else."""
    plain = type(value) in (bool, int, str, type(None)) or (type(value) is float and math.isfinite(value))
    return repr(value) if plain else None


def renaming(texts: Mapping[str, str], place: ast.stmt) -> list[ast.stmt]:
    """One assignment that gives names at the same time what expressions of these names were: `a, b = b, a`."""
    if not texts:
        return []
    targets: list[ast.expr] = [ast.Name(name, ast.Store()) for name in texts]
    values = [parse_expression(text) for text in texts.values()]
    single = len(targets) == 1
    target = targets[0] if single else ast.Tuple(targets, ast.Store())
    made = ast.Assign([target], values[0] if single else ast.Tuple(values, ast.Load()))
    return [ast.fix_missing_locations(ast.copy_location(made, place))]


def named_by(stmt: ast.stmt) -> list[tuple[ast.Name, ast.expr]]:
    """The names that an assignment gives, and what to."""
    if not isinstance(stmt, ast.Assign) or len(stmt.targets) != 1:
        return []
    target, value = stmt.targets[0], stmt.value
    if isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List)):
        return [(name, part) for name, part in zip(target.elts, value.elts) if isinstance(name, ast.Name)]
    return [(target, value)] if isinstance(target, ast.Name) else []


def before_launch(node: ast.expr, lookup: Callable[[str], Any], names: Mapping[str, Any], text_of: Any) -> ast.expr:
    """An expression of an unrolled loop's body as one that the host function can evaluate before the launch.

    Args:
        node: the expression.
        lookup: gives what a name is in this iteration.
        names: variables of the host function, with what they are.
        text_of: gives the host expression of a tensor.

    Raises:
        exc.NestedGridLoop: it names what only the loop has.
    """

    class Renamed(ast.NodeTransformer):
        def visit_Name(self, name: ast.Name) -> ast.expr:
            value = lookup(name.id)
            if isinstance(value, torch.Tensor) and (text := text_of(value)) is not None:
                return parse_expression(text)
            if isinstance(value, (bool, int, float)):
                return ast.Constant(value)
            if names.get(name.id) is value:
                return ast.Name(name.id, ast.Load())
            raise refused(node)

    changed: ast.expr = Renamed().visit(copy.deepcopy(node))
    return changed
