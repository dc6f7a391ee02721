"""Arguments of every kind: views, dtypes, zero-size dimensions, scalars."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from examples.catalog import EXAMPLES
from tests.support import check
from tests.support import run_everywhere
from tests.support import ways

pytestmark = pytest.mark.gpu  # with a GPU, every kernel runs on it too


def axpy(x, y, alpha):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size()):
        out[tile] = x[tile] * alpha + y[tile]
    return out


def axpy_reference(x, y, alpha):
    return x * alpha + y


def views(base: torch.Tensor) -> dict[str, torch.Tensor]:
    """Views [13, 37] of a tensor [80, 80]."""
    return {
        "offset": base[5:18, 7:44],
        "transposed": base.t()[:13, :37],
        "every second column": base[:13, 1:75:2],
        "every third row": base[2:41:3, :37],
        "expanded row": base[3, :37].expand(13, 37),
        "expanded column": base[:13, 4:5].expand(13, 37),
        "not aligned to 16 bytes": base.flatten()[1 : 1 + 13 * 37].view(13, 37),
    }


@pytest.mark.parametrize("static_shapes", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", views(torch.empty(80, 80)))
def test_view_is_read_where_it_lies(name: str, static_shapes: bool, seed: int) -> None:
    x = views(torch.randn(80, 80))[name]
    y = torch.randn(13, 37)
    capabilities = [80] if static_shapes else [90]
    run_everywhere(axpy, (x, y, 0.5), axpy_reference, static_shapes=static_shapes, capabilities=capabilities)


@pytest.mark.parametrize("name", ["offset", "transposed", "every second column", "every third row"])
def test_view_is_written_where_it_lies_and_nowhere_else(name: str, seed: int) -> None:
    @helion.kernel
    def double_into(x, out):
        for tile in hl.tile(x.size()):
            out[tile] = x[tile] * 2
        return out

    x = torch.randn(13, 37)
    for way in ways(double_into, (x, views(torch.zeros(80, 80))[name]), [], [80]):
        base = torch.zeros(80, 80)
        out = views(base)[name]
        way.run(x, out)
        check(out, x.double() * 2, way.name)
        assert base.count_nonzero() == x.count_nonzero(), way.name


def test_one_dynamic_kernel_takes_other_strides_later(seed: int) -> None:
    kernel = helion.kernel(axpy, static_shapes=False)
    base = torch.randn(80, 80)
    y = torch.randn(13, 37)
    for x in [y.clone(), *views(base).values()]:
        check(kernel(x, y, 2.0), axpy_reference(x.double(), y.double(), 2.0), "tile executor")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_float_dtype(dtype: torch.dtype, seed: int) -> None:
    args = (torch.randn(129).to(dtype), torch.randn(129).to(dtype), 0.75)
    run_everywhere(axpy, args, axpy_reference, capabilities=[90])


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_integer_dtype(dtype: torch.dtype, seed: int) -> None:
    # Small numbers and numbers that wrap around: PyTorch's integers are modulo 2**bits.
    x = torch.randint(-(2**31), 2**31, (129,)).to(dtype)
    run_everywhere(axpy, (x, x.flip(0), 3), axpy_reference, capabilities=[80])


def test_bool_dtype(seed: int) -> None:
    def logic(x, y):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size()):
            out[tile] = (x[tile] & ~y[tile]) | (x[tile] ^ y[tile])
        return out

    x, y = torch.rand(129) < 0.5, torch.rand(129) < 0.5
    run_everywhere(logic, (x, y), lambda x, y: (x & ~y) | (x ^ y))


def test_comparison_and_where_mix_dtypes(seed: int) -> None:
    def pick(x, y, mask):
        out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
        for tile in hl.tile(x.size()):
            out[tile] = torch.where(mask[tile] & (x[tile] > 3), y[tile], x[tile])
        return out

    args = (torch.randint(0, 9, (129,)), torch.randn(129), torch.rand(129) < 0.7)
    run_everywhere(pick, args, lambda x, y, m: torch.where(m & (x > 3), y, x.double()))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.int64], ids=str)
def test_sum_of_integers_is_int64(dtype: torch.dtype, seed: int) -> None:
    def total(x):
        out = torch.empty([x.size(0)], dtype=torch.int64, device=x.device)
        for rows in hl.tile(x.size(0)):
            out[rows] = x[rows, :].sum(1)
        return out

    x = torch.randint(0, 2 if dtype is torch.bool else 2**31 - 1, (5, 129)).to(dtype)
    run_everywhere(total, (x,), lambda x: x.sum(1), capabilities=[90])


@pytest.mark.parametrize("value", [0, 1, -7, 2**40], ids=str)
def test_int_argument_is_a_number_of_the_call(value: int, seed: int) -> None:
    def shift(x, by):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size()):
            out[tile] = x[tile] + by
        return out

    run_everywhere(shift, (torch.randint(0, 1000, (70,)), value), lambda x, by: x + by, capabilities=[80])


def test_one_kernel_serves_all_values_of_a_scalar(seed: int) -> None:
    kernel = helion.kernel(axpy)
    x, y = torch.randn(70), torch.randn(70)
    bound = kernel.bind((x, y, 0.5))
    for alpha in (0.5, 1.0, -3.25):
        assert kernel.bind((x, y, alpha)) is bound
        check(kernel(x, y, alpha), axpy_reference(x.double(), y.double(), alpha), "tile executor")


def test_same_tensor_twice(seed: int) -> None:
    x = torch.randn(129)
    run_everywhere(axpy, (x, x, 2.0), axpy_reference, capabilities=[90])


ZERO_SIZES = [
    ("add", (0,)),
    ("exp", (0, 5)),
    ("exp", (5, 0)),
    ("softmax", (0, 8)),
    ("softmax_looped", (0, 8)),
    ("sum_rows", (0, 8)),
    ("sum_rows", (8, 0)),
    ("long_sum", (3, 0)),
    ("sum_all", (0,)),
    ("rms_norm", (0, 8)),
    ("layer_norm", (0, 8)),
    ("matmul", (0, 8, 8)),
    ("matmul", (8, 0, 8)),
    ("matmul", (8, 8, 0)),
    ("bmm", (0, 8, 8, 8)),
    ("matmul_split_k", (8, 0, 8)),
    ("embedding", (0, 4, 10, 8)),
    ("cross_entropy", (0, 8)),
    ("attention", (1, 2, 0, 8, 16)),
    ("attention_causal", (1, 2, 1, 0, 16)),
    ("rms_norm_backward", (0, 8)),
    ("matmul_int16", (8, 0, 8)),
    ("segment_sum", (1, 5, 8)),
    ("jagged_softmax", (1, 5)),
    ("gated_delta_net", (1, 0, 2, 16, 16)),
    ("concatenate", (8, 0, 5)),
    ("cumulative_sum", (8, 0)),
]


@pytest.mark.parametrize(("name", "size"), ZERO_SIZES, ids=[f"{n}-{s}" for n, s in ZERO_SIZES])
def test_zero_size_dimension(name: str, size: tuple[int, ...], seed: int) -> None:
    example = EXAMPLES[name]
    run_everywhere(
        example.kernel, example.args(size, torch.float32), example.reference, error_scale=4, capabilities=[90]
    )


@pytest.mark.parametrize("static_shapes", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (37, 1)], ids=str)
def test_dimension_of_one(shape: tuple[int, int], static_shapes: bool, seed: int) -> None:
    args: tuple[Any, ...] = (torch.randn(shape), torch.randn(shape), 0.5)
    run_everywhere(axpy, args, axpy_reference, static_shapes=static_shapes, capabilities=[100])
