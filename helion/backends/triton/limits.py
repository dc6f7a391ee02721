"""Configs of the Triton backend that will not do: keys that do not go together, values that are too large.

Each check takes the values of a Config and says what is wrong with it, or None. Of those in `ConfigSpec.constraints` a
user is told; what is only unpromising no search tries and no default has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
import torch

from ... import exc
from ...ir.block_sizes import resolve_constants
from ...ir.block_sizes import tunable_blocks
from ...ir.device_ir import BlockSize
from ...ir.device_ir import GraphInfo
from ...ir.device_ir import KernelIR
from ...ir.nodes import HostTensorNode
from ...ir.symbols import evaluated
from ...ir.symbols import expr_of
from ...ir.symbols import shape_exprs
from ...numbers import next_power_of_2
from .epilogue import SMALLEST_PART
from .epilogue import SplitEpilogue

# Triton's limit on the elements of one tensor (triton.language.core.TRITON_MAX_TENSOR_NUMEL).
MAX_TENSOR_ELEMENTS = 1 << 20
# Of one thread.
_REGISTER_BYTES = 256 * 4
#: Registers of a multiprocessor, the same from compute capability 8.0 to 10.0.
_REGISTERS = 65536
# Iterations of a static range that compile in seconds.
_MOST_UNROLLED = 16


def too_narrow_parts(blocks: Sequence[BlockSize], subtiled: Sequence[SplitEpilogue]) -> Any:
    """Parts of an accumulator that are too narrow: there will be fewer."""
    tiles = {e.axis.block.id: e.axis for e in subtiled}

    def check(config: dict[str, Any]) -> str | None:
        parts = config.get("epilogue_subtile")
        if parts is None:
            return None
        sizes = {block.id: size for block, size in zip(blocks, config.get("block_sizes", []))}
        for id_, axis in tiles.items():
            size = sizes.get(id_, axis.block.fixed)
            if isinstance(size, int) and size < parts * SMALLEST_PART:
                return f"a tile {axis.name!r} of {size} elements is too narrow for {parts} parts"
        return None

    return check


class TileSizes:
    """How large the values of a kernel are under a Config.

    Every size is made ready once: searches ask for thousands of Configs.

    Args:
        ir: the kernel.
        smallest: what whole dimensions are padded to for a product, if that is more (`spec.dot_extents`).

    Attributes:
        shapes: shape -> the widest element of a value of that shape, in bytes.
    """

    def __init__(self, ir: KernelIR, smallest: dict[Any, int]) -> None:
        self._blocks = {block.symbol: i for i, block in enumerate(tunable_blocks(ir.device))}
        self._fixed = {b.symbol: b.fixed for b in ir.device.space.blocks if isinstance(b.fixed, int)}
        self._device = ir.device
        self._smallest = smallest
        self._reductions = {expr_of(r.size): i for i, r in enumerate(ir.reductions)}
        tiles = [n.meta["val"] for _, n in ir.device.nodes() if is_tile_value(n)]
        self._sizes: dict[sympy.Expr, tuple[int | None, int | None, int | None]] = {}
        self.shapes: dict[tuple[sympy.Expr, ...], int] = {}
        self._hints: dict[sympy.Expr, int | None] = {}  # of whole dimensions under dynamic shapes
        for value in tiles:
            shape = shape_exprs(value.shape)
            self.shapes[shape] = max(self.shapes.get(shape, 0), value.dtype.itemsize)
            self._hints.update((expr, ir.device.space.hint(size)) for expr, size in zip(shape, value.shape))

    def elements(self, shape: Sequence[sympy.Expr], config: dict[str, Any]) -> int:
        """Elements of a value of that shape, padded to powers of two; what the call does not say counts as 1."""
        blocks, loops = config.get("block_sizes", []), config.get("reduction_loops", [])
        total = 1
        for size in shape:
            known = self._sizes.get(size)
            loop, block, whole = known if known is not None else self._size(size)
            if loop is not None and loops[loop] is not None:
                total *= next_power_of_2(loops[loop])
            elif block is not None:
                total *= next_power_of_2(blocks[block])
            elif whole is not None:
                total *= whole
            else:
                value = evaluated(size, self._constants(config))
                # A dimension that is read whole is as wide as it was in the call that the code is made for.
                total *= next_power_of_2(int(value) if value.is_Integer else self._hints.get(size) or 1)
        return total

    def _constants(self, config: dict[str, Any]) -> dict[Any, int]:
        """Block sizes and tunables, with what host code computes from them: it was 1, and tiles had no limit."""
        try:
            return resolve_constants(self._device, config.get("block_sizes", []), config)
        except exc.BaseError:  # said where a kernel is made for a Config
            return self._fixed | {symbol: config["block_sizes"][i] for symbol, i in self._blocks.items()}

    def _size(self, size: sympy.Expr) -> tuple[int | None, int | None, int | None]:
        """Which of the reductions a size is the length of, which block size it is, or what a constant is padded to."""
        whole = next_power_of_2(self._fixed[size]) if size in self._fixed else None
        if size.is_Integer:
            # Padded for a product it is as wide in all values of the kernel: a sort of 2 columns was one of 32.
            whole = max(next_power_of_2(int(size)), self._smallest.get(int(size), 1))
        self._sizes[size] = found = self._reductions.get(size), self._blocks.get(size), whole
        return found


def constraint(ir: KernelIR, tiles: TileSizes) -> Any:
    """Keys that do not go together, and tensors too large for Triton."""
    device = ir.device

    def check(config: dict[str, Any]) -> str | None:
        if config["pid_type"] in ("flat", "xyz"):
            given = [key for key, neutral in (("num_sm_multiplier", 1), ("maxnreg", None)) if config[key] != neutral]
            if given:
                keys = " and ".join(f"{key}={config[key]!r}" for key in given)
                return (
                    f"{keys} {'needs' if len(given) == 1 else 'need'} a persistent pid_type, "
                    f"not {config['pid_type']!r}: give pid_type='persistent_blocked' or "
                    f"pid_type='persistent_interleaved' with it, or leave {' and '.join(given)} out"
                )
        for shape in tiles.shapes:
            elements = tiles.elements(shape, config)
            if elements > MAX_TENSOR_ELEMENTS:
                sizes = device.space.readable(", ".join(map(str, shape)))
                return f"a value of shape [{sizes}] would have {elements} elements, Triton allows {MAX_TENSOR_ELEMENTS}"
        return None

    return check


def too_large_for_registers(tiles: TileSizes) -> Any:
    """A value that takes more than all 255 registers of its threads: it is spilled, and compiles for minutes."""

    def check(config: dict[str, Any]) -> str | None:
        room = _REGISTER_BYTES * 32 * config["num_warps"]
        if any(tiles.elements(shape, config) * size > room for shape, size in tiles.shapes.items()):
            return f"a value does not fit into the registers of {config['num_warps']} warps"
        return None

    return check


def more_registers_than_there_are(config: dict[str, Any]) -> str | None:
    """A program that may use more registers than a multiprocessor has: where it does, the driver refuses the launch."""
    most = config.get("maxnreg")
    if most is not None and 32 * config["num_warps"] * most > _REGISTERS:
        return f"{config['num_warps']} warps with {most} registers a thread are more than {_REGISTERS} registers"
    return None


def trips(info: GraphInfo, config: dict[str, Any], places: dict[int, int]) -> int:
    """Iterations of a loop, as far as its axes' extents are known.

    Args:
        info: the loop.
        config: values of a Config.
        places: ids of blocks -> their places in block_sizes.
    """
    count = 1
    for axis in info.axes:
        place = places.get(axis.block.id)
        size = config["block_sizes"][place] if place is not None else axis.block.fixed
        if axis.static_extent is not None and isinstance(size, int):
            count *= -(-axis.static_extent // size)
    return count


def too_long_to_unroll(blocks: Sequence[BlockSize], loops: Sequence[GraphInfo]) -> Any:
    """A static range is unrolled completely."""
    places = {block.id: i for i, block in enumerate(blocks)}

    def check(config: dict[str, Any]) -> str | None:
        for info, static in zip(loops, config["static_ranges"]):
            if static and (count := trips(info, config, places)) > _MOST_UNROLLED:
                return f"a static range of {count} iterations"
        return None

    return check


def is_tile_value(node: torch.fx.Node) -> bool:
    held = isinstance(node.meta.get("val"), torch.Tensor)
    return held and node.op == "call_function" and not HostTensorNode.match(node)
