"""`match` as what it says: `if` and `elif` on constants, dotted names, types, and alternatives of them.

Each case asks what Python's does, in the same order, and binds the same names.  A subject that is more than a name is
evaluated once, into a variable.  Patterns that take a value apart (lists, mappings, attributes) stay as they are, and
are refused where they are reached; `match a, b` is compared part by part.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator


def without_match(function: ast.FunctionDef) -> None:
    """Rewrite the `match` statements of a function, in place."""
    if any(isinstance(node, ast.Match) for node in ast.walk(function)):
        _Rewriting(function).visit(function)


class _TakesApart(Exception):
    """A pattern that asks what a value is made of."""


class _Rewriting(ast.NodeTransformer):
    def __init__(self, function: ast.FunctionDef) -> None:
        self._taken = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        self._taken |= {arg.arg for arg in ast.walk(function) if isinstance(arg, ast.arg)}

    def visit_Match(self, node: ast.Match) -> list[ast.stmt] | ast.Match:
        self.generic_visit(node)
        before: list[ast.stmt] = []
        subject = self._subject(node, node.subject, before)
        try:
            return [*before, *_chain(node, subject)]
        except _TakesApart:
            return node

    def _subject(self, node: ast.Match, value: ast.expr, before: list[ast.stmt]) -> ast.expr:
        """An expression that may stand several times for what is compared."""
        if isinstance(value, ast.Tuple) and not any(isinstance(item, ast.Starred) for item in value.elts):
            return ast.Tuple([self._subject(node, item, before) for item in value.elts], ast.Load())
        if isinstance(value, ast.Constant) or (_is_dotted(value) and _root(value) not in set(_bound(node))):
            return value
        name = "subject"
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        before.append(_at(ast.Assign([ast.Name(name, ast.Store())], value), value))
        return ast.Name(name, ast.Load())


def _chain(node: ast.Match, subject: ast.expr) -> list[ast.stmt]:
    """The cases as one branch in the other's `else`."""
    rest: list[ast.stmt] = []
    for case in reversed(node.cases):
        test, bindings = _asked(case.pattern, subject), _bindings(case.pattern, subject)
        if case.guard is None:
            body = [*bindings, *case.body]
            rest = body if test is None else [_at(ast.If(test, body, rest), case.pattern)]
        else:
            # Names are bound before the guard is asked, and stay so where it says no.
            if bindings and test is not None:
                bindings = [_at(ast.If(test, bindings, []), case.pattern)]
            both = case.guard if test is None else ast.BoolOp(ast.And(), [copy.deepcopy(test), case.guard])
            rest = [*bindings, _at(ast.If(both, case.body, rest), case.pattern)]
    return rest or [_at(ast.Pass(), node)]


def _asked(pattern: ast.pattern, subject: ast.expr) -> ast.expr | None:
    """The condition under which a pattern matches, None if it always does."""
    subject = copy.deepcopy(subject)
    if isinstance(pattern, ast.MatchAs):
        return None if pattern.pattern is None else _asked(pattern.pattern, subject)
    if isinstance(pattern, ast.MatchOr):
        asked = [_asked(part, subject) for part in pattern.patterns]
        return None if None in asked else ast.BoolOp(ast.Or(), [test for test in asked if test is not None])
    if isinstance(subject, ast.Tuple):
        if not isinstance(pattern, ast.MatchSequence) or any(isinstance(p, ast.MatchStar) for p in pattern.patterns):
            raise _TakesApart
        if len(pattern.patterns) != len(subject.elts):
            return ast.Constant(False)
        parts = [_asked(part, item) for part, item in zip(pattern.patterns, subject.elts)]
        tests = [test for test in parts if test is not None]
        if len(tests) > 1:
            return ast.BoolOp(ast.And(), tests)
        return tests[0] if tests else None
    if isinstance(pattern, ast.MatchValue):
        return ast.Compare(subject, [ast.Eq()], [pattern.value])
    if isinstance(pattern, ast.MatchSingleton):
        return ast.Compare(subject, [ast.Is()], [ast.Constant(pattern.value)])
    if isinstance(pattern, ast.MatchClass) and not pattern.patterns and not pattern.kwd_patterns:
        return ast.Call(ast.Name("isinstance", ast.Load()), [subject, pattern.cls], [])
    raise _TakesApart


def _bindings(pattern: ast.pattern, subject: ast.expr) -> list[ast.stmt]:
    """Assignments of the names in a pattern that has matched."""
    if isinstance(pattern, ast.MatchSequence) and isinstance(subject, ast.Tuple):
        pairs = zip(pattern.patterns, subject.elts)
        return [binding for part, item in pairs for binding in _bindings(part, item)]
    if isinstance(pattern, ast.MatchOr) and any(_bound(pattern)):
        raise _TakesApart  # which of them has matched says what a name is
    if not isinstance(pattern, ast.MatchAs):
        return []
    inner = [] if pattern.pattern is None else _bindings(pattern.pattern, subject)
    if pattern.name is None:
        return inner
    return [*inner, _at(ast.Assign([ast.Name(pattern.name, ast.Store())], copy.deepcopy(subject)), pattern)]


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that the patterns and guards of cases bind."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.MatchAs) and inner.name is not None:
            yield inner.name
        elif isinstance(inner, ast.NamedExpr) and isinstance(inner.target, ast.Name):
            yield inner.target.id


def _is_dotted(value: ast.expr) -> bool:
    while isinstance(value, ast.Attribute):
        value = value.value
    return isinstance(value, ast.Name)


def _root(value: ast.expr) -> str:
    while isinstance(value, ast.Attribute):
        value = value.value
    assert isinstance(value, ast.Name)
    return value.id


def _at(made: ast.stmt, place: ast.AST) -> ast.stmt:
    """A statement, and what in it has no place yet, at another's place in the file."""
    ast.copy_location(made, place)
    return ast.fix_missing_locations(made)
