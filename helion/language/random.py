"""Random numbers on the device: `hl.rand`, `hl.randint`, `hl.rand4x`.

Philox 4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), keyed by a 64-bit
seed and counting by the element's position in the whole loop range, not in the tile: the same seed gives
the same numbers whatever the block sizes and the backend.  Numbers are those of Triton's `tl.rand`,
`tl.randint` and `tl.rand4x` for that seed and offset.

The ops take explicit offsets; the functions users call compute them from tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .creation import iota
from .memory import load
from .op import Op
from .op import current_handler
from .op import device_op
from .shapes import resolve_size
from .tile import Tile


def _check_seed(seed: Any, what: str) -> None:
    scalar = isinstance(seed, (int, torch.SymInt)) and not isinstance(seed, bool)
    if isinstance(seed, torch.Tensor):
        scalar = seed.dim() == 0 and not seed.dtype.is_floating_point and seed.dtype is not torch.bool
    if not scalar:
        raise exc.InvalidAPIUsage(
            f"{what}: the seed must be an integer scalar", fix="pass an int, or load one: seeds[0]."
        )


def _check_offset(offset: Any, what: str) -> None:
    if not isinstance(offset, torch.Tensor) or offset.dtype not in (torch.int32, torch.int64):
        raise exc.InvalidAPIUsage(f"{what}: the offset must be an int32 or int64 tensor")


def _made(seed: Any, offset: torch.Tensor, op: Op, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What an op's shape rule says one of its results is like."""
    _check_seed(seed, f"hl.{op.name}")
    _check_offset(offset, f"hl.{op.name}")
    return torch.empty(offset.shape, dtype=dtype, device=offset.device)


# -- the generator, for eager rules ------------------------------------------------------------------------

# Constants of Philox 4x32 (Salmon et al., table 2) and the golden-ratio and sqrt(3) key increments.
_ROUNDS = 10
_MULTIPLIER_A, _MULTIPLIER_B = 0xD2511F53, 0xCD9E8D57
_KEY_A, _KEY_B = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF
# (2**23 - 1) / 2**23 / 2**31: the largest scale that keeps 2**31 - 1 below 1.0 in float32; Triton's constant.
_UNIT = 4.6566127342e-10


def philox(seed: Any, offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Philox 4x32-10 for counter `offset` and key `seed`, on real tensors.

    Args:
        seed: int or 0-d integer tensor; its low 64 bits are the key.
        offset: int32 tensor (counter word 0), or int64 tensor (counter words 0 and 1).

    Returns:
        The four output words, int64 tensors with values in [0, 2**32).
    """
    key = int(seed) & 0xFFFFFFFFFFFFFFFF
    k0, k1 = key & _MASK, key >> 32
    wide = offset.to(torch.int64)
    c0 = wide & _MASK
    c1 = (wide >> 32) & _MASK if offset.dtype is torch.int64 else torch.zeros_like(c0)
    return philox_rounds(c0, c1, torch.zeros_like(c0), torch.zeros_like(c0), k0, k1)


def philox_rounds(
    c0: torch.Tensor, c1: torch.Tensor, c2: torch.Tensor, c3: torch.Tensor, k0: int, k1: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The ten rounds: counter words (int64 tensors of 32-bit values) and key words to output words."""
    for _ in range(_ROUNDS):
        # Products of 32-bit words wrap in int64, which leaves both halves right.
        product_a, product_b = c0 * _MULTIPLIER_A, c2 * _MULTIPLIER_B
        c0 = ((product_b >> 32) & _MASK) ^ c1 ^ k0
        c2 = ((product_a >> 32) & _MASK) ^ c3 ^ k1
        c1, c3 = product_b & _MASK, product_a & _MASK
        k0, k1 = (k0 + _KEY_A) & _MASK, (k1 + _KEY_B) & _MASK
    return c0, c1, c2, c3


def _as_int32(word: torch.Tensor) -> torch.Tensor:
    return torch.where(word >= 2**31, word - 2**32, word).to(torch.int32)


def _unit_interval(word: torch.Tensor) -> torch.Tensor:
    """A 32-bit word as float32 in [0, 1): the magnitude of its two's complement value, scaled."""
    signed = _as_int32(word)
    magnitude = torch.where(signed < 0, -signed - 1, signed)
    return magnitude.to(torch.float32) * torch.tensor(_UNIT, dtype=torch.float32, device=word.device)


# -- ops -------------------------------------------------------------------------------------------------


@device_op(elementwise=True)
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
    return _made(seed, offset, philox_rand)


@philox_rand.set_eager_rule
def _(seed: Any, offset: torch.Tensor) -> torch.Tensor:
    return _unit_interval(philox(seed, offset)[0])


@device_op()
def philox_rand4x(seed: Any, offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four uniform float32 in [0, 1) for each offset: Triton's `tl.rand4x(seed, offset)`.

    Args and shapes as `philox_rand`; the first result equals it.
    """
    raise NotImplementedError


@philox_rand4x.set_shape_rule
def _(seed: Any, offset: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(_made(seed, offset, philox_rand4x) for _ in range(4))


@philox_rand4x.set_eager_rule
def _(seed: Any, offset: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(_unit_interval(word) for word in philox(seed, offset))


@device_op(elementwise=True)
def philox_bits(seed: Any, offset: torch.Tensor) -> torch.Tensor:
    """32 random bits for each offset, as int32: Triton's `tl.randint(seed, offset)`.

    Args and shapes as `philox_rand`.
    """
    raise NotImplementedError


@philox_bits.set_shape_rule
def _(seed: Any, offset: torch.Tensor) -> torch.Tensor:
    return _made(seed, offset, philox_bits, torch.int32)


@philox_bits.set_eager_rule
def _(seed: Any, offset: torch.Tensor) -> torch.Tensor:
    return _as_int32(philox(seed, offset)[0])


# -- what users call -------------------------------------------------------------------------------------


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


def _seed(seed: Any, what: str) -> Any:
    """A seed as an integer scalar: one-element tensors count, those of the host are loaded."""
    if isinstance(seed, torch.Tensor) and seed.numel() == 1:
        if not current_handler(what).is_device_value(seed):
            seed = load(seed, [0] * seed.dim())
        elif seed.dim():
            seed = seed.reshape([])
    _check_seed(seed, what)
    return seed


def _offsets(shape: Any, offsets: torch.Tensor | None, what: str) -> torch.Tensor:
    if offsets is None:
        return element_offsets(shape, what)
    _check_offset(offsets, what)
    return offsets.to(torch.int64)


def rand(
    shape: Sequence[Any], seed: Any, device: torch.device | None = None, offsets: torch.Tensor | None = None
) -> torch.Tensor:
    """Uniform random numbers in [0, 1).

    Args:
        shape: sizes and tiles, at least one.
        seed: integer scalar (an argument of the kernel, or loaded from a tensor), or tensor of one element.
        device: for compatibility with torch.rand; ignored.
        offsets: int32 or int64 tensor of positions, which then give the shape too.

    Returns:
        float32 tensor of `shape`: for the element at position p of the whole loop range (row-major), the
        number `tl.rand(seed, p)`.
    """
    seed = _seed(seed, "hl.rand")
    result: torch.Tensor = philox_rand(seed, _offsets(shape, offsets, "hl.rand"))
    return result


def rand4x(
    shape_or_seed: Any, seed_or_offsets: Any, device: torch.device | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Four independent tensors of uniform random numbers for the price of one call of the generator.

    `hl.rand4x(shape, seed)`, with arguments as `hl.rand`, or `hl.rand4x(seed, offsets)`, Triton's `tl.rand4x`.

    Returns:
        Four float32 tensors of the shape of `shape` or `offsets`, `tl.rand4x(seed, p)` for position p; the first
        equals `hl.rand`.
    """
    of_shape = isinstance(shape_or_seed, (list, tuple, Tile))
    seed = _seed(seed_or_offsets if of_shape else shape_or_seed, "hl.rand4x")
    if of_shape:
        places = element_offsets(shape_or_seed, "hl.rand4x")
    else:
        places = seed_or_offsets
        _check_offset(places, "hl.rand4x")
    result: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor] = philox_rand4x(seed, places)
    return result


def randint(
    shape: Sequence[Any],
    low: int,
    high: int,
    seed: Any,
    device: torch.device | None = None,
    offsets: torch.Tensor | None = None,
) -> torch.Tensor:
    """Random integers in [low, high).

    Args:
        shape: sizes and tiles, at least one.
        low, high: bounds, `high` excluded; `high - low` at most 2**32.
        seed: integer scalar, or tensor of one element.
        device: for compatibility with torch.randint; ignored.
        offsets: int32 or int64 tensor of positions, which then give the shape too.

    Returns:
        int32 tensor: `low + abs(bits) % (high - low)` with the bits of `tl.randint` taken as an int32, whose absolute
        value is one of 32 bits.

    Raises:
        exc.InvalidAPIUsage: an empty range, or bounds outside int32.
    """
    seed = _seed(seed, "hl.randint")
    if isinstance(low, int) and isinstance(high, int) and not -(2**31) <= low < high <= 2**31:
        raise exc.InvalidAPIUsage(f"hl.randint: bad range [{low}, {high})", fix="low < high, both within int32.")
    bits = philox_bits(seed, _offsets(shape, offsets, "hl.randint"))
    result: torch.Tensor = (bits.to(torch.int64).abs() % (high - low) + low).to(torch.int32)
    return result
