"""Finds the one matrix kernel this backend has in a kernel function's device IR, or says which statement is in the way.

The shape it looks for: loops over tiles of (m, n), and a batch; in them an fp32 accumulator of zeros, one loop over k
that adds one product of two loads to it, pointwise operations, one store. `match` returns the `MatmulSpec`, the host
expression of each launch argument, and which block size is which. Every refusal goes through `_refuse`, which names the
statement and the reason.
"""

from __future__ import annotations

import dataclasses
from typing import Any
from typing import NoReturn

import torch
import torch.fx

from ... import exc
from ...ir.barriers import find_barriers
from ...ir.device_ir import Axis
from ...ir.device_ir import AxisKind
from ...ir.device_ir import DeviceIR
from ...ir.device_ir import GraphInfo
from ...ir.device_ir import KernelIR
from ...ir.device_ir import TracedTile
from ...ir.facts import Facts
from ...ir.names import Names
from ...ir.nodes import Dot
from ...ir.nodes import ForLoop
from ...ir.nodes import Full
from ...ir.nodes import HostTensorNode
from ...ir.nodes import Item
from ...ir.nodes import Load
from ...ir.nodes import Memory
from ...ir.nodes import Store
from ...ir.nodes import operand
from ...ir.symbols import expr_of
from ...ir.symbols import is_symbolic
from .epilogue import RESERVED
from .pointwise import PointwiseOps
from .spec import AUX_KINDS
from .spec import TMA_ALIGNMENT
from .spec import Aux
from .spec import Epilogue
from .spec import Input
from .spec import MatmulSpec
from .spec import Operand
from .spec import Statement

__all__ = ["Match", "match"]

_ADD = torch.ops.aten.add.Tensor
_CONVERT = torch.ops.prims.convert_element_type.default
_PERMUTE = torch.ops.aten.permute.default
# Views that leave every element where it is relative to (m, n): what they change is seen in the axes of their result.
_VIEWS = (torch.ops.aten.unsqueeze.default, torch.ops.aten.squeeze.dims, torch.ops.aten.expand.default)


@dataclasses.dataclass(frozen=True)
class Match:
    """A kernel function as a matrix kernel.

    Args:
        spec: what it computes.
        arguments: A, B, output, then the epilogue's operands: host tensor's expression, or a number.
        m, n, k, batch: the loop axes.
    """

    spec: MatmulSpec
    arguments: tuple[Any, ...]
    m: Axis
    n: Axis
    k: Axis
    batch: Axis | None


@dataclasses.dataclass(frozen=True)
class HostExpression:
    """A tensor as the host function spells it."""

    text: str


def match(ir: KernelIR, fast_accumulate: bool) -> Match:
    """The matrix kernel that ``ir`` is.

    Args:
        ir: a traced kernel function.
        fast_accumulate: see `MatmulSpec`.

    Raises:
        BackendUnsupported: it is none, with the statement and the reason.
    """
    return _Matcher(ir, fast_accumulate).match()


def _refuse(reason: str, node: torch.fx.Node | None = None, fix: str | None = None) -> NoReturn:
    location = node.meta.get("location") if node is not None else None
    raise exc.BackendUnsupported(
        backend="cute",
        reason=reason,
        fix=fix or 'backend="triton" runs this kernel.',
        location=location,
    )


def _describe(node: torch.fx.Node) -> str:
    target = node.target
    return (
        str(getattr(target, "name", None) or getattr(target, "__name__", target))
        if not isinstance(target, torch._ops.OpOverload)
        else str(target).removeprefix("aten.")
    )


class _Matcher:
    def __init__(self, ir: KernelIR, fast_accumulate: bool) -> None:
        self.ir = ir
        self.device: DeviceIR = ir.device
        self.axes_of = Facts(ir.device).axes_of
        self.fast_accumulate = fast_accumulate
        self.statements: list[Statement] = []
        self.aux: list[Aux] = []
        self.aux_arguments: list[Any] = []
        self.values: dict[torch.fx.Node, Input] = {}
        self.names = Names({*RESERVED, ir.name, f"{ir.name}_kernel"})
        self.outer: list[Axis] = []

    # -- the loops
    # ------------------------------------------------------------------------------------------------------

    def match(self) -> Match:
        body = self._tile_body()
        for node in find_barriers(self.device, body, lambda load: True).before:
            _refuse("it loads what it has stored, or stores what it has yet to load", node)
        loop = self._k_loop(body)
        k_graph = self.device.subgraphs_of(loop)[0]
        a_load, b_load, product = self._product(loop, k_graph)
        m, n = self._product_axes(product)
        (k,) = k_graph.axes
        batch = self._batch_axis({m, n, k})
        for axis in filter(None, (m, n, k, batch)):
            self._check_range(axis, loop)
        a = self._operand(a_load, m, k, batch, "A")
        b = self._operand(b_load, n, k, batch, "B")
        store = self._epilogue(body, loop, m, n, batch)
        out_name, out = self._output(store, m, n, batch)
        value = Store.of(store).value
        result = self._input(value, store) if isinstance(value, torch.fx.Node) else None
        if not isinstance(result, str):
            _refuse("what it stores does not depend on the product", store)
        spec = MatmulSpec(
            name=self.ir.name,
            m=_extent(m),
            n=_extent(n),
            k=_extent(k),
            a=a,
            b=b,
            out=out,
            batch=_extent(batch) if batch is not None else 1,
            epilogue=Epilogue(self._operands(out_name), tuple(self.statements), result),
            fast_accumulate=self.fast_accumulate,
        )
        names = (self._text(a_load), self._text(b_load), out_name, *self.aux_arguments)
        return Match(spec, names, m, n, k, batch)

    def _tile_body(self) -> GraphInfo:
        """The graph with the k loop and the store: through loops that only hold another loop."""
        if len(self.device.roots) != 1:
            _refuse(f"it has {len(self.device.roots)} top-level loops; a matrix kernel has one")
        info = self.device.graphs[self.device.roots[0].graph_id]
        while True:
            self.outer += info.axes
            calls = [n for n in info.graph.nodes if n.op == "call_function" and not HostTensorNode.match(n)]
            loop = ForLoop.match(calls[0]) if len(calls) == 1 else None
            if loop is None or loop.inputs:
                return info
            info = self.device.graphs[loop.graph_id]

    def _k_loop(self, body: GraphInfo) -> torch.fx.Node:
        loops = [n for n in body.graph.nodes if ForLoop.match(n)]
        if len(loops) != 1:
            what = "no inner loop over k" if not loops else f"{len(loops)} inner loops"
            _refuse(f"it has {what} in its tile loop; a matrix kernel has one", loops[1] if loops else None)
        loop: torch.fx.Node = loops[0]
        info = self.device.subgraphs_of(loop)[0]
        if len(info.axes) != 1:
            _refuse(f"the inner loop runs over {len(info.axes)} dimensions, not over k alone", loop)
        inputs = ForLoop.of(loop).inputs
        if len(inputs) != 1 or info.carried != {0: 0}:
            _refuse("the loop over k carries more than one accumulator, or uses values from outside", loop)
        start = Full.match(inputs[0])
        if start is None or start.value != 0 or start.result.dtype is not torch.float32:
            _refuse("the accumulator does not start as fp32 zeros (hl.zeros([tile_m, tile_n]))", inputs[0])
        return loop

    def _product(self, loop: torch.fx.Node, info: GraphInfo) -> tuple[torch.fx.Node, torch.fx.Node, torch.fx.Node]:
        """(load of A, load of B, dot) of ``acc += A @ B``, the only thing the loop over k may do."""
        (acc,) = info.placeholders
        (result,) = info.outputs
        dots = [n for n in info.graph.nodes if Dot.match(n)]
        if len(dots) != 1:
            _refuse(
                f"the loop over k has {len(dots)} matrix products; a matrix kernel has one", dots[1] if dots else loop
            )
        (dot,) = dots
        used = {dot, acc}
        product = Dot.of(dot)
        if product.acc is acc and result is dot:
            pass
        elif product.acc is None and isinstance(result, torch.fx.Node) and result.target is _ADD and not result.kwargs:
            # `acc += a @ b`: the product's own type, if narrower, is not rounded to on the way into the accumulator.
            terms = [a for a in result.args if a is not acc]
            used.add(result)
            if acc not in result.args or len(terms) != 1:
                _refuse("the loop over k does something else than add the product to the accumulator", result)
            term = terms[0]
            if isinstance(term, torch.fx.Node) and term.target is _CONVERT:
                used.add(term)
                term = term.args[0]
            if term is not dot:
                _refuse("the loop over k changes the product before adding it", result)
        else:
            _refuse("the loop over k does something else than add the product to the accumulator", dot)
        loads = []
        for factor in (product.a, product.b):
            used.add(factor)
            if factor.target is _PERMUTE:
                factor = operand(factor)
                used.add(factor)
            if not Load.match(factor):
                _refuse(f"an operand of the product is computed ({_describe(factor)}), not loaded as it is", factor)
            loads.append(factor)
        for node in info.graph.nodes:
            if node.op == "call_function" and not HostTensorNode.match(node) and node not in used:
                _refuse(f"the loop over k holds {_describe(node)} beside the product", node)
        return loads[0], loads[1], dot

    def _product_axes(self, dot: torch.fx.Node) -> tuple[Axis, Axis]:
        axes = self.axes_of(dot)
        if len(axes) < 2 or axes[-2] is None or axes[-1] is None:
            _refuse("the product's rows and columns are not tiles of two loops", dot)
        return axes[-2], axes[-1]

    def _batch_axis(self, used: set[Axis]) -> Axis | None:
        others = [axis for axis in self.outer if axis not in used]
        if len(others) > 1:
            names = ", ".join(axis.name for axis in others)
            _refuse(f"it has several batch loops ({names}); a matrix kernel has at most one", fix=_FLATTEN)
        return others[0] if others else None

    def _check_range(self, axis: Axis, node: torch.fx.Node) -> None:
        if not (isinstance(axis.begin, int) and isinstance(axis.end, int)):
            _refuse(
                f"the range of loop {axis.name!r} is not a compile-time constant",
                node,
                'use static_shapes=True (the default), or backend="triton".',
            )
        if axis.begin != 0:
            _refuse(f"loop {axis.name!r} starts at {axis.begin}, not at 0", node)
        if axis.end < 1:
            _refuse(f"loop {axis.name!r} is empty", node)

    # -- tensors
    # ----------------------------------------------------------------------------------------------------------

    def _operand(self, load: torch.fx.Node, outer: Axis, k: Axis, batch: Axis | None, label: str) -> Operand:
        strides = self._strides(load, {outer, k}, batch, f"operand {label}")
        return _operand(Load.of(load).tensor.dtype, strides, outer, k, batch)

    def _output(self, store: torch.fx.Node, m: Axis, n: Axis, batch: Axis | None) -> tuple[HostExpression, Operand]:
        access = Store.of(store)
        if access.extra_mask is not None:
            _refuse("it stores under an extra mask", store)
        order = [axis for axis in (_axis_of(e, self.outer) for e in access.index) if axis in (m, n)]
        if order == [n, m]:
            _refuse("it stores the tile transposed", store)
        strides = self._strides(store, {m, n}, batch, "the output")
        if batch is not None and batch not in strides:
            _refuse(f"every {batch.name} stores to the same place", store)
        value = access.value
        if isinstance(value, torch.fx.Node) and [a for a in self.axes_of(value) if a in (m, n)] not in ([m, n],):
            _refuse("what it stores is not a tile of rows by columns of the product", store)
        return self._text(store), _operand(access.tensor.dtype, strides, m, n, batch)

    def _strides(self, access: torch.fx.Node, wanted: set[Axis], batch: Axis | None, what: str) -> dict[Axis, int]:
        """Axis -> stride in elements, for an access indexed by whole tiles only."""
        memory = Memory.of(access)
        if memory.extra_mask is not None:
            _refuse(f"{what} is loaded under an extra mask", access)
        fake = memory.tensor
        found: dict[Axis, int] = {}
        for dim, element in enumerate(memory.index):
            size, stride = fake.shape[dim], fake.stride(dim)
            if is_symbolic(size) or is_symbolic(stride):
                _refuse(
                    f"{what} has sizes or strides that are not compile-time constants",
                    access,
                    'use static_shapes=True (the default), or backend="triton".',
                )
            axis = _axis_of(element, [*self.outer, *wanted])
            if axis is None:
                if (element == 0 and isinstance(element, int)) or (_is_full_slice(element) and size == 1):
                    continue
                _refuse(f"{what} is indexed by {element!r}, not by whole tiles of the loops", access)
            if axis in found or axis not in wanted | ({batch} if batch is not None else set()):
                _refuse(f"{what} is indexed by {axis.name} where a matrix kernel does not", access)
            if isinstance(axis.end, int) and axis.end > size:
                _refuse(f"loop {axis.name!r} goes to {axis.end}, beyond dimension {dim} of {what} ({size})", access)
            found[axis] = stride
        missing = [axis.name for axis in wanted if axis not in found]
        if missing:
            _refuse(f"{what} is not indexed by {', '.join(missing)}", access)
        return found

    def _text(self, access: torch.fx.Node) -> HostExpression:
        return HostExpression(self.device.host_tensors[Memory.of(access).name].text)

    # -- the epilogue
    # -------------------------------------------------------------------------------------------------------

    def _epilogue(self, body: GraphInfo, loop: torch.fx.Node, m: Axis, n: Axis, batch: Axis | None) -> torch.fx.Node:
        """Turn the statements behind the loop into SSA; returns the store."""
        stores = [node for node in body.graph.nodes if Store.match(node)]
        if len(stores) != 1:
            _refuse(f"it stores {len(stores)} times; a matrix kernel stores once", stores[1] if stores else None)
        store: torch.fx.Node = stores[0]
        ops = PointwiseOps(self.names.unique, self.statements.append)
        for node in body.graph.nodes:
            if node.op != "call_function" or node in (loop, store, *ForLoop.of(loop).inputs):
                continue
            target = node.target
            if HostTensorNode.match(node):
                continue
            if (item := Item.match(node)) and item.source is loop:
                self.values[node] = "acc"
            elif load := Load.match(node):
                self.values[node] = self._aux(load, m, n, batch)
            elif full := Full.match(node):
                self.values[node] = self._number(full.value, node, full.dtype)
            elif target in _VIEWS:
                self.values[node] = self._input(node.args[0], node)
            elif ops.knows(node):
                self._check_alignment(node)
                inputs = [self._input(a, node) for a in (*node.args, *node.kwargs.values())]
                self.values[node] = ops.emit(node, inputs)
            else:
                _refuse(f"its epilogue has {_describe(node)}, which it cannot compute tile by tile", node)
        return store

    def _check_alignment(self, node: torch.fx.Node) -> None:
        """Every operand's dimensions must be those of the result, or broadcast: else elements would meet the wrong
        ones.
        """
        result = self.axes_of(node)
        for factor in node.all_input_nodes:
            for mine, theirs in zip(reversed(self.axes_of(factor)), reversed(result)):
                if mine is not None and mine is not theirs:
                    _refuse("an operand of the epilogue is broadcast along another dimension than its own", node)

    def _aux(self, access: Load, m: Axis, n: Axis, batch: Axis | None) -> Input:
        load, name, fake = access.node, access.name, access.tensor
        if access.extra_mask is not None:
            _refuse(f"{name} is loaded under an extra mask", load)
        found: dict[Axis, int] = {}
        for dim, element in enumerate(access.index):
            axis = _axis_of(element, self.outer)
            if axis is None:
                if (_is_full_slice(element) and fake.shape[dim] == 1) or (isinstance(element, int) and element == 0):
                    continue
                _refuse(f"{name} is indexed by {element!r}, not by whole tiles of the loops", load)
            if axis in found:
                _refuse(f"{name} is indexed by {axis.name} twice", load)
            if is_symbolic(fake.stride(dim)):
                _refuse(f"{name} has strides that are not compile-time constants", load, "use static_shapes=True.")
            if isinstance(axis.end, int) and isinstance(fake.shape[dim], int) and axis.end > fake.shape[dim]:
                _refuse(f"loop {axis.name!r} goes beyond dimension {dim} of {name} ({fake.shape[dim]})", load)
            found[axis] = fake.stride(dim)
        unique = self._name(name)
        strides = [found.get(axis, 0) if axis is not None else 0 for axis in (m, n, batch)]
        self.aux.append(Aux.from_strides(unique, fake.dtype, *strides))
        self.aux_arguments.append(HostExpression(self.device.host_tensors[name].text))
        return unique

    def _operands(self, out: HostExpression) -> tuple[Aux, ...]:
        """The epilogue's operands; the loads are done, and which of them is the output is known."""
        pairs = zip(self.aux, self.aux_arguments)
        return tuple(
            dataclasses.replace(aux, in_place=aux.kind == "matrix" and argument == out) for aux, argument in pairs
        )

    def _number(self, value: Any, node: torch.fx.Node, dtype: torch.dtype | None = None) -> Input:
        if not is_symbolic(value):
            return value if dtype is None else torch.tensor(value, dtype=dtype).item()
        expr = expr_of(value)
        if any(self.device.space.origins[s].on_device for s in expr.free_symbols if s in self.device.space.origins):
            _refuse("its epilogue uses the position of the tile as a number", node)
        own = torch.float32 if isinstance(value, torch.SymFloat) else torch.int32
        origin = self.device.space.origins.get(expr) if expr.is_Symbol else None
        name = self._name(origin.name if origin is not None else f"number_{len(self.aux)}")
        self.aux.append(Aux(name, own, AUX_KINDS[0]))
        self.aux_arguments.append(value)
        if dtype in (None, own):
            return name
        self.statements.append(Statement(self.names.unique(f"{name}_cast"), "cast", (name,), dtype))
        return self.statements[-1].name

    def _name(self, wanted: str) -> str:
        """A free name for an operand; the printed constants are in capitals, and its tensor is called `m_` and it."""
        name = wanted.lower()
        while name.startswith("m_"):
            name = name[2:]
        return self.names.unique(name)

    def _input(self, value: Any, node: torch.fx.Node) -> Input:
        if isinstance(value, torch.fx.Node):
            if value not in self.values:
                _refuse(f"its epilogue uses {_describe(value)} from elsewhere", node)
            return self.values[value]
        if isinstance(value, torch.dtype) or value is None:
            return value  # type: ignore[return-value]  # an attribute of the op, read by its emitter
        return self._number(value, node)


_FLATTEN = 'flatten the batch dimensions into one, or use backend="triton".'


def _operand(dtype: torch.dtype, strides: dict[Axis, int], outer: Axis, inner: Axis, batch: Axis | None) -> Operand:
    """Strides as a tensor map takes them. An axis of one element is not walked: it gets a stride that can be
    encoded.
    """
    inner_stride = 1 if _extent(inner) == 1 else strides[inner]
    outer_stride = strides[outer]
    if _extent(outer) == 1:
        elements = TMA_ALIGNMENT // dtype.itemsize
        outer_stride = -(-_extent(inner) // elements) * elements if inner_stride == 1 else 1
    batch_stride = 0 if batch is None or _extent(batch) == 1 else strides.get(batch, 0)
    return Operand(dtype, outer_stride, inner_stride, batch_stride)


def _axis_of(element: Any, axes: list[Axis]) -> Axis | None:
    """The axis an index element walks: a tile that is not shifted, or the index of an hl.grid loop."""
    if isinstance(element, TracedTile):
        shift = element.offset
        return element.axis if isinstance(shift, int) and shift == 0 else None
    if is_symbolic(element):
        return next((a for a in axes if a.kind is AxisKind.GRID and expr_of(a.offset) == expr_of(element)), None)
    return None


def _is_full_slice(element: Any) -> bool:
    return isinstance(element, slice) and element == slice(None)


def _extent(axis: Axis) -> int:
    extent = axis.static_extent
    assert extent is not None
    return extent
