"""Rules for torch ops on windows of dimensions of constant size: pooling, and the windows themselves (`unfold`).

A dimension becomes two, window and place in it, by picking (`_windowed`); places that a window has beyond the tensor's
end are told by a mask, and the second dimension is reduced.  Several dimensions are pooled one after the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .._compat_tracing import decomposition_table
from .decompositions import rule
from .rearranging import constant_size
from .rearranging import dim_of
from .rearranging import nothing_larger
from .rearranging import placed
from .rearranging import positions
from .rearranging import take

_aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class _Windows:
    """Windows along one dimension of `size` elements.

    Attributes:
        starts: the first place of each window, [count]; below 0 in the padding.
        ends: one past the last place of each, [count]; not beyond the padding's end.
        width: elements of the longest window.
        count: how many there are.
        step: from one element of a window to the next.
    """

    size: int
    starts: torch.Tensor
    ends: torch.Tensor
    width: int
    count: int
    step: int = 1

    def places(self) -> torch.Tensor:
        """[count, width]: what each element of each window is in the dimension."""
        return self.starts.unsqueeze(1) + (positions(self.width) * self.step).unsqueeze(0)

    def inside(self) -> torch.Tensor:
        """[count, width]: whether it is an element of the dimension, and of the window."""
        places = self.places()
        return (places >= 0) & (places < self.size) & (places < self.ends.unsqueeze(1))

    def elements(self, padding: bool) -> torch.Tensor:
        """[count]: how many elements each has, those of the padding included or not."""
        first, last = self.starts, self.ends
        if not padding:
            first, last = torch.clamp_min(first, 0), torch.clamp_max(last, self.size)
        return last - first


def _sliding(size: int, kernel: int, stride: int, padding: int, ceil: bool, dilation: int = 1) -> _Windows:
    length = dilation * (kernel - 1) + 1
    count = (size + 2 * padding - length + (stride - 1 if ceil else 0)) // stride + 1
    if ceil and (count - 1) * stride >= size + padding:
        count -= 1  # a window that would begin in the padding behind
    starts = positions(count) * stride - padding
    return _Windows(size, starts, torch.clamp_max(starts + length, size + padding), kernel, count, dilation)


def _adaptive(size: int, count: int) -> _Windows:
    bounds = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
    index = positions(count)
    starts = torch.div(index * size, count, rounding_mode="floor")
    ends = torch.div((index + 1) * size + (count - 1), count, rounding_mode="floor")
    return _Windows(size, starts, ends, max((b - a for a, b in bounds), default=1), count)


def _spread(table: torch.Tensor, dim: int, rank: int) -> torch.Tensor:
    """A table of [window, place] as dimensions `dim` and `dim + 1` of `rank`."""
    for _ in range(dim):
        table = table.unsqueeze(0)
    for _ in range(rank - dim - 2):
        table = table.unsqueeze(-1)
    return table


def _windowed(x: torch.Tensor, dim: int, windows: _Windows, outside: Any) -> torch.Tensor:
    """`x` with [window, place] instead of dimension `dim`, and `outside` where a window has no element."""
    at = torch.clamp(windows.places(), 0, windows.size - 1).reshape([-1])
    shape = [*x.shape[:dim], windows.count, windows.width, *x.shape[dim + 1 :]]
    taken = take(x, at, dim).reshape(shape)
    inside = _spread(windows.inside(), dim, taken.dim())
    return torch.where(inside, taken, torch.full((), outside, dtype=x.dtype))


@rule(_aten.unfold.default)
def _unfold(x: torch.Tensor, dim: int, size: int, step: int) -> torch.Tensor:
    """`x.unfold(dim, size, step)`: windows in place of the dimension, their elements in a new last one."""
    dim = dim_of(x, dim)
    n = constant_size(x, dim, "Tensor.unfold")
    if not 0 <= size <= n or step < 1:
        raise exc.ShapeMismatch(
            f"unfold: windows of {size} elements {step} apart, in a dimension of {n}",
            fix="the step is positive, and a window not longer than the dimension.",
        )
    count = (n - size) // step + 1
    at = (positions(count) * step).unsqueeze(1) + positions(size).unsqueeze(0)
    taken = take(x, at.reshape([-1]), dim).reshape([*x.shape[:dim], count, size, *x.shape[dim + 1 :]])
    return taken.movedim(dim + 1, -1)


def _mean_of_windows(x: torch.Tensor, windows: Sequence[_Windows], padding: bool, divisor: Any) -> torch.Tensor:
    """The means of windows over the last dimensions."""
    first = x.dim() - len(windows)
    wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    total = x.to(wide)
    for d, along in enumerate(windows, first):
        total = torch.sum(_windowed(total, d, along, 0), d + 1, dtype=wide)
    for d, along in enumerate(windows, first) if divisor is None else ():
        total = total / placed(along.elements(padding).to(wide), d, x.dim())
    if divisor is not None:
        total = total / divisor if wide.is_floating_point else torch.div(total, divisor, rounding_mode="trunc")
    return total.to(x.dtype)


def _each(values: Sequence[int], rank: int) -> list[int]:
    return list(values) * rank if len(values) == 1 else list(values)


def _pooled(
    x: torch.Tensor,
    what: str,
    rank: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    dilation: Sequence[int] = (1,),
) -> list[_Windows]:
    """The windows along each of the last `rank` dimensions; a stride left out is the kernel's size."""
    sizes = [constant_size(x, x.dim() - rank + i, what) for i in range(rank)]
    given = (_each(values, rank) for values in (kernel_size, stride or kernel_size, padding, dilation))
    return [
        _sliding(size, kernel, step, pad, ceil_mode, spacing)
        for size, kernel, step, pad, spacing in zip(sizes, *given, strict=True)
    ]


def _avg_pool(rank: int) -> Any:
    def rule_of_rank(
        x: torch.Tensor,
        kernel_size: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = (0,),
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> torch.Tensor:
        windows = _pooled(x, "avg_pool", rank, kernel_size, stride, padding, ceil_mode)
        return _mean_of_windows(x, windows, count_include_pad, divisor_override)

    return rule_of_rank


rule(_aten.avg_pool2d.default)(_avg_pool(2))
rule(_aten.avg_pool3d.default)(_avg_pool(3))


@rule(_aten._adaptive_avg_pool2d.default, _aten._adaptive_avg_pool3d.default)
def _adaptive_avg_pool(x: torch.Tensor, output_size: Sequence[int]) -> torch.Tensor:
    first = x.dim() - len(output_size)
    sizes = [constant_size(x, first + i, "adaptive_avg_pool") for i in range(len(output_size))]
    windows = [_adaptive(size, count) for size, count in zip(sizes, output_size, strict=True)]
    return _mean_of_windows(x, windows, False, None)


@rule(_aten.adaptive_max_pool2d.default, _aten.adaptive_max_pool3d.default)
def _adaptive_max_pool(x: torch.Tensor, output_size: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    first = x.dim() - len(output_size)
    sizes = [constant_size(x, first + i, "adaptive_max_pool") for i in range(len(output_size))]
    return _max_of_windows(x, [_adaptive(size, count) for size, count in zip(sizes, output_size, strict=True)])


def _max_of_windows(x: torch.Tensor, windows: Sequence[_Windows]) -> tuple[torch.Tensor, torch.Tensor]:
    """From the last dimension to the first: the largest element of a window is the first of its rows' largest ones."""
    first = x.dim() - len(windows)
    values, place, stride = x, torch.zeros_like(x, dtype=torch.int32), 1
    for dim, along in reversed(list(enumerate(windows, first))):
        spread, before = _windowed(values, dim, along, nothing_larger(x.dtype)), _windowed(place, dim, along, 0)
        order = placed(positions(along.width), dim + 1, spread.dim())
        chosen = order == torch.argmax(spread, dim + 1, True)
        here = _spread(torch.clamp(along.places(), 0, along.size - 1), dim, spread.dim())
        values = torch.amax(spread, dim + 1)
        place = torch.amax(torch.where(chosen, before + here * stride, -1), dim + 1)
        stride *= along.size
    return values, place.to(torch.int64)


def _max_pool(rank: int) -> Any:
    def rule_of_rank(
        x: torch.Tensor,
        kernel_size: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] = (0,),
        dilation: Sequence[int] = (1,),
        ceil_mode: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return _max_of_windows(x, _pooled(x, "max_pool", rank, kernel_size, stride, padding, ceil_mode, dilation))

    return rule_of_rank


# PyTorch 2.11 has no decomposition of these.
for _op, _rank in ((_aten.max_pool2d_with_indices.default, 2), (_aten.max_pool3d_with_indices.default, 3)):
    if _op not in decomposition_table:
        rule(_op)(_max_pool(_rank))
