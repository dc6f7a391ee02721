"""Backward passes of norms of rows that are too long for the registers of one program: each row by several at once.

A program keeps some columns of a row in registers, finds what they add to the row's two numbers and says so
(`hl.signal`); while it waits for the programs that have the other columns (`hl.wait`), its part of the next row is on
its way.  So memory is read once, and the sums over rows, the gradients of weight and bias, stay in registers too.

Each program waits for all others of its row, also for those with higher numbers.  That needs all of them on the GPU at
the same time, as `hl.barrier()` sees to, and no more tiles than programs: `rows_together` makes the share of the rows
that a tile goes over as large as it takes.  On the CPU, where tiles run one after the other, and for rows that are too
long for that, there are the kernels of `rms_norm` and `layer_norm` that read a row twice.

Run it on a GPU: python examples/long_rows_backward.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl
from examples import layer_norm
from examples import rms_norm

#: Columns of a program.
WIDTH = 4096
#: Programs of a multiprocessor: together they may have all of its registers.
PROGRAMS = 2
_CONFIG = helion.Config(num_warps=8, num_sm_multiplier=PROGRAMS, maxnreg=128)
#: Rows up to this length are held by one program each.
LONGEST = 16384


def say_rms_numbers(
    values: torch.Tensor, dy: torch.Tensor, weight: torch.Tensor, numbers: torch.Tensor, ready: torch.Tensor,
    group: int, step: int, part: int,
) -> None:  # fmt: skip
    """What some columns of a row add to the sum of its squares and of grad * weight * x."""
    wide, wide_dy = values.to(torch.float32), dy.to(torch.float32)
    numbers[group, step, 0, part] = (wide * wide).sum()
    numbers[group, step, 1, part] = (wide_dy * weight * wide).sum()
    hl.signal(ready, [group, step, part])


@helion.kernel(config=_CONFIG)
def rms_norm_backward_long(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float, share: hl.constexpr
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x and weight as `rms_norm.rms_norm_backward`'s; a tile goes over `share` rows, a power of two."""
    m, n = x.shape
    parts, groups = helion.cdiv(n, WIDTH), helion.cdiv(m, share)
    grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
    partial = torch.empty([groups, n], dtype=torch.float32, device=x.device)
    numbers = torch.empty([groups, share + 1, 2, parts], dtype=torch.float32, device=x.device)
    ready = torch.zeros([groups, share + 1, parts], dtype=torch.int32, device=x.device)
    for group, columns in hl.tile([m, n], block_size=[share, WIDTH]):
        factor = weight[columns].to(torch.float32)
        total = hl.zeros([columns], dtype=torch.float32)
        values, dy = x[group.begin, columns], grad[group.begin, columns]
        say_rms_numbers(values, dy, factor, numbers, ready, group.id, 0, columns.id)
        for row in hl.tile(group.begin, group.end, block_size=1):
            step, is_more = row.begin - group.begin, row.begin + 1 < group.end
            later = hl.load(x, [row.begin + 1, columns], extra_mask=is_more)
            later_dy = hl.load(grad, [row.begin + 1, columns], extra_mask=is_more)
            say_rms_numbers(later, later_dy, factor, numbers, ready, group.id, step + 1, columns.id)
            hl.wait(ready, [group.id, step, slice(None)])
            r = torch.rsqrt(numbers[group.id, step, 0, :].sum() / n + eps)
            projection = numbers[group.id, step, 1, :].sum() / n * r
            wide_dy, normalized = dy.to(torch.float32), values.to(torch.float32) * r
            grad_x[row.begin, columns] = (wide_dy * factor - normalized * projection) * r
            total = total + wide_dy * normalized
            values, dy = later, later_dy
        partial[group.id, columns] = total
    hl.barrier()
    for columns in hl.tile(n, block_size=128):
        total = hl.zeros([columns], dtype=torch.float32)
        for some in hl.tile(groups, block_size=32):
            total = total + partial[some, columns].sum(dim=0)
        grad_weight[columns] = total
    return grad_x, grad_weight


def say_layer_numbers(
    values: torch.Tensor, dy: torch.Tensor, weight: torch.Tensor, center: torch.Tensor, scale: torch.Tensor,
    numbers: torch.Tensor, ready: torch.Tensor, group: int, step: int, part: int,
) -> None:  # fmt: skip
    """What some columns of a row add to the sums of grad * weight, and of that times normalized x."""
    weighted = dy.to(torch.float32) * weight
    numbers[group, step, 0, part] = weighted.sum()
    numbers[group, step, 1, part] = (weighted * ((values.to(torch.float32) - center) * scale)).sum()
    hl.signal(ready, [group, step, part])


@helion.kernel(config=_CONFIG)
def layer_norm_backward_long(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    mean: torch.Tensor,
    rstd: torch.Tensor,
    share: hl.constexpr,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, weight and bias as `layer_norm.layer_norm_backward`'s; a tile goes over `share` rows."""
    m, n = x.shape
    parts, groups = helion.cdiv(n, WIDTH), helion.cdiv(m, share)
    grad_x, grad_weight, grad_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
    partial_weight = torch.empty([groups, n], dtype=torch.float32, device=x.device)
    partial_bias = torch.empty([groups, n], dtype=torch.float32, device=x.device)
    numbers = torch.empty([groups, share + 1, 2, parts], dtype=torch.float32, device=x.device)
    ready = torch.zeros([groups, share + 1, parts], dtype=torch.int32, device=x.device)
    for group, columns in hl.tile([m, n], block_size=[share, WIDTH]):
        factor = weight[columns].to(torch.float32)
        total_weight = hl.zeros([columns], dtype=torch.float32)
        total_bias = hl.zeros([columns], dtype=torch.float32)
        values, dy = x[group.begin, columns], grad[group.begin, columns]
        center, scale = mean[group.begin], rstd[group.begin]
        say_layer_numbers(values, dy, factor, center, scale, numbers, ready, group.id, 0, columns.id)
        for row in hl.tile(group.begin, group.end, block_size=1):
            step, is_more = row.begin - group.begin, row.begin + 1 < group.end
            later = hl.load(x, [row.begin + 1, columns], extra_mask=is_more)
            later_dy = hl.load(grad, [row.begin + 1, columns], extra_mask=is_more)
            next_center = hl.load(mean, [row.begin + 1], extra_mask=is_more)
            next_scale = hl.load(rstd, [row.begin + 1], extra_mask=is_more)
            say_layer_numbers(
                later, later_dy, factor, next_center, next_scale, numbers, ready, group.id, step + 1, columns.id
            )
            hl.wait(ready, [group.id, step, slice(None)])
            middle = numbers[group.id, step, 0, :].sum() / n
            projection = numbers[group.id, step, 1, :].sum() / n
            wide_dy, normalized = dy.to(torch.float32), (values.to(torch.float32) - center) * scale
            grad_x[row.begin, columns] = (wide_dy * factor - middle - normalized * projection) * scale
            total_weight = total_weight + wide_dy * normalized
            total_bias = total_bias + wide_dy
            values, dy, center, scale = later, later_dy, next_center, next_scale
        partial_weight[group.id, columns] = total_weight
        partial_bias[group.id, columns] = total_bias
    hl.barrier()
    for columns in hl.tile(n, block_size=128):
        grad_weight[columns], grad_bias[columns] = layer_norm.sums_of_parts(partial_weight, partial_bias, columns)
    return grad_x, grad_weight, grad_bias


def rows_together(x: torch.Tensor, programs: int) -> int | None:
    """How many rows a tile goes over if a matrix is shared out to `programs`; None if one row needs more of them."""
    parts = helion.cdiv(x.size(1), WIDTH)
    return helion.next_power_of_2(helion.cdiv(x.size(0), programs // parts)) if parts <= programs else None


def _share(x: torch.Tensor) -> int | None:
    """`rows_together` on a GPU, for rows that one program would not hold."""
    if not x.is_cuda or x.size(1) <= LONGEST or x.size(0) == 0:
        return None
    return rows_together(x, PROGRAMS * torch.cuda.get_device_properties(x.device).multi_processor_count)


def rms_norm_backward_of_rows(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of x [m, n] and weight [n] for rows of any length."""
    share = _share(x)
    if share is None:
        return rms_norm.backward(grad, x, weight, eps)
    return rms_norm_backward_long(grad, x, weight, eps, share)


def layer_norm_backward_of_rows(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x [m, n], weight [n] and bias [n] for rows of any length."""
    share = _share(x)
    if share is None:
        return layer_norm.backward(grad, x, weight, mean, rstd)
    return layer_norm_backward_long(grad, x, weight, mean, rstd, share)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for module, backward in (rms_norm, rms_norm_backward_of_rows), (layer_norm, layer_norm_backward_of_rows):
        args = module.make_backward_args(100, 50_000, device=device)
        pairs = zip(backward(*args), module.reference_backward(*args))
        errors = [f"{(actual - expected).abs().max().item():.1e}" for actual, expected in pairs]
        print(f"{backward.__name__}: largest errors {', '.join(errors)}")


if __name__ == "__main__":
    main()
