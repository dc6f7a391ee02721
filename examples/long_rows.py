"""Softmax and norms of rows that are longer than a multiprocessor has registers for, each by several programs.

One program would read such a row twice or three times, and with a row for each multiprocessor the L2 cache does not
have them any more: rows of 262,144 elements in 16 bits are 69 MB on an H100.  Here a program takes some columns of two
rows.  Of the first it finds the numbers that the row needs, and says so (`hl.signal`).  The second is `ahead` rows
behind: other programs have found its numbers (`hl.wait`), and the cache still has its elements.  So memory is read
once, while only as many rows are under way as `AHEAD_BYTES` are.

A program waits for programs with lower numbers only, which have begun before it.  Results do not depend on who comes
first: numbers of parts are added up in their order.

Run it: python examples/long_rows.py
"""

from __future__ import annotations

import torch

import helion
import helion.language as hl
from examples import layer_norm
from examples import rms_norm
from examples import softmax

#: Columns of a program.  With 8 warps some programs of a multiprocessor load while others wait.
WIDTH = 8192
_CONFIG = helion.Config(num_warps=8)
#: Of rows between their first and their second reading: a small part of an L2 cache, as other rows are under way too.
AHEAD_BYTES = 4 << 20
#: Rows up to this length are read in chunks by one program each.
LONGEST = 1 << 17


def first_look(x: torch.Tensor, row: int, columns: hl.Tile) -> torch.Tensor:
    """Some columns of a row, which the cache should keep until they are read again."""
    return hl.load(x, [row, columns], eviction_policy="evict_last").to(torch.float32)


def last_look(x: torch.Tensor, row: int, columns: hl.Tile) -> torch.Tensor:
    """The same columns again, which the cache need not keep any longer."""
    return hl.load(x, [row, columns], eviction_policy="evict_first").to(torch.float32)


@helion.kernel(config=_CONFIG)
def softmax_long(x: torch.Tensor, ahead: int) -> torch.Tensor:
    """softmax(x, dim=1) of a matrix; `ahead` rows are read before the first one is read again."""
    m, n = x.shape
    parts = helion.cdiv(n, WIDTH)
    out = torch.empty_like(x)
    largest = torch.empty([m, parts], dtype=torch.float32, device=x.device)
    sums = torch.empty([m, parts], dtype=torch.float32, device=x.device)
    ready = torch.zeros([m, parts], dtype=torch.int32, device=x.device)
    for slot, columns in hl.tile([m + ahead, n], block_size=[1, WIDTH]):
        row, earlier = slot.begin, slot.begin - ahead
        if row < m:
            values = first_look(x, row, columns)
            top = values.amax()
            largest[row, columns.id] = top
            sums[row, columns.id] = torch.exp(values - top).sum()
            hl.signal(ready, [row, columns.id])
        if earlier >= 0:
            values = last_look(x, earlier, columns)
            hl.wait(ready, [earlier, slice(None)])
            tops = largest[earlier, :]
            top = tops.amax()
            total = (sums[earlier, :] * torch.exp(tops - top)).sum()
            out[earlier, columns] = torch.exp(values - top) / total
    return out


@helion.kernel(config=_CONFIG)
def rms_norm_long(x: torch.Tensor, weight: torch.Tensor, eps: float, ahead: int) -> torch.Tensor:
    """RMS norm of the rows of a matrix [m, n] with a weight [n]."""
    m, n = x.shape
    parts = helion.cdiv(n, WIDTH)
    out = torch.empty_like(x)
    squares = torch.empty([m, parts], dtype=torch.float32, device=x.device)
    ready = torch.zeros([m, parts], dtype=torch.int32, device=x.device)
    for slot, columns in hl.tile([m + ahead, n], block_size=[1, WIDTH]):
        row, earlier = slot.begin, slot.begin - ahead
        if row < m:
            values = first_look(x, row, columns)
            squares[row, columns.id] = (values * values).sum()
            hl.signal(ready, [row, columns.id])
        if earlier >= 0:
            values = last_look(x, earlier, columns)
            scaled = values * weight[columns].to(torch.float32)
            hl.wait(ready, [earlier, slice(None)])
            out[earlier, columns] = scaled * torch.rsqrt(squares[earlier, :].sum() / n + eps)
    return out


@helion.kernel(config=_CONFIG)
def layer_norm_long(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, ahead: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Layer norm as `layer_norm.layer_norm`'s: y [m, n], and mean and reciprocal standard deviation of the rows [m].

    The squares of a part are of distances from its own mean, and are made those from the row's mean at the end (Chan,
    Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
    """
    m, n = x.shape
    parts = helion.cdiv(n, WIDTH)
    out = torch.empty_like(x)
    mean = torch.empty([m, parts], dtype=torch.float32, device=x.device)  # every program of a row has them
    rstd = torch.empty([m, parts], dtype=torch.float32, device=x.device)
    counts = torch.empty([m, parts], dtype=torch.float32, device=x.device)
    means = torch.empty([m, parts], dtype=torch.float32, device=x.device)
    squares = torch.empty([m, parts], dtype=torch.float32, device=x.device)
    ready = torch.zeros([m, parts], dtype=torch.int32, device=x.device)
    for slot, columns in hl.tile([m + ahead, n], block_size=[1, WIDTH]):
        row, earlier = slot.begin, slot.begin - ahead
        if row < m:
            values = first_look(x, row, columns)
            count = columns.end - columns.begin
            center = values.sum() / count
            counts[row, columns.id] = count
            means[row, columns.id] = center
            squares[row, columns.id] = ((values - center) * (values - center)).sum()
            hl.signal(ready, [row, columns.id])
        if earlier >= 0:
            values = last_look(x, earlier, columns)
            hl.wait(ready, [earlier, slice(None)])
            weights = counts[earlier, :]
            center = (means[earlier, :] * weights).sum() / n
            distances = means[earlier, :] - center
            scale = torch.rsqrt((squares[earlier, :] + distances * distances * weights).sum() / n + eps)
            mean[earlier, columns.id] = center
            rstd[earlier, columns.id] = scale
            out[earlier, columns] = (values - center) * scale * weight[columns] + bias[columns]
    return out, mean[:, 0], rstd[:, 0]


def rows_ahead(x: torch.Tensor) -> int:
    """How many rows of a matrix are `AHEAD_BYTES`, at least one."""
    return max(AHEAD_BYTES // max(x.size(1) * x.element_size(), 1), 1)


def softmax_of_rows(x: torch.Tensor) -> torch.Tensor:
    """softmax(x, dim=1) of a matrix with rows of any length."""
    return softmax.softmax(x) if x.size(1) <= LONGEST else softmax_long(x, rows_ahead(x))


def rms_norm_of_rows(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """RMS norm with a weight, of rows of any length."""
    return rms_norm.rms_norm(x, weight, eps) if x.size(1) <= LONGEST else rms_norm_long(x, weight, eps, rows_ahead(x))


def layer_norm_of_rows(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Layer norm with weight and bias, of rows of any length."""
    if x.size(1) <= LONGEST:
        return layer_norm.layer_norm(x, weight, bias, eps)
    return layer_norm_long(x, weight, bias, eps, rows_ahead(x))


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    (x,) = softmax.make_args(3, 150_000, device=device)
    error = (softmax_of_rows(x) - softmax.reference(x.double())).abs().max().item()
    print(f"softmax_long: {list(x.shape)}, largest error {error:.1e}")


if __name__ == "__main__":
    main()
