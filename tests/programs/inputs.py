"""Arguments of generated programs, rebuilt from a few numbers: values in a range, and how they lie in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch


def _strided(x: torch.Tensor) -> torch.Tensor:
    """Every second element along the last dimension."""
    base = x.new_full((*x.shape[:-1], 2 * x.size(-1) + 1), 77)
    base[..., : 2 * x.size(-1) : 2] = x
    return base[..., : 2 * x.size(-1) : 2]


def _offset(x: torch.Tensor) -> torch.Tensor:
    """Behind an odd number of elements, so not aligned."""
    base = x.new_full((x.numel() + 4,), 77)
    base[3 : 3 + x.numel()] = x.flatten()
    return base[3 : 3 + x.numel()].view(x.shape)


def _part(x: torch.Tensor) -> torch.Tensor:
    """A box of a larger tensor."""
    base = x.new_full([n + 3 for n in x.shape], 77)
    view = base[tuple(slice(2, 2 + n) for n in x.shape)]
    view.copy_(x)
    return view


def _transposed(x: torch.Tensor) -> torch.Tensor:
    order = list(range(x.dim()))[::-1]
    return x.permute(order).contiguous().permute(order)


def _expanded(x: torch.Tensor) -> torch.Tensor:
    """The first row for all of them, of stride 0."""
    return x[:1].clone().expand(x.shape) if x.size(0) else x


def _overlapping(x: torch.Tensor) -> torch.Tensor:
    """Rows that begin one element after each other."""
    if x.dim() < 2 or x.numel() == 0:
        return x
    rows, columns = x.numel() // x.size(-1), x.size(-1)
    line = x.reshape(-1)[: rows + columns - 1].clone()
    if line.numel() < rows + columns - 1:
        line = torch.cat([line, line.new_zeros(rows + columns - 1 - line.numel())])
    if x.dim() > 2:
        return x
    return line.as_strided((rows, columns), (1, 1))


#: How a tensor lies in memory -> a tensor of that kind made of a contiguous one.  The last two only for reading.
LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": _transposed,
    "strided": _strided,
    "offset": _offset,
    "part": _part,
    "expanded": _expanded,
    "overlapping": _overlapping,
}
READ_ONLY = ("expanded", "overlapping")


_NAN, _INF = float("nan"), float("inf")
#: What tensors of special numbers have among others, by their seed.
_SPECIAL = ((_NAN, _INF, -_INF, -0.0), (-_INF, -0.0), (_INF, -0.0, 0.0))


def tensor(
    shape: list[int],
    dtype: torch.dtype,
    low: int,
    high: int,
    step: float = 1,
    seed: int = 0,
    layout: str = "contiguous",
    special: bool = False,
) -> torch.Tensor:
    """Random multiples of `step`, from `low * step` to `high * step`; `special`: with nan, infinities and -0.0 among
    them, or only some of these.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(low, high + 1, shape, generator=generator)
    x = (drawn * step).to(dtype) if dtype.is_floating_point else drawn.to(dtype)
    if special:
        place = torch.randint(0, 32, shape, generator=generator)
        for at, value in enumerate(_SPECIAL[seed % len(_SPECIAL)]):
            x = torch.where(place == at, torch.tensor(value, dtype=dtype), x)
    return LAYOUTS[layout](x) if shape else x


def permutation(n: int, dtype: torch.dtype = torch.int64, seed: int = 0) -> torch.Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(dtype)


def offsets(parts: int, end: int, dtype: torch.dtype = torch.int64, seed: int = 0) -> torch.Tensor:
    """Bounds of `parts` ranges that cover `[0, end)`, some of them empty."""
    generator = torch.Generator().manual_seed(seed)
    inner = torch.randint(0, end + 1, (max(parts - 1, 0),), generator=generator).sort().values
    return torch.cat([torch.zeros(1), inner, torch.full((1,), end)]).to(dtype)
