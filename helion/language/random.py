"""Random numbers on the device: `hl.rand`, `hl.randint`, `hl.rand4x`.

Philox 4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), keyed by a 64-bit
seed and counting by the element's position in the whole loop range, not in the tile: the same seed gives
the same numbers whatever the block sizes and the backend.  Numbers are those of Triton's `tl.rand`,
`tl.randint` and `tl.rand4x` for that seed and offset.

The ops take explicit offsets; the functions users call compute them from tiles.
"""

from __future__ import annotations

from typing import Any
from typing import Sequence

import torch

from .. import exc
from .op import current_handler
from .op import device_op
from .shapes import resolve_size
from .tile import Tile
from .creation import iota


def _check_seed(seed: Any, what: str) -> None:
    scalar = isinstance(seed, (int, torch.SymInt)) and not isinstance(seed, bool)
    if isinstance(seed, torch.Tensor):
        scalar = seed.dim() == 0 and not seed.dtype.is_floating_point and seed.dtype is not torch.bool
    if not scalar:
        raise exc.InvalidAPIUsage(f"{what}: the seed must be an integer scalar", fix="pass an int, or load one: seeds[0].")


def _check_offset(offset: Any, what: str) -> None:
    if not isinstance(offset, torch.Tensor) or offset.dtype not in (torch.int32, torch.int64):
        raise exc.InvalidAPIUsage(f"{what}: the offset must be an int32 or int64 tensor")


@device_op()
def philox_rand(seed: Any, offset: torch.Tensor) -> torch.Tensor:
    """Uniform float32 in [0, 1) for each offset: Triton's `tl.rand(seed, offset)`.

    Args:
        seed: integer scalar, the 64-bit key.
        offset: int32 or int64 tensor, the counter.

    Returns:
        float32 tensor of `offset`'s shape.
    """
    raise NotImplementedError


@philox_rand.set_shape_rule
def _(seed: Any, offset: torch.Tensor) -> torch.Tensor:
    _check_seed(seed, "hl.philox_rand")
    _check_offset(offset, "hl.philox_rand")
    return torch.empty(offset.shape, dtype=torch.float32, device=offset.device)


@device_op()
def philox_rand4x(seed: Any, offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four uniform float32 in [0, 1) for each offset: Triton's `tl.rand4x(seed, offset)`.

    Args and shapes as `philox_rand`; the first result equals it.
    """
    raise NotImplementedError


@philox_rand4x.set_shape_rule
def _(seed: Any, offset: torch.Tensor) -> tuple[torch.Tensor, ...]:
    _check_seed(seed, "hl.philox_rand4x")
    _check_offset(offset, "hl.philox_rand4x")
    return tuple(torch.empty(offset.shape, dtype=torch.float32, device=offset.device) for _ in range(4))


@device_op()
def philox_bits(seed: Any, offset: torch.Tensor) -> torch.Tensor:
    """32 random bits for each offset, as int32: Triton's `tl.randint(seed, offset)`.

    Args and shapes as `philox_rand`.
    """
    raise NotImplementedError


@philox_bits.set_shape_rule
def _(seed: Any, offset: torch.Tensor) -> torch.Tensor:
    _check_seed(seed, "hl.philox_bits")
    _check_offset(offset, "hl.philox_bits")
    return torch.empty(offset.shape, dtype=torch.int32, device=offset.device)


def element_offsets(shape: Any, what: str) -> torch.Tensor:
    """Position of each element in the row-major order of the whole loop ranges, int64.

    A tile in `shape` contributes its indices within `[0, range_end)`; a plain size counts from 0.  So the
    offsets of all tiles of a loop together are 0, 1, 2, ... without repetition.
    """
    h = current_handler(what)
    items: Sequence[Any] = shape if isinstance(shape, (list, tuple)) else [shape]
    total: torch.Tensor | None = None
    for place, item in enumerate(items):
        tile = item if isinstance(item, Tile) else h.tile_of_size(item)
        if tile is not None:
            index, extent = tile.index.to(torch.int64), tile.range_end
        else:
            extent = resolve_size(item, what)
            index = iota(0, extent, 1, torch.int64)
        for _ in range(len(items) - 1 - place):
            index = index.unsqueeze(-1)
        total = index if total is None else total * extent + index
    if total is None:
        raise exc.InvalidAPIUsage(f"{what}: the shape is empty", fix="draw one number with shape [1].")
    return total


def rand(shape: Sequence[Any], seed: Any, device: torch.device | None = None) -> torch.Tensor:
    """Uniform random numbers in [0, 1).

    Args:
        shape: sizes and tiles, at least one.
        seed: integer scalar (an argument of the kernel, or loaded from a tensor).
        device: for compatibility with torch.rand; ignored unless it is another device.

    Returns:
        float32 tensor of `shape`: for the element at position p of the whole loop range (row-major), the
        number `tl.rand(seed, p)`.
    """
    _check_seed(seed, "hl.rand")
    result: torch.Tensor = philox_rand(seed, element_offsets(shape, "hl.rand"))
    return result


def rand4x(
    shape: Sequence[Any], seed: Any, device: torch.device | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four independent tensors of uniform random numbers for the price of one call of the generator.

    Args as `hl.rand`.

    Returns:
        Four float32 tensors of `shape`, `tl.rand4x(seed, p)` for position p; the first equals `hl.rand`.
    """
    _check_seed(seed, "hl.rand4x")
    result: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor] = philox_rand4x(
        seed, element_offsets(shape, "hl.rand4x")
    )
    return result


def randint(shape: Sequence[Any], low: int, high: int, seed: Any, device: torch.device | None = None) -> torch.Tensor:
    """Random integers in [low, high).

    Args:
        shape: sizes and tiles, at least one.
        low, high: bounds, `high` excluded; `high - low` at most 2**32.
        seed: integer scalar.
        device: for compatibility with torch.randint; ignored unless it is another device.

    Returns:
        int32 tensor: `low + (bits mod (high - low))` with the 32 bits of `tl.randint` taken as unsigned.  As
        with any modulo of 32 bits, the most frequent value is more frequent than the rarest by at most
        `(high - low) / 2**32`.

    Raises:
        exc.InvalidAPIUsage: an empty range, or bounds outside int32.
    """
    _check_seed(seed, "hl.randint")
    if isinstance(low, int) and isinstance(high, int) and not -(2**31) <= low < high <= 2**31:
        raise exc.InvalidAPIUsage(f"hl.randint: bad range [{low}, {high})", fix="low < high, both within int32.")
    bits = philox_bits(seed, element_offsets(shape, "hl.randint"))
    unsigned = bits.to(torch.int64) & 0xFFFFFFFF
    result: torch.Tensor = (unsigned % (high - low) + low).to(torch.int32)
    return result
