"""Prints one Triton kernel: the graphs of one top-level loop under a schedule.

A node becomes one assignment named after the user's variable.  Index ranges, masks and the like are defined at
the head of the block they belong to, when something first uses them.  Memory accesses are in `memory`, the
mapping of programs to tiles in `program_ids`, the spelling of ops in `ops` and `device_ops`.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from ...ir.pointwise import BITCAST
from ...ir.pointwise import CONVERT
from ...ir.pointwise import POINTWISE
from ...ir.reduction_ops import REDUCTIONS
from ...ir.reduction_ops import reduced_dim
from ...ir.symbols import OriginKind
from ...ir.symbols import is_symbolic
from ...language.op import Op
from ...settings import Settings
from ..expressions import ExpressionPrinter
from ..expressions import literal
from ..expressions import print_number
from ..expressions import wrap
from .ops import pointwise_text
from .ops import triton_dtype
from .schedule import Schedule
from .scope import Names
from .scope import Scope

_aten = torch.ops.aten


def next_power_of_2(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


@dataclasses.dataclass
class SharedFunctions:
    """Functions of a module that its kernels call.

    Attributes:
        sources: lines of `@triton.jit` functions to print, by name.
        injected: `@triton.jit` functions of the user's, by name.
    """

    sources: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    injected: dict[str, Any] = dataclasses.field(default_factory=dict)


class KernelEmitter:
    """Emits the kernel of one top-level loop.

    Args:
        ir: the specialization.
        root: the top-level loop's graph.
        schedule: the resolved Config.
        settings: the kernel's settings.
        minimum_extents: sizes of whole dimensions that must be padded further (operands of tl.dot).
        shared: functions that this kernel and others of its module call.
    """

    def __init__(
        self,
        ir: KernelIR,
        root: GraphInfo,
        schedule: Schedule,
        settings: Settings,
        minimum_extents: dict[Any, int],
        shared: SharedFunctions,
    ) -> None:
        self.ir = ir
        self.root = root
        self.schedule = schedule
        self.settings = settings
        self.names = Names()
        self.kernel_scope = Scope()
        self.scope = self.kernel_scope
        self.tensor_args: list[str] = []
        self.scalar_args: dict[sympy.Symbol, str] = {}
        self.constexprs: dict[str, int] = {}
        self.shared = shared
        self.minimum_extents = minimum_extents
        self.wide_index = ir.env.index_dtype is torch.int64
        self.flat_root = schedule.flatten.get(root.id, False)
        self._text: dict[torch.fx.Node, str] = {}
        self._axis_scope: dict[int, Scope] = {}
        self._axis_names: dict[int, dict[str, str]] = {}
        self._last_location: Any = None
        self._block_names: dict[int, str] = {}
        self._results: dict[torch.fx.Node, list[str]] = {}
        self._bound_nodes: dict[int, Any] = {}  # id of a bound's FakeTensor -> its node
        self._settle: set[torch.fx.Node] = set()  # reductions whose results `hlt.settled` must pass on
        self._updates: dict[torch.fx.Node, str] = {}  # node -> the loop variable it gives the next value of
        self._part: tuple[Axis, int, int] | None = None  # the axis whose tile is done in parts, which one, of how many
        self.persistent_header = ""
        self._printer = ExpressionPrinter(self._symbol, "tl.minimum", "tl.maximum")
        for tensor in self._host_tensors():
            self.tensor_args.append(tensor)
            self.names.unique(tensor)

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

    def _symbol(self, symbol: sympy.Symbol) -> str:
        origin = self.ir.device.origins.get(symbol)
        if origin is None:
            raise exc.InternalError(reason=f"symbol {symbol} has no origin")
        if origin.kind is OriginKind.HOST:
            if symbol not in self.scalar_args:
                self.scalar_args[symbol] = self.names.unique(origin.name)
            return self.scalar_args[symbol]
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
        value = self.schedule.constants[block.symbol]
        key = self._block_names.get(block.id)
        if key is None:
            key = self._block_names[block.id] = self.names.unique(name)
            self.constexprs[key] = value
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
        return self._axis_scope[axis.id].define(self._part_name(axis, "mask_"), f"{index} < {wrap(self.number(self._bound(axis.end)))}")

    def _bound(self, bound: Any) -> Any:
        return bound if not isinstance(bound, torch.Tensor) else self._bound_nodes[id(bound)]

    def clipped_end(self, axis: Axis) -> str:
        scope = self._axis_scope[axis.id]
        end = self.number(self._bound(axis.end))
        return scope.define(self.axis_name(axis, "end_"), f"tl.minimum({self.offset(axis)} + {self.block_name(axis.block)}, {end})")

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
        return self.kernel_scope.define(f"mask_{''.join(c if c.isalnum() else '_' for c in text)}", f"{lanes} < {wrap(text)}")

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

    # -- nodes ------------------------------------------------------------------------------------------------------------

    def text(self, value: Any) -> str:
        """An operand as device text: a variable or a literal."""
        if isinstance(value, torch.fx.Node):
            return self._text[value]
        if isinstance(value, (bool, int, float)):
            return literal(value) if not isinstance(value, bool) else repr(value)
        if is_symbolic(value):
            return wrap(self.number(value))
        raise exc.InternalError(reason=f"{type(value).__name__} {value!r} is not an operand")

    def assign(self, node: torch.fx.Node, text: str) -> str:
        """Compute `text` into a variable named after the node."""
        name = self._updates.get(node) or self.names.unique(_pretty(node))
        self.comment(node)
        self.scope.add(f"{name} = {text}")
        if self.settings.debug_dtype_asserts and isinstance(node.meta.get("val"), torch.Tensor):
            self.scope.add(f"tl.static_assert({name}.dtype == {triton_dtype(node.meta['val'].dtype)})")
        self._text[node] = name
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
        if key != self._last_location:
            self._last_location = key
            self.scope.add(f"# {location.short()}: {location.text.strip()}")

    def graph(self, info: GraphInfo) -> None:
        """All nodes of a graph into the current scope."""
        from .epilogue import emit_epilogue
        from .epilogue import epilogues

        parts = self.schedule.epilogue_parts
        in_parts = {e.store: e for e in epilogues(self.ir.device, info)} if parts > 1 else {}
        later = {step for epilogue in in_parts.values() for step in epilogue.steps}
        for node in info.graph.nodes:
            if node.op != "call_function" or node.target is device_ir.host_tensor or node in later:
                continue
            if node in in_parts:
                emit_epilogue(self, in_parts[node], parts)
            else:
                self.node(node)

    def node(self, node: torch.fx.Node) -> None:
        """One node into the current scope."""
        from .device_ops import OP_EMITTERS

        try:
            if isinstance(node.target, Op):
                emit = OP_EMITTERS.get(node.target.name)
                if emit is None:
                    raise exc.NotSupportedYet(name=f"hl.{node.target.name} on the triton backend")
                emit(self, node)
            else:
                self._node(node)
        except exc.BaseError as error:
            if error.location is None:
                error.location = node.meta.get("location")
            raise

    def set_text(self, node: torch.fx.Node, text: str) -> None:
        """From here on a node is called `text`."""
        self._text[node] = text

    def _node(self, node: torch.fx.Node) -> None:
        target = node.target
        if target is device_ir.GETITEM:
            source = node.args[0]
            self._text[node] = self._results[source][node.args[1]]  # type: ignore[index]
        elif target is device_ir.for_loop:
            self._for_loop(node)
        elif target is device_ir.if_else:
            self._if_else(node)
        elif target is CONVERT:
            self.assign(node, self._convert(node))
        elif target is BITCAST:
            self.assign(node, f"{self.text(node.args[0])}.to({triton_dtype(node.meta['val'].dtype)}, bitcast=True)")
        elif target in POINTWISE:
            operands = [self.text(a) if a is not None else "None" for a in node.args]
            if "neutral" in node.meta:  # a looped reduction's partial result
                which, dim, neutral = node.meta["neutral"]
                operands[which] = self.masked(node.args[which], dim, neutral)  # type: ignore[arg-type]
            self.assign(node, pointwise_text(node, operands, self.settings.fast_math))
        elif target in REDUCTIONS:
            self._reduction(node)
            if node in self._settle:
                self.assign(node, f"hlt.settled({self._text[node]})")
        else:
            self._view(node)

    def _convert(self, node: torch.fx.Node) -> str:
        source, dtype = node.args
        text = self.text(source)
        if dtype is torch.bool:
            return f"{text} != 0"
        source_dtype = source.meta["val"].dtype  # type: ignore[union-attr]
        if source_dtype is torch.bool and dtype.is_floating_point:  # type: ignore[union-attr]
            return f"{text}.to(tl.int32).to({triton_dtype(dtype)})"  # type: ignore[arg-type]
        return f"{text}.to({triton_dtype(dtype)})"  # type: ignore[arg-type]

    def _view(self, node: torch.fx.Node) -> None:
        target = node.target
        value = node.meta["val"]
        source = node.args[0]
        text = self.text(source)
        if target is _aten.unsqueeze.default:
            dim = node.args[1] % value.dim()  # type: ignore[operator]
            if value.dim() == 1:
                self.assign(node, f"tl.full([1], 0, {triton_dtype(value.dtype)}) + {text}" if value.dtype is not torch.bool else f"tl.expand_dims({text}, 0)")
                return
            places = ", ".join("None" if i == dim else ":" for i in range(value.dim()))
            self.assign(node, f"{text}[{places}]")
        elif target is _aten.permute.default:
            order = [d % value.dim() for d in node.args[1]]  # type: ignore[union-attr]
            self.assign(node, f"tl.trans({text})" if order == [1, 0] else f"tl.permute({text}, {order})")
        elif target is _aten.expand.default:
            missing = value.dim() - source.meta["val"].dim()  # type: ignore[union-attr]
            if missing and source.meta["val"].dim():  # type: ignore[union-attr]
                text = f"{text}[{', '.join(['None'] * missing + [':'] * source.meta['val'].dim())}]"  # type: ignore[union-attr]
            self.assign(node, f"tl.broadcast_to({text}, {self.shape(value.shape)})")
        elif target in (_aten.view.default, _aten.squeeze.dims):
            self._reshape(node, source.meta["val"], text)  # type: ignore[union-attr]
        else:
            raise exc.BackendUnsupported(
                backend="triton",
                reason=f"there is no Triton form of {target}",
                fix="compute it in host code, or from other ops.",
            )

    def _reshape(self, node: torch.fx.Node, before: torch.Tensor, text: str) -> None:
        value = node.meta["val"]
        if value.dim() == 0:
            # Every dimension has one element: a sum over it is the element.
            for _ in range(before.dim()):
                text = f"tl.sum({text}, 0)"
            self.assign(node, f"{text}.to({triton_dtype(value.dtype)})" if value.dtype is not torch.bool else f"{text} != 0")
            return
        if before.dim() == 0:
            self.assign(node, f"tl.broadcast_to({text}, {self.shape(value.shape)})")
            return
        kept, new = ([s for s in shape if not (isinstance(s, int) and s == 1)] for shape in (before.shape, value.shape))
        if list(map(str, kept)) != list(map(str, new)):
            for size in (*kept, *new):
                resolved = self.schedule.size(size)
                if not isinstance(resolved, int) or self.padded(resolved) != resolved:
                    raise exc.BackendUnsupported(
                        backend="triton",
                        reason=f"a reshape from {[str(s) for s in before.shape]} to {[str(s) for s in value.shape]} involves a "
                        f"dimension of {size}, which is padded to a power of two",
                        fix="reshape only dimensions of power-of-two size, or use several loops.",
                    )
        self.assign(node, f"tl.reshape({text}, {self.shape(value.shape)})")

    # -- reductions -----------------------------------------------------------------------------------------------------------

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
        return f"tl.where({self.along(mask, dim, value.dim())}, {text}, {literal(neutral) if not isinstance(neutral, bool) else neutral})"

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

    def _reduction(self, node: torch.fx.Node) -> None:
        reduction = REDUCTIONS[node.target]  # type: ignore[index]
        source: torch.fx.Node = node.args[0]  # type: ignore[assignment]
        dim = reduced_dim(node)
        value = source.meta["val"]
        operand = self.masked(source, dim, reduction.neutral(value.dtype))
        if operand != self.text(source):
            name = self.names.unique(f"{_pretty(node)}_in")
            self.comment(node)
            self.scope.add(f"{name} = {operand}")
            operand = name
        keep = ", keep_dims=True" if node.args[2] else ""
        floating = value.dtype.is_floating_point
        narrow = value.dtype in (torch.float16, torch.bfloat16)
        if reduction.name == "sum":
            self.assign(node, f"tl.sum({operand}, {dim}{keep})")
        elif reduction.name == "prod":
            self.assign(node, f"tl.reduce({operand}, {dim}, hlt.multiply{keep})")
        elif reduction.name in ("amax", "amin"):
            short = reduction.name[1:]
            if not floating:
                wide = ".to(tl.int32)" if value.dtype is torch.bool else ""
                back = " != 0" if value.dtype is torch.bool else f".to({triton_dtype(value.dtype)})"
                self.assign(node, f"tl.{short}({operand}{wide}, {dim}{keep}){back}")
            else:
                # tl.max drops nan; torch.amax passes it on.  16-bit values are compared in float32, exactly.
                widened = f"{operand}.to(tl.float32)" if narrow else operand
                back = f".to({triton_dtype(value.dtype)})" if narrow else ""
                self.assign(node, f"tl.reduce({widened}, {dim}, hlt.{short}_nan{keep}){back}")
        else:
            widened = f"{operand}.to(tl.float32)" if narrow else f"{operand}.to(tl.int32)" if value.dtype is torch.bool else operand
            extent = self.extent(value.shape[dim])
            places = self.along(f"tl.arange(0, {extent})", dim, value.dim())
            positions = self.names.unique("positions")
            self.scope.add(f"{positions} = tl.broadcast_to({places}, {self.shape(value.shape)})")
            best = self.names.unique("best")
            index = self.names.unique(_pretty(node))
            self.comment(node)
            self.scope.add(f"{best}, {index} = tl.reduce(({widened}, {positions}), {dim}, hlt.{reduction.name}_combine{keep})")
            self.scope.add(f"{index} = {index}.to(tl.int64)")
            self._text[node] = index

    # -- loops and branches ----------------------------------------------------------------------------------------------------

    def _for_loop(self, node: torch.fx.Node) -> None:
        graph_id, begins, ends, inputs = node.args
        body = self.ir.device.graphs[graph_id]  # type: ignore[index]
        placeholders = body.placeholders
        carried_names: dict[int, str] = {}  # output index -> variable
        for position, placeholder in enumerate(placeholders):
            source = inputs[position]  # type: ignore[index]
            if position not in body.carried:
                self._text[placeholder] = self._text[source]  # type: ignore[index]
                continue
            name = self._carried_variable(source, node, placeholder)  # type: ignore[arg-type]
            self._text[placeholder] = name
            carried_names[body.carried[position]] = name
        outer = self.scope
        headers: list[str] = []
        inner = Scope(outer)
        self.scope = inner
        for axis, begin, end in zip(body.axes, begins, ends):  # type: ignore[arg-type]
            for bound, given in ((axis.begin, begin), (axis.end, end)):
                if isinstance(bound, torch.Tensor):
                    self._bound_nodes[id(bound)] = given
            headers.append(self._loop_header(body, axis, self.number(begin), self.number(end)))
            self.open_axis(axis, inner)
        self._last_location = None
        self._plan_updates(body, carried_names)
        for position, i in body.carried.items():
            if _accumulates_reduction(body.outputs[i]) and len(body.placeholders[position].users) > 1:
                self._settle.update(a for a in body.outputs[i].args if isinstance(a, torch.fx.Node) and a.target in REDUCTIONS)
        self.graph(body)
        placeholders = {body.carried[p]: body.placeholders[p] for p in body.carried}  # type: ignore[assignment]
        self._assign_together(
            [(carried_names[i], self._lanes(body, placeholders[i], out)) for i, out in enumerate(body.outputs)]
        )
        self.scope = outer
        self._last_location = None
        for header in reversed(headers[1:]):
            wrapper = Scope(outer)
            wrapper.nest(header, inner)
            inner = wrapper
        location = body.location
        if location is not None and self.settings.output_origin_lines:
            outer.add(f"# {location.short()}: {location.text.strip()}")
        outer.nest(headers[0], inner)
        for i, out in enumerate(body.outputs):
            if _accumulates_reduction(out) and not _used_once(node, i):
                outer.add(f"{carried_names[i]} = hlt.settled({carried_names[i]})")
        self._results[node] = [carried_names[i] for i in range(len(body.outputs))]

    def _carried_variable(self, source: torch.fx.Node, loop: torch.fx.Node, placeholder: torch.fx.Node) -> str:
        """The variable a loop updates: the initial value's own when nothing else reads it, else a copy."""
        text = self._text[source]
        only_here = list(source.users) == [loop] and source.op == "call_function" and text.isidentifier()
        if only_here and source.target is not device_ir.GETITEM:
            return text
        name = self.names.unique(_pretty(placeholder))
        self.scope.add(f"{name} = {text}")
        return name

    def _partial_lanes(self, body: GraphInfo, old: torch.fx.Node, new: torch.fx.Node) -> list[tuple[int, str]]:
        """Dimensions of a carried value with one lane per element of the loop's own tile, when that may be partial.

        The last tile may change only the lanes it has.  Left out where the others do not change anyway: the value is
        combined with an operand whose padding is the operation's neutral element (0 for a sum).
        """
        found = []
        for dim, axis in enumerate(axes_of(new)):
            if axis is None or axis not in body.axes:
                continue
            mask = self.mask(axis)
            if mask is not None and not _keeps_padding(old, new, dim):
                found.append((dim, mask))
        return found

    def _lanes(self, body: GraphInfo, old: torch.fx.Node, new: torch.fx.Node) -> str:
        """The next value of a carried variable."""
        text = self.text(new)
        rank = new.meta["val"].dim()
        for dim, mask in self._partial_lanes(body, old, new):
            text = f"tl.where({self.along(mask, dim, rank)}, {text}, {self.text(old)})"
        return text

    def _plan_updates(self, body: GraphInfo, carried_names: dict[int, str]) -> None:
        """Let a carried variable be assigned where its new value is computed, when nothing reads the old one later."""
        order = {node: i for i, node in enumerate(body.graph.nodes)}
        placeholders = {body.carried[p]: body.placeholders[p] for p in body.carried}
        outputs = body.outputs
        for i, new in enumerate(outputs):
            old = placeholders[i]
            own = new.op == "call_function" and new.target is not device_ir.GETITEM and outputs.count(new) == 1
            last_read = max((order[user] for user in old.users if user.op != "output"), default=-1)
            if own and last_read <= order[new] and old not in outputs and not self._partial_lanes(body, old, new):
                self._updates[new] = carried_names[i]

    def _assign_together(self, pairs: list[tuple[str, str]]) -> None:
        """`names = values`, when a value may be another of the names (a swap)."""
        targets = {name for name, _ in pairs}
        pairs = [(name, value) for name, value in pairs if name != value]
        saved = {}
        for name, value in pairs:
            if value in targets and value not in saved:
                saved[value] = self.names.unique(f"{value}_before")
        for value, copy in saved.items():
            self.scope.add(f"{copy} = {value}")
        for name, value in pairs:
            self.scope.add(f"{name} = {saved.get(value, value)}")

    def _loop_header(self, body: GraphInfo, axis: Axis, begin: str, end: str) -> str:
        step = self.block_name(axis.block)
        arguments = [begin, end, step]
        options = self.schedule.loop_options.get(body.id, {})
        if body.id in self.schedule.static_loops and axis.static_extent is not None:
            return f"for {self.offset(axis)} in tl.static_range({', '.join(arguments)}):"
        arguments += [f"{key}={value!r}" for key, value in options.items()]
        return f"for {self.offset(axis)} in tl.range({', '.join(arguments)}):"

    def _if_else(self, node: torch.fx.Node) -> None:
        test, then_id, else_id, then_inputs, else_inputs = node.args
        results = [self.names.unique(_result_name(node, i)) for i in range(len(node.meta["val"]))]
        outer = self.scope
        self.comment(node)
        for header, graph_id, inputs in (
            (f"if {self.number(test)}:", then_id, then_inputs),
            ("else:", else_id, else_inputs),
        ):
            body = self.ir.device.graphs[graph_id]  # type: ignore[index]
            for placeholder, source in zip(body.placeholders, inputs):  # type: ignore[arg-type]
                self._text[placeholder] = self._text[source]
            inner = self.scope = Scope(outer)
            self._last_location = None
            self.graph(body)
            for name, value in zip(results, body.outputs):
                inner.add(f"{name} = {self.text(value)}")
            self.scope = outer
            if header != "else:" or inner.lines():
                outer.nest(header, inner)
        self._last_location = None
        self._results[node] = results


_NEUTRAL = {
    _aten.add.Tensor: 0,
    _aten.sub.Tensor: 0,
    _aten.mul.Tensor: 1,
    _aten.maximum.default: float("-inf"),
    _aten.minimum.default: float("inf"),
}


def _keeps_padding(old: torch.fx.Node, new: torch.fx.Node, dim: int) -> bool:
    """Whether `new = op(old, operand)` leaves `old` as it is where the operand is padding."""
    if "neutral" in new.meta:
        return True
    neutral = _NEUTRAL.get(new.target)  # type: ignore[arg-type, call-overload]
    if neutral is None or len(new.args) != 2 or new.args[0] is not old or new.kwargs:
        return False
    operand = new.args[1]
    if not isinstance(operand, torch.fx.Node) or operand.meta["val"].shape != new.meta["val"].shape:
        return False
    return padding_is(operand, dim, neutral)


class _Flat:
    """The one dimension of a flattened loop: as wide as the product of its tiles."""

    def __init__(self, extents: list[str]) -> None:
        self.extents = extents


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


def _pretty(node: torch.fx.Node) -> str:
    """A variable name for a node: the user's, or the op's without overload noise."""
    name = node.name
    if node.meta.get("user_name"):
        return name
    base = name.rstrip("0123456789").rstrip("_") if name[-1].isdigit() else name
    for noise in _OVERLOAD_NOISE:
        base = base.replace(noise, "")
    return {"convert_element_type": "cast", "getitem": "value"}.get(base, base)


def _result_name(node: torch.fx.Node, i: int) -> str:
    for user in node.users:
        if user.target is device_ir.GETITEM and user.args[1] == i:
            return _pretty(user)
    return "value"


def _accumulates_reduction(out: Any) -> bool:
    """Whether a carried float is combined with a reduction in each iteration: what `hlt.settled` is about."""
    if not isinstance(out, torch.fx.Node) or out.target not in POINTWISE or not out.meta["val"].is_floating_point():
        return False
    return any(isinstance(arg, torch.fx.Node) and arg.target in REDUCTIONS for arg in out.args)


# Ops whose text mentions each operand once.
_ONE_MENTION = frozenset(
    {
        CONVERT,
        _aten.unsqueeze.default,
        _aten.add.Tensor,
        _aten.sub.Tensor,
        _aten.mul.Tensor,
        _aten.div.Tensor,
        _aten.maximum.default,
        _aten.minimum.default,
    }
)


def _used_once(loop: torch.fx.Node, output: int) -> bool:
    """Whether generated code mentions a loop's result at most once."""
    results = [user for user in loop.users if user.target is device_ir.GETITEM and user.args[1] == output]
    users = [(user, result) for result in results for user in result.users]
    if not users:
        return True
    (user, result), *others = users
    mentions = sum(arg is result for arg in user.args)
    return not others and mentions == 1 and (user.target in _ONE_MENTION or getattr(user.target, "name", "") == "store")
