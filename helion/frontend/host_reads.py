"""Numbers that host code reads from tensors: what a trace has for them, and for what is computed from them.

The host function reads them at each call, and one traced kernel holds for all their values; what that takes for granted
is checked at each call (`read_guards`).

Not here: which expressions of the user's read (`calls`), and conditions on what is read (`host_decisions`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import sympy
import torch

from .. import exc
from ..ir.space import Space
from ..ir.symbols import Origin
from ..ir.symbols import OriginKind
from ..ir.symbols import expr_of
from ..ir.symbols import shape_exprs
from ..ir.symbols import symbols_of
from .decisions import RefusingShapeEnv

#: Functions of math that give ints.
_GIVE_INTS = (
    math.ceil, math.comb, math.factorial, math.floor, math.gcd, math.isqrt, math.lcm, math.perm, math.trunc
)  # fmt: skip

_READ = "a number that host code reads from a tensor at each call"
_LOOP = (
    "loop over it: `for c in hl.tile(begin, end)` with `x[t, c]` in place of `x[t, begin:end]` or `x[t, :]`; or cut it "
    "in host code to a length that is no such number, `y = torch.bincount(x, minlength=k)[:k]`."
)


class HostReads:
    """The part of an `Environment` that knows what is read from tensors."""

    shape_env: RefusingShapeEnv
    space: Space
    _samples: dict[sympy.Symbol, float]
    _read: set[sympy.Symbol]

    def unique_name(self, wanted: str) -> str:
        """A Python identifier close to `wanted`, not given out before."""
        raise NotImplementedError  # in environment

    def size_of(self, expr: sympy.Expr) -> torch.SymInt:
        """The integer that an expression of sizes gives, as a size."""
        raise NotImplementedError

    def _stand_in(self) -> int:
        raise NotImplementedError

    def _sample(self, expr: sympy.Expr) -> float:
        raise NotImplementedError

    def _computed(
        self, args: tuple[sympy.Expr, ...], text: str, name: str, fn: Callable[..., Any] | None, sample: int
    ) -> torch.SymInt:
        raise NotImplementedError

    def _size_symbol(self, hint: int, name: str, positive: bool | None = True) -> torch.SymInt:
        raise NotImplementedError

    def read_number(self, kind: type, name: str, text: str = "") -> torch.SymInt | torch.SymFloat:
        """A number that the host function reads from a tensor at each call, and calls `name`, or `text`.

        The trace holds for all its values: what it took for granted about the number is checked at each call
        (`read_guards`), and host code cannot decide on it.
        """
        origin = Origin(OriginKind.HOST, name, text or name, dtype=kind, configured=True)
        if kind is float:
            number = self.shape_env.create_unbacked_symfloat()
            self.space.define(number.node.expr, origin)
            self._read.add(number.node.expr)
            return number
        size = self._size_symbol(self._stand_in(), name, positive=None)
        self.space.define(size.node.expr, origin)
        self._samples[size.node.expr] = int(size.node.hint)
        self._read.add(size.node.expr)
        return size

    def number_of_call(self, fn: Callable[..., int], args: tuple[sympy.Expr, ...]) -> torch.SymInt:
        """What a function gives for numbers of which some is read from a tensor, computed at each call; one number for
        the same."""
        sample = fn(*map(self._sample, args))
        name = fn.__name__.strip("_")
        number = self._computed(args, f"{name}({', '.join('{}' for _ in args)})", name, fn, sample)
        self._read.add(number.node.expr)
        return number

    def in_memory_of(self, tensor: torch.Tensor, sizes: list[Any], strides: list[Any], offset: Any) -> torch.Tensor:
        """A view of a host tensor's memory, of which only a call can tell whether it lies inside."""
        with self.shape_env.suppress_guards():
            view = torch.empty([], dtype=tensor.dtype, device=tensor.device)
            return view.set_(tensor.untyped_storage(), offset, sizes, strides)

    def is_of_unknown_size(self, value: Any) -> bool:
        """Whether it is a tensor with a size that follows from what another one holds."""
        return isinstance(value, torch.Tensor) and any(map(self.is_read_from_tensor, value.shape))

    def measured(self, tensors: list[torch.Tensor], texts: list[str]) -> list[torch.Tensor] | None:
        """Tensors like some of unknown size, contiguous, with numbers that the host function reads for their sizes.

        Args:
            tensors: what one call gives.
            texts: the host expression of each.

        Returns:
            None if some size is not itself a number, but computed from such.
        """
        known: dict[sympy.Basic, sympy.Expr] = {}
        for tensor, text in zip(tensors, texts, strict=True):
            for dim, size in enumerate(shape_exprs(tensor.shape)):
                if size.is_Symbol and size not in self.space.origins and size not in known:
                    name = self.unique_name(f"{text}_size_{dim}")
                    known[size] = expr_of(self.read_number(int, name, f"{text}.size({dim})"))
        shapes = [[size.xreplace(known) for size in shape_exprs(tensor.shape)] for tensor in tensors]
        if any(symbol not in self.space.origins for shape in shapes for size in shape for symbol in size.free_symbols):
            return None
        numbers = [[int(size) if size.is_Integer else self.size_of(size) for size in shape] for shape in shapes]
        return [tensor.new_empty(shape) for tensor, shape in zip(tensors, numbers, strict=True)]

    def is_read(self, symbols: Any) -> bool:
        """Whether one of some symbols is a number that the host function reads from a tensor."""
        return not self._read.isdisjoint(self.space.made_of(symbols))

    def check_constant(self, sizes: Iterable[Any]) -> None:
        """Check dimensions of device values, which generated code has as vectors of a constant length.

        Raises:
            exc.SizeNotConstant: one is as long as a number that the host function reads from a tensor.
        """
        if self._read and any(self.is_read(symbols_of(size)) for size in sizes):
            raise exc.SizeNotConstant(what="the length of `:`, a slice or a new value", value=_READ, fix=_LOOP)

    def is_of_config(self, symbols: Any) -> bool:
        """Whether one of some symbols is a block size or a tunable, or computed from one."""
        kinds = (
            self.space.origins[symbol].kind for symbol in self.space.made_of(symbols) if symbol in self.space.origins
        )
        return any(kind in (OriginKind.BLOCK_SIZE, OriginKind.TUNABLE) for kind in kinds)

    def read_guards(self) -> list[sympy.Basic]:
        """What this trace took for granted about numbers that the host function reads from tensors."""
        guards = [guard.expr for guard in self.shape_env.guards if guard.expr.free_symbols & self._read]
        return [guard for guard in dict.fromkeys(guards) if not _is_of_layout(guard, self.shape_env.decided)]

    def call_at_each_call(
        self, fn: Callable[..., Any], args: Sequence[Any], text: str, name: str
    ) -> torch.SymFloat | None:
        """`host_call` where some number is read from a tensor; None if it may give an int, or needs the Config."""
        symbols = {symbol for arg in args for symbol in symbols_of(arg)}
        if not self.is_read(symbols) or self.is_of_config(symbols) or fn in _GIVE_INTS:
            return None
        if fn is operator.pow and not any(isinstance(arg, (float, torch.SymFloat)) for arg in args):
            return None  # 2**-1 is a float, and 2**3 is not
        number = self.shape_env.create_unbacked_symfloat()
        exprs = tuple(map(expr_of, args))
        origin = Origin(OriginKind.HOST, self.unique_name(name), text, dtype=float, args=exprs, configured=True)
        self.space.define(number.node.expr, origin)
        self._read.add(number.node.expr)
        return number

    def is_read_from_tensor(self, value: Any) -> bool:
        """Whether a number is made of what host code has read out of a tensor: a trace does not know it."""
        return any(s not in self.space.origins for s in symbols_of(value))


def _is_of_layout(guard: sympy.Basic, decided: set[sympy.Symbol]) -> bool:
    """Whether a guard says how many elements a tensor has at least, or that a size is not 0 or 1.

    PyTorch asks so where the strides of fewer are those of any layout, which the kernel does not depend on: what is
    made is contiguous. Calls that choose no rows were refused.

    Args:
        guard: the condition.
        decided: numbers on which more than a layout depends.
    """
    if not isinstance(guard, sympy.core.relational.Relational):
        return False
    left, right = guard.args
    count, bound = (right, left) if left.is_Integer else (left, right)
    if not (bound.is_Integer and bound <= 2) or isinstance(guard, sympy.Eq):
        return False
    if count.is_Mul and not count.could_extract_minus_sign():
        return True
    return not count.could_extract_minus_sign() and count.free_symbols.isdisjoint(decided)
