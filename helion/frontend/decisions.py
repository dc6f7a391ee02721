"""Which questions may be asked about a symbolic number while tracing: none that only the Config can answer.

Not here: which numbers follow from the Config (`environment`).
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.overrides import TorchFunctionMode

#: Functions of torch whose results have other dimensions where a size is 1.
_GO_BY_ONE = frozenset([torch.squeeze, torch.Tensor.squeeze, torch.Tensor.squeeze_])


class ConfigDecision(Exception):
    """Host code has asked for a number, or the truth of a condition, that follows from the Config, or from a number
    that is read at each call.  Its argument is the symbols.
    """


class RefusingShapeEnv(ShapeEnv):
    """A ShapeEnv that can be told to answer no questions about some numbers.

    Attributes:
        refuses: it has been told.
        asked_for_layout: a function of torch runs in host code, which the host function calls with the numbers of each
            call: what it asks about 0 and 1 is for strides that follow by themselves.
        decided: symbols of the numbers that anybody else has asked about.
    """

    def __init__(self, is_refused: Callable[[sympy.Symbol], bool], **options: Any) -> None:
        super().__init__(**options)
        self.is_refused = is_refused
        self.refuses = False
        self.asked_for_layout = False
        self.decided: set[sympy.Symbol] = set()

    def evaluate_sym_node(self, sym_node: Any, *args: Any, **options: Any) -> Any:
        expr = sym_node.expr
        if any(map(self.is_refused, expr.free_symbols)):
            if not self.asked_for_layout and not _is_about_many(expr):
                self.decided |= expr.free_symbols
            if self.refuses or (expr.is_Symbol and self.asked_for_layout):
                raise ConfigDecision(expr.free_symbols)
            # `cdiv(n, block)` is 1 for the number that stands for the block, and was 1 in what was made of it: a sum
            # over it counted padding.
            if isinstance(expr, (sympy.Eq, sympy.Ne)) and expr.rhs in (0, 1):
                if not expr.lhs.is_Symbol:
                    return isinstance(expr, sympy.Ne)
                # PyTorch asks so where either answer will do; a guard would refuse the calls whose mask has one True.
                if options.get("fallback_value") is not None:
                    return options["fallback_value"]
        return super().evaluate_sym_node(sym_node, *args, **options)

    def _get_user_frame(self) -> types.FrameType:
        """The line of a symbol, which nothing here shows: what PyTorch passes over to find the user's own it learns by
        importing torch.export and AOTAutograd, a third of the first call's seconds."""
        return sys._getframe()


def _is_about_many(expr: sympy.Basic) -> bool:
    """Whether it compares with a constant that is no size of an unusual layout: whether 32 bits hold an index, say."""
    return isinstance(expr, sympy.core.relational.Relational) and any(
        side.is_Integer and abs(side) > 2 for side in expr.args
    )


class Deciding(TorchFunctionMode):
    """Lets functions of torch ask all the same.

    Args:
        env: is asked.
        instead: what a call gives that is made in another way, or None.
    """

    def __init__(self, env: RefusingShapeEnv, instead: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]) -> None:
        super().__init__()
        self.env = env
        self.instead = instead

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # As `Environment.deciding`, without a context manager: a trace makes thousands of calls.
        outer = (self.env.refuses, self.env.asked_for_layout)
        self.env.refuses, self.env.asked_for_layout = False, func not in _GO_BY_ONE
        try:
            made = self.instead(func, args, kwargs or {})
            return func(*args, **(kwargs or {})) if made is None else made
        finally:
            self.env.refuses, self.env.asked_for_layout = outer


# -- choices among numbers, made for every Config


def pick(test: int, chosen: int, other: int) -> int:
    return chosen if test else other


def pick_and(a: int, b: int) -> int:
    return a and b


def pick_or(a: int, b: int) -> int:
    return a or b
