"""Specializations that are one BoundKernel to their user: under dynamic shapes sizes and strides do not split a kernel.

What runs is compiled for what its arguments are: sizes of 0 and 1, contiguous strides, decisions of the kernel function
on sizes each have a variant of their own, behind guards. `Kernel.bind` gives the first of a family whatever the sizes,
and a Config that is set or tuned is that of all.

Not here: which variant a call runs (`kernel`), what is in a key (`runtime.launch.specialization`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch

from . import exc

if TYPE_CHECKING:
    from .bound_kernel import BoundKernel
    from .config import Config
    from .ir.device_ir import KernelIR
    from .kernel import Kernel


class Family:
    """The variants of one kernel for arguments of the same types, and the same specialized sizes.

    Args:
        first: the first variant.
        values: what the sizes that it specializes were.

    Attributes:
        members: the variants, the first one first.
        texts: the specialized sizes, as expressions of the parameters.
        config: the Config that was set or found for all; None before.
    """

    def __init__(self, first: BoundKernel, values: tuple[Any, ...]) -> None:
        self.members = [first]
        self.texts = first.specialized
        self.values = values
        self.config: Config | None = None

    def use(self, config: Config, chosen_for: BoundKernel) -> None:
        """Let the other members use a Config too, those that can; later ones will."""
        self.config = config
        for member in self.members:
            if member is not chosen_for:
                try:
                    member.use_config(config)
                except exc.InvalidConfig:
                    continue  # it has what this variant has not, a loop over a size that is 1 here


class Families:
    """All families of one kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._by_key: dict[Hashable, list[Family]] = {}

    def join(self, bound: BoundKernel, args: tuple[Any, ...]) -> None:
        """Put a new variant into its family."""
        values = self._values(bound.specialized, args)
        families = self._by_key.setdefault(self._kernel.specializer.family_key(args), [])
        for family in families:
            if family.texts == bound.specialized and family.values == values:
                family.members.append(bound)
                bound.family = family
                return
        bound.family = Family(bound, values)
        families.append(bound.family)

    def key(self, args: tuple[Any, ...]) -> Hashable:
        """What tells families apart; the sizes that are specialized are known once a kernel is bound."""
        base = self._kernel.specializer.family_key(args)
        texts = tuple(dict.fromkeys(text for family in self._by_key.get(base, ()) for text in family.texts))
        return (base, tuple(zip(texts, self._values(texts, args)))) if texts else base

    def clear(self) -> None:
        self._by_key = {}

    def _values(self, texts: tuple[str, ...], args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not texts:
            return ()
        parameters = ", ".join(self._kernel.specializer.signature.parameters)
        values: tuple[Any, ...] = eval(f"lambda {parameters}: ({', '.join(texts)},)")(*args)
        return values


def specialized_texts(ir: KernelIR) -> tuple[str, ...]:
    """The sizes that ``hl.specialize`` made constant, as expressions of the parameters."""
    if not ir.specialized:
        return ()
    return tuple(sorted(map(host_printer(ir).doprint, ir.specialized)))


def host_printer(ir: KernelIR) -> Any:
    """Prints numbers that the host knows as expressions of the parameters."""
    from .backends.expressions import ExpressionPrinter  # loads sympy

    printer = ExpressionPrinter(lambda symbol: ir.device.space.origins[symbol].host_text(printer.doprint))
    return printer


def guard_function(
    ir: KernelIR, guards: Sequence[Any], names: list[str]
) -> tuple[Callable[..., bool] | None, tuple[str, ...]]:
    """Guards as a function of the arguments, None when there are none; and each as text."""
    if not guards:
        return None, ()
    texts = tuple(map(host_printer(ir).doprint, guards))
    namespace: dict[str, Any] = {"math": math, "torch": torch}
    return eval(f"lambda {', '.join(names)}: {' and '.join(f'({text})' for text in texts)}", namespace), texts
