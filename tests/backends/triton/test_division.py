"""Division: by a power of two it is a product with the same bits, by anything else rounded correctly, or approximate
under `fast_math`.
"""

from __future__ import annotations

import math

import pytest
import torch

import helion
import helion.language as hl
from helion.backends.triton.ops import _inverse
from tests.support import run_everywhere

pytestmark = pytest.mark.gpu

#: Powers of two whose inverse is a normal float32 too; and their neighbours' signs.
POWERS = (2.0**-126, 2.0**-60, -0.5, 2, 4096, -(2.0**70), 2.0**125)


def every_exponent(dtype: torch.dtype) -> torch.Tensor:
    """Numbers of each exponent and sign, those without one included: zeros, subnormal numbers, infinities and nan."""
    mantissa, exponents, bits = (23, 256, torch.int32) if dtype is torch.float32 else (52, 2048, torch.int64)
    fractions = torch.cat([torch.tensor([0, 1, (1 << mantissa) - 1]), torch.randint(0, 1 << mantissa, [5])])
    heads = torch.arange(exponents, dtype=torch.int64) << mantissa
    numbers = (heads[:, None] + fractions[None, :]).flatten().to(bits).view(dtype)
    return torch.cat([numbers, -numbers])


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    bits = torch.int32 if a.dtype is torch.float32 else torch.int64
    return bool(((a.view(bits) == b.view(bits)) | (a.isnan() & b.isnan())).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.slow
def test_inverse_of_every_power_of_two_gives_the_bits_of_the_quotient(dtype: torch.dtype, seed: int) -> None:
    numbers = every_exponent(dtype)
    limits = torch.finfo(dtype)
    found = 0
    for exponent in range(-1100, 1100):
        divisor = 2.0**exponent if -1074 <= exponent < 1024 else 0.0
        inverse = _inverse(divisor, dtype, exact=True)
        if inverse is not None:
            found += 1
            assert same_bits(numbers / divisor, numbers * inverse), divisor
    assert found > 2 * -math.frexp(limits.tiny)[1]


@pytest.mark.parametrize("divisor", [0, 0.0, 3, 1e-3, float("inf"), float("nan"), 2.0**127, 2.0**-149, 10**400, True])
def test_other_constants_have_no_exact_inverse(divisor: float) -> None:
    assert _inverse(divisor, torch.float32, exact=True) is None


@pytest.mark.parametrize("divisor", POWERS)
def test_kernel_divides_by_a_power_of_two_bit_by_bit(divisor: float, seed: int) -> None:
    x = every_exponent(torch.float32)
    x = x[~x.isnan()]

    def check(x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.float32) / divisor

    def fixed(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] / divisor
        return out

    assert "tl.div_rn" not in helion.kernel(fixed).bind((x,)).to_triton_code()
    run_everywhere(fixed, (x,), check, configs=[{"block_sizes": [1024]}], error_scale=0, capabilities=(90,))


def softmax(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = torch.softmax(x[tile, :], dim=1) / 3.0
    return out


def test_other_divisions_are_rounded_correctly() -> None:
    source = helion.kernel(softmax).bind((torch.randn(8, 300),)).to_triton_code()
    assert source.count("tl.div_rn(") == 2


def test_fast_math_divides_once_for_a_row(seed: int) -> None:
    args = (torch.randn(9, 300),)
    kernel = helion.kernel(softmax, fast_math=True)
    source = kernel.bind(args).to_triton_code()
    assert "* (1.0 / " in source and "* 0.3333333333333333" in source
    run_everywhere(kernel, args, lambda x: torch.softmax(x, 1) / 3, error_scale=8, capabilities=(90,))
