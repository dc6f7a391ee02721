"""Without a Config: what is read once and then not needed leaves the L2 cache first, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from examples.cross_entropy import cross_entropy
from examples.cross_entropy import cross_entropy_backward
from examples.reductions import long_sum
from examples.reductions import sum_all
from examples.reductions import sum_rows
from helion.backends.triton.backend import TritonBackend
from helion.target import Target

HALF = torch.bfloat16
LARGE = (8192, 8192)  # 128 MiB


def policies(kernel: helion.Kernel, *args: Any, capability: int = 90) -> list[str]:
    bound = kernel.bind(args)
    spec = TritonBackend(bound.ir, bound.settings, Target("nvidia", capability)).spec
    return spec.default_config().load_eviction_policies


def meta(*shape: int, dtype: torch.dtype = HALF) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.parametrize("kernel", [sum_rows, long_sum], ids=lambda kernel: kernel.name)
def test_sums_along_rows_read_what_the_cache_need_not_keep(kernel: helion.Kernel) -> None:
    assert policies(kernel, meta(*LARGE)) == ["first"]


def test_a_sum_of_everything_is_an_update_of_one_element() -> None:
    assert policies(sum_all, meta(1 << 26)) == ["first"]


def test_of_a_loss_the_logits_leave_first_and_what_is_picked_does_not() -> None:
    assert policies(cross_entropy, meta(*LARGE), meta(LARGE[0], dtype=torch.int64)) == ["first", "", ""]


def test_a_row_in_chunks_that_one_pass_reads_leaves_first() -> None:
    assert policies(cross_entropy, meta(256, 1 << 18), meta(256, dtype=torch.int64)) == ["first", "", ""]


def test_where_as_much_is_stored_nothing_leaves_first() -> None:
    args = meta(LARGE[0], dtype=torch.float32), meta(*LARGE), meta(LARGE[0], dtype=torch.int64)
    assert set(policies(cross_entropy_backward, *args)) == {""}


def test_a_tensor_that_the_cache_can_hold_stays_there() -> None:
    assert policies(sum_rows, meta(1024, 4096)) == [""]
    # 32 MiB are most of the cache of an H100, and little of a B200's.
    assert policies(sum_rows, meta(4096, 4096)) == ["first"]
    assert policies(sum_rows, meta(4096, 4096), capability=100) == [""]
    # Writing back what it has is little beside 512 MiB.
    assert policies(sum_rows, meta(32768, 8192)) == [""]


def test_what_several_programs_or_iterations_read_stays() -> None:
    @helion.kernel
    def sums_of_both(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0), y.size(0)], device=x.device)
        for i, j in hl.tile([x.size(0), y.size(0)]):
            out[i, j] = x[i, :].sum(1)[:, None] + y[j, :].sum(1)[None, :]
        return out

    @helion.kernel
    def again(x: torch.Tensor, times: int) -> torch.Tensor:
        out = torch.empty([x.size(0)], device=x.device)
        for rows in hl.tile(x.size(0)):
            total = hl.zeros([rows])
            for _ in hl.grid(times):
                total = total + x[rows, :].sum(1)
            out[rows] = total
        return out

    @helion.kernel
    def variance(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0)], device=x.device)
        for rows in hl.tile(x.size(0)):
            total = hl.zeros([rows])
            for columns in hl.tile(x.size(1)):
                total = total + x[rows, columns].sum(1)
            mean = total / x.size(1)
            squares = hl.zeros([rows])
            for columns in hl.tile(x.size(1)):
                distance = x[rows, columns] - mean[:, None]
                squares = squares + (distance * distance).sum(1)
            out[rows] = squares / x.size(1)
        return out

    x = meta(*LARGE)
    assert policies(sums_of_both, x, x) == ["", ""]
    assert policies(again, x, 3) == [""]
    assert policies(variance, x) == ["", ""]


def test_places_that_are_loaded_may_come_again() -> None:
    @helion.kernel
    def picked_sums(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        out = torch.empty([index.size(0)], device=x.device)
        for rows in hl.tile(index.size(0)):
            out[rows] = x[index[rows], :].sum(1)
        return out

    assert policies(picked_sums, meta(*LARGE), meta(8192, dtype=torch.int64)) == ["", ""]


def test_a_policy_of_the_source_counts() -> None:
    @helion.kernel
    def kept(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0)], device=x.device)
        for rows in hl.tile(x.size(0)):
            out[rows] = hl.load(x, [rows, slice(None)], eviction_policy="evict_last").sum(1)
        return out

    assert policies(kept, meta(*LARGE)) == [""]
