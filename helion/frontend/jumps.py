"""`break` and `continue` of loops on the device: the same loop without jumps.

The body of a device loop is traced once, so that what a jump leaves out becomes a side of a branch.  `continue` under
a condition moves the statements behind it into the branch's other side.  `break` is a variable that says that the loop
has ended: a `while` asks for it, a `for` does nothing in the iterations that are left.

Loops that Python unrolls have the same form; there a decided `break` still ends them (`End`).

`return` under a condition, in a helper function, is a variable too: what stands behind it is the branch's other side,
and the function returns at its end.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Sequence
from typing import TypeVar

_Node = TypeVar("_Node", bound=ast.AST)
_LOOPS = (ast.For, ast.While)
#: What a helper function returns, as a variable of it; no name of a program.
_RESULT = "<result>"
_BODIES = ("body", "orelse", "finalbody")


class End(ast.Break):
    """`break` at the start of an iteration, once a loop has ended; under a condition of the device it does nothing, as
    the iteration does not either.
    """


class Take(ast.Assign):
    """The variable of an unrolled loop gets the iteration's item: not once the loop has ended, as behind it it
    is what it was then.  Loops of the device give theirs a value themselves.
    """


def outer_loops(body: Sequence[ast.stmt]) -> list[ast.For | ast.While]:
    """Loops among statements that stand in no other loop."""
    found: list[ast.For | ast.While] = []
    for stmt in body:
        if isinstance(stmt, _LOOPS):
            found.append(stmt)
        elif not isinstance(stmt, (ast.FunctionDef, ast.ClassDef)):
            for field in _BODIES:
                found += outer_loops(getattr(stmt, field, None) or [])
    return found


def without_jumps(function: ast.FunctionDef) -> tuple[ast.FunctionDef, dict[ast.stmt, list[ast.stmt]]]:
    """A copy of a function whose loops have no jumps.

    Returns:
        The copy, and for each of the function's outermost loops with jumps, in it or in loops inside of it, the
        statements that stand for it there.
    """
    if not _has_jumps(function):
        return function, {}
    copied = copy.deepcopy(function)
    rewriting = _Rewriting()
    pairs = list(zip(outer_loops(function.body), outer_loops(copied.body), strict=True))
    copied.body = rewriting.block(copied.body)
    return copied, {original: rewriting.made[loop] for original, loop in pairs if _has_jumps(original)}


def with_one_return(function: ast.FunctionDef) -> ast.FunctionDef:
    """A copy of a function that returns at its end alone, but for returns in loops; or the function, if it does."""
    if not any(_returns(stmt) for stmt in function.body if isinstance(stmt, ast.If)):
        return function
    copied = copy.deepcopy(function)
    last = copied.body[-1]
    body = _with_result(copied.body, last)
    copied.body = [*body, _at(ast.Return(_name(_RESULT, last)), last)]
    return copied


def _with_result(body: Sequence[ast.stmt], last: ast.stmt) -> list[ast.stmt]:
    """Statements that end with an assignment of what they return, whichever way they go."""
    for position, stmt in enumerate(body):
        if isinstance(stmt, ast.Return):
            value = stmt.value or _at(ast.Constant(None), stmt)
            return [*body[:position], _at(ast.Assign([ast.Name(_RESULT, ast.Store())], value), stmt)]
        if isinstance(stmt, ast.If) and _returns(stmt):
            rest = body[position + 1 :]
            # Where both sides may go on behind the branch, what comes there stands twice.
            stmt.body, stmt.orelse = (
                _with_result([*copy.deepcopy(list(side)), *copy.deepcopy(list(rest))], last)
                for side in (stmt.body, stmt.orelse)
            )
            return [*body[:position], stmt]
    return [*body, _at(ast.Assign([ast.Name(_RESULT, ast.Store())], ast.Constant(None)), last)]


def _returns(stmt: ast.stmt) -> bool:
    """Whether there is a `return` in a statement, outside of loops."""
    sides = [*stmt.body, *stmt.orelse] if isinstance(stmt, ast.If) else []
    return isinstance(stmt, ast.Return) or any(map(_returns, sides))


def _has_jumps(node: ast.AST) -> bool:
    return any(isinstance(inner, (ast.Break, ast.Continue)) for inner in ast.walk(node))


def taking(loop: ast.For) -> Take | None:
    """What gives its variable a value in a loop without jumps that a `break` of its own ended; None for others."""
    first = loop.body[0]
    ended = isinstance(first, ast.If) and isinstance(first.body[0], End)
    take = first.orelse[0] if isinstance(first, ast.If) and ended else None
    return take if isinstance(take, Take) else None


class _Rewriting:
    def __init__(self) -> None:
        self.made: dict[ast.stmt, list[ast.stmt]] = {}
        self._loops = 0

    def block(self, body: Sequence[ast.stmt]) -> list[ast.stmt]:
        """Statements outside of the loops that jumps among them end: their own loops are rewritten."""
        return [made for stmt in body for made in self._statement(stmt)]

    def _statement(self, stmt: ast.stmt) -> list[ast.stmt]:
        if isinstance(stmt, _LOOPS):
            self.made[stmt] = self._loop(stmt)
            return self.made[stmt]
        if not isinstance(stmt, (ast.FunctionDef, ast.ClassDef)):
            for field in _BODIES:
                if isinstance(inner := getattr(stmt, field, None), list):
                    setattr(stmt, field, self.block(inner))
        return [stmt]

    def _loop(self, loop: ast.For | ast.While) -> list[ast.stmt]:
        own = list(_own_jumps(loop.body))
        if not own or loop.orelse:
            loop.body = self.block(loop.body)
            return [loop]
        breaks = any(isinstance(jump, ast.Break) for jump in own)
        self._loops += breaks
        stopped = f"_stopped_{self._loops}"
        body = self._without(loop.body, stopped)
        if not breaks:
            loop.body = body or [_at(ast.Pass(), loop)]
            return [loop]
        start = _assign(stopped, False, loop)
        if isinstance(loop, ast.For):
            take = _at(Take([copy.deepcopy(loop.target)], ast.Constant(None)), loop)
            loop.body = [_at(ast.If(test=_name(stopped, loop), body=[_at(End(), loop)], orelse=[take, *body]), loop)]
        else:
            running = _at(ast.UnaryOp(ast.Not(), _name(stopped, loop)), loop)
            loop.test = ast.copy_location(ast.BoolOp(ast.And(), [running, loop.test]), loop.test)
            loop.body = body
        return [start, loop]

    def _without(self, body: Sequence[ast.stmt], stopped: str) -> list[ast.stmt]:
        """A loop's statements with what comes behind each jump on the path that does not take it."""
        made: list[ast.stmt] = []
        for position, stmt in enumerate(body):
            if isinstance(stmt, ast.Continue):
                return made
            if isinstance(stmt, ast.Break):
                return [*made, _assign(stopped, True, stmt)]
            if not isinstance(stmt, ast.If) or not any(_own_jumps([stmt])):
                made += self._statement(stmt)
                continue
            rest = body[position + 1 :]
            # Behind a jump that may be taken on both sides the rest stands twice.
            sides = [
                self._without([*copy.deepcopy(list(side)), *copy.deepcopy(list(rest))], stopped)
                for side in (stmt.body, stmt.orelse)
            ]
            stmt.body, stmt.orelse = sides[0] or [_at(ast.Pass(), stmt)], sides[1]
            return [*made, stmt]
        return made


def _own_jumps(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Jumps of the loop that these statements stand in, not of loops among them."""
    found: list[ast.stmt] = []
    for stmt in body:
        if isinstance(stmt, (ast.Break, ast.Continue)):
            found.append(stmt)
        elif not isinstance(stmt, (*_LOOPS, ast.FunctionDef, ast.ClassDef)):
            for field in _BODIES:
                found += _own_jumps(getattr(stmt, field, None) or [])
    return found


def _at(node: _Node, place: ast.stmt) -> _Node:
    return ast.fix_missing_locations(ast.copy_location(node, place))


def _name(name: str, place: ast.stmt) -> ast.Name:
    return _at(ast.Name(name, ast.Load()), place)


def _assign(name: str, value: bool, place: ast.stmt) -> ast.stmt:
    return _at(ast.Assign([ast.Name(name, ast.Store())], ast.Constant(value)), place)
