"""torch.sort, argsort, topk, kthvalue and msort on tiles: PyTorch's values, stable places, in every way to run a
kernel.
"""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


@helion.kernel(config=helion.Config(block_sizes=[4]))
def sort_rows(x: torch.Tensor, descending: hl.constexpr) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.empty_like(x)
    places = torch.empty(x.shape, dtype=torch.int64, device=x.device)
    for tile in hl.tile(x.size(0)):
        ordered = torch.sort(x[tile, :], dim=1, descending=descending)
        values[tile, :] = ordered.values
        places[tile, :] = ordered.indices
    return values, places


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.bfloat16, torch.int32, torch.uint8, torch.uint16, torch.uint32, torch.bool],
    ids=str,
)
def test_sort(dtype, descending, seed):
    step = {torch.uint16: 7000, torch.uint32: 477_000_000}.get(dtype, 1)
    x = (step * torch.randint(0, 9, (10, 13))).to(dtype)  # many ties
    if dtype.is_floating_point:
        x -= 4
        x[0, 3], x[1, 0], x[1, 12], x[2, 5], x[2, 6], x[2, 7] = (
            float(v) for v in ("nan", "-inf", "inf", "-0.0", "0.0", "nan")
        )

    def expected(x, descending):
        return tuple(torch.sort(x, dim=1, descending=descending, stable=True))

    args = (x, descending)
    run_everywhere(
        sort_rows, args, expected, configs=[{"block_sizes": [4]}], reference_args=args, error_scale=0, capabilities=[90]
    )


@helion.kernel(config=helion.Config(block_sizes=[8, 8]))
def choose(x: torch.Tensor, k: hl.constexpr) -> tuple[torch.Tensor, ...]:
    largest = torch.empty([x.size(0), k], dtype=x.dtype, device=x.device)
    at = torch.empty([x.size(0), k], dtype=torch.int32, device=x.device)
    smallest = torch.empty([k, x.size(1)], dtype=x.dtype, device=x.device)
    third = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
    order = torch.empty(x.shape, dtype=torch.int64, device=x.device)
    for tile in hl.tile(x.size(0)):
        row = x[tile, :]
        values, places = row.topk(k, dim=-1)
        largest[tile, :] = values
        at[tile, :] = places
        third[tile] = torch.kthvalue(row, 3, dim=1)[0]
        order[tile, :] = torch.argsort(row, dim=1)
    for tile in hl.tile(x.size(1)):
        smallest[:, tile] = torch.topk(x[:, tile], k, dim=0, largest=False).values
    return largest, at, smallest, third, order


@pytest.mark.parametrize("k", [1, 2, 6])
def test_topk_kthvalue_and_argsort(k, seed):
    x = torch.stack([torch.randperm(24)[:11] for _ in range(20)]).float()
    x[:, 4] = torch.randperm(20).float() + 100

    def expected(x, k):
        values, places = x.topk(k, dim=-1)
        return values, places.int(), x.topk(k, dim=0, largest=False).values, x.kthvalue(3, dim=1).values, x.argsort(1)

    args = (x, k)
    run_everywhere(
        choose, args, expected, configs=[{"block_sizes": [8, 8]}], reference_args=args, error_scale=0, capabilities=[80]
    )


def sort_along_a_tile(x):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = torch.sort(x[tile]).values
    return out


def sort_of_float8(x):
    out = torch.empty([x.size(0), 8])
    for tile in hl.tile(x.size(0)):
        out[tile, :] = torch.sort(x[tile, :].to(torch.float8_e5m2)).values
    return out


def topk_of_too_many(x):
    out = torch.empty([x.size(0), 9])
    for tile in hl.tile(x.size(0)):
        out[tile, :] = torch.topk(x[tile, :], 9).values
    return out


@pytest.mark.parametrize(
    ("kernel", "args", "error", "match"),
    [
        (sort_along_a_tile, (torch.randn(20),), exc.TorchOpTracingError, "dimension 0 has no constant size"),
        (
            sort_of_float8,
            (torch.randn(20, 8),),
            exc.UnsupportedDtype,
            "torch.sort on tiles takes floats of 16 bits or more, ints and bools, got torch.float8_e5m2",
        ),
        (topk_of_too_many, (torch.randn(20, 8),), exc.InvalidAPIUsage, "k = 9 of 8 elements"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_what_cannot_be_sorted(kernel, args, error, match):
    with pytest.raises(error, match=match):
        helion.kernel(kernel)(*args)
