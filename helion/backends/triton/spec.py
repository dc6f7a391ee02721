"""What a kernel can tune on the Triton backend: from the IR to a ConfigSpec."""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch

from ... import exc
from ...config import Config
from ...config_keys import EVICTION_POLICIES
from ...config_keys import INDEXING_TYPES
from ...config_keys import LOAD_CACHE_MODIFIERS
from ...config_keys import PID_TYPES
from ...config_keys import STORE_CACHE_MODIFIERS
from ...config_spec import ConfigSpec
from ...fragments import BlockSizeFragment
from ...fragments import BooleanFragment
from ...fragments import EnumFragment
from ...fragments import Fragment
from ...fragments import IntegerFragment
from ...fragments import ListOf
from ...fragments import OneOrPerItem
from ...fragments import PermutationFragment
from ...fragments import PowerOfTwoFragment
from ...ir.barriers import find_barriers
from ...ir.block_sizes import tunable_blocks
from ...ir.device_ir import AxisKind
from ...ir.device_ir import BlockSize
from ...ir.device_ir import DeviceIR
from ...ir.device_ir import GraphInfo
from ...ir.device_ir import GraphKind
from ...ir.device_ir import KernelIR
from ...ir.device_ir import RollableReduction
from ...ir.device_ir import TracedTile
from ...ir.facts import Facts
from ...ir.nodes import ForLoop
from ...ir.nodes import Full
from ...ir.nodes import HostTensorNode
from ...ir.nodes import Load
from ...ir.nodes import Product
from ...ir.nodes import Store
from ...ir.nodes import tensor_of
from ...ir.pointwise import POINTWISE
from ...ir.reductions import lane_numbers
from ...ir.reductions import passes
from ...ir.reductions import rolling_constraint
from ...ir.symbols import evaluated
from ...ir.symbols import shape_exprs
from ...ir.symbols import symbols_of
from ...language.views import lanes_of
from ...numbers import next_power_of_2
from ...settings import DOT_PRECISIONS
from ...settings import Settings
from .boxes import moves_boxes
from .default_facts import KernelFacts
from .default_facts import along_k
from .default_facts import depths_of
from .default_facts import row_bytes
from .default_facts import row_uses
from .defaults import computed_default
from .dtypes import SMALLEST_SIDE
from .dtypes import smallest_k
from .epilogue import epilogues
from .limits import MAX_TENSOR_ELEMENTS
from .limits import TileSizes
from .limits import constraint
from .limits import is_tile_value
from .limits import more_registers_than_there_are
from .limits import too_large_for_registers
from .limits import too_long_to_unroll
from .limits import too_narrow_parts
from .schedule import device_loops
from .schedule import loads
from .schedule import loop_statements
from .schedule import memory_accesses
from .schedule import multi_axis_roots
from .schedule import multiplies
from .schedule import stores
from .shared_memory import ProductMemory
from .starts import product_starts
from .targets import Features
from .waiting import keep_order

# Elements a tile of the default Config may have: a few registers per thread with 4 warps.
_DEFAULT_ELEMENTS = 2048
_MAX_BLOCK = 1 << 14
# What `reduction_loops=[1]` means.
_SMALLEST_CHUNK = 8
# Longer rows than this are reduced in a loop by default.
_MAX_WHOLE_REDUCTION = 1 << 14


def _reduction_fragment(reduction: RollableReduction) -> EnumFragment:
    """None (the whole dimension in one tile) or a chunk; long dimensions are looped by default."""
    extent = next_power_of_2(reduction.axis.block.extent or _MAX_BLOCK)
    chunks = [1 << e for e in range(4, 16) if 1 << e < extent]

    def accept(value: int | None) -> int | None:
        """Any power of two: a loop of one chunk is none, and one of single elements is not worth it."""
        if value is None or value >= extent:
            return None if extent <= MAX_TENSOR_ELEMENTS else chunks[-1]
        return _SMALLEST_CHUNK if value == 1 else value

    if extent <= _MAX_WHOLE_REDUCTION or not chunks:
        return EnumFragment([None, *chunks], accept)
    default = min(2048, chunks[-1])
    whole = [None] if extent <= MAX_TENSOR_ELEMENTS else []
    return EnumFragment([default, *whole, *(c for c in chunks if c != default)], accept)


def build_config_spec(
    ir: KernelIR, facts: Facts, settings: Settings, features: Features, tiles: TileSizes
) -> ConfigSpec:
    """The space of schedules of one kernel."""
    device, reductions = ir.device, ir.reductions
    spec = ConfigSpec(ir.name, location=ir.location, ignored_warnings=settings.ignore_warnings)
    blocks = tunable_blocks(device)
    products = device.views(Product)
    roles = _roles(device, products)
    if blocks:
        defaults = default_block_sizes(device, roles)
        low = dot_block_minimums(products, device)
        # Operands with scales cannot be padded.
        scaled = dot_block_minimums([product for product in products if product.fact.group > 1], device)
        fragments = []
        for block in blocks:
            smallest = next_power_of_2(max(block.low, low.get(block.id, 1)))
            floor = next_power_of_2(max(block.low, scaled.get(block.id, 1)))
            extent = block.extent if block.extent is not None else _MAX_BLOCK
            ceiling = max(smallest, next_power_of_2(block.high) if block.high else MAX_TENSOR_ELEMENTS)
            largest = max(smallest, min(_MAX_BLOCK, ceiling, next_power_of_2(extent)))
            default = min(max(defaults[block.id], smallest), largest)
            fragments.append(
                BlockSizeFragment(smallest, largest, default, MAX_TENSOR_ELEMENTS, floor, ceiling, block.extent)
            )
        spec.fields["block_sizes"] = ListOf(fragments, labels=[b.label for b in blocks])
    roots = multi_axis_roots(device)
    if roots:
        labels = [f"the top-level loop over {', '.join(a.name for a in info.axes)}" for info in roots]
        spec.fields["loop_orders"] = ListOf([PermutationFragment(len(info.axes)) for info in roots], labels=labels)
        spec.fields["l2_groupings"] = ListOf(PowerOfTwoFragment(1, 64, accepted=1 << 10), len(roots), labels)
        spec.fields["flatten_loops"] = ListOf(
            [BooleanFragment() if can_flatten(info) else EnumFragment([False], _nowhere) for info in roots],
            labels=labels,
            blocks=[info.axes[0].block.id for info in roots],
        )
    if reductions:
        spec.fields["reduction_loops"] = ListOf(
            [_reduction_fragment(r) for r in reductions],
            labels=[f"a dimension of {device.space.readable(str(r.size))}" for r in reductions],
            blocks=[r.axis.block.id for r in reductions],
        )
    _loop_fields(spec, device, settings, features, blocks)
    spec.fields["num_warps"] = PowerOfTwoFragment(1, 32, 4)
    spec.fields["num_stages"] = IntegerFragment(1, 8, 1, accepted=16)
    spec.fields["maxnreg"] = EnumFragment([None, 32, 64, 128, 256], _as_given)
    accesses = memory_accesses(device)
    if accesses:
        spec.fields["indexing"] = OneOrPerItem(EnumFragment(INDEXING_TYPES), len(accesses))
    if loads(device):
        count = len(loads(device))
        spec.fields["load_eviction_policies"] = ListOf(EnumFragment(EVICTION_POLICIES), count)
        spec.accepted["load_cache_modifiers"] = ListOf(EnumFragment(LOAD_CACHE_MODIFIERS), count)
    if stores(device):
        spec.accepted["store_cache_modifiers"] = ListOf(EnumFragment(STORE_CACHE_MODIFIERS), len(stores(device)))
    spec.accepted["advanced_controls_file"] = EnumFragment([""], _as_given)
    subtiled = [e for info in device.graphs for e in epilogues(device, facts, info)] if products else []
    if subtiled:
        spec.fields["epilogue_subtile"] = EnumFragment([None, 2, 4], _parts)
    spec.fields["pid_type"] = _pid_types(device)
    spec.fields["num_sm_multiplier"] = PowerOfTwoFragment(1, 8, accepted=128)
    keep_order(spec, device)
    spec.fields.update(ir.tunables)
    spec.constraints += [constraint(ir, tiles), rolling_constraint(device, reductions)]
    spec.unpromising += [too_large_for_registers(tiles), more_registers_than_there_are]
    memory = ProductMemory(ir, products, tiles, features)
    if products:
        spec.unpromising.append(memory.check)
    if subtiled:
        spec.unpromising.append(too_narrow_parts(blocks, subtiled))
    own_roles = [roles.get(block.id, set()) for block in blocks]
    if roles:
        spec.find_starts = functools.partial(product_starts, spec, own_roles, max(map(_itemsize, products)))
    chosen_by = _kernel_facts(ir, blocks, products, own_roles, tiles, memory, features, settings.dot_precision)
    spec.compute = functools.partial(computed_default, spec, chosen_by)
    return spec


def _itemsize(product: Product) -> int:
    """Bytes of an element of the wider operand."""
    return max(tensor_of(operand).dtype.itemsize for operand in (product.a, product.b))


def _kernel_facts(
    ir: KernelIR,
    blocks: list[BlockSize],
    products: Sequence[Product],
    roles: list[set[str]],
    tiles: TileSizes,
    memory: ProductMemory,
    features: Features,
    precision: str,
) -> KernelFacts:
    """What the default Config is computed from."""
    device = ir.device
    return KernelFacts(
        device,
        blocks,
        roles,
        _batches(products, blocks),
        list(map(_itemsize, products)),
        list(tiles.shapes),
        tiles.elements,
        [reduction.axis.block.extent or _MAX_BLOCK for reduction in ir.reductions],
        [row_uses(device, reduction) for reduction in ir.reductions],
        [passes(device, reduction) for reduction in ir.reductions],
        [row_bytes(device, reduction) for reduction in ir.reductions],
        [lane_numbers(device, reduction) for reduction in ir.reductions],
        features.multiprocessors,
        features.l2_bytes,
        features.shared_bytes,
        features.warp_groups,
        DOT_PRECISIONS.get(precision, precision) == "tf32",
        lambda config: moves_boxes(ir, Config(**config), dot_extents(device)),
        list(map(along_k, products)),
        memory,
    )


def _batches(products: Sequence[Product], blocks: Sequence[BlockSize]) -> set[int]:
    """Places of the block sizes of products' batches."""
    symbols = {s for product in products for size in product.result.shape[:-2] for s in symbols_of(size)}
    return {i for i, block in enumerate(blocks) if block.symbol in symbols}


def _single_warp_kind(device: DeviceIR, info: GraphInfo) -> bool:
    """Whether warps of several kinds cannot share a loop, whatever the Config."""
    roots = (device.graphs[root.graph_id] for root in device.roots)
    ordered = (root for root in roots if info in device.inside(root))
    return not multiplies(device, info) or any(find_barriers(device, root, lambda load: True) for root in ordered)


def _carries_through(device: DeviceIR, info: GraphInfo) -> bool:
    """Whether an inner loop goes on from what a loop carries, and what was carried is read behind it. Triton 3.6 and
    3.7 make one loop of the two, in which it is then what the last inner iteration began with.
    """
    made = {info.placeholders[position] for position in info.carried}
    goes_on = False
    for node in info.graph.nodes:
        reads = not made.isdisjoint(node.all_input_nodes)
        if goes_on and reads:
            return True
        loop = ForLoop.match(node)
        if loop is not None:
            goes_on |= any(loop.inputs[position] in made for position in device.graphs[loop.graph_id].carried)
        elif reads:
            made.add(node)
    return False


def _not_flattened(value: Any) -> Any:
    if value in (None, False):
        return value
    raise ValueError(
        "expected None or False: an inner loop goes on from what this loop carries and reads again behind it, which "
        "Triton gets wrong in a flattened loop"
    )


def _one_kind_of_warps(value: Any) -> Any:
    if value in (None, False):
        return value
    raise ValueError("expected None or False: warps share the work of a loop that has products and needs no barriers")


def _as_given(value: Any) -> Any:
    """Any value that the key may have at all."""
    return value


def _nowhere(value: Any) -> bool:
    """A flag that has nothing to act on here."""
    return False


def _parts(value: int | None) -> int | None:
    if value not in (None, 1, 2, 4):
        raise ValueError("expected one of None, 2, 4 (True is 2, False is None)")
    return None if value == 1 else value


def _loop_fields(
    spec: ConfigSpec, device: DeviceIR, settings: Settings, features: Features, blocks: Sequence[BlockSize]
) -> None:
    """What can be said of each loop statement. Searches vary it of inner loops only."""
    statements, loops = loop_statements(device), device_loops(device)
    labels = [", ".join(a.name for a in info.axes) for info in statements]

    def per_statement(searched: Fragment, of: Callable[[GraphInfo], Fragment | None] = lambda info: None) -> ListOf:
        outer = EnumFragment([searched.default()], _as_given)
        ids = [info.axes[0].block.id for info in statements]
        choices = [of(info) or searched if info.kind is GraphKind.LOOP else outer for info in statements]
        return ListOf(choices, labels=labels, blocks=ids)

    def unless_carried_through(info: GraphInfo) -> Fragment | None:
        return EnumFragment([None, False], _not_flattened) if _carries_through(device, info) else None

    tri_state = EnumFragment([None, True, False])
    fields: dict[str, Fragment] = {
        "range_unroll_factors": per_statement(IntegerFragment(0, 4, accepted=64)),
        "range_num_stages": per_statement(IntegerFragment(0, 4, accepted=16)),
        "range_multi_buffers": per_statement(tri_state),
        "range_flattens": per_statement(tri_state, unless_carried_through),
    }
    if settings.allow_warp_specialize and features.warp_specialize:
        choices = per_statement(tri_state)
        items = [
            EnumFragment([None, False], _one_kind_of_warps) if _single_warp_kind(device, info) else choice
            for info, choice in zip(statements, choices.items)
        ]
        fields["range_warp_specializes"] = ListOf(items, labels=labels)
    if not loops:
        spec.accepted.update(fields)
        return
    spec.fields.update(fields)
    static = [info.kind is GraphKind.LOOP and all(a.static_extent is not None for a in info.axes) for info in loops]
    spec.fields["static_ranges"] = ListOf(
        [BooleanFragment() if s else EnumFragment([False], _nowhere) for s in static],
        labels=[", ".join(a.name for a in info.axes) for info in loops],
    )
    spec.unpromising.append(too_long_to_unroll(blocks, loops))


def _pid_types(device: DeviceIR) -> EnumFragment:
    """How programs may be mapped to tiles; the first is the default."""
    if device.roots[-1].phase > 0:  # the programs wait for each other at hl.barrier(): all must be there
        return EnumFragment(("persistent_interleaved", "persistent_blocked"), _only_persistent)
    axes = len(device.graphs[device.roots[0].graph_id].axes)
    one_loop = len(device.roots) == 1
    choices = [p for p in PID_TYPES if p != "xyz" or (one_loop and 2 <= axes <= 3)]

    def accept(value: str) -> str:
        if value in choices:
            return value
        if one_loop and axes == 1:
            return "flat"  # a grid of one dimension is flat
        what = f"this loop has {axes} dimensions" if one_loop else "there are several top-level loops"
        raise ValueError(f"'xyz' is for one loop of up to 3, {what}: expected one of {', '.join(map(repr, choices))}")

    return EnumFragment(choices, accept)


def _only_persistent(value: str) -> str:
    if not value.startswith("persistent"):
        raise exc.BarrierRequiresPersistent(
            reason=f"pid_type={value!r}: the programs of a kernel with hl.barrier() wait for each other, so that they "
            "must be persistent",
            fix="use pid_type='persistent_interleaved' or 'persistent_blocked', or leave it out.",
        )
    return value


# -- defaults -------------------------------------------------------------------------------------------------------


def default_block_sizes(ir: DeviceIR, in_dot: Mapping[int, set[str]]) -> dict[int, int]:
    """Block sizes that work on every kernel: modest tiles, wide in the innermost dimension.

    Args:
        ir: the device IR.
        in_dot: as `_roles` finds them.
    """
    blocks = tunable_blocks(ir)
    sizes = {block.id: 1 for block in blocks}
    symbols = {block.symbol: block.id for block in blocks}
    for block in blocks:
        if block.id in in_dot:
            extent = next_power_of_2(block.extent) if block.extent else 64
            sizes[block.id] = min(32 if in_dot[block.id] == {"k"} else 64, extent)
    shapes = [shape_exprs(n.meta["val"].shape) for _, n in ir.nodes() if is_tile_value(n) and n.meta["val"].dim()]
    fixed = {b.symbol: b.fixed for b in ir.space.blocks if isinstance(b.fixed, int)}

    def elements(shape: tuple[Any, ...]) -> int:
        total = 1
        for size in shape:
            known = evaluated(size, {**fixed, **{symbol: sizes[i] for symbol, i in symbols.items()}})
            total *= next_power_of_2(int(known)) if known.is_Integer else 64
        return total

    # Grow block sizes from the innermost dimension outwards while every tile stays within the budget.
    depth = depths_of(blocks, shapes)
    for id_ in sorted((i for i in sizes if i not in in_dot), key=lambda i: (depth.get(i, 99), i)):
        block = ir.space.blocks[id_]
        limit = min(1024, next_power_of_2(block.extent) if block.extent else 1024, next_power_of_2(block.high or 1024))
        own = [shape for shape in shapes if block.symbol in set().union(*(s.free_symbols for s in shape))]
        while own and sizes[id_] * 2 <= limit:
            sizes[id_] *= 2
            if any(elements(shape) > _DEFAULT_ELEMENTS for shape in own):
                sizes[id_] //= 2
                break
    return sizes


def _roles(ir: DeviceIR, products: Sequence[Product]) -> dict[int, set[str]]:
    """Block id -> which of m, n, k it is in matrix products."""
    roles: dict[int, set[str]] = {}
    for product in products:
        for operand, dims in ((product.a, {-2: "m", -1: "k"}), (product.b, {-2: "k", -1: "n"})):
            for dim, role in dims.items():
                for block in ir.space.blocks:
                    if block.symbol in symbols_of(tensor_of(operand).shape[dim]):
                        roles.setdefault(block.id, set()).add(role)
    return roles


def _smallest(product: Product) -> list[tuple[Any, int]]:
    """Sizes of a product's operands, each with the smallest extent that Triton takes there."""
    a, b = tensor_of(product.a), tensor_of(product.b)
    smallest = max(smallest_k(a.dtype), product.fact.group)
    packed_a, packed_b = product.fact.packed(*product.node.args)
    return [
        (a.shape[-1], smallest // packed_a),
        (b.shape[-2], smallest // packed_b),
        (a.shape[-2], SMALLEST_SIDE),
        (b.shape[-1], SMALLEST_SIDE),
    ]


def dot_block_minimums(products: Sequence[Product], ir: DeviceIR) -> dict[int, int]:
    """Block id -> smallest size that these products take for it."""
    low: dict[int, int] = {}
    for product in products:
        for size, smallest in _smallest(product):
            block = ir.space.block_of(size)
            if block is not None:
                low[block.id] = max(low.get(block.id, 1), smallest)
    return low


def dot_extents(ir: DeviceIR) -> dict[Any, int]:
    """Constant sizes used in products -> the extent they must at least be padded to."""
    found: dict[Any, int] = {}
    # Extents go by size, and scales have one for each group of K: where that is as many as there are rows, padding
    # would make the scales too wide. Triton takes few rows of a product with scales.
    for product in (product for product in ir.views(Product) if product.fact.group == 1):
        for size, smallest in _smallest(product):
            if isinstance(size, int) and size > 1:
                found[size] = max(found.get(size, 1), smallest)
    for size in _cheaper_on_their_way(ir, {size for size in found if next_power_of_2(size) < found[size]}):
        del found[size]
    for _, node in ir.calls.get(lanes_of, ()):  # the same lanes under another size
        for old, new in zip(tensor_of(node.args[0]).shape, tensor_of(node).shape):
            if isinstance(old, int) and isinstance(new, int) and new in found:
                found[old] = max(found.get(old, 1), found[new])
    return found


def _cheaper_on_their_way(ir: DeviceIR, sizes: Collection[int]) -> set[int]:
    """Which of these sizes of products other dimensions of the kernel have too: extents go by size, so all of them
    would be padded.  `x[n, :, y, :, :, :]` of [2, 2, 2, 2], reshaped to an operand of [2, 8], had 16 ** 4 elements.
    """
    if not sizes:
        return set()
    times, ranks = dict.fromkeys(sizes, 0), dict.fromkeys(sizes, 0)
    for product in ir.views(Product):
        for shape in (tensor_of(n).shape for n in (product.a, product.b, product.node)):
            for size in sizes:
                times[size] = max(times[size], _count(shape[-2:], size))
                ranks[size] = max(ranks[size], _rank(shape) if _count(shape[-2:], size) else 0)
    views = (n for _, node in ir.calls.get(lanes_of, ()) for n in (node, node.args[0]))
    tied = {size for node in views for size in tensor_of(node).shape if isinstance(size, int)}
    shapes = [n.meta["val"].shape for _, n in ir.nodes() if is_tile_value(n)]
    return {
        size
        for size in sizes
        if size not in tied
        and any((m := _count(shape, size)) > times[size] or (m and _rank(shape) > ranks[size]) for shape in shapes)
    }


def _count(shape: Sequence[Any], size: int) -> int:
    return sum(1 for n in shape if isinstance(n, int) and n == size)


def _rank(shape: Sequence[Any]) -> int:
    """The dimensions that a value of this shape has but for those of one element."""
    return sum(1 for n in shape if not (isinstance(n, int) and n == 1))


def can_flatten(info: GraphInfo) -> bool:
    """Whether a loop's dimensions can be one: all its values have exactly the loop's shape or are scalars."""
    if any(a.kind is not AxisKind.TILE or a.block.fixed is not None for a in info.axes):
        return False
    if any(not (isinstance(a.begin, int) and a.begin == 0) for a in info.axes):
        return False
    whole = tuple(a.block.symbol for a in info.axes)
    for node in info.graph.nodes:
        if node.op != "call_function" or HostTensorNode.match(node):
            continue
        value = node.meta.get("val")
        if not isinstance(value, (torch.Tensor, type(None))):
            return False
        access = Load.match(node) or Store.match(node)
        if not (access or Full.match(node) or node.target in POINTWISE):
            return False
        if access:
            tiles = [e.axis.block.symbol for e in access.index if isinstance(e, TracedTile)]
            if tuple(tiles) != whole or any(not isinstance(e, (TracedTile, int)) for e in access.index):
                return False
        if isinstance(value, torch.Tensor) and value.dim() and shape_exprs(value.shape) != whole:
            return False
    return True
