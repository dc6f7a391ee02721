"""Pooling, distances, statistics and other functions of PyTorch that are made of simpler ones on tiles, in every way to
run a kernel.  The tile's last block is partial.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

pytestmark = pytest.mark.slow

CONFIG = helion.Config(block_sizes=[4])
ROWS = 6


def of_rows(function, columns):
    """A kernel that stores what a function makes of a tile of rows, in as many columns."""

    @helion.kernel(config=CONFIG)
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0), columns], dtype=x.dtype, device=x.device)
        for tile in hl.tile(x.size(0)):
            out[tile, :] = function(x[tile, :])
        return out

    return kernel


def pooled(function, **options):
    """A pool over the second dimension, to which PyTorch's takes one more."""
    return lambda x: function(x.unsqueeze(1), **options).squeeze(1)


ROW_FUNCTIONS = {
    "avg_pool1d": pooled(F.avg_pool1d, kernel_size=3, stride=2, padding=1),
    "avg_pool1d without its padding": pooled(F.avg_pool1d, kernel_size=3, padding=1, count_include_pad=False),
    "avg_pool1d up to the end": pooled(F.avg_pool1d, kernel_size=4, stride=3, ceil_mode=True),
    "adaptive_avg_pool1d": pooled(F.adaptive_avg_pool1d, output_size=3),
    "adaptive_max_pool1d": pooled(F.adaptive_max_pool1d, output_size=3),
    "pad circular": lambda x: F.pad(x.unsqueeze(1), (2, -1), mode="circular").squeeze(1),
    "interpolate nearest": lambda x: F.interpolate(x.unsqueeze(1), size=11).squeeze(1),
    "interpolate linear": lambda x: F.interpolate(x.unsqueeze(1), scale_factor=2, mode="linear").squeeze(1),
    "local_response_norm": lambda x: F.local_response_norm(x.unsqueeze(2), 3).squeeze(2),
    "frexp": lambda x: torch.frexp(x)[0] + torch.frexp(x)[1],
    "angle": torch.angle,
    "take_along_dim": lambda x: torch.take_along_dim(
        x.unsqueeze(1), (torch.stack([x, -x], 1) > 0).to(torch.int64), dim=2
    ).sum(1),
}


@pytest.mark.parametrize("name", ROW_FUNCTIONS)
def test_function_of_rows(name, seed):
    function = ROW_FUNCTIONS[name]
    x = torch.randn(ROWS, 7)
    if "linear" not in name:  # PyTorch's decomposition subtracts neighbours: two infinities make nan
        x[1, 2], x[2, 0] = float("inf"), float("nan")
    kernel = of_rows(function, function(x).shape[1])
    run_everywhere(kernel, (x,), function, error_scale=8, capabilities=[80])


def test_frexp_of_all_kinds_of_floats(seed):
    @helion.kernel(config=CONFIG)
    def kernel(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mantissa, exponent = torch.empty_like(x), torch.empty(x.shape, dtype=torch.int32, device=x.device)
        for tile in hl.tile(x.size(0)):
            mantissa[tile], exponent[tile] = torch.frexp(x[tile])
        return mantissa, exponent

    x = torch.tensor([0.0, -0.0, 1.0, -0.75, 1e-45, 1e-40, -1e-38, 3e38, float("inf"), float("nan")])
    finite = torch.isfinite(x)

    def expected(x):
        mantissa, exponent = torch.frexp(x)
        return mantissa, torch.where(finite, exponent, 0)  # unspecified for the others

    run_everywhere(kernel, (x,), expected, reference_args=(x,), error_scale=0, capabilities=[80])


@helion.kernel(config=CONFIG)
def largest_of_windows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.empty([x.size(0), 2, 3], dtype=x.dtype, device=x.device)
    places = torch.empty([x.size(0), 2, 3], dtype=torch.int64, device=x.device)
    for tile in hl.tile(x.size(0)):
        values[tile, :, :], places[tile, :, :] = F.adaptive_max_pool2d(x[tile, :, :], (2, 3), return_indices=True)
    return values, places


def test_adaptive_max_pool2d_takes_the_first_of_equal_elements(seed):
    x = torch.randint(0, 3, (ROWS, 5, 4)).float()

    def expected(x):
        return F.adaptive_max_pool2d(x, (2, 3), return_indices=True)

    run_everywhere(largest_of_windows, (x,), expected, error_scale=0, capabilities=[80])


@helion.kernel(config=CONFIG)
def distances(a: torch.Tensor, b: torch.Tensor, p: hl.constexpr) -> torch.Tensor:
    out = torch.empty([a.size(0), b.size(0)], dtype=a.dtype, device=a.device)
    for tile in hl.tile(a.size(0)):
        out[tile, :] = torch.cdist(a[tile, :], b[:, :], p=p)
    return out


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0, float("inf")])
def test_cdist(p, seed):
    args = torch.randint(-3, 4, (ROWS, 5)).float(), torch.randint(-3, 4, (7, 5)).float(), p
    run_everywhere(distances, args, lambda a, b, p: torch.cdist(a, b, p), error_scale=16, capabilities=[80])


def test_cdist_of_many_rows_has_their_differences():
    # Of points that are close beside their size a product of squares has little left, and nothing with TF32.
    b = torch.rand(30, 3) * 10
    expected = lambda a, b, p: torch.cdist(a.double(), b.double()).to(a.dtype)  # noqa: E731
    run_everywhere(distances, (b[:20] + 0.3, b, 2.0), expected, error_scale=64, capabilities=[90])


@helion.kernel(config=helion.Config(), dot_precision="ieee")
def statistics(x: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    cov = torch.empty([x.size(0), x.size(0)], dtype=x.dtype, device=x.device)
    correlation = torch.empty_like(cov)
    for _ in hl.grid(1):
        cov[:, :] = torch.cov(x[:, :], aweights=weights[:])
        correlation[:, :] = torch.corrcoef(x[:, :])
    return cov, correlation


def test_cov_and_corrcoef(seed):
    args = torch.randn(3, 9), torch.rand(9)
    wide = tuple(t.double() for t in args)

    def expected(x, weights):
        return torch.cov(x, aweights=weights), torch.corrcoef(x)

    run_everywhere(statistics, args, expected, reference_args=wide, error_scale=64, capabilities=[80])


def test_integers_are_not_interpolated_between():
    @helion.kernel
    def larger(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty(x.size(0), 8, 8, dtype=x.dtype, device=x.device)
        for tile in hl.tile(x.size(0)):
            out[tile, :, :] = F.interpolate(x[tile, :, :][:, None], size=(8, 8), mode="bilinear")[:, 0]
        return out

    with pytest.raises(exc.UnsupportedDtype, match="rounds it by another rule on each kind of device"):
        larger(torch.ones(3, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize("replacement", [False, True])
def test_combinations(replacement, seed):
    @helion.kernel(config=helion.Config())
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty([15 if replacement else 10, 2], dtype=x.dtype, device=x.device)
        for _ in hl.grid(1):
            out[:, :] = torch.combinations(x[:], 2, replacement)
        return out

    run_everywhere(kernel, (torch.randn(5),), lambda x: torch.combinations(x, 2, replacement), error_scale=0)


def test_dimensions_of_size_0_and_1(seed):
    @helion.kernel(config=CONFIG)
    def kernel(x: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, one = torch.empty_like(x), torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            at = index[tile, :]
            out[tile, :] = torch.scatter_add(x[tile, :], 1, at, at.to(x.dtype) + 1)
            one[tile, :] = torch.median(x[tile, :], dim=1, keepdim=True).values
        return out, one

    x = torch.randn(ROWS, 1)
    for size in (0, 1):
        index = torch.zeros(ROWS, size, dtype=torch.int64)
        out, one = kernel(x, index)
        assert torch.equal(out, x + size)
        assert torch.equal(one, x)


def test_a_dimension_whose_size_may_change_is_refused_with_what_makes_it_constant():
    @helion.kernel(config=CONFIG, static_shapes=False)
    def kernel(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile, :] = torch.scatter_add(x[tile, :], 1, index[tile, :], x[tile, :])
        return out

    x, index = torch.ones(5, 3), torch.zeros(5, 3, dtype=torch.int64)
    with pytest.raises(exc.TorchOpTracingError) as error:
        kernel(x, index)
    assert "hl.specialize(x.size(1))" in str(error.value)


@helion.kernel(config=CONFIG, static_shapes=False)
def add_at(x: torch.Tensor, index: torch.Tensor, src: torch.Tensor) -> torch.Tensor:
    places, sources = hl.specialize((x.size(1), src.size(1)))
    out = torch.empty([x.size(0), places], dtype=x.dtype, device=x.device)
    for tile in hl.tile(x.size(0)):
        out[tile, :] = torch.scatter_add(x[tile, :], 1, index[tile, :sources], src[tile, :])
    return out


def test_a_scatter_of_any_number_of_rows(seed):
    for rows in (3, 9):
        x, index, src = torch.zeros(rows, 3), torch.randint(0, 3, (rows, 5)), torch.rand(rows, 5)
        run_everywhere(add_at, (x, index, src), lambda x, i, s: torch.scatter_add(x, 1, i.long(), s), error_scale=4)


def of_loaded_numbers(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([5, x.size(0)], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0)):
        value = x[t]
        out[0, t] = value + torch.full_like(value, x[0])
        out[1, t] = value + torch.full([t], x[1])
        out[2, t] = value + value.new_full([t], x[1])
        out[3, t] = torch.clamp(value, min=0.1, max=x[0])
        out[4, t] = value.clamp(x[0], 0.1)
    return out


def test_a_tensor_of_one_element_where_pytorch_takes_a_number() -> None:
    def expected(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x + x[0], x + x[1], x + x[1], x.clamp(min=0.1, max=x[0]), x.clamp(x[0], 0.1)])

    run_everywhere(of_loaded_numbers, (torch.randn(7),), expected, configs=[{}], capabilities=[90])


def diagonals(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([2, x.size(0)], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0)):
        out[0, t] = torch.diag(x[t]).sum(0)
        out[1, t] = torch.diag_embed(x[t]).amax(-1)
    return out


def test_diagonal_matrices_of_a_partial_tile(seed):
    """The executor made their places of a full tile."""
    config = helion.Config(block_sizes=[8])
    run_everywhere(
        diagonals, (torch.rand(13),), lambda x: x.expand(2, -1), configs=[config], capabilities=[90], config=config
    )


def of_two_vectors(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([5, a.size(0) // 8], dtype=a.dtype, device=a.device)
    for t in hl.tile(a.size(0), block_size=8):
        v, w = a[t], b[t]
        out[0, t.id] = torch.kron(v[:, None] * w[None, :], w).amax()
        out[1, t.id] = (torch.vander(v, 3) * torch.arange(3, device=a.device)[None, :]).sum()
        out[2, t.id] = torch.linalg.matrix_norm(torch.outer(v, w), ord=1)
        out[3, t.id] = torch.linalg.norm(torch.outer(v, w), -float("inf"))
        out[4, t.id] = torch.cartesian_prod(v, w).prod(1).amin()
    return out


def test_functions_that_pytorch_writes_with_sizes_as_numbers(seed: int) -> None:
    def expected(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        def one(v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            m = torch.outer(v, w)
            norms = torch.linalg.matrix_norm(m, ord=1), torch.linalg.norm(m, -float("inf"))
            places = (torch.vander(v, 3) * torch.arange(3)).sum()
            return torch.stack([torch.kron(m, w).amax(), places, *norms, m.amin()])

        return torch.stack([one(v, w) for v, w in zip(a.split(8), b.split(8))], 1)

    run_everywhere(of_two_vectors, (torch.rand(16), torch.rand(16)), expected, configs=[{}], capabilities=[90])


def of_two_dtypes(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(a)
    for t in hl.tile(a.size(0)):
        out[t] = torch.meshgrid(a[t], b[t], indexing="ij")[0].sum(1)
    return out


def in_a_chain(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(a)
    for t in hl.tile(a.size(0)):
        out[t] = torch.linalg.multi_dot([a[t], b[:, t], a[t]])
    return out


def test_what_is_refused_is_called_by_its_name() -> None:
    for interpret in (None, helion.RefMode.EAGER):
        kernel = helion.kernel(of_two_dtypes, **({"ref_mode": interpret} if interpret else {}))
        with pytest.raises(exc.InvalidAPIUsage, match=r"of one dtype, got torch\.float32 and torch\.int32"):
            kernel(torch.ones(8), torch.ones(8, dtype=torch.int32))
    with pytest.raises(exc.TorchOpTracingError, match=r"linalg\.multi_dot is not supported"):
        helion.kernel(in_a_chain)(torch.ones(8), torch.ones(8, 8))
