"""Augmented assignment in device code: dtype and shape stay, in every way to run a kernel."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

CONFIG = [{"block_sizes": [16]}]


def mixed(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    out, before = torch.empty_like(x), torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        acc = x[tile]
        old = acc
        acc += y[tile]
        for _ in hl.grid(2):
            acc -= y[tile]
            acc *= 1.5
        acc /= 3
        acc **= 2
        out[tile] = acc
        before[tile] = old
    return out, before


def mixed_in_eager(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    acc = x.clone()
    acc += y
    for _ in range(2):
        acc -= y
        acc *= 1.5
    acc /= 3
    acc **= 2
    return acc, x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_value_stays_16_bit_and_other_names_keep_the_old_value(seed, dtype):
    args = (torch.randn(50).to(dtype), torch.randn(50))
    expected = mixed_in_eager(*args)
    run_everywhere(
        mixed, args, lambda x, y: expected, configs=CONFIG, error_scale=0, reference_args=args, capabilities=[80]
    )


def integers(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        value = x[tile]
        value += y[tile]
        value //= 3
        value %= 1000
        value <<= 2
        value >>= 1
        value &= 255
        value |= 8
        value ^= 5
        out[tile] = value
    return out


def test_integer_operators(seed):
    args = (torch.randint(-1000, 1000, (50,), dtype=torch.int32), torch.randint(-1000, 1000, (50,)))

    def expected(x, y):
        value = x.clone()
        value += y
        value //= 3
        value %= 1000
        value <<= 2
        value >>= 1
        value &= 255
        value |= 8
        value ^= 5
        return value

    run_everywhere(integers, args, expected, configs=CONFIG, capabilities=[80])


def float_into_int(x, y):
    for tile in hl.tile(x.size(0)):
        value = x[tile].to(torch.int32)
        value += y[tile]
        x[tile] = value
    return x


def larger_shape(x, y):
    for tile in hl.tile(x.size(0)):
        total = x[tile].sum()
        total += y[tile]
        x[tile] = total
    return x


def method(x, y):
    for tile in hl.tile(x.size(0)):
        value = x[tile]
        value.add_(y[tile])
        x[tile] = value
    return x


@pytest.mark.parametrize("layer", ["tile executor", "ref mode"])
@pytest.mark.parametrize(
    ("kernel", "error", "match"),
    [
        (float_into_int, exc.InvalidAPIUsage, r"a result of torch.float32 does not fit into torch.int32"),
        (larger_shape, exc.ShapeMismatch, r"change the shape from \[\]"),
        (method, exc.TorchOpTracingError, r"torch.Tensor.add_ is not supported in device code"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_what_pytorch_refuses_is_refused(ref, kernel, error, match, layer):
    args = (torch.randn(20), torch.randn(20))
    with pytest.raises(error, match=match) as caught:
        helion.kernel(kernel)(*args) if layer == "tile executor" else ref(kernel, *args)
    assert caught.value.location is not None
