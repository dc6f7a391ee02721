"""Prints the graphs of one top-level loop under a schedule: the body of a Triton kernel, or of a function it calls.

A node becomes one assignment named after the user's variable.  Here are nodes as text and the statements that compute
them; `numbers`, `extents` and `axes` say what sizes, dimensions and tiles are called, and which function prints a node
is in `lowering`, which nothing here knows.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import torch
import torch.fx

from ... import exc
from ...ir.barriers import find_barriers
from ...ir.device_ir import DeviceIR
from ...ir.device_ir import GraphInfo
from ...ir.device_ir import KernelIR
from ...ir.facts import Facts
from ...ir.names import RESERVED
from ...ir.names import Names
from ...ir.nodes import HostTensorNode
from ...ir.nodes import Memory
from ...ir.nodes import Product
from ...ir.nodes import tensor_of
from ...ir.symbols import is_symbolic
from ...settings import Settings
from ..text import Text
from ..text import as_text
from ..text import call
from .axes import Axes
from .axes import along
from .dtypes import triton_dtype
from .extents import Extents
from .extents import Sizes
from .module import Module
from .numbers import Numbers
from .pipelining import GROUP_ROWS
from .pipelining import GROUP_WARPS
from .pipelining import waited_products
from .schedule import Schedule
from .schedule import multiplies
from .scope import Scope

THREADS_PER_WARP = 32


class KernelEmitter(abc.ABC):
    """Emits one top-level loop.

    Args:
        ir: the specialization.
        facts: what the analyses say about it.
        root: the top-level loop's graph.
        schedule: the resolved Config.
        settings: the kernel's settings.
        minimum_extents: sizes of whole dimensions that must be padded further (operands of tl.dot).
        module: what this loop and others of its module have in common.

    Attributes:
        names, numbers, extents, axes: of the function being printed.
        top, scope: its outermost block, and the one that statements go to.
        tensors: names of the host tensors that the loop uses.
        results: nodes with several results -> their variables.
        updates: node -> the loop variable it gives the next value of.
        waited: products that are waited for where they are (`pipelining`).
        settle: reductions whose results `hlt_settled` must pass on.
        rounds_sums: sums are not joined to products: a combine function is printed whose operands may be those.
        carried: placeholders of variables that a loop carries.
        sources: other placeholders of loops and branches, with what they stand for.
        barriers: where the threads of a program wait for each other.
    """

    def __init__(
        self,
        ir: KernelIR,
        facts: Facts,
        root: GraphInfo,
        schedule: Schedule,
        settings: Settings,
        minimum_extents: dict[Any, int],
        module: Module,
    ) -> None:
        self.ir, self.facts, self.root, self.schedule = ir, facts, root, schedule
        self.settings, self.module = settings, module
        self.names = Names((*RESERVED, *ir.device.host_tensors, *module.scalars.values(), *module.blocks.values()))
        self.top = self.scope = Scope(self.names)
        self.numbers = Numbers(ir.device, schedule, self.names, module, lambda origin: self.axes.place(origin))
        flat = root.axes if schedule.flatten.get(root.id) else ()
        space = ir.device.space
        sizes = Sizes(schedule, space.block_of, space.depends_on_device, minimum_extents, flat)
        self.extents = Extents(sizes, self.numbers)
        self.axes = Axes(
            ir.device, facts, schedule, self.names, self.number, self.numbers.block, self.extents, self.top
        )
        self.tensors = _host_tensors(ir.device, root)
        self.results: dict[torch.fx.Node, list[Text]] = {}
        self.updates: dict[torch.fx.Node, Text] = {}
        self.settle: set[torch.fx.Node] = set()
        self.rounds_sums = False
        self.carried: set[torch.fx.Node] = set()
        self.sources: dict[torch.fx.Node, torch.fx.Node] = {}
        self.waited = self._waited_products() if module.features.pending_products else set()
        self.barriers = find_barriers(ir.device, root, self._one_thread_each)
        self._texts: dict[torch.fx.Node, Text] = {}
        self._location: tuple[str, int] | None = None  # of the last comment

    @abc.abstractmethod
    def graph(self, info: GraphInfo) -> None:
        """All nodes of a graph into the current scope."""

    @abc.abstractmethod
    def node(self, node: torch.fx.Node) -> None:
        """One node into the current scope."""

    def _waited_products(self) -> set[torch.fx.Node]:
        options = [self.schedule.config, *self.schedule.loop_options.values()]
        if self.schedule.config["num_warps"] < GROUP_WARPS or not any(o.get("num_stages", 1) > 1 for o in options):
            return set()

        def by_groups(product: torch.fx.Node) -> bool:
            return self.extents.known(tensor_of(Product.of(product).a).shape[-2]) >= GROUP_ROWS

        def is_masked(operand: torch.fx.Node, dim: int) -> bool:
            return not self.facts.padding_is(operand, dim, 0)

        return waited_products(self.ir.device, by_groups, is_masked)

    def _one_thread_each(self, load: Memory) -> bool:
        """Whether the layouts that Triton gives a load have every element once: those of fewer elements than there are
        threads repeat them."""
        elements = math.prod(map(self.extents.known, load.result.shape))
        return elements >= THREADS_PER_WARP * self.schedule.config["num_warps"]

    def _check_warps(self, info: GraphInfo) -> None:
        """Check that warps of several kinds may share a loop."""
        reason = None
        if self.barriers:
            reason = "that loads what it stores: the warps that load cannot wait for those that store"
        elif not multiplies(self.ir.device, info):  # Triton's pass fails, or ends the process
            reason = "without a product of matrices, which one kind of warps would do"
        if reason is not None:
            raise exc.InvalidConfig(
                reason=f"range_warp_specializes=True in a loop {reason}", fix="leave it out.", location=info.location
            )

    def loop_options(self, info: GraphInfo) -> dict[str, Any]:
        """Keyword arguments of `tl.range`.

        Raises:
            exc.InvalidConfig: `range_warp_specializes` in a loop that cannot have it.
        """
        options = self.schedule.loop_options.get(info.id, {})
        if options.get("warp_specialize"):
            self._check_warps(info)
        if info.id not in self.barriers.loops:
            return options
        # A pipeline loads for iterations to come before the stores of this one, and so would one loop made of two.
        return {**{name: value for name, value in options.items() if name != "flatten"}, "num_stages": 1}

    # -- values --------------------------------------------------------------------------------------------------

    def number(self, value: Any) -> Text:
        """A node, or a plain or symbolic number."""
        return self._texts[value] if isinstance(value, torch.fx.Node) else self.numbers(value)

    def text(self, value: Any) -> Text:
        """An operand: a node, or a number.

        Raises:
            exc.InternalError: it is neither.
        """
        if isinstance(value, (torch.fx.Node, bool, int, float)) or is_symbolic(value):
            return self.number(value)
        raise exc.InternalError(reason=f"{type(value).__name__} {value!r} is not an operand")

    def set_text(self, node: torch.fx.Node, text: Text) -> None:
        """From here on a node is called `text`."""
        self._texts[node] = text

    def shape(self, sizes: Sequence[Any]) -> Text:
        """A shape."""
        return self.extents.shape(sizes)

    def helper(self, name: str, *arguments: object, **options: object) -> Text:
        """A call of a function of our own, as `ModuleText.helper` imports it."""
        return call(self.module.helper(name), *arguments, **options)

    def masked(self, node: torch.fx.Node, dim: int, neutral: float) -> Text:
        """The value with its padding along `dim` set to `neutral`, unless it holds that already."""
        text, value = self._texts[node], node.meta["val"]
        if self.facts.padding_is(node, dim, neutral):
            return text
        mask = self.axes.dim_mask(node, dim)
        if mask is None:
            self.check_derived(value.shape[dim], "a reduction over")
            return text
        return call("tl.where", along(mask, dim, value.dim()), text, as_text(neutral))

    def check_derived(self, size: Any, what: str) -> None:
        """A dimension made from a tile's may have no mask of its own (`tile // 2`, a merge of what was merged before).

        Raises:
            exc.BackendUnsupported: the tile may be partial, so the result would count padding.
        """
        if not isinstance(size, torch.SymInt) or self.ir.device.space.block_of(size) is not None:
            return
        if self.axes.is_of_host(size):
            return
        symbols = size.node.expr.free_symbols
        space = self.ir.device.space
        for axis in space.axes:
            if axis.block.symbol in symbols and self.axes.is_open(axis) and self.schedule.needs_mask(axis):
                text = space.constant_text(axis.end)
                constant = f", which must be a constant: put `{text}` before the loops" if text else ""
                raise exc.BackendUnsupported(
                    backend="triton",
                    reason=f"{what} a reshaped dimension of tile {axis.name!r}, which may be partial",
                    fix=f"reduce before reshaping, or use a block size that divides the range{constant}.",
                )

    # -- statements ----------------------------------------------------------------------------------------------

    def assign(self, node: torch.fx.Node, text: Text) -> Text:
        """Compute `text` into a variable named after the node."""
        name = self.updates.get(node) or Text(self.names.unique(pretty_name(node)))
        self.statement(node, f"{name} = {text}")
        if self.settings.debug_dtype_asserts and isinstance(node.meta.get("val"), torch.Tensor):
            self.scope.add(f"tl.static_assert({name}.dtype == {triton_dtype(node.meta['val'].dtype)})")
        self._texts[node] = name
        return name

    def assign_several(self, node: torch.fx.Node, text: Text, names: Sequence[str]) -> list[Text]:
        """Compute `text`, a tuple, into variables called like `names`: the results of the node."""
        own = [Text(self.names.unique(name)) for name in names]
        self.statement(node, f"{', '.join(map(str, own))}{',' if len(own) == 1 else ''} = {text}")
        self.results[node] = own
        return own

    def define(self, wanted: str, text: Text) -> Text:
        """Compute `text` here, into a variable called like `wanted`."""
        name = self.names.unique(wanted)
        self.scope.add(f"{name} = {text}")
        return Text(name)

    def statement(self, node: torch.fx.Node, line: object) -> None:
        """A statement."""
        self.comment(node)
        self.scope.add(str(line))

    def comment(self, node: torch.fx.Node) -> None:
        """Say once which line of the user's the following statements are from."""
        location = node.meta.get("location")
        if self.settings.output_origin_lines and location is not None:
            key = (location.file, location.line)
            if key != self._location:
                self._location = key
                self.scope.add(f"# {location.short()}: {location.text.strip()}")

    @contextlib.contextmanager
    def inside(self, scope: Scope, *, elsewhere: bool = False) -> Iterator[Scope]:
        """In a `with` block, statements go to `scope`; `elsewhere`: it is no block between the statements around."""
        outer, location = self.scope, self._location
        self.scope, self._location = scope, None
        yield scope
        self.scope, self._location = outer, location if elsewhere else None


def _host_tensors(device: DeviceIR, root: GraphInfo) -> list[str]:
    graphs = {info.graph for info in device.inside(root)}
    used = {tensor.name for tensor in device.views(HostTensorNode) if tensor.node.graph in graphs}
    return [name for name in device.host_tensors if name in used]


#: A function that prints the nodes of one target.
Rule = Callable[[KernelEmitter, torch.fx.Node], object]
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


def pretty_name(node: torch.fx.Node) -> str:
    """A variable name for a node: the user's, or the op's without overload noise."""
    name = node.name
    if node.meta.get("user_name"):
        return name
    base = name.rstrip("0123456789").rstrip("_") if name[-1].isdigit() else name
    return _without_noise(base)


@functools.lru_cache(4096)
def _without_noise(name: str) -> str:
    for noise in _OVERLOAD_NOISE:
        name = name.replace(noise, "")
    return {"convert_element_type": "cast", "getitem": "value"}.get(name, name)
