"""A maximum and the sum of exponentials relative to it are found in one pass over rows that are read in chunks."""

from __future__ import annotations

import math

import pytest
import torch

import helion
import helion.language as hl
from tests.support import run_everywhere

CHUNKS = [{"block_sizes": [2], "reduction_loops": [16]}, {"block_sizes": [1], "reduction_loops": [32]}]


def softmax(x):
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        out[rows, :] = torch.softmax(x[rows, :], dim=1)
    return out


def log_softmax(x):
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        out[rows, :] = torch.log_softmax(x[rows, :], dim=1)
    return out


def log_sum_exp(x):
    out = torch.empty([x.size(0)], device=x.device)
    for rows in hl.tile(x.size(0)):
        values = x[rows, :].to(torch.float32)
        largest = values.amax(1)
        out[rows] = torch.log(torch.exp(values - largest[:, None]).sum(1)) + largest
    return out


REFERENCES = {
    softmax: lambda x: torch.softmax(x, 1),
    log_softmax: lambda x: torch.log_softmax(x, 1),
    log_sum_exp: lambda x: torch.logsumexp(x, 1),
}


def _loops(kernel, x):
    return helion.kernel(kernel).bind((x,)).to_triton_code(helion.Config(**CHUNKS[0])).count(" in tl.range(")


@pytest.mark.parametrize(("kernel", "loops"), [(softmax, 2), (log_softmax, 2), (log_sum_exp, 1)])
def test_the_row_is_read_once_for_both(kernel, loops):
    assert _loops(kernel, torch.ones(4, 100)) == loops


@pytest.mark.parametrize("kernel", REFERENCES)
def test_result_is_that_of_two_passes(kernel):
    x = torch.randn(5, 75, generator=torch.Generator().manual_seed(11)) * 20
    run_everywhere(kernel, (x,), REFERENCES[kernel], configs=CHUNKS, error_scale=20)


def test_values_of_minus_infinity_add_nothing():
    x = torch.randn(4, 75, generator=torch.Generator().manual_seed(12))
    x[0, :60] = -math.inf  # whole chunks of it, first
    x[1, 1:] = -math.inf
    x[2, ::2] = -math.inf
    run_everywhere(softmax, (x,), REFERENCES[softmax], configs=CHUNKS, error_scale=8)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_reaches_the_whole_row(value):
    x = torch.zeros(2, 75)
    x[0, 40] = value
    run_everywhere(softmax, (x,), REFERENCES[softmax], configs=CHUNKS)


def two_maxima(x, y):
    out = torch.empty([x.size(0)], device=x.device)
    for rows in hl.tile(x.size(0)):
        a, b = x[rows, :], y[rows, :]
        other = b.amax(1)
        out[rows] = torch.exp(a - other[:, None]).sum(1) + a.amax(1)
    return out


def test_a_sum_relative_to_the_maximum_of_something_else_has_a_pass_of_its_own():
    x, y = (torch.randn(3, 75, generator=torch.Generator().manual_seed(s)) for s in (13, 14))
    code = helion.kernel(two_maxima).bind((x, y)).to_triton_code(helion.Config(**CHUNKS[0]))
    assert code.count(" in tl.range(") == 2

    def reference(x, y):
        return torch.exp(x - y.amax(1, keepdim=True)).sum(1) + x.amax(1)

    run_everywhere(two_maxima, (x, y), reference, configs=CHUNKS, error_scale=8)


def layer_norm(x):
    out, center = torch.empty_like(x), torch.empty([x.size(0)], device=x.device)
    for rows in hl.tile(x.size(0)):
        values = x[rows, :].to(torch.float32)
        mean = values.mean(1)
        apart = values - mean[:, None]
        out[rows, :] = apart * torch.rsqrt((apart * apart).mean(1) + 1e-5)[:, None]
        center[rows] = mean
    return out, center


def variance(x):
    out = torch.empty([x.size(0)], device=x.device)
    for rows in hl.tile(x.size(0)):
        out[rows] = x[rows, :].to(torch.float32).var(1, correction=0)
    return out


def apart_from_the_sum(x):
    """Squared distances from another number of the row than the mean."""
    out = torch.empty([x.size(0)], device=x.device)
    for rows in hl.tile(x.size(0)):
        values = x[rows, :].to(torch.float32)
        apart = values - values.sum(1, keepdim=True)
        out[rows] = (apart**2).sum(1)
    return out


def apart_from_one_mean(x):
    """Of two values."""
    out = torch.empty([x.size(0)], device=x.device)
    for rows in hl.tile(x.size(0)):
        one = x[rows, :].to(torch.float32)
        other = (-x[rows, :]).to(torch.float32)
        mean = one.mean(1, keepdim=True)
        squares = ((one - mean) ** 2).sum(1) + ((other - mean) ** 2).sum(1)
        out[rows] = squares + other.sum(1)
    return out


SQUARES = {
    apart_from_one_mean: lambda x: ((x - x.mean(1, keepdim=True)) ** 2 + (x + x.mean(1, keepdim=True)) ** 2 - x).sum(1),
    layer_norm: lambda x: (torch.nn.functional.layer_norm(x, [x.size(1)]), x.mean(1)),
    variance: lambda x: x.var(1, correction=0),
    apart_from_the_sum: lambda x: ((x - x.sum(1, keepdim=True)) ** 2).sum(1),
}


@pytest.mark.parametrize(("kernel", "loops"), [(layer_norm, 2), (variance, 1), (apart_from_the_sum, 1)])
def test_squared_distances_are_found_with_the_sum(kernel, loops):
    assert _loops(kernel, torch.ones(4, 100, dtype=torch.bfloat16)) == loops


@pytest.mark.parametrize("columns", [75, 96, 33], ids=["a part at the end", "whole chunks", "one more"])
@pytest.mark.parametrize("kernel", SQUARES)
def test_squared_distances_are_those_of_two_passes(kernel, columns, seed: int) -> None:
    x = (torch.randn(5, columns) * 3 + 1).bfloat16()
    run_everywhere(kernel, (x,), SQUARES[kernel], configs=CHUNKS, error_scale=8)


def test_squared_distances_of_numbers_far_from_zero_are_not_lost(seed: int) -> None:
    """The mean of squares less the square of the mean would have few digits left."""
    x = (torch.randn(5, 75) * 4 + 500).bfloat16()
    x[1, 0] = -500
    run_everywhere(variance, (x,), SQUARES[variance], configs=CHUNKS, error_scale=8)


def test_squared_distances_of_float32_take_a_pass_of_their_own() -> None:
    assert _loops(variance, torch.ones(4, 100)) == 2
