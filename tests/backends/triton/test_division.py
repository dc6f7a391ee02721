"""Division: by a power of two it is a product with the same bits, by anything else rounded correctly, or approximate
under `fast_math`.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import helion
import helion.language as hl
from helion.backends.triton.ops import _inverse
from tests.support import run_everywhere
from tests.support import ways

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
    assert source.count("tl.div_rn(") == 1 and source.count("hlt_quotient_of_row(") == 1


def hard_quotients(divisors: torch.Tensor, count: int) -> torch.Tensor:
    """For each divisor (odd integers of 24 bits) dividends whose quotient is next to halfway between two numbers.

    With X * 2**k = M * Y + c for a small c, X / Y is M / 2**k plus very little; M is odd and has 25 bits.
    """
    rows = []
    for divisor in divisors.long().tolist():
        inverse = pow(divisor, -1, 1 << 26)
        found = []
        for c in itertools.chain.from_iterable((c, -c) for c in range(1, 1 << 12)):
            for k in (24, 25, 26):
                m = -c * inverse % (1 << k)
                x = (m * divisor + c) >> k
                if 1 << 22 < x < 1 << 24:
                    found.append(float(x))
            if len(found) >= count:
                break
        rows.append(found[:count])
    return torch.tensor(rows)


def by_rows(x: torch.Tensor, divisors: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = x[tile, :] / divisors[tile][:, None]
    return out


def check_rows(x: torch.Tensor, divisors: torch.Tensor) -> None:
    """In every way there is to run `by_rows`, its results have the bits of PyTorch's."""
    kernel = helion.kernel(by_rows)
    assert "hlt_quotient_of_row(" in kernel.bind((x, divisors)).to_triton_code()
    for way in ways(kernel, (x, divisors), [{"block_sizes": [2]}], (90,)):
        assert same_bits(way.run(x.clone(), divisors.clone()), x / divisors[:, None]), way.name


def test_row_is_divided_bit_by_bit_next_to_halfway(seed: int) -> None:
    divisors = (torch.randint(1 << 22, 1 << 23, [16]) * 2 + 1).float()
    x = hard_quotients(divisors, 200)
    expected = x / divisors[:, None]
    assert not same_bits(expected, x * (1 / divisors)[:, None]), "too easy: a product would do"
    check_rows(x, divisors)


def test_row_is_divided_bit_by_bit_whatever_the_numbers(seed: int) -> None:
    """Every exponent by every kind of number: where the short form is not exact, another one takes its place."""
    least, most = 2.0**-126, 2.0**127
    kinds = [
        1.0,
        3.0,
        -7.3,
        1e-3,
        1e30,
        1e-30,
        least,
        1.5 * least,
        least / 3,
        2.0**-149,
        most / 2,
        most * 0.9,
        most * 1.7,
    ]
    divisors = torch.tensor([*kinds, 0.0, -0.0, float("inf"), -float("inf"), float("nan"), *torch.randn(6).tolist()])
    x = every_exponent(torch.float32).expand(len(divisors), -1).contiguous()
    x[:, ::7] = torch.randn(len(divisors), len(range(0, x.size(1), 7)))  # tiny numbers beside others
    check_rows(x, divisors)


def test_fast_math_divides_once_for_a_row(seed: int) -> None:
    args = (torch.randn(9, 300),)
    kernel = helion.kernel(softmax, fast_math=True)
    source = kernel.bind(args).to_triton_code()
    assert "* (1.0 / " in source and "* 0.3333333333333333" in source
    run_everywhere(kernel, args, lambda x: torch.softmax(x, 1) / 3, error_scale=8, capabilities=(90,))


def by_one_number(x: torch.Tensor, divisor: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] / divisor[0]
    return out


@pytest.mark.parametrize("config", [{"block_sizes": [1]}, {"block_sizes": [2]}, {"block_sizes": [64], "num_warps": 8}])
def test_tile_is_divided_by_a_number_whatever_its_size(config: dict[str, object], seed: int) -> None:
    """Threads have one element each, and some of them none, where four are divided at a time."""
    args = torch.randn(65), torch.randn(1)
    for way in ways(helion.kernel(by_one_number), args, [config], (90,)):
        assert same_bits(way.run(*(arg.clone() for arg in args)), args[0] / args[1]), way.name


def test_narrow_rows_are_divided_bit_by_bit(seed: int) -> None:
    for n in (1, 2, 3, 8):
        x, divisors = torch.randn(5, n), torch.randn(5)
        for way in ways(helion.kernel(by_rows), (x, divisors), [{"block_sizes": [2], "num_warps": 8}], (90,)):
            assert same_bits(way.run(x.clone(), divisors.clone()), x / divisors[:, None]), (n, way.name)
