"""What the printed references use: plain PyTorch over whole tensors, a few lines each."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator

import torch


def whole(begin: int, end: int) -> Iterator[slice]:
    """All of a range at once; nothing if it is empty."""
    if int(begin) < int(end):
        yield slice(int(begin), int(end))


def chunks(begin: int, end: int, block: int) -> Iterator[slice]:
    """A range in pieces of `block` elements, for programs whose meaning depends on the block size."""
    for start in range(int(begin), int(end), block):
        yield slice(start, min(start + block, int(end)))


def index(span: slice, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    """The positions of a span."""
    return torch.arange(span.start, span.stop, dtype=dtype)


def shift(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)


def window(x: torch.Tensor, *at: slice | int) -> torch.Tensor:
    """`x[at]`, with 0 where a span leaves the tensor."""
    for dim, span in reversed(list(enumerate(at))):
        if isinstance(span, int):
            x = x.select(dim, span)
            continue
        begin, end = (0 if span.start is None else span.start), (x.size(dim) if span.stop is None else span.stop)
        inside = x.narrow(dim, min(max(begin, 0), x.size(dim)), max(min(end, x.size(dim)) - max(begin, 0), 0))
        shape = list(x.shape)
        shape[dim] = end - begin
        padded = x.new_zeros(shape)
        if inside.size(dim):
            padded.narrow(dim, max(-begin, 0), inside.size(dim)).copy_(inside)
        x = padded
    return x


def put(x: torch.Tensor, at: tuple[slice | int, ...], value: torch.Tensor) -> None:
    """`x[at] = value`, where what leaves the tensor is not written."""
    kept = []
    value = value.expand([s.stop - s.start for s in at if isinstance(s, slice)])
    place = 0
    for dim, span in enumerate(at):
        if isinstance(span, slice):
            begin, end = max(span.start, 0), max(min(span.stop, x.size(dim)), max(span.start, 0))
            if begin == end:
                return
            value = value.narrow(place, begin - span.start, end - begin)
            kept.append(slice(begin, end))
            place += 1
        else:
            kept.append(span)
    x[tuple(kept)] = value.to(x.dtype)


def _same(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Where elements are equal, or both are no numbers."""
    return (x == y) | (x.isnan() & y.isnan())


def first_max(x: torch.Tensor, dim: int, keepdim: bool) -> torch.Tensor:
    """The first place of the maximum: `torch.argmax` may give any."""
    hit = _same(x, x.amax(dim, keepdim=True))
    return hit.to(torch.int8).cumsum(dim).eq(0).sum(dim, keepdim=keepdim)


def first_min(x: torch.Tensor, dim: int, keepdim: bool) -> torch.Tensor:
    hit = _same(x, x.amin(dim, keepdim=True))
    return hit.to(torch.int8).cumsum(dim).eq(0).sum(dim, keepdim=keepdim)


def atomic(
    op: Callable[..., torch.Tensor], x: torch.Tensor, at: tuple[torch.Tensor | int, ...], value: torch.Tensor
) -> None:
    """`x[at] = op(x[at], value)`, element after element."""
    places = torch.broadcast_tensors(*(torch.as_tensor(a) for a in at))
    for place, one in zip(zip(*(p.flatten().tolist() for p in places)), value.expand(places[0].shape).flatten()):
        x[place] = op(x[place], one)


def rows(data: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, span: slice) -> torch.Tensor:
    """The rows that begin at `starts`, with 0 behind the end of each."""
    columns = index(span, torch.int64)
    at = (starts.long()[:, None] + columns).clamp(0, data.size(0) - 1)
    return torch.where(columns < lengths[:, None], data[at], 0)


def inside(value: torch.Tensor, lengths: torch.Tensor, span: slice, neutral: float) -> torch.Tensor:
    """A value over such rows, with the neutral element behind the end of each."""
    return torch.where(index(span, torch.int64) < lengths[:, None], value, neutral)


def random_bits(seed: int, offsets: torch.Tensor) -> torch.Tensor:
    """The first word of Philox 4x32-10 with the key `seed` at the counters (offset, 0, 0, 0), as in
    https://www.thesalmons.org/john/random123/papers/random123sc11.pdf, as numbers from 0 to 2**32 - 1.
    """
    word = 0xFFFFFFFF
    key = [seed & word, seed >> 32 & word]
    c = [offsets.long() & word, *(torch.zeros_like(offsets, dtype=torch.int64) for _ in range(3))]
    for _ in range(10):
        (high_0, low_0), (high_1, low_1) = _product(0xD2511F53, c[0]), _product(0xCD9E8D57, c[2])
        c = [high_1 ^ c[1] ^ key[0], low_1, high_0 ^ c[3] ^ key[1], low_0]
        key = [key[0] + 0x9E3779B9 & word, key[1] + 0xBB67AE85 & word]
    return c[0]


def _product(a: int, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """High and low word of a product of two words, without more than 64 bits."""
    low, high = (a & 0xFFFF) * b, (a >> 16) * b
    middle = (low >> 16) + (high & 0xFFFF)
    return (high >> 16) + (middle >> 16), (low & 0xFFFF) | (middle & 0xFFFF) << 16


def uniform(seed: int, shape: list[int], *spans: slice) -> torch.Tensor:
    """Numbers in [0, 1) for a part of a tensor of this shape: those of its row-major positions."""
    offsets = torch.zeros([], dtype=torch.int64)
    for n, span in zip(shape, spans):
        offsets = offsets[..., None] * n + index(span, torch.int64)
    bits = random_bits(seed, offsets)
    signed = torch.where(bits >= 2**31, bits - 2**32, bits)
    return torch.where(signed < 0, -signed - 1, signed).double() * 4.6566127342e-10


#: The numbers of fp4: a sign, two bits of exponent, one of mantissa.
_E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]


def scaled(stored: torch.Tensor, scales: torch.Tensor | None, form: str) -> torch.Tensor:
    """The numbers of an operand [rows, K] of a block-scaled product; fp4 lie two in a byte, the first in the low bits.

    Scales are of K / n neighbours each: bytes are exponents of two, 127 for 2**0, others the numbers themselves.
    """
    values = stored.double()
    if form == "e2m1":
        bits = stored.long()
        pairs = torch.stack([bits & 15, bits >> 4], -1).flatten(1)
        values = torch.tensor(_E2M1, dtype=torch.float64)[pairs]
    if scales is None:
        return values
    wide = torch.exp2(scales.double() - 127) if scales.dtype is torch.uint8 else scales.double()
    return values * wide.repeat_interleave(values.size(1) // max(wide.size(1), 1), 1)


def scaled_product(
    a: torch.Tensor,
    scales_a: torch.Tensor | None,
    form_a: str,
    b: torch.Tensor,
    scales_b: torch.Tensor | None,
    form_b: str,
) -> torch.Tensor:
    """The product of two operands with scales, [M, K] and [K, N]."""
    return scaled(a, scales_a, form_a) @ scaled(b.t(), scales_b, form_b).t()
