"""Conditions of host code that only a call can answer: `if int(lengths.max()) > 8`, `while flags[i].item()`.

A trace takes each of them as it was in the call that it is made for (`Outcomes`), and the host function checks at every
call that they are so again: another outcome is another variant of the kernel.  What a call's outcomes are is found out
by running the function up to its first device loop, with its conditions noted (`noting`).

Not here: that run (`runtime.eager.prefix`), and which variant a call gets (`kernel`).
"""

from __future__ import annotations

import ast
import collections
import copy
import types
from collections.abc import Callable
from collections.abc import Iterator

from .. import exc
from .._locks import cached_property
from .source import function_globals
from .source import source_of

#: What the function that `noting` makes calls for each condition.
_NOTE = "_helion_note"


#: What has no conditions of the function's own: functions inside of it, and what most nodes are.
_OTHERS = (
    *(ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
    *(ast.Name, ast.Constant, ast.expr_context),
)


def _conditions(node: ast.AST) -> Iterator[ast.expr]:
    """The conditions of a function's statements, in the order of its text; not those of functions inside of it."""
    waiting = list(ast.iter_child_nodes(node))[::-1]
    while waiting:
        child = waiting.pop()
        if isinstance(child, _OTHERS):
            continue
        if isinstance(child, (ast.If, ast.While, ast.IfExp, ast.Assert)):
            yield child.test
        waiting += list(ast.iter_child_nodes(child))[::-1]


class Undecided(Exception):
    """A trace cannot go on without the outcome of a condition.

    Attributes:
        error: what to say where nobody can find it out.
    """

    def __init__(self, error: exc.BaseError) -> None:
        super().__init__(str(error))
        self.error = error


class Outcomes:
    """What the conditions of one call were, in the order in which they were met.

    Args:
        found: (number of the condition in the function, outcome) of each.
        stopped: why they are not known from some place on; "" if they are known up to the first device loop.
    """

    def __init__(self, found: list[tuple[int, bool]], stopped: str = "") -> None:
        self.found = found
        self.stopped = stopped

    def begin_with(self, decisions: tuple[tuple[int, bool], ...]) -> bool:
        """Whether these are the outcomes that a trace has taken (`Decisions.taken`)."""
        places = {place for place, _ in decisions}
        same = [outcome for outcome in self.found if outcome[0] in places]
        return tuple(same[: len(decisions)]) == decisions


class Decisions:
    """The conditions that a trace has met in the host code of its kernel function.

    Args:
        node: the kernel function.
        outcomes: those of the call that is traced; None if nobody has asked yet.
    """

    def __init__(self, node: ast.FunctionDef, outcomes: Outcomes | None) -> None:
        self._node = node
        self._outcomes = outcomes
        self._visits: collections.Counter[ast.expr] = collections.Counter()
        self._met: list[tuple[int, bool]] = []
        self._asked: dict[ast.expr, int] = {}

    @cached_property
    def _numbers(self) -> dict[ast.expr, int]:
        return {test: number for number, test in enumerate(_conditions(self._node))}

    @property
    def tests(self) -> frozenset[ast.expr]:
        """The conditions that the host function is to check."""
        return frozenset(self._asked)

    @property
    def taken(self) -> tuple[tuple[int, bool], ...]:
        """Each time that one of `tests` was met: its number, and what it was taken for."""
        checked = set(self._asked.values())
        return tuple(entry for entry in self._met if entry[0] in checked)

    def meet(self, test: ast.expr, known: bool | None, error: exc.BaseError | None) -> bool:
        """Note a condition.

        Args:
            test: the condition.
            known: what the trace knows it to be; None if only a call can tell.
            error: then, what to say if no call does.

        Raises:
            Undecided: outcomes have not been asked for yet.
            exc.HostTensorRead: they do not go so far.
        """
        number, visit = self._numbers[test], self._visits[test]
        self._visits[test] += 1
        if known is None:
            assert error is not None
            self._asked[test] = number
            known = self._ask(number, visit, error)
        self._met.append((number, known))
        return known

    def _ask(self, number: int, visit: int, error: exc.BaseError) -> bool:
        if self._outcomes is None:
            raise Undecided(error)
        found = [outcome for place, outcome in self._outcomes.found if place == number]
        if visit < len(found):
            return found[visit]
        if self._outcomes.stopped:
            raise exc.HostTensorRead(
                f"host code decides on a tensor's value after {self._outcomes.stopped}, which a call that decides "
                "otherwise would do twice",
                fix="decide before that, do it after the device loops, or do it outside of the kernel function.",
            )
        raise error


def noting(fn: types.FunctionType, note: Callable[[int, object], bool]) -> types.FunctionType:
    """A kernel function that reports its conditions.

    Args:
        fn: the function.
        note: is called with the number of each condition that is met, and its value; gives its truth.
    """
    source = source_of(fn)
    numbers = {test: number for number, test in enumerate(_conditions(source.node))}
    copies: dict[int, ast.AST] = {}
    node = copy.deepcopy(source.node, copies)
    made = {id(copies[id(test)]): number for test, number in numbers.items()}
    node.decorator_list = []
    node.returns = None
    arguments = node.args
    for argument in (*arguments.posonlyargs, *arguments.args):
        argument.annotation = None  # which may name what is not there when the function is made again
    arguments.defaults = [ast.Constant(None) for _ in arguments.defaults]  # all arguments are given
    _Noting(made).visit(node)
    module = ast.fix_missing_locations(ast.Module([node], []))
    space = {**function_globals(fn), _NOTE: note}
    exec(compile(module, source.file, "exec"), space)
    found: types.FunctionType = space[fn.__code__.co_name]
    return found


class _Noting(ast.NodeTransformer):
    def __init__(self, numbers: dict[int, int]) -> None:
        self.numbers = numbers

    def visit(self, node: ast.AST) -> ast.AST:
        number = self.numbers.get(id(node))
        new: ast.expr = super().visit(node)
        if number is None:
            return new
        return ast.copy_location(ast.Call(ast.Name(_NOTE, ast.Load()), [ast.Constant(number), new], []), new)
