"""Sizes of several arguments under static_shapes=False: equal where they are in the traced call, which is a guard."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

pytestmark = pytest.mark.gpu  # with a GPU, every kernel runs on it too


@helion.kernel(config=helion.Config(block_sizes=[8]), static_shapes=False)
def doubled_into(x, out):
    for tile in hl.tile(x.size(0)):
        out[tile, :] = x[tile, :] * 2
    return out


@helion.kernel(config=helion.Config(block_sizes=[8]), static_shapes=False)
def rms_norm(out, x, w):
    for tile in hl.tile(x.size(0)):
        value = x[tile, :]
        scale = torch.rsqrt((value * value).mean(-1, keepdim=True) + 1e-6)
        out[tile, :] = (value * scale * w[:][None, :]).to(out.dtype)
    return out


@helion.kernel(config=helion.Config(block_sizes=[8, 8]), static_shapes=False)
def product(x, y):
    out = torch.empty([x.size(0), y.size(1)], dtype=x.dtype, device=x.device)
    for rows, columns in hl.tile(out.shape):
        out[rows, columns] = x[rows, :] @ y[:, columns]
    return out


def test_output_argument_of_the_same_sizes(seed: int) -> None:
    for shape in ((20, 30), (8, 5), (20, 100)):
        args = (torch.randn(shape), torch.empty(shape))
        run_everywhere(doubled_into, args, lambda x, out: x * 2, configs=[{"block_sizes": [8]}], capabilities=[80])


def test_norm_with_weights(seed: int) -> None:
    def reference(out, x, w):
        return torch.nn.functional.rms_norm(x, x.shape[1:], w, 1e-6)

    args = (torch.empty(20, 30), torch.randn(20, 30), torch.randn(30))
    run_everywhere(rms_norm, args, reference, configs=[{"block_sizes": [8]}], error_scale=8, capabilities=[90])


def test_product_over_a_whole_dimension(seed: int) -> None:
    args = (torch.randn(20, 30), torch.randn(30, 12))
    run_everywhere(
        product, args, torch.matmul, configs=[{"block_sizes": [16, 16]}], error_scale=5000, capabilities=[80]
    )


@pytest.mark.parametrize(
    ("kernel", "equal", "unequal"),
    [
        (doubled_into, [(20, 30), (20, 30)], [(20, 30), (20, 29)]),
        (rms_norm, [(20, 30), (20, 30), (30,)], [(20, 30), (20, 30), (31,)]),
        (product, [(20, 30), (30, 12)], [(20, 30), (31, 12)]),
    ],
    ids=["store", "norm", "product"],
)
def test_unequal_sizes_after_equal_ones_are_an_error(kernel, equal, unequal) -> None:
    kernel(*map(torch.zeros, equal))
    with pytest.raises(exc.ShapeMismatch, match="size"):
        kernel(*map(torch.zeros, unequal))
    kernel(*map(torch.zeros, equal))


def test_one_that_broadcasts_gets_a_specialization_of_its_own(seed: int) -> None:
    doubled_into(torch.randn(8, 5), torch.empty(8, 5))
    x, out = torch.randn(8, 1), torch.empty(8, 5)
    torch.testing.assert_close(doubled_into(x, out), (x * 2).expand(8, 5))


def test_carried_value_takes_the_size_of_another_argument(seed: int) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[8]), static_shapes=False)
    def last(x, y):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            value = x[tile, :]
            for _ in hl.grid(3):
                value = y[tile, :] + 1
            out[tile, :] = value
        return out

    args = (torch.randn(9, 12), torch.randn(9, 12))
    run_everywhere(last, args, lambda x, y: y + 1, configs=[{"block_sizes": [8]}], capabilities=[80])


def layouts(rows: int, device: torch.device) -> list[torch.Tensor]:
    """Tensors of one dtype and rank, each with strides of another kind."""
    wide = torch.randn(rows, 64, device=device)
    return [
        torch.randn(rows, 24, device=device),
        wide[:, :24],
        torch.randn(24, rows, device=device).t(),
        wide[::2, 8:32],
        torch.randn(rows, device=device)[:, None].expand(rows, 24),
        wide[:, ::2],
    ]


@pytest.mark.compiles
@pytest.mark.softgpu(capability=80)
@pytest.mark.parametrize("first", range(6))
def test_strides_of_a_later_call_are_its_own(first: int, softgpu, seed: int) -> None:
    """Those of a contiguous tensor follow from its sizes, those of the next one with the same key need not."""
    doubled_into.reset()
    tensors = layouts(12, softgpu.device)
    for x in (tensors[first], *tensors, tensors[first]):
        out = torch.empty(x.shape, device=x.device)
        assert torch.equal(doubled_into(x, out), x * 2)
        other = torch.empty(x.shape[::-1], device=x.device).t()
        assert torch.equal(doubled_into(x, other), x * 2)


@helion.kernel(static_shapes=False)
def filled(x: torch.Tensor) -> torch.Tensor:
    for t in hl.tile(x.size(0)):
        x[t, :] = 1.0
    return x


@helion.kernel(static_shapes=False)
def first_of_row(x: torch.Tensor) -> torch.Tensor:
    for t in hl.tile(x.size(0)):
        x[t, :] = x[t, 0][:, None]
    return x


@helion.kernel(static_shapes=False)
def middle_filled(x: torch.Tensor) -> torch.Tensor:
    for i in hl.grid(x.size(0)):
        x[i, 1:-2] = 7.0
    return x


@pytest.mark.compiles
@pytest.mark.softgpu(capability=80)
@pytest.mark.parametrize("kernel", [filled, first_of_row, middle_filled], ids=lambda kernel: kernel.name)
def test_stores_of_what_broadcasts_are_as_long_as_the_rows_of_each_call(
    kernel: helion.Kernel, softgpu, seed: int
) -> None:
    """No value has the rows' size, so nothing kept it within the extent that the kernel was compiled for."""
    kernel.reset()
    for n in (6, 8, 7, 13, 30, 5):
        x = torch.randn(4, n, device=softgpu.device)
        assert torch.equal(kernel(x.clone()), _plain(kernel, x))


def _plain(kernel: helion.Kernel, x: torch.Tensor) -> torch.Tensor:
    if kernel is middle_filled:
        return torch.cat([x[:, :1], torch.full_like(x[:, 1:-2], 7.0), x[:, -2:]], dim=1)
    return torch.ones_like(x) if kernel is filled else x[:, :1].expand_as(x)
