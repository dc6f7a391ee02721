"""What generated source looks like, and that padding of partial tiles never reaches a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from examples.catalog import EXAMPLES
from tests.support import run_everywhere

pytestmark = pytest.mark.gpu  # with a GPU, every kernel runs on it too


def source_of(name: str, size: tuple[int, ...], **config: Any) -> str:
    example = EXAMPLES[name]
    return example.kernel.bind(example.args(size, torch.float32)).to_triton_code(config)


def test_no_mask_where_tiles_fit() -> None:
    assert "mask" not in source_of("add", (1024,), block_sizes=[256])
    assert "mask" in source_of("add", (1025,), block_sizes=[256])
    assert "mask" not in source_of("matmul", (64, 128, 32), block_sizes=[32, 32, 32])


def test_mask_only_for_the_dimension_that_needs_one() -> None:
    text = source_of("exp", (64, 100), block_sizes=[16, 64])
    assert text.count("mask_") >= 2
    assert "index_0 < 64" not in text
    assert "< 100" in text


@pytest.mark.parametrize(
    ("length", "rows", "columns", "masked"),
    [(256, 64, 32, False), (256, 64, 64, False), (256, 32, 64, True), (240, 64, 32, True)],
)
def test_no_mask_in_a_loop_that_ends_with_a_tile_it_divides(length: int, rows: int, columns: int, masked: bool) -> None:
    text = source_of("attention_causal", (1, 2, 1, length, 32), block_sizes=[rows, columns])
    assert ("mask_columns" in text) is masked
    assert "index_columns >= 0" not in text  # keys end where queries do


def test_static_sizes_are_literals_and_dynamic_ones_arguments() -> None:
    kernel = EXAMPLES["add"].kernel
    args = EXAMPLES["add"].args((1000,))
    assert "(x, y, out, BLOCK" in kernel.bind(args).to_triton_code()
    dynamic = helion.kernel(kernel.fn, static_shapes=False).bind(args).to_triton_code()
    assert "1000" not in dynamic
    assert "x.size(0)" in dynamic


def test_matmul_accumulates_in_float32_with_one_dot() -> None:
    text = source_of("matmul", (64, 64, 64))
    assert text.count("tl.dot(") == 1
    assert "out_dtype=tl.float32" in text


def test_dead_code_is_not_generated() -> None:
    @helion.kernel
    def unused(x, y):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size()):
            ignored = torch.exp(y[tile])  # noqa: F841
            out[tile] = x[tile]
        return out

    text = unused.bind((torch.ones(8), torch.ones(8))).to_triton_code()
    assert "tl.exp" not in text
    assert text.count("tl.load") == 1


def test_batch_of_one_matrix_is_multiplied_as_a_matrix() -> None:
    # Hopper's wgmma takes matrices only.
    source = source_of("bmm", (4, 64, 64, 64))
    assert "acc = tl.full([BLOCK_ROWS, BLOCK_COLUMNS], 0, tl.float32)" in source
    assert "acc = tl.dot(load, load_1, acc, " in source


def test_results_of_accumulating_loops_have_one_use() -> None:
    # Triton's OptimizeThreadLocality pass asserts otherwise (see triton_helpers.settled).
    assert "largest = hlt_settled(largest)" in source_of("softmax_looped", (64, 160))


def sums_in_turns(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0)):
        acc = hl.zeros([t])
        for j in hl.tile(x.size(2)):
            for i in range(2):
                acc = acc + x[t, i, j].sum(1)
        for j in hl.tile(x.size(2)):
            acc = acc + x[t, 0, j].sum(1)
        out[t] = acc
    return out


def test_a_sum_that_grows_twice_in_an_iteration(seed: int) -> None:
    """The same pass asserted, also where Triton unrolls the loop."""
    config = helion.Config(block_sizes=[16, 16, 16], range_unroll_factors=[0, 0, 2])

    def expected(x: torch.Tensor) -> torch.Tensor:
        return x.sum((1, 2)) + x[:, 0].sum(1)

    run_everywhere(
        sums_in_turns, (torch.randn(30, 2, 50),), expected, configs=[config], error_scale=8, capabilities=[90]
    )


def alternating(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([3, x.size(0)], dtype=x.dtype, device=x.device)
    for t in hl.tile(x.size(0)):
        acc, half, own = hl.zeros([t]), hl.zeros([t]), hl.zeros([t])
        for j in hl.tile(x.size(1), block_size=16):
            acc = x[t, j].sum(1) - acc
            half = half * 0.5 + x[t, j].sum(1)
            own = hl.reduce(torch.add, x[t, j], 1) - own
        out[0, t] = acc
        out[2, t] = own
        out[1, t] = half
    return out


def test_a_sum_that_is_more_than_added_up(seed: int) -> None:
    """The pass took each for a sum, or asserted: `x.sum(1) - acc` added all up, silently."""

    def expected(x: torch.Tensor) -> torch.Tensor:
        acc = half = torch.zeros(x.size(0), dtype=x.dtype)
        for part in x.split(16, 1):
            acc, half = part.sum(1) - acc, half * 0.5 + part.sum(1)
        return torch.stack([acc, half, acc])

    config = helion.Config(block_sizes=[16])
    run_everywhere(alternating, (torch.rand(30, 50),), expected, configs=[config], error_scale=8, capabilities=[90])


#: Reductions with data on the far side of 0 from any padding by zeros.
REDUCTIONS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]] = {
    "amax of negatives": (lambda x: x.amax(1), lambda x: -x.abs() - 1),
    "amin of positives": (lambda x: x.amin(1), lambda x: x.abs() + 1),
    "argmax of negatives": (lambda x: x.argmax(1), lambda x: -x.abs() - 1),
    "argmin of positives": (lambda x: x.argmin(1), lambda x: x.abs() + 1),
    "sum of exp": (lambda x: torch.exp(x).sum(1), lambda x: x),
    "sum of x + 1": (lambda x: (x + 1).sum(1), lambda x: x),
    "prod": (lambda x: x.prod(1), lambda x: 1 + x / 100),
    "mean of cos": (lambda x: torch.cos(x).mean(1), lambda x: x),
    "var": (lambda x: x.var(1), lambda x: x + 10),
    "any": (lambda x: (x > 100).any(1), lambda x: x),
    "all": (lambda x: (x < 100).all(1), lambda x: x),
    "logsumexp": (lambda x: x.logsumexp(1), lambda x: x - 50),
}


@pytest.mark.parametrize("looped", [None, 32], ids=["whole", "looped"])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_padding_does_not_reach_a_reduction(name: str, looped: int | None, seed: int) -> None:
    reduce, prepare = REDUCTIONS[name]
    dtype = reduce(torch.ones(1, 2)).dtype

    def kernel(x, reduce, dtype: hl.constexpr):
        out = torch.empty([x.size(0)], dtype=dtype, device=x.device)
        for rows in hl.tile(x.size(0)):
            out[rows] = reduce(x[rows, :])
        return out

    bound = helion.kernel(kernel)
    x = prepare(torch.randn(5, 129))
    fields = bound.bind((x, reduce, dtype)).config_spec.fields
    config = (
        {"reduction_loops": [looped] * len(fields["reduction_loops"].default())} if "reduction_loops" in fields else {}
    )
    run_everywhere(
        bound,
        (x, reduce, dtype),
        lambda x, reduce, dtype: reduce(x),
        configs=[config],
        error_scale=16,
        capabilities=[80 if looped else 100],
    )


@pytest.mark.parametrize("indexing", ["block_ptr", "tensor_descriptor"])
def test_boxes_at_the_index_of_a_loop_between_loaded_bounds(indexing: str, seed: int) -> None:
    def tails(x: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        for i in hl.grid(1):
            for tile in hl.tile(starts[i], x.size(1)):
                out[:, tile] = x[:, tile] * 2
        return out

    x, starts = torch.randn(4, 64), torch.tensor([32])
    expected = torch.where(torch.arange(64) >= 32, x * 2, 0)
    config = {"block_sizes": [8], "indexing": indexing}
    run_everywhere(tails, (x, starts), lambda *_: expected, configs=[config], error_scale=0, capabilities=[90])


@pytest.mark.parametrize(("block", "flat"), [(8, True), (16, False)])
def test_boxes_of_one_matrix_of_many_are_those_of_a_tall_one(block: int, flat: bool, seed: int) -> None:
    """A descriptor is made once and has no index: indices of leading dimensions go into the row.  Where a box may leave
    its matrix, they are a side of one of it.
    """

    def double(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        for i, j in hl.grid([x.size(0), x.size(1)]):
            for rows in hl.tile(x.size(2)):
                out[i, j, rows, :] = x[i, j, rows, :] * 2
        return out

    x = torch.randn(2, 3, 40, 32)
    config = {"block_sizes": [block], "indexing": "tensor_descriptor"}
    text = helion.kernel(double).bind((x,)).to_triton_code(config)
    assert ("tl.make_tensor_descriptor(x, [240, 32], [32, 1], [BLOCK_ROWS, 32])" in text) is flat
    assert ("tl.make_tensor_descriptor(x, [6, 40, 32], [1280, 32, 1], [1, BLOCK_ROWS, 32])" in text) is not flat
    run_everywhere(double, (x,), lambda x: x * 2, configs=[config], error_scale=0, capabilities=[90])


def test_a_matrix_of_a_strided_batch_is_not_part_of_a_tall_one(seed: int) -> None:
    def double(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0), 32, 32], device=x.device)
        for i in hl.grid(x.size(0)):
            for rows in hl.tile(32):
                out[i, rows, :] = x[i, rows, :] * 2
        return out

    x = torch.randn(3, 64, 32)[:, :32]  # rows 32 to 63 of each are not the view's
    config = {"block_sizes": [8], "indexing": "tensor_descriptor"}
    text = helion.kernel(double).bind((x,)).to_triton_code(config)
    assert "make_tensor_descriptor(out, [96, 32]" in text
    assert "make_tensor_descriptor(x, [3, 32, 32], [2048, 32, 1], [1, BLOCK_ROWS, 32])" in text
    run_everywhere(double, (x,), lambda x: x * 2, configs=[config], error_scale=0, capabilities=[90])
