"""Rows that would fill the registers as float32 stay there as they were loaded, in 16 bits."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.support import run_everywhere

#: 256 elements a thread, as many as it has registers.
CONFIG = {"block_sizes": [1], "num_warps": 1}


def layer_norm(x, weight):
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        values = x[rows, :].to(torch.float32)
        scale = weight[None, :].to(torch.float32)
        centered = values - values.mean(1, keepdim=True)
        out[rows, :] = centered * torch.rsqrt((centered * centered).mean(1, keepdim=True) + 1e-5) * scale
    return out


def softmax(x):
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        out[rows, :] = torch.softmax(x[rows, :].to(torch.float32), 1)
    return out


def beside_what_is_float32(x, y):
    """What a float32 row is part of is kept: the row would have to be kept in its place."""
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        mixed = x[rows, :] + y[rows, :]
        out[rows, :] = mixed - mixed.amax(1, keepdim=True)
    return out


def shares(x):
    """Rows in a loop, in which their sum is carried."""
    out, total = torch.empty_like(x), torch.empty([x.size(1)])
    for part in hl.tile(x.size(0), block_size=4):
        acc = hl.zeros([x.size(1)])
        for rows in hl.tile(part.begin, part.end, block_size=1):
            values = x[rows, :].to(torch.float32)
            normalized = values - values.amax(1, keepdim=True)
            acc = acc + normalized.sum(0)
            out[rows, :] = normalized
        total[:] = acc
    return out, total


def _text(kernel, *args, **config):
    return helion.kernel(kernel).bind(args).to_triton_code(helion.Config(**{**CONFIG, **config}))


def _rows(n, dtype=torch.bfloat16, m=3):
    return torch.randn(m, n).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("kernel", "passes"), [(softmax, 3), (layer_norm, 3)])
def test_a_row_is_converted_for_each_pass(kernel, passes, dtype):
    x = _rows(8192, dtype)
    args = (x,) if kernel is softmax else (x, x[0])
    text = _text(kernel, *args)
    # A weight that only the last pass needs is no row that is held.
    assert text.count("= hlt_again(") == passes - 1
    assert text.count("tl.load(x ") == 1


@pytest.mark.parametrize(
    ("args", "config"),
    [
        ((_rows(4096),), {}),
        ((_rows(8192),), {"num_warps": 2}),
        ((_rows(8192, torch.float32),), {}),
        ((_rows(8192),), {"reduction_loops": [4096]}),
    ],
    ids=["short", "more threads", "float32", "in chunks"],
)
def test_other_rows_are_converted_once(args, config):
    assert "hlt_again" not in _text(softmax, *args, **config)


def test_what_a_float32_row_is_part_of_is_kept():
    assert "hlt_again" not in _text(beside_what_is_float32, _rows(8192), _rows(8192, torch.float32))


def test_two_rows_of_half_the_length_are_as_long():
    assert "hlt_again" in _text(softmax, _rows(4096), block_sizes=[2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_results_are_the_same(dtype, seed: int) -> None:
    x = _rows(6000, dtype) * 3
    run_everywhere(softmax, (x,), lambda x: torch.softmax(x.double(), 1), configs=[CONFIG])
    run_everywhere(
        layer_norm,
        (x, x[0].contiguous()),
        lambda x, w: torch.nn.functional.layer_norm(x.double(), [6000], w.double()),
        configs=[CONFIG],
        error_scale=4,
    )


def test_rows_in_a_loop(seed: int) -> None:
    def expected(x):
        rows = x.double() - x.double().amax(1, keepdim=True)
        return rows, rows.sum(0)

    x = _rows(6000, m=4)
    assert "hlt_again" in _text(shares, x, block_sizes=[])
    run_everywhere(shares, (x,), expected, configs=[{"num_warps": 1}])
