"""A Config resolved against one kernel: the numbers the emitter works with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import sympy
import torch

from ..._locks import cached_property
from ...config import Config
from ...ir.block_sizes import resolve_constants
from ...ir.device_ir import Axis
from ...ir.device_ir import AxisKind
from ...ir.device_ir import DeviceIR
from ...ir.device_ir import GraphInfo
from ...ir.device_ir import GraphKind
from ...ir.device_ir import KernelIR
from ...ir.nodes import Load
from ...ir.nodes import Memory
from ...ir.nodes import Product
from ...ir.nodes import Store
from ...ir.symbols import OriginKind
from ...ir.symbols import evaluated
from ...ir.symbols import expr_of


def multi_axis_roots(ir: DeviceIR) -> list[GraphInfo]:
    """Top-level loops of several dimensions: what loop_orders, l2_groupings and flatten_loops list."""
    return [ir.graphs[r.graph_id] for r in ir.roots if len(ir.graphs[r.graph_id].axes) > 1]


def multiplies(device: DeviceIR, info: GraphInfo) -> bool:
    """Whether there is a product of matrices in a loop, or in one inside of it."""
    products = device.views(Product)
    return bool(products) and not {p.node.graph for p in products}.isdisjoint(i.graph for i in device.inside(info))


def device_loops(ir: DeviceIR) -> list[GraphInfo]:
    """Inner loops, in the order of `static_ranges`; a top-level loop stands for one that has become part of it."""
    first = set()
    found = []
    for info in loop_statements(ir):
        if info.kind is GraphKind.LOOP or info.id in first:
            found.append(info)
        first.add(info.id)
    return found


def loop_statements(ir: DeviceIR) -> list[GraphInfo]:
    """The hl.tile and hl.grid statements, in the order of the source and of the range_* keys: each top-level loop
    before the loops inside it.  One that several statements made stands there several times.
    """

    def inside(info: GraphInfo) -> Iterator[GraphInfo]:
        for held in ir.held_by(info):
            if held.kind is GraphKind.LOOP:
                yield held
            yield from inside(held)

    roots = (ir.graphs[root.graph_id] for root in ir.roots)
    return [info for root in roots for info in (*[root] * root.statements, *inside(root))]


def memory_accesses(ir: DeviceIR) -> list[torch.fx.Node]:
    """Loads and stores, in the order of a per-access `indexing` list."""
    return [m.node for m in ir.views(Memory) if Load.match(m.node) or Store.match(m.node)]


def loads(ir: DeviceIR) -> list[torch.fx.Node]:
    """Loads, in the order of `load_eviction_policies` and `load_cache_modifiers`."""
    return [load.node for load in ir.views(Load)]


def stores(ir: DeviceIR) -> list[torch.fx.Node]:
    """Stores, in the order of `store_cache_modifiers`."""
    return [store.node for store in ir.views(Store)]


@dataclasses.dataclass(eq=False)
class Schedule:
    """What a Config says about each part of a kernel.

    Attributes:
        device: the IR that is printed.
        config: the normalized Config.
        constants: block-size and tunable symbols -> value.
        order, l2_group, flatten: per top-level loop of several dimensions, by graph id.
        loop_options: per loop statement, by graph id: keyword arguments of tl.range. Those of a top-level loop are of
            the loop that persistent programs make over its tiles.
        static_loops: inner loops to unroll completely, by graph id.
        indexing: per load or store node.
        eviction: per load node.
        cache: cache modifier per load or store node.
        epilogue_parts: in how many parts accumulators are finished and stored; 1 for all at once.
    """

    device: DeviceIR
    config: Config
    constants: dict[sympy.Symbol, int]
    order: dict[int, list[int]]
    l2_group: dict[int, int]
    flatten: dict[int, bool]
    loop_options: dict[int, dict[str, Any]]
    static_loops: set[int]
    indexing: dict[torch.fx.Node, str]
    eviction: dict[torch.fx.Node, str]
    cache: dict[torch.fx.Node, str]
    epilogue_parts: int = 1

    def size(self, value: Any) -> int | sympy.Expr:
        """A size with block sizes and tunables replaced by their values."""
        if isinstance(value, int):
            return value
        expr = evaluated(expr_of(value), self.constants)
        return int(expr) if expr.is_Integer else expr

    def block_size(self, axis: Axis) -> int:
        """How many elements of an axis one tile covers."""
        return self.constants[axis.block.symbol]

    def needs_mask(self, axis: Axis) -> bool:
        """Whether the last tile of an axis may be partial.

        In a flattened loop that is of all its dimensions together: it is not where each of them divides. One of them
        alone says nothing: in 5 rows of 7 by tiles of 1 and 4 every row has its tile, and the last one goes on past
        the end.
        """
        together = next((info.axes for info in self._flattened if axis in info.axes), [axis])
        return any(map(self._may_be_partial, together))

    @cached_property
    def _flattened(self) -> list[GraphInfo]:
        return [info for info in self.device.graphs if self.flatten.get(info.id)]

    def _may_be_partial(self, axis: Axis) -> bool:
        if axis.kind is AxisKind.GRID:
            return False
        size = self.block_size(axis)
        extent = axis.static_extent
        if extent is not None:
            return extent % size != 0
        return not (self._divides(size, axis.begin) and self._divides(size, axis.end))

    def with_the_kernels_stages(self, graphs: list[int]) -> None:
        """Let the loops of some graphs load as far ahead as `num_stages` says, whatever `range_num_stages` does."""
        for graph in graphs:
            self.loop_options.get(graph, {}).pop("num_stages", None)

    def without_stages(self, graphs: list[int]) -> None:
        """Let the loops of some graphs load nothing ahead, as a loop does whose Config has one stage."""
        for graph in graphs:
            if self.config.get("num_stages", 1) > 1 or self.loop_options.get(graph, {}).get("num_stages", 1) > 1:
                self.loop_options.setdefault(graph, {})["num_stages"] = 1

    def _divides(self, size: int, bound: Any) -> bool:
        """Whether a bound of a loop is surely a multiple of `size`; those of other tiles are where their blocks are."""
        if size == 1:
            return True
        if isinstance(bound, (torch.Tensor, torch.fx.Node)):
            return False
        expr = self.size(bound)
        if isinstance(expr, int):
            return expr % size == 0
        origin = self.device.space.origins.get(expr)
        if origin is None or origin.kind not in (OriginKind.TILE_BEGIN, OriginKind.TILE_END):
            return False
        axis = self.device.space.axes[origin.index]
        bounds = (axis.begin,) if origin.kind is OriginKind.TILE_BEGIN else (axis.begin, axis.end)
        return self.block_size(axis) % size == 0 and all(self._divides(size, b) for b in bounds)


def resolve(rolled: KernelIR, ir: KernelIR, config: Config) -> Schedule:
    """The schedule of a Config that the kernel's ConfigSpec has normalized.

    Args:
        rolled: the IR that is printed; its nodes may be copies of those of `ir`.
        ir: the IR the ConfigSpec was made from.
        config: the Config.
    """
    device = ir.device
    tunables = {key: config[key] for key in ir.tunables}
    constants = resolve_constants(device, config.get("block_sizes", []), tunables)
    roots = multi_axis_roots(device)
    loops = device_loops(device)
    statements = loop_statements(device)
    options: dict[int, dict[str, Any]] = {info.id: {} for info in statements}
    for key, option, silent in (
        ("range_unroll_factors", "loop_unroll_factor", 0),
        ("range_num_stages", "num_stages", 0),
        ("range_multi_buffers", "disallow_acc_multi_buffer", None),
        ("range_flattens", "flatten", None),
        ("range_warp_specializes", "warp_specialize", None),
    ):
        for info, value in reversed(list(zip(statements, config.get(key, [])))):
            if info.kind is GraphKind.ROOT:
                options[info.id].pop(option, None)  # what is said of the outermost statement counts
            if value is not None and value != silent:
                options[info.id][option] = (not value) if key == "range_multi_buffers" else value
    options.update(_looped_reductions(rolled.device, config))
    accesses, loaded, stored = memory_accesses(device), loads(device), stores(device)
    indexing = config.get("indexing", "pointer")
    per_access = indexing if isinstance(indexing, list) else [indexing] * len(accesses)
    return Schedule(
        device=rolled.device,
        config=config,
        constants=constants,
        order={info.id: order for info, order in zip(roots, config.get("loop_orders", []))},
        l2_group={info.id: group for info, group in zip(roots, config.get("l2_groupings", []))},
        flatten={
            info.id: flag and config.get("pid_type") != "xyz"
            for info, flag in zip(roots, config.get("flatten_loops", []))
        },
        loop_options=options,
        static_loops={
            info.id
            for info, flag in zip(loops, config.get("static_ranges", []))
            if flag and info.kind is GraphKind.LOOP
        },
        indexing=_for_copies(rolled, dict(zip(accesses, per_access))),
        eviction=_for_copies(rolled, dict(zip(loaded, config.get("load_eviction_policies", [])))),
        cache=_for_copies(
            rolled,
            {
                **dict(zip(loaded, config.get("load_cache_modifiers", []))),
                **dict(zip(stored, config.get("store_cache_modifiers", []))),
            },
        ),
        epilogue_parts=config.get("epilogue_subtile") or 1,
    )


def _looped_reductions(device: DeviceIR, config: Config) -> dict[int, dict[str, Any]]:
    """Options of the loops over chunks of a dimension: `num_stages`, which Triton itself heeds only where a loop has a
    product."""
    stages = config.get("num_stages", 1)
    found = [info for info in device.graphs if any(axis.kind is AxisKind.REDUCTION for axis in info.axes)]
    if stages == 1 or device.views(Product):
        return {}
    return {info.id: {"num_stages": stages} for info in found}


def _for_copies(ir: KernelIR, values: dict[torch.fx.Node, str]) -> dict[torch.fx.Node, str]:
    """Values by load or store, also for the copies that looped reductions make of it."""
    copies = (memory.node for memory in ir.device.views(Memory))
    return {**values, **{n: values[n.meta["origin"]] for n in copies if n.meta.get("origin") in values}}
