"""The tracer: records what device code does into torch.fx graphs.

Three ways lead in, all ending in `Tracer.record`: torch functions and ATen ops (through the modes of `modes`), and the
language's own ops (`Tracer.call_op`).  Values are FakeTensors; a graph builder knows which node made each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import sympy
import torch
import torch.fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves

from .. import exc
from .._compat_tracing import elementwise_dtypes
from ..fragments import EnumFragment
from ..ir import device_ir
from ..ir.device_ir import Axis
from ..ir.device_ir import GraphInfo
from ..ir.device_ir import GraphKind
from ..ir.device_ir import TracedTile
from ..ir.pointwise import CONVERT
from ..ir.pointwise import PROMOTION
from ..ir.pointwise import SPECIAL_OF_TWO
from ..ir.pointwise import WHERE
from ..ir.pointwise import short_name
from ..ir.pointwise import unsupported_dtype
from ..ir.reduction_ops import REDUCTIONS
from ..ir.symbols import OriginKind
from ..ir.symbols import expr_of
from ..ir.symbols import is_symbolic
from ..ir.symbols import symbols_of
from ..language import full
from ..language import load
from ..language.broadcasts import Broadcasts
from ..language.indexing import index_list
from ..language.indexing import normalize_index
from ..language.op import Effect
from ..language.op import Handler
from ..language.op import LoopRanges
from ..language.op import Op
from ..language.outer_index import outer_access
from ..language.shapes import canonical_dims
from ..language.tile import Tile
from .broadcasts import note_broadcasts
from .combine import trace_combine
from .constants import dtype_of_number
from .constants import in_common_dtype
from .constants import of_floats8
from .constants import of_one_dtype
from .constants import rounded
from .environment import Environment
from .factories import FACTORIES
from .fake_values import fake_value
from .fake_values import pointwise_result
from .fake_values import reinterpreted
from .graph_builder import GraphBuilder
from .graph_builder import new_node
from .in_place import COPIES
from .in_place import copy_into
from .lengths import as_size
from .lengths import with_shape
from .modes import DeviceDispatchMode
from .modes import DeviceFunctionMode
from .op_calls import OP_PREPARATION
from .op_calls import check_can_be_held
from .op_calls import placed
from .op_calls import pointers
from .op_calls import prepare_store
from .op_calls import sizes_of_tiles
from .outer_index import TracedLanes
from .outer_index import arranged
from .quotients import regrouped
from .ragged import check_lengths
from .ragged import ragged_axes
from .ragged import with_ragged_mask
from .ragged import with_rows_of_operands

_aten = torch.ops.aten

# Ops that give back their input's values unchanged: tiles live in registers, so there is nothing to copy.
_IDENTITY = frozenset(
    {
        _aten.alias.default,
        _aten.detach.default,
        _aten.lift_fresh.default,
        _aten.lift_fresh_copy.default,
        _aten.contiguous.default,
        torch.ops.prims.view_of.default,
    }
)
_VIEWS = {
    _aten.view.default: _aten.view.default,
    _aten._unsafe_view.default: _aten.view.default,
    _aten.reshape.default: _aten.view.default,
    _aten.unsqueeze.default: _aten.unsqueeze.default,
    _aten.squeeze.dims: _aten.squeeze.dims,
    _aten.permute.default: _aten.permute.default,
    _aten.expand.default: _aten.expand.default,
}
# Ops that need values of elements, by what the user wrote.
_READS_DATA = {
    _aten._local_scalar_dense.default: ".item() (or float(), int(), bool() of a tensor, or one where a function of "
    "PyTorch's takes a number)"
}
# Ops with a rule of ours although they are in the pointwise table.
_PREFER_RULE = frozenset({_aten.relu.default, _aten.isnan.default})


class Tracer(Handler):
    """Records device code; also answers the language's host functions while host code is interpreted.

    Args:
        env: the specialization's environment.
    """

    traces = True

    def __init__(self, env: Environment) -> None:
        self.env = env
        self.device = env.device
        self.index_dtype = env.space.index_dtype
        self.location: exc.SourceLocation | None = None
        self.builder: GraphBuilder | None = None
        self._paused = False
        self.given: frozenset[sympy.Symbol] | None = None  # in a torch function: symbols of what was passed to it
        self.is_native = False  # a function of the user's runs as it is
        self.call_sites: list[Any] = []  # where the functions are called that are being interpreted
        self.broadcasts = Broadcasts()
        self._recorded: dict[int, torch.Tensor] = {}  # every value so far, by id
        self._seeds = 0  # places that draw random numbers so far: each gets a seed of its own
        # Filled by the interpreter: names of host tensors, for messages and for the IR.
        self.name_of_host_tensor: Any = lambda tensor: None

    def set_index_dtype(self, dtype: torch.dtype) -> None:
        """Offsets, `tile.index` and `hl.arange` have this dtype from here on."""
        self.index_dtype = self.env.space.index_dtype = dtype

    # -- graphs ----------------------------------------------------------------------------------------------------

    @property
    def on_device(self) -> bool:
        return self.builder is not None

    @contextlib.contextmanager
    def graph(self, kind: GraphKind, **fields: Any) -> Iterator[GraphBuilder]:
        """Record into a new graph for the length of a `with` block."""
        info = GraphInfo(len(self.env.ir.graphs), kind, torch.fx.Graph(), location=self.location, **fields)
        self.env.ir.graphs.append(info)
        outer = self.builder
        self.builder = GraphBuilder(info, outer)
        try:
            if outer is None:
                self.broadcasts.clear()
                with self.env.deciding(), DeviceFunctionMode(self), DeviceDispatchMode(self):
                    yield self.builder
            else:
                yield self.builder
        finally:
            self.builder = outer

    def current(self) -> GraphBuilder:
        assert self.builder is not None, "recording outside a device loop"
        return self.builder

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Make fake tensors without recording how."""
        outer, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = outer

    # -- recording ---------------------------------------------------------------------------------------------------

    def is_device_value(self, value: Any) -> bool:
        """Whether a tensor was made by device code (as opposed to a host tensor)."""
        if not isinstance(value, torch.Tensor):
            return False
        builder = self.builder
        while builder is not None:
            if id(value) in builder._nodes:
                return True
            builder = builder.parent
        return False

    def operand(self, value: Any) -> Any:
        """A value as a node argument."""
        if isinstance(value, torch.Tensor):
            node = self.current().node_of(value)
            if node is None:
                raise self._unknown(value)
            return node
        if isinstance(value, (list, tuple)):
            return [self.operand(v) for v in value]
        if isinstance(value, dict):
            return {key: self.operand(v) for key, v in value.items()}
        return value

    def _unknown(self, value: torch.Tensor) -> exc.BaseError:
        """The error for a tensor that no node of this graph or of one around it computes."""
        if id(value) in self._recorded:
            return exc.InvalidAPIUsage(
                "a value is used outside of the loop or branch that computes it",
                fix="assign it to a variable that exists before; what a list or dict gets there does not leave it.",
            )
        name = self.name_of_host_tensor(value)
        if name is None:
            return exc.InvalidAPIUsage(
                "a tensor made of Python numbers is used in device code",
                fix="use the number itself, or hl.full; several are made before the loop, "
                "`table = torch.tensor([...], device=x.device)`, and loaded there, `table[:]`.",
            )
        return exc.HostTensorDirectUsage(name=name)

    def host_operand(self, tensor: torch.Tensor) -> torch.fx.Node:
        """The node for a host tensor that is indexed, or whose address is taken."""
        text = self.name_of_host_tensor(tensor)
        if text is None:
            raise exc.InvalidAPIUsage(
                "a tensor made inside device code is indexed like a host tensor",
                fix="index device values only with `:` and None; allocate tensors to index in host code.",
            )
        record = self.env.host_tensor(tensor, text)
        graph = self.current().graph
        for node in graph.nodes:
            if node.target is device_ir.host_tensor and node.args == (record.name,):
                return node
        first = next((n for n in graph.nodes if n.op != "placeholder"), None)
        with graph.inserting_before(first) if first is not None else contextlib.nullcontext():
            node = graph.call_function(device_ir.host_tensor, (record.name,))
        node.name = graph._graph_namespace.create_name(f"host_{record.name}", None)
        node.meta.update(val=tensor, location=self.location)
        return node

    def record(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any, **meta: Any) -> Any:
        """Add a node; `value` is its abstract result, given back with nodes remembered for its tensors."""
        builder = self.current()
        node = new_node(builder.graph, target, args, kwargs)
        node.meta.update(val=value, location=self.location, **meta)
        tensors = [v for v in tree_leaves(value) if isinstance(v, torch.Tensor)]
        check_can_be_held(self, target, tensors)
        self._recorded.update((id(v), v) for v in tensors)
        if isinstance(value, torch.Tensor):
            builder.own(value, node)
        elif isinstance(value, (tuple, list)):
            for i, v in enumerate(value):
                item = builder.graph.call_function(device_ir.GETITEM, (node, i))
                item.meta.update(val=v, location=self.location)
                if isinstance(v, torch.Tensor):
                    builder.own(v, item)
        return value

    def name_value(self, value: Any, name: str) -> None:
        """Call the node of `value` as the user does, unless it has a user's name already."""
        if self.builder is None or not isinstance(value, torch.Tensor):
            return
        node = self.builder._nodes.get(id(value))
        if node is None or "user_name" in node.meta or node.op == "placeholder":
            return
        node.meta["user_name"] = name
        node.name = self.builder.graph._graph_namespace.create_name(name, None)

    def captured(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        """The FakeTensor of a tensor that device code reaches through a closure; making one of a view runs ops."""
        with self.paused():
            return self.env.captured_tensor(tensor, name, self.name_of_host_tensor)

    # -- casts -------------------------------------------------------------------------------------------------------

    def cast(self, value: Any, dtype: torch.dtype) -> Any:
        """A tensor in another dtype; numbers and tensors that have it already stay."""
        if not isinstance(value, torch.Tensor) or value.dtype is dtype:
            return value
        return self.record(CONVERT, (self.operand(value), dtype), {}, fake_value(value, value.shape, dtype))

    def scalar_tensor(self, value: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A number as a 0-d device tensor, with the dtype PyTorch gives it."""
        return full([], value, dtype=dtype or dtype_of_number(value))

    # -- ATen ops ------------------------------------------------------------------------------------------------------

    def aten(self, op: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record one ATen op that needs no further decomposition; NotImplemented otherwise."""
        if op is _aten.clone.default:
            return self._renamed(args[0])
        if op is _aten.contiguous.default:
            self.share(args)  # the tensor itself or a copy of it, in PyTorch
        if op in _IDENTITY:
            return args[0]
        if op in COPIES:
            return copy_into(self, args[0], args[1])
        if op is _aten._to_copy.default or op is CONVERT:
            dtype = kwargs.get("dtype") or (args[1] if len(args) > 1 else None)
            return self.cast(args[0], dtype or args[0].dtype)
        if op in PROMOTION and op not in _PREFER_RULE:
            return self._pointwise(op, args, kwargs)
        if op is WHERE:
            return self._where(*args)
        if op in _VIEWS:
            result = op(*args, **kwargs) if (made := regrouped(self.env, op, args)) is None else made
            if op in (_aten.view.default, _aten._unsafe_view.default, _aten.reshape.default, _aten.expand.default):
                args = (args[0], list(result.shape))
            return self.record(_VIEWS[op], tuple(self.operand(a) for a in args), {}, result)
        if op is _aten.view.dtype:
            return self.record(op, tuple(self.operand(a) for a in args), {}, reinterpreted(*args))
        if op in REDUCTIONS:
            return self._reduction(op, args, kwargs)
        if op in FACTORIES:
            return FACTORIES[op](self, *args, **kwargs)
        if op in _READS_DATA:
            raise exc.NotAllowedOnDevice(
                f"{_READS_DATA[op]} reads data back to the host, which device code cannot do",
                fix="keep the value in a tensor; use torch.where or a data-dependent `if` on a 0-d tensor.",
            )
        return NotImplemented

    def _renamed(self, value: torch.Tensor) -> torch.Tensor:
        """The same value as another tensor, contiguous: what is done to that one in place leaves the first alone."""
        node = self.operand(value)
        other = fake_value(value, value.shape, value.dtype)
        self.current().own(other, node)
        return other

    def share(self, values: Any) -> None:
        """These values share memory in PyTorch, though not here: they may not be changed in place."""
        for value in tree_leaves(values):
            if isinstance(value, torch.Tensor):
                self.current().share(value)

    def _pointwise(self, op: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for arg in args:
            if isinstance(arg, torch.Tensor):
                self.operand(arg)  # a host tensor is named before PyTorch complains of anything else
        args = of_floats8(op, args, self.cast)
        # PyTorch's shape rules of special functions cannot broadcast symbolic sizes.
        result = pointwise_result(op, torch.broadcast_tensors(*args) if op in SPECIAL_OF_TWO else args, kwargs)
        op, args = of_one_dtype(op, args, self.aten)
        values = [a for a in args if isinstance(a, (torch.Tensor, int, float, bool, torch.SymInt, torch.SymFloat))]
        compute, _ = elementwise_dtypes(*values, type_promotion_kind=PROMOTION[op])
        if op is _aten.nextafter.default and result.dtype is not compute:
            raise exc.UnsupportedDtype(op=short_name(op), dtype=result.dtype)  # its steps are those of the dtype
        if unsupported_dtype(op, compute):
            raise exc.UnsupportedDtype(op=short_name(op), dtype=compute)
        args = in_common_dtype(self, args, values)
        if is_symbolic(alpha := kwargs.get("alpha", 1)):  # a number of a tile's place is not asked whether it is 1
            args = (args[0], self.aten(_aten.mul.Tensor, (self.cast(args[1], compute), alpha), {}))
            kwargs = {}
        cast_args = tuple(self.operand(self.cast(rounded(a, compute), compute)) for a in args)
        if result.dtype in (torch.bool, compute):
            return self.record(op, cast_args, dict(kwargs), result)
        wide = fake_value(result, result.shape, compute)
        self.record(op, cast_args, dict(kwargs), wide)
        return self.cast(wide, result.dtype)

    def _where(self, condition: Any, a: Any, b: Any) -> Any:
        result = pointwise_result(WHERE, (condition, a, b), {})
        args = (
            self.operand(condition),
            self.operand(self.cast(a, result.dtype)),
            self.operand(self.cast(b, result.dtype)),
        )
        return self.record(WHERE, args, {}, result)

    def _reduction(self, op: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        reduction = REDUCTIONS[op]
        bound = dict(zip(("x", "dim", "keepdim"), args), **kwargs)
        x, keepdim = bound["x"], bound.get("keepdim", False)
        dtype = bound.get("dtype")
        of_floats8(op, (x, self.operand(x)), self.cast)
        result_dtype = dtype or x.dtype
        if reduction.name in ("sum", "prod") and dtype is None and not x.dtype.is_floating_point:
            result_dtype = torch.int64  # PyTorch sums integers and bools in int64
        dims = bound.get("dim")
        if reduction.returns_index and dims is None and x.dim() > 1:
            place = self._reduction(op, (self.aten(_aten.reshape.default, (x, [-1]), {}), 0), {})
            return self.aten(_aten.view.default, (place, [1] * x.dim()), {}) if keepdim else place
        dims = 0 if reduction.returns_index and dims is None else dims
        dims = [dims] if isinstance(dims, int) else list(dims if dims else range(x.dim()))
        dims = canonical_dims(x, dims)
        if reduction.returns_index and not dims:  # of a scalar: the first and only place
            return self.scalar_tensor(0, torch.int64)
        compute = torch.float32 if result_dtype in (torch.float16, torch.bfloat16) else result_dtype
        if reduction.name in ("sum", "prod"):
            x = self.cast(x, compute)
        for d in reversed(dims):
            shape = [*x.shape[:d], *[1] * keepdim, *x.shape[d + 1 :]]
            fake = fake_value(x, shape, torch.int64 if reduction.returns_index else x.dtype)
            x = self.record(op, (self.operand(x), [d] if reduction.dim_is_list else d, keepdim), {}, fake)
        return x if reduction.returns_index else self.cast(x, result_dtype)

    # -- language ops ------------------------------------------------------------------------------------------------

    def call_op(self, op: Op, args: tuple[Any, ...]) -> Any:
        if not self.on_device:
            raise exc.DeviceAPIOnHost(name=f"hl.{op.name}")
        access = op.access
        if access and isinstance(args[0], torch.Tensor) and not isinstance(args[0], FakeTensor):
            # captured by a function that runs natively, such as a lambda
            args = (self.captured(args[0], "captured"), *args[1:])
        args = args if op.takes_tiles else tuple(sizes_of_tiles(a) for a in args)
        args = with_shape(self, op, args)
        outer = outer_access(op, args, TracedLanes(self), arranged, lambda new: self.call_op(op, new))
        if outer is not NotImplemented:
            return outer
        args = self._plain_tiles(args) if op.takes_tiles else args
        prepare = OP_PREPARATION.get(op)
        if prepare is not None:
            prepared = prepare(self, *args)
            if not isinstance(prepared, tuple):
                return prepared.value
            args = prepared
        if access and access.effect is Effect.WRITE:
            args = prepare_store(self, op, args)
        args = placed(self, op, args) if access else args
        masked = access is not None and args[access.mask_at] is not None
        if access and access.addresses_at is None:
            args = with_ragged_mask(op, args, ragged_axes(self.axes_around()))
        elif not access:
            args = with_rows_of_operands(self, op, args, ragged_axes(self.axes_around()))
        with self.paused():
            result = op.shape_rule(*args)
        if op.combine_at is not None:
            at = op.combine_at
            args = (*args[:at], trace_combine(self, args[at], args[at + 1], op.name), *args[at + 1 :])
        if access is None:
            nodes = pointers(self, args) if op.takes_pointers else self.operand(args)
            return self.record(op, tuple(nodes), {}, result)
        at = access.index_at
        bounds = self._dims_to_bound(args[0], args[at])
        if not masked:
            note_broadcasts(self, access, args, bounds)
        index = [self.operand(e) for e in index_list(args[at])]
        before, after = ([self.operand(a) for a in part] for part in (args[1:at], args[at + 1 :]))
        nodes = (self.host_operand(args[0]), *before, index, *after)
        return self.record(op, nodes, {}, result, bounded_dims=bounds)

    def _dims_to_bound(self, tensor: torch.Tensor, index: Any) -> tuple[int, ...]:
        """Dimensions of a host tensor that a tile's range may leave: the access must check them itself.

        Comparing host values under dynamic shapes records a guard, so what is decided here holds for every call
        that uses this trace.  A constant index out of range is an error.
        """
        dims = []
        for item in normalize_index(tensor.shape, index, "indexing"):
            if item.kind == "scalar" and isinstance(item.value, int):
                size = tensor.size(item.dim)
                if isinstance(size, int) and not 0 <= item.value < size:
                    name = self.name_of_host_tensor(tensor) or "tensor"
                    raise exc.IndexOutOfRange(name=name, dim=item.dim, size=size, low=item.value, high=item.value)
            if item.kind != "tile" or item.repeats:
                continue
            begin, end = self._range_around(item.value.axis)
            offset = item.value.offset
            host = not any(isinstance(v, torch.Tensor) for v in (begin, end, offset))
            host = host and all(self.env.space.is_host_value(v) for v in (begin, end, offset))
            if not (host and bool(end + offset <= tensor.size(item.dim)) and bool(begin + offset >= 0)):
                dims.append(item.dim)
        return tuple(dims)

    def _range_around(self, axis: Axis) -> tuple[Any, Any]:
        """Bounds that an axis stays within: its own, or those of the axis whose tile it begins or ends at."""

        def outermost(bound: Any, edge: str) -> Any:
            origin = self.env.space.origins.get(expr_of(bound)) if is_symbolic(bound) else None
            if origin is None or origin.kind not in (OriginKind.TILE_BEGIN, OriginKind.TILE_END):
                return bound
            return outermost(getattr(self.env.space.axes[origin.index], edge), edge)

        return outermost(axis.begin, "begin"), outermost(axis.end, "end")

    def _plain_tiles(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """What is no access: a tile shifted by a tensor becomes the tensor of its indices."""

        def plain(value: Any) -> Any:
            if isinstance(value, TracedTile) and isinstance(value.offset, torch.Tensor):
                return value.index
            if isinstance(value, (list, tuple)):
                return [plain(v) for v in value]
            return value

        return tuple(plain(a) for a in args)

    # -- Handler: loops and sizes (the interpreter takes the result apart) -------------------------------------------

    def tile(self, ranges: LoopRanges) -> Iterable[Any]:
        return TracedLoop(ranges, "tile")

    def grid(self, ranges: LoopRanges) -> Iterable[Any]:
        return TracedLoop(ranges, "grid")

    def jagged_tile(self, lengths: torch.Tensor, block_size: Any) -> Iterable[Any]:
        if not self.on_device:
            raise exc.InvalidJaggedTileUsage("hl.jagged_tile is not inside a loop over the rows")
        check_lengths(lengths, self.axes_around())
        longest = torch.amax(lengths)
        ranges = LoopRanges("hl.jagged_tile", (0,), (longest,), (block_size,), False)
        return TracedLoop(ranges, "tile", lengths=lengths)

    def static_range(self, begin: int, end: int, step: int) -> Iterable[int]:
        return range(begin, end, step)

    def _check_on_host(self, name: str) -> None:
        if self.on_device:
            raise exc.NotAllowedOnDevice(name=name, fix="call it in host code, before the device loop.")

    def register_block_size(self, low: int, high: Any) -> Any:
        self._check_on_host("hl.register_block_size()")
        hint = self.env.space.hint(high)
        return self.env.new_block("block", low=low, high=hint if isinstance(high, int) else None, extent=hint).var

    def register_tunable(self, name: str, fragment: Any) -> Any:
        self._check_on_host("hl.register_tunable()")
        choices = fragment.choices if isinstance(fragment, EnumFragment) else (fragment.default(),)
        kinds = {type(choice) for choice in choices}
        if not kinds <= {int, float} and kinds != {bool}:
            raise exc.NotSupportedYet(
                name=f"hl.register_tunable with choices of {', '.join(sorted(kind.__name__ for kind in kinds))}",
                fix="let them be bools or numbers, for example EnumFragment(range(3)), of which each stands for one.",
            )
        self.env.tunables[name] = fragment
        value = self.env.new_tunable(name, fragment.default(), float if float in kinds else int)
        return value != 0 if kinds == {bool} else value

    def specialize(self, value: Any) -> Any:
        if self.on_device:
            raise exc.SpecializeOnDevice
        if isinstance(value, (tuple, list)):
            return type(value)(self.specialize(v) for v in value)
        if isinstance(value, torch.SymInt):
            self.env.specialized |= set(value.node.expr.free_symbols)
            return int(value)  # records the guard that holds it
        return value

    def barrier(self) -> None:
        raise exc.BarrierOnlyAllowedAtTopLevel(
            "hl.barrier() must be a statement of its own between two top-level device loops",
            fix="write `hl.barrier()` on its own line after the first loop.",
        )

    def tile_of_size(self, size: Any) -> TracedTile | None:
        size = as_size(self, size)
        named = self.env.space.axis_of(size)
        if named is not None:
            return TracedTile(named)
        block = self.env.space.block_of(size)
        return next((TracedTile(a) for a in reversed(self.env.space.axes) if block and a.block is block), None)

    def constant_text(self, number: Any) -> str | None:
        return self.env.space.constant_text(number)

    def guard_equal(self, left: Any, right: Any) -> bool:
        origins = self.env.space.origins
        symbols = symbols_of(left) | symbols_of(right)
        if any(symbol not in origins or origins[symbol].on_device for symbol in symbols):
            return False
        return bool(left == right)

    def torch_seed(self) -> Any:
        place, self._seeds = self._seeds, self._seeds + 1
        with self.paused():
            if self.env.seeds is None:
                self.env.seeds = torch.empty(self._seeds, dtype=torch.int64, device=self.device)
            self.env.seeds.resize_(self._seeds)
        return load(self.env.seeds, [place])

    def iterations(self, tiles: Sequence[Tile]) -> list[Any]:
        left_out = {tile.axis for tile in tiles if isinstance(tile, TracedTile)}
        return [axis.tile_id for axis in self.axes_around() if axis not in left_out]

    def axes_around(self) -> list[Axis]:
        """The axes of the loops around, outermost first."""
        axes: list[Axis] = []
        builder = self.builder
        while builder is not None:
            axes[:0] = builder.info.axes
            builder = builder.parent
        return axes


class TracedLoop:
    """What hl.tile()/hl.grid() give while tracing: a `for` statement takes it apart, nothing else can."""

    def __init__(self, ranges: LoopRanges, kind: str, lengths: torch.Tensor | None = None) -> None:
        self.ranges = ranges
        self.kind = kind
        self.lengths = lengths

    def __iter__(self) -> Iterator[Any]:
        raise exc.LoopFunctionNotInFor(name=self.ranges.name)
