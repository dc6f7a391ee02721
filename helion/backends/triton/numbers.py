"""Numbers of a kernel as text: block sizes, scalars that the host passes, places of tiles, what is computed of them.

How symbolic expressions are printed is in `scalars`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import sympy
import torch

from ... import exc
from ...ir.device_ir import BlockSize
from ...ir.device_ir import DeviceIR
from ...ir.names import PART
from ...ir.names import Names
from ...ir.symbols import Origin
from ...ir.symbols import OriginKind
from ...ir.symbols import expr_of
from ...ir.symbols import is_symbolic
from ..expressions import print_number
from ..text import Text
from ..text import as_text
from ..text import parsed
from .module import Module
from .scalars import ScalarPrinter
from .scalars import is_float
from .schedule import Schedule


class Numbers:
    """Numbers that one function uses; what it must be given is noted.

    Args:
        device: the IR.
        schedule: gives block sizes and tunables their values.
        names: the function's.
        module: where the function is in.
        place: text of a symbol that is about a tile's place.

    Attributes:
        scalars: host values that the function uses, and what they are called.
        constexprs: block sizes that it uses.
        in_double: what is printed now computes in float64.
    """

    def __init__(
        self, device: DeviceIR, schedule: Schedule, names: Names, module: Module, place: Callable[[Origin], Text]
    ) -> None:
        self.scalars: dict[sympy.Expr, str] = {}
        self.constexprs: dict[str, int] = {}
        self.in_double = False
        self._device, self._schedule, self._names, self._module = device, schedule, names, module
        self._place = place
        self._printer = ScalarPrinter(
            self._name_of,
            module.helper,
            device.space.origins.get,
            device.space.axes.__getitem__,
            schedule.constants.get,
            lambda: self.in_double,
            wide=device.space.index_dtype is torch.int64,
        )

    def __call__(self, value: Any) -> Text:
        """A plain or symbolic number."""
        if not is_symbolic(value) and not isinstance(value, sympy.Basic):
            return as_text(value)
        with self._printer.as_wide_as_needed(value):
            return parsed(print_number(value, self._printer))

    def is_wide(self, value: Any) -> bool:
        """Whether a symbolic number of a tile's place is computed in int64."""
        return self._printer.is_wide(expr_of(value))

    def is_nonnegative(self, value: Any) -> bool:
        """Whether a symbolic number is known not to be negative."""
        return self._printer.is_nonnegative(expr_of(value))

    def block(self, block: BlockSize) -> Text:
        """The constexpr parameter with a block's size (sizes of 1 and fixed sizes too: one place for the number)."""
        suffix = block.name.removeprefix("tile_").upper()
        known = self._module.blocks
        if block.id not in known:
            name = self._names.unique(f"BLOCK_{block.id if suffix in ('TILE', '') else suffix}")
            while name in self._module.host_names:  # the size is a constant that the host function reads
                name = self._names.unique(f"{name}_SIZE")
            known[block.id] = name
        self.constexprs[known[block.id]] = self._schedule.constants[block.symbol]
        return Text(known[block.id])

    def _name_of(self, expr: sympy.Expr) -> str:
        origin = self._device.space.origins.get(expr) if expr.is_Symbol else None
        if expr.is_Symbol and origin is None:
            raise exc.InternalError(reason=f"symbol {expr} has no origin")
        if origin is None or origin.kind is OriginKind.HOST:
            return self._scalar(expr, origin)
        if origin.kind is OriginKind.BLOCK_SIZE:
            return str(self.block(self._device.space.blocks[origin.index]))
        if origin.kind is OriginKind.TUNABLE:
            return str(self._schedule.constants[expr])
        return str(self._place(origin))

    def _scalar(self, expr: sympy.Expr, origin: Origin | None) -> str:
        """A number that the host passes: a value of its own, or one computed from such."""
        known = self._module.scalars
        if expr not in known:
            wanted = (
                re.sub(r"\W+", "_", self._device.space.readable(str(expr))).strip("_")[:40]
                if origin is None
                else origin.name
            )
            known[expr] = self._names.unique(f"{wanted}_given" if wanted == PART else wanted)
        name = self.scalars.setdefault(expr, known[expr])
        # A float is passed as float32 unless some device code computes in float64.
        narrow = not self.in_double and is_float(expr) and has_doubles(self._device)
        return f"{name}.to(tl.float32)" if narrow else name


def has_doubles(ir: DeviceIR) -> bool:
    """Whether device code computes in float64, so that floats are passed as such."""
    return torch.float64 in ir.dtypes


def is_double(node: torch.fx.Node) -> bool:
    """Whether a node computes a value in float64."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype is torch.float64
