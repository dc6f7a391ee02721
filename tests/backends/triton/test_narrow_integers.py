"""Integers of 8 bits beside Python's: results have the dtype and the bits of PyTorch's."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from tests.support import check
from tests.support import run_everywhere
from tests.support import ways

CONFIG = {"block_sizes": [16]}


def everywhere(function, x: torch.Tensor, *numbers: int) -> None:
    @helion.kernel(config=helion.Config(**CONFIG))
    def kernel(x, numbers):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = function(x[tile], *numbers)
        return out

    run_everywhere(kernel, (x, numbers), lambda x, numbers: function(x, *numbers), configs=[CONFIG], capabilities=[80])


def quotients(x, n):
    return x // n + x % n * 3 + x // -1 + x % 300 + torch.div(x, 300, rounding_mode="trunc")


def test_division_of_uint8_by_ints(seed: int) -> None:
    everywhere(quotients, torch.randint(0, 256, [50], dtype=torch.uint8), 7)


def test_division_of_int8_by_ints(seed: int) -> None:
    everywhere(quotients, torch.randint(-128, 128, [50], dtype=torch.int8), 200)


def test_clamp_of_a_carried_uint8(seed: int) -> None:
    @helion.kernel(config=helion.Config(**CONFIG))
    def kernel(x):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            value = x[tile]
            for _ in hl.grid(3):
                value = torch.clamp(torch.clamp(value + 1, 3, 60), max=55)
            out[tile] = value
        return out

    x = torch.randint(0, 256, [50], dtype=torch.uint8)

    def reference(x):
        for _ in range(3):
            x = torch.clamp(torch.clamp(x + 1, 3, 60), max=55)
        return x

    run_everywhere(kernel, (x,), reference, configs=[CONFIG], capabilities=[80])


def test_sort_along_a_dimension_of_one_element(seed: int) -> None:
    @helion.kernel(config=helion.Config(**CONFIG))
    def kernel(x):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = torch.sort(x[tile][:, None], dim=1).values.sum(1)
        return out

    run_everywhere(kernel, (torch.randn(50),), lambda x: x.clone(), configs=[CONFIG], capabilities=[80])


def saturated(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Floats as a wide integer dtype as GPUs convert them: towards zero, ends of the range beyond it, nan as 0."""
    info = torch.iinfo(dtype)
    numbers = [0 if v != v else info.max if v > info.max else info.min if v < info.min else int(v) for v in x.tolist()]
    return torch.tensor(numbers, dtype=dtype)


@pytest.mark.parametrize("floating", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("integer", "wide"),
    [
        (torch.int8, torch.int32),
        (torch.int16, torch.int32),
        (torch.uint8, torch.int64),
        (torch.uint16, torch.uint32),
    ],
    ids=str,
)
def test_floats_beyond_the_range_convert_as_eager_pytorch_does_on_a_gpu(floating, integer, wide) -> None:
    @helion.kernel(config=helion.Config(**CONFIG))
    def kernel(x, first):
        cast = torch.empty(x.shape, dtype=torch.int64, device=x.device)
        stored = torch.empty(x.shape, dtype=integer, device=x.device)
        computed = torch.empty(x.shape, dtype=integer, device=x.device)
        filled = torch.empty(x.shape, dtype=integer, device=x.device)
        for tile in hl.tile(x.size(0)):
            cast[tile] = x[tile].to(integer).to(torch.int64)
            stored[tile] = x[tile]
            computed[tile] = (x[tile] * 2).to(integer)
            filled[tile] = hl.full([tile], first[0], dtype=integer)
        return cast, stored, computed, filled

    inf = float("inf")
    ends = [200.5, 70000.0, 32896.0, 2.0**31 + 4096, 2.0**32 + 8192, 1e9, 1e19, 1e30, inf]
    x = torch.tensor([0.5, 1.5, float("nan"), *ends, -1.5, *(-v for v in ends)], dtype=torch.float64).to(floating)
    narrow = saturated(x, wide).to(integer)
    expected = narrow.long(), narrow, saturated(x * 2, wide).to(integer), narrow[3:4].expand(x.shape)
    for way in ways(kernel, (x, x[3:4].clone()), [CONFIG], [90]):
        if "GPU" in way.name:
            check(way.run(x, x[3:4].clone()), expected, way.name)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.uint16], ids=str)
@pytest.mark.parametrize("indexing", ["pointer", "block_ptr"])
def test_offsets_of_narrow_indices_do_not_overflow(dtype: torch.dtype, indexing: str, seed: int) -> None:
    config = {"block_sizes": [16], "indexing": indexing}

    @helion.kernel
    def kernel(x, at):
        rows = torch.empty([at.size(0), x.size(1)], dtype=x.dtype, device=x.device)
        single = torch.empty_like(rows)
        written = torch.zeros_like(x)
        for tile in hl.tile(at.size(0)):
            rows[tile, :] = x[at[tile], :]
            written[at[tile], :] = x[at[tile], :]
            for i in hl.grid(at.size(0)):
                single[i, :] = x[at[i], :]
        return rows, single, written

    x, at = torch.randn(120, 512), torch.randperm(120)[:16]

    def reference(x, at):
        rows = x[at.long()]
        return rows, rows, torch.zeros_like(x).index_put((at.long(),), rows)

    run_everywhere(kernel, (x, at.to(dtype)), reference, configs=[config], capabilities=[90])


def test_a_uint8_index_is_refused_in_every_mode_and_the_advice_works(seed: int) -> None:
    @helion.kernel(config=helion.Config(**CONFIG))
    def kernel(x, at):
        out = torch.empty([at.size(0)], dtype=x.dtype, device=x.device)
        for tile in hl.tile(at.size(0)):
            out[tile] = x[at[tile]]
        return out

    x, at = torch.randn(200), torch.randint(0, 200, [30], dtype=torch.uint8)
    for eager in (False, True):
        mode = helion.RefMode.EAGER if eager else helion.RefMode.OFF
        with pytest.raises(helion.exc.InvalidAPIUsage, match=r"takes it as a mask(.|\n)*\.to\(torch\.int32\)"):
            helion.kernel(kernel.fn, config=helion.Config(**CONFIG), ref_mode=mode)(x, at)
    assert torch.equal(kernel(x, at.to(torch.int32)), x[at.long()])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32], ids=str)
def test_sums_and_products_are_of_the_dtype_that_they_are_asked_for(dtype: torch.dtype) -> None:
    """They were wider: what was computed of them had not wrapped around."""

    @helion.kernel
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty([4, x.size(0)], dtype=torch.int64, device=x.device)
        for t in hl.tile(x.size(0)):
            out[0, t] = x[t, :].sum(1, dtype=x.dtype).to(torch.int64)
            out[1, t] = x[t, :].prod(1, dtype=x.dtype).to(torch.int64)
            out[2, t] = x[t, :].sum(1, dtype=x.dtype) // 3
            out[3, t] = x[t, :].sum(1)
        return out

    def expected(x):
        total = x.sum(1, dtype=x.dtype)
        return torch.stack([total.long(), x.prod(1, dtype=x.dtype).long(), (total // 3).long(), x.sum(1)])

    x = torch.full((5, 9), torch.iinfo(dtype).max - 7, dtype=dtype)
    configs = [{"block_sizes": [2]}, {"block_sizes": [4], "reduction_loops": [4]}]
    run_everywhere(kernel, (x,), expected, reference_args=(x,), configs=configs, capabilities=[90])
