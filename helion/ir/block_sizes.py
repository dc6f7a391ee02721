"""Block sizes and tunables as numbers: what a Config, or the lack of one, makes of their symbols."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import sympy
import torch

from .. import exc
from .._compat_sympy import FloorDiv
from .._compat_sympy import Max
from .._compat_sympy import Min
from ..numbers import next_power_of_2
from .device_ir import Axis
from .device_ir import AxisKind
from .device_ir import BlockSize
from .device_ir import DeviceIR
from .device_ir import GraphInfo
from .space import Space
from .symbols import Origin
from .symbols import OriginKind
from .symbols import evaluated
from .symbols import expr_of

#: Without a Config tiles are large: nested tiles together have at most this many elements.
_TILE_ELEMENTS = 1 << 22
#: Extent assumed for loops whose bounds are known only while running.
_UNKNOWN_EXTENT = 1024


@dataclasses.dataclass(eq=False)
class SizedIR:
    """Device code under one choice of block sizes: what the tile executor runs.

    Attributes:
        ir: the device IR.
        constants: value of each block-size and tunable symbol.
        executor: the executor's compiled form, made at the first launch.
    """

    ir: DeviceIR
    constants: dict[sympy.Symbol, int]
    executor: Any = None


def tunable_blocks(ir: DeviceIR) -> list[BlockSize]:
    """The blocks whose size the Config gives, in the order of `block_sizes`: of tiles, and all that are registered.

    A registered size may be a buffer's, or the length of an `hl.arange`, and no tile's.
    """
    reduced = {axis.block.id for axis in ir.space.axes if axis.kind is AxisKind.REDUCTION}
    return [block for block in ir.space.blocks if block.fixed is None and block.id not in reduced]


def resolve_constants(
    ir: DeviceIR, block_sizes: Sequence[int] | None, tunables: Mapping[str, Any]
) -> dict[sympy.Symbol, int]:
    """The value of each block-size and tunable symbol.

    Args:
        ir: the device IR.
        block_sizes: the Config's, one per tunable block in the order of `DeviceIR.blocks`; None for large tiles.
        tunables: value of each `hl.register_tunable` key.

    Raises:
        exc.InvalidConfig: the number of block sizes is wrong.
        exc.SizeNotConstant: a block size given by the kernel depends on the arguments.
    """
    constants: dict[sympy.Symbol, int] = {}
    tunable = tunable_blocks(ir)
    sizes = large_tiles(ir, tunable) if block_sizes is None else list(block_sizes)
    if len(sizes) != len(tunable):
        raise exc.InvalidConfig(reason=f"block_sizes has {len(sizes)} entries, this kernel takes {len(tunable)}")
    constants.update((block.symbol, size) for block, size in zip(tunable, sizes, strict=True))
    add_computed(ir, constants, tunables)
    return constants


def held_sizes(space: Space, size: torch.SymInt) -> dict[sympy.Symbol, tuple[int, int]]:
    """Between which values guards hold the host's numbers that a size is made of, so that it has one extent.

    A size that grows with a number has it in its bucket, up to a power of two; else the number is what it was.
    """
    expr, hints = space.written_out(size.node.expr), size.node.shape_env.backed_var_to_val
    held = {}
    for symbol in space.made_of(expr.free_symbols):
        origin = space.origins.get(symbol)
        if origin is not None and origin.kind is OriginKind.HOST and symbol in hints and not origin.args:
            hint = int(hints[symbol])
            most = next_power_of_2(hint)
            grows = symbol in expr.free_symbols and _grows(expr, symbol)
            held[symbol] = (most // 2 + 1, most) if grows else (hint, hint)
    return held


def largest_size(space: Space, size: torch.SymInt, constants: Mapping[sympy.Symbol, Any]) -> int:
    """What a size of the host's and the Config's numbers is at most, where `held_sizes` hold."""
    values = {**constants, **{symbol: most for symbol, (_, most) in held_sizes(space, size).items()}}
    needed = space.made_of(size.node.expr.free_symbols)
    for symbol, origin in space.origins.items():
        if symbol in needed and symbol not in values and origin.args:
            values[symbol] = _computed(origin, values)
    return int(evaluated(size.node.expr, values))


def _grows(expr: sympy.Expr, symbol: sympy.Symbol) -> bool:
    """Whether an expression of numbers that are at least 0 surely does not become less as one of them grows."""
    if symbol not in expr.free_symbols or expr == symbol:
        return True
    if isinstance(expr, FloorDiv):
        over, under = expr.args
        return _grows(over, symbol) and symbol not in under.free_symbols
    if isinstance(expr, sympy.Mul):
        return not any(arg.could_extract_minus_sign() for arg in expr.args) and all(
            _grows(a, symbol) for a in expr.args
        )
    return isinstance(expr, (sympy.Add, Max, Min)) and all(_grows(arg, symbol) for arg in expr.args)


def add_computed(ir: DeviceIR, constants: dict[sympy.Symbol, int], tunables: Mapping[str, Any]) -> None:
    """Add the values of tunables, and of what host code computes from them and from block sizes.

    Args:
        ir: the device IR.
        constants: the block sizes that the Config gives.
        tunables: value of each `hl.register_tunable` key.
    """
    # A number that is computed from others comes after them.
    for symbol, origin in ir.space.origins.items():
        if origin.kind is OriginKind.TUNABLE:
            constants[symbol] = _computed(origin, constants) if origin.args else origin.dtype(tunables[origin.text])
        elif origin.kind is OriginKind.BLOCK_SIZE and symbol not in constants:
            block = ir.space.blocks[origin.index]
            if block.fixed is not None:
                constants[symbol] = _fixed_size(block, constants)


def _computed(origin: Origin, constants: dict[sympy.Symbol, int]) -> int:
    """What host code computes from block sizes and tunables."""
    values = [
        int(bool(value) if value.is_Boolean else value) for value in (evaluated(arg, constants) for arg in origin.args)
    ]
    if origin.function is None:
        return values[0]
    try:
        return int(origin.function(*values))
    except exc.BaseError:
        raise
    except Exception as error:
        text = origin.text.format(*values)
        raise exc.InvalidConfig(reason=f"the kernel computes {text}, which fails: {error}") from error


def _fixed_size(block: BlockSize, constants: dict[sympy.Symbol, int]) -> int:
    """A block size that the kernel computes."""
    fixed = evaluated(expr_of(block.fixed), constants)
    if not fixed.is_Integer:
        raise exc.SizeNotConstant(what=f"the block size of loop {block.name!r}", value=block.fixed)
    if fixed < 1:
        raise exc.InvalidConfig(
            reason=f"the block size of loop {block.name!r} is computed to {fixed}; it must be positive"
        )
    return int(fixed)


def large_tiles(ir: DeviceIR, blocks: Sequence[BlockSize]) -> list[int]:
    """Block sizes that cover whole ranges, cut down where nested tiles together would be too large."""
    sizes = {b.id: min(next_power_of_2(b.extent or _UNKNOWN_EXTENT), b.high or 1 << 30) for b in blocks}
    looped = {axis.block.id for axis in ir.space.axes}
    everywhere = [b.id for b in blocks if b.id not in looped]  # values inside any loop may have them as dimensions
    for nest in _nests(ir):
        tiled = [*everywhere, *(axis.block.id for axis in nest if axis.block.id in sizes)]
        while tiled and math.prod(sizes[i] for i in tiled) > _TILE_ELEMENTS:
            sizes[max(tiled, key=lambda i: sizes[i])] //= 2
    return [max(sizes[b.id], b.low) for b in blocks]


def _nests(ir: DeviceIR) -> list[list[Axis]]:
    """The axes of each chain of loops from a top-level one to an innermost one."""

    def chains(info: GraphInfo) -> list[list[Axis]]:
        inner = [chain for node in info.graph.nodes for sub in ir.subgraphs_of(node) for chain in chains(sub)]
        return [[*info.axes, *chain] for chain in inner] or [list(info.axes)]

    return list(itertools.chain.from_iterable(chains(ir.graphs[root.graph_id]) for root in ir.roots))
