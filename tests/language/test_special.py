"""Special functions on tiles, those of torch.special that are no composition of others, in every way to run kernels."""

from __future__ import annotations

import math

import pytest
import torch

import helion
import helion.language as hl
from tests.support import run_everywhere
from tests.support import ways

pytestmark = pytest.mark.slow

CONFIG = helion.Config(block_sizes=[32])
ONE_OPERAND = [
    *("airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "digamma", "erfcx", "i0", "i0e", "i1", "i1e"),
    *("log_ndtr", "modified_bessel_i0", "modified_bessel_i1", "modified_bessel_k0", "modified_bessel_k1", "ndtri"),
    *("scaled_modified_bessel_k0", "scaled_modified_bessel_k1", "spherical_bessel_j0"),
]
POLYNOMIALS = [
    *(f"{prefix}chebyshev_polynomial_{letter}" for prefix in ("", "shifted_") for letter in "tuvw"),
    *("hermite_polynomial_h", "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p"),
]
#: Where the approximations meet, and where the functions end.
EDGES = [
    0.0,
    -0.0,
    0.5,
    1.0,
    -1.0,
    2.0,
    -2.09,
    2.09,
    8.0,
    -8.0,
    30.0,
    -30.0,
    104.0,
    -1e4,
    math.inf,
    -math.inf,
    math.nan,
]


def elementwise(function):
    @helion.kernel(config=CONFIG)
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = function(x[tile])
        return out

    return kernel


@pytest.mark.parametrize("name", ONE_OPERAND)
def test_function_of_one_operand(name, seed):
    function = getattr(torch.special, name)
    x = torch.cat([torch.tensor(EDGES), torch.linspace(-12, 12, 50), torch.rand(10)])
    # Units of float32 relative to a result of size 1 and more: near their zeros Bessel functions have fewer digits.
    run_everywhere(elementwise(function), (x,), function, error_scale=200, reference_args=(x,), capabilities=[80])


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_polygamma(n, seed):
    def function(x):
        return torch.polygamma(n, x)

    x = torch.cat([torch.tensor([0.25, 1.0, 2.0, 100.0, math.nan]), torch.rand(60) * 20])
    run_everywhere(elementwise(function), (x,), function, error_scale=200, reference_args=(x,), capabilities=[80])


@helion.kernel(config=CONFIG)
def zetas(x: torch.Tensor, q: torch.Tensor, far: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        # Padding of q is -inf here: the iteration must not wait for it.
        out[tile] = torch.special.zeta(x[tile], q[tile] - 1 / far[tile])
    return out


def test_zeta(seed):
    x = torch.tensor([1.0, 0.5, 1.5, 2.0, 7.0, 40.0, math.nan]).repeat(6)
    q = torch.tensor([-2.0, -2.5, 0.125, 1.0, 8.5, 30.0]).repeat_interleave(7)
    args = (x, q, torch.full_like(x, math.inf))

    def expected(x, q, far):
        return torch.special.zeta(x, q)

    run_everywhere(zetas, args, expected, error_scale=2000, reference_args=args, capabilities=[80])


@pytest.mark.parametrize("name", ["gammainc", "gammaincc"])
def test_incomplete_gamma_function(name, seed):
    function = getattr(torch.special, name)

    @helion.kernel(config=CONFIG)
    def kernel(a: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = function(1 / a[tile], x[tile])  # of padding infinite
        return out

    first = torch.tensor([0.0, 0.01, 0.5, 1.0, 3.0, 25.0, 200.0, 1e5, math.inf, math.nan, -1.0])
    x = torch.tensor([0.0, 0.02, 1.0, 4.0, 20.0, 210.0, 1.002e5, math.inf, math.nan, -1.0])
    a, x = 1 / first.repeat(10), x.repeat_interleave(11)

    def expected(a, x):
        return function(1 / a, x)

    run_everywhere(kernel, (a, x), expected, error_scale=2000, reference_args=(a, x), capabilities=[80])


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_polynomial_of_a_computed_degree(name, seed):
    function = getattr(torch.special, name)

    @helion.kernel(config=CONFIG)
    def kernel(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            # The degree of padding is infinite.
            out[tile] = function(x[tile], 1 / n[tile])
        return out

    x = torch.cat([torch.tensor([0.0, 1.0, -1.0, 2.0]), torch.linspace(-1.25, 1.25, 60)])
    n = 1 / torch.tensor([0.5, 1, 2, 3, 8, 9, 16, -1]).repeat(9)[: len(x)]

    def expected(x, n):
        return function(x, 1 / n)

    run_everywhere(kernel, (x, n), expected, error_scale=2000, reference_args=(x, n), capabilities=[80])


def test_polynomial_of_a_constant_degree(seed):
    def function(x):
        return torch.special.legendre_polynomial_p(x, 4)

    x = torch.rand(50)
    run_everywhere(elementwise(function), (x,), function, error_scale=100, capabilities=[80])


@pytest.mark.parametrize("name", ["i0e", "digamma", "modified_bessel_k1", "airy_ai", "legendre_polynomial_p"])
def test_constants_have_the_digits_of_float64(name, seed):
    special = getattr(torch.special, name)

    def function(x):
        return special(x, 5) if "polynomial" in name else special(x)

    x = torch.rand(50, dtype=torch.float64) * 12
    run_everywhere(elementwise(function), (x,), function, error_scale=1000, capabilities=[80])


def wronskian(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        at = x[tile]
        j0, j1 = torch.special.bessel_j0(at), torch.special.bessel_j1(at)
        out[tile] = j1 * torch.special.bessel_y0(at) - j0 * torch.special.bessel_y1(at)
    return out


def test_bessel_functions_of_float64_are_exact_to_its_digits_on_gpus():
    """PyTorch's own are off by up to 8e-7 on the CPU, which is no reference; their Wronskian is known."""
    x = torch.linspace(0.1, 25, 60, dtype=torch.float64)
    for way in ways(helion.kernel(wronskian), (x,), [CONFIG], [80]):
        if "GPU" in way.name:
            torch.testing.assert_close(way.run(x), 2 / (math.pi * x), rtol=1e-12, atol=1e-13)
