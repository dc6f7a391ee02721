"""Prints the graphs of one top-level loop under a schedule: the body of a Triton kernel, or of a function it calls.

A node becomes one assignment named after the user's variable.  Index ranges, masks and the like are defined at
the head of the block they belong to, when something first uses them.  Memory accesses are in `memory`, the
mapping of programs to tiles in `program_ids`, loops and branches in `loops`, the spelling of ops in `ops`, `reductions`
and `device_ops`.
"""

from __future__ import annotations

import abc
import contextlib
import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import sympy
import torch
import torch.fx

from ... import exc
from ...ir import device_ir
from ...ir.axes import axes_of
from ...ir.device_ir import Axis
from ...ir.device_ir import AxisKind
from ...ir.device_ir import GraphInfo
from ...ir.device_ir import KernelIR
from ...ir.masking import padding_is
from ...ir.symbols import OriginKind
from ...ir.symbols import expr_of
from ...ir.symbols import is_symbolic
from ...numbers import next_power_of_2
from ...settings import Settings
from ..expressions import literal
from ..expressions import print_number
from ..expressions import wrap
from .dtypes import triton_dtype
from .module import Module
from .scalars import ScalarPrinter
from .scalars import is_float
from .schedule import Schedule
from .scope import Names
from .scope import Scope


class KernelEmitter(abc.ABC):
    """Emits one top-level loop.

    Args:
        ir: the specialization.
        root: the top-level loop's graph.
        schedule: the resolved Config.
        settings: the kernel's settings.
        minimum_extents: sizes of whole dimensions that must be padded further (operands of tl.dot).
        module: what this loop and others of its module have in common.
    """

    def __init__(
        self,
        ir: KernelIR,
        root: GraphInfo,
        schedule: Schedule,
        settings: Settings,
        minimum_extents: dict[Any, int],
        module: Module,
    ) -> None:
        self.ir = ir
        self.root = root
        self.schedule = schedule
        self.settings = settings
        self.names = Names()
        self.kernel_scope = Scope()
        self.scope = self.kernel_scope
        self.scalar_args: dict[sympy.Expr, str] = {}
        self._has_doubles = has_doubles(ir.device)
        self.in_double = False  # the node being printed computes in float64
        self.constexprs: dict[str, int] = {}
        self.module = module
        self.minimum_extents = minimum_extents
        self.wide_index = ir.env.index_dtype is torch.int64
        self.flat_root = schedule.flatten.get(root.id, False)
        self.texts: dict[torch.fx.Node, str] = {}
        self._axis_scope: dict[int, Scope] = {}
        self._axis_names: dict[int, dict[str, str]] = {}
        self.last_location: Any = None
        self.results: dict[torch.fx.Node, list[str]] = {}
        self.bound_nodes: dict[int, Any] = {}  # id of a bound's FakeTensor -> its node
        self.settle: set[torch.fx.Node] = set()  # reductions whose results `hlt_settled` must pass on
        self.updates: dict[torch.fx.Node, str] = {}  # node -> the loop variable it gives the next value of
        self._part: tuple[Axis, int, int] | None = None  # the axis whose tile is done in parts, which one, of how many
        self.persistent_header = ""
        axes = ir.device.axes
        self._printer = ScalarPrinter(
            self._name_of, module.helper, ir.device.origins.get, lambda axis: axes[axis].begin
        )
        self.tensor_args = self._host_tensors()
        for name in (*ir.device.host_tensors, *module.scalars.values(), *module.blocks.values()):
            self.names.unique(name)

    def _host_tensors(self) -> list[str]:
        used: set[str] = set()

        def visit(info: GraphInfo) -> None:
            for node in info.graph.nodes:
                if node.target is device_ir.host_tensor:
                    used.add(node.args[0])
                for sub in self.ir.device.subgraphs_of(node):
                    visit(sub)

        visit(self.root)
        return [name for name in self.ir.device.host_tensors if name in used]

    # -- numbers ---------------------------------------------------------------------------------------------------

    def number(self, value: Any) -> str:
        """A plain or symbolic number as device text."""
        if isinstance(value, torch.fx.Node):
            return self.text(value)
        return print_number(value, self._printer)

    def is_nonnegative(self, value: Any) -> bool:
        """Whether a symbolic number is known not to be negative."""
        return self._printer.is_nonnegative(expr_of(value))

    def _name_of(self, expr: sympy.Expr) -> str:
        if expr.is_Symbol:
            name = self._symbol(expr)
        else:  # computed on the host
            if expr not in self.module.scalars:
                text = self.ir.device.readable(str(expr))
                self.module.scalars[expr] = self.names.unique(re.sub(r"\W+", "_", text).strip("_")[:40])
            name = self.scalar_args.setdefault(expr, self.module.scalars[expr])
        # A float is passed as float32 unless some device code computes in float64.
        narrow = self._has_doubles and not self.in_double and expr in self.scalar_args and is_float(expr)
        return f"{name}.to(tl.float32)" if narrow else name

    def _symbol(self, symbol: sympy.Symbol) -> str:
        origin = self.ir.device.origins.get(symbol)
        if origin is None:
            raise exc.InternalError(reason=f"symbol {symbol} has no origin")
        if origin.kind is OriginKind.HOST:
            if symbol not in self.module.scalars:
                self.module.scalars[symbol] = self.names.unique(origin.name)
            return self.scalar_args.setdefault(symbol, self.module.scalars[symbol])
        if origin.kind is OriginKind.BLOCK_SIZE:
            return self.block_name(self.ir.device.blocks[origin.index])
        if origin.kind is OriginKind.TUNABLE:
            return str(self.schedule.constants[symbol])
        axis = self.ir.device.axes[origin.index]
        if origin.kind is OriginKind.TILE_BEGIN:
            return self.offset(axis)
        if origin.kind is OriginKind.TILE_END:
            return self.clipped_end(axis)
        return self.tile_id(axis)

    # -- extents and axes ----------------------------------------------------------------------------------------------

    def block_name(self, block: device_ir.BlockSize) -> str:
        """The constexpr parameter with a block's size (sizes of 1 and fixed sizes too: one place for the number)."""
        suffix = block.name.removeprefix("tile_").upper()
        name = f"BLOCK_{block.id if suffix in ('TILE', '') else suffix}"
        if block.id not in self.module.blocks:
            self.module.blocks[block.id] = self.names.unique(name)
        key = self.module.blocks[block.id]
        self.constexprs[key] = self.schedule.constants[block.symbol]
        return key

    def extent(self, size: Any) -> str:
        """Text of a dimension's extent on the device: a constant power of two."""
        if isinstance(size, _Flat):
            return " * ".join(size.extents)
        if isinstance(size, int):
            return str(self.padded(size))
        block = self.ir.env.block_of(size)
        if block is not None:
            if self._part is not None and block is self._part[0].block:
                return f"{self.block_name(block)} // {self._part[2]}"
            return self.block_name(block)
        resolved = self.schedule.size(size)
        if isinstance(resolved, int):
            return str(self.padded(resolved))
        return str(self.padded(self._hinted(size)))

    def padded(self, n: int) -> int:
        """The power of two a dimension of constant size is padded to."""
        return max(next_power_of_2(n), self.minimum_extents.get(n, 1))

    def _hinted(self, size: Any) -> int:
        """A dynamic size stands for its bucket (a guard holds it): the power of two that this call's size pads to."""
        return next_power_of_2(size.node.hint)

    def shape(self, sizes: Sequence[Any]) -> str:
        """A shape as device text."""
        return f"[{', '.join(self.extent(s) for s in self.device_shape(sizes))}]"

    def device_shape(self, sizes: Sequence[Any]) -> Sequence[Any]:
        """The dimensions a value has in generated code: those of the IR, or one where the loop is flattened."""
        if self.flat_root and len(sizes) == len(self.root.axes):
            return [_Flat([self.extent(s) for s in sizes])]
        return sizes

    def axis_name(self, axis: Axis, prefix: str) -> str:
        """`offset_m`, `index_m`, `mask_m`, ... for an axis named tile_m."""
        table = self._axis_names.setdefault(axis.id, {})
        if prefix not in table:
            suffix = axis.name.removeprefix("tile_")
            if prefix == "offset_" and axis.kind is AxisKind.GRID:
                table[prefix] = self.names.unique(axis.name)
            else:
                table[prefix] = self.names.unique(f"{prefix}{axis.id if suffix == 'tile' else suffix}")
        return table[prefix]

    def open_axis(self, axis: Axis, scope: Scope) -> None:
        """From here on `offset_*` of the axis is a variable of `scope`."""
        self._axis_scope[axis.id] = scope

    @contextlib.contextmanager
    def part_of(self, axis: Axis, part: int, parts: int) -> Iterator[None]:
        """In a `with` block, indices, masks and extents of an axis are those of one of `parts` parts of its tile."""
        self._part = (axis, part, parts)
        try:
            yield
        finally:
            self._part = None

    def offset(self, axis: Axis) -> str:
        """First index of the current tile of an axis."""
        return self.axis_name(axis, "offset_")

    def start(self, axis: Axis) -> str:
        """First index of the current tile, or of the part of it that is being done."""
        if self._part is None or axis is not self._part[0] or self._part[1] == 0:
            return self.offset(axis)
        _, part, parts = self._part
        return f"{self.offset(axis)} + {part} * {self.block_name(axis.block)} // {parts}"

    def _part_name(self, axis: Axis, prefix: str) -> str:
        if self._part is None or axis is not self._part[0]:
            return self.axis_name(axis, prefix)
        return self.axis_name(axis, f"part{self._part[1]}_{prefix}")

    def index(self, axis: Axis) -> str:
        """Indices of the current tile: a 1-d tensor."""
        if self.flat_root and axis in self.root.axes:
            return self.axis_name(axis, "index_")
        scope = self._axis_scope[axis.id]
        lanes = f"tl.arange(0, {self.extent(axis.block.var)})"
        if self.wide_index:
            lanes += ".to(tl.int64)"
        if axis.kind is AxisKind.GRID:
            return self.offset(axis)
        return scope.define(self._part_name(axis, "index_"), f"{self.start(axis)} + {lanes}")

    def mask(self, axis: Axis | None) -> str | None:
        """Which indices of the current tile are inside the range; None when all are."""
        if axis is None or not self.schedule.needs_mask(axis):
            return None
        if self.flat_root and axis in self.root.axes:
            return "flat_mask" if axis is self.root.axes[0] else None
        index = self.index(axis)
        return self._axis_scope[axis.id].define(
            self._part_name(axis, "mask_"), f"{index} < {wrap(self.number(self._bound(axis.end)))}"
        )

    def _bound(self, bound: Any) -> Any:
        return bound if not isinstance(bound, torch.Tensor) else self.bound_nodes[id(bound)]

    def clipped_end(self, axis: Axis) -> str:
        scope = self._axis_scope[axis.id]
        end = self.number(self._bound(axis.end))
        return scope.define(
            self.axis_name(axis, "end_"), f"tl.minimum({self.offset(axis)} + {self.block_name(axis.block)}, {end})"
        )

    def tile_id(self, axis: Axis) -> str:
        scope = self._axis_scope[axis.id]
        begin = self.number(self._bound(axis.begin))
        from_begin = self.offset(axis) if begin == "0" else f"({self.offset(axis)} - {wrap(begin)})"
        return scope.define(self.axis_name(axis, "id_"), f"{from_begin} // {self.block_name(axis.block)}")

    def whole_range(self, size: Any) -> str:
        """Indices of a whole dimension: `tl.arange(0, extent)`, defined once at the top of the kernel."""
        extent = self.extent(size)
        name = f"range_{extent}"
        lanes = f"tl.arange(0, {extent})" + (".to(tl.int64)" if self.wide_index else "")
        return self.kernel_scope.define(name, lanes)

    def whole_mask(self, size: Any) -> str | None:
        """Which indices of a whole dimension exist; None when its size is the extent."""
        resolved = self.schedule.size(size)
        if isinstance(resolved, int) and resolved == self.padded(resolved):
            return None
        text = self.number(size)
        lanes = self.whole_range(size)
        return self.kernel_scope.define(
            f"mask_{''.join(c if c.isalnum() else '_' for c in text)}", f"{lanes} < {wrap(text)}"
        )

    def dim_mask(self, node: torch.fx.Node, dim: int) -> str | None:
        """Mask (1-d) of a value's dimension, None when it has no padding."""
        size = node.meta["val"].shape[dim]
        if isinstance(size, int):
            return None if size == 1 else self.whole_mask(size)
        if self.ir.env.block_of(size) is not None:
            return self.mask(axes_of(node)[dim])
        if self.ir.env.is_host_value(size):
            return self.whole_mask(size)
        return None

    def along(self, text: str, dim: int, rank: int) -> str:
        """A 1-d value placed at dimension `dim` of `rank`."""
        if rank <= 1:
            return text
        places = ", ".join(":" if i == dim else "None" for i in range(rank))
        return f"{text}[{places}]"

    # -- nodes
    # ------------------------------------------------------------------------------------------------------------

    def text(self, value: Any) -> str:
        """An operand as device text: a variable or a literal."""
        if isinstance(value, torch.fx.Node):
            return self.texts[value]
        if isinstance(value, (bool, int, float)):
            return literal(value) if not isinstance(value, bool) else repr(value)
        if is_symbolic(value):
            return wrap(self.number(value))
        raise exc.InternalError(reason=f"{type(value).__name__} {value!r} is not an operand")

    def assign(self, node: torch.fx.Node, text: str) -> str:
        """Compute `text` into a variable named after the node."""
        name = self.updates.get(node) or self.names.unique(pretty_name(node))
        self.comment(node)
        self.scope.add(f"{name} = {text}")
        if self.settings.debug_dtype_asserts and isinstance(node.meta.get("val"), torch.Tensor):
            self.scope.add(f"tl.static_assert({name}.dtype == {triton_dtype(node.meta['val'].dtype)})")
        self.texts[node] = name
        return name

    def statement(self, node: torch.fx.Node, text: str) -> None:
        """A statement without a value."""
        self.comment(node)
        self.scope.add(text)

    def comment(self, node: torch.fx.Node) -> None:
        """Say once which line of the user's the following statements are from."""
        location = node.meta.get("location")
        if not self.settings.output_origin_lines or location is None:
            return
        key = (location.file, location.line)
        if key != self.last_location:
            self.last_location = key
            self.scope.add(f"# {location.short()}: {location.text.strip()}")

    def set_text(self, node: torch.fx.Node, text: str) -> None:
        """From here on a node is called `text`."""
        self.texts[node] = text

    @abc.abstractmethod
    def graph(self, info: GraphInfo) -> None:
        """All nodes of a graph into the current scope."""

    @abc.abstractmethod
    def node(self, node: torch.fx.Node) -> None:
        """One node into the current scope."""

    # -- padding ------------------------------------------------------------------------------------------------------

    def masked(self, node: torch.fx.Node, dim: int, neutral: Any) -> str:
        """The value with its padding along `dim` set to `neutral`, unless it holds that already."""
        mask = self.dim_mask(node, dim)
        text = self.text(node)
        value = node.meta["val"]
        if padding_is(node, dim, neutral):
            return text
        if mask is None:
            self._check_derived(node, value.shape[dim])
            return text
        return (
            f"tl.where({self.along(mask, dim, value.dim())}, {text}, "
            f"{literal(neutral) if not isinstance(neutral, bool) else neutral})"
        )

    def _check_derived(self, node: torch.fx.Node, size: Any) -> None:
        """A dimension made from a tile's (`tile // 2`, a merge of two) has no mask of its own.

        Raises:
            exc.BackendUnsupported: the tile may be partial, so the result would count padding.
        """
        if not isinstance(size, torch.SymInt) or self.ir.env.block_of(size) is not None:
            return
        symbols = size.node.expr.free_symbols
        for axis in self.ir.device.axes:
            if axis.block.symbol in symbols and axis.id in self._axis_scope and self.schedule.needs_mask(axis):
                raise exc.BackendUnsupported(
                    backend="triton",
                    reason=f"a reduction over a reshaped dimension of tile {axis.name!r}, which may be partial",
                    fix="reduce before reshaping, or use a block size that divides the range.",
                )


class _Flat:
    """The one dimension of a flattened loop: as wide as the product of its tiles."""

    def __init__(self, extents: list[str]) -> None:
        self.extents = extents


#: A function that prints the nodes of one target.
Rule = Callable[[KernelEmitter, torch.fx.Node], None]
Rules = dict[Any, Rule]

# What fx adds to a node's name for the op's overload.
_OVERLOAD_NOISE = (
    "_default",
    "_tensor_scalar",
    "_tensor_tensor",
    "_tensor",
    "_scalar",
    "_dim_int_list",
    "_dim_int",
    "_correction",
    "_self",
    "_dims",
)


def has_doubles(ir: device_ir.DeviceIR) -> bool:
    """Whether device code computes in float64, so that floats are passed as such."""
    return any(is_double(node) for _, node in ir.nodes())


def is_double(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype is torch.float64


def pretty_name(node: torch.fx.Node) -> str:
    """A variable name for a node: the user's, or the op's without overload noise."""
    name = node.name
    if node.meta.get("user_name"):
        return name
    base = name.rstrip("0123456789").rstrip("_") if name[-1].isdigit() else name
    for noise in _OVERLOAD_NOISE:
        base = base.replace(noise, "")
    return {"convert_element_type": "cast", "getitem": "value"}.get(base, base)
