"""A program that loads what it has stored: every thread sees what every other one of the program has stored before.

Each kernel here is one that was wrong without barriers.  Not here: where exactly barriers stand
(tests/ir/test_barriers.py).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import compile_for
from tests.support import run_everywhere

pytestmark = pytest.mark.gpu


def reversed_through_scratch(x: torch.Tensor) -> torch.Tensor:
    """Two statements of one body."""
    scratch, out = torch.empty_like(x), torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        scratch[i, :] = x[i, :] * 2
        out[i, :] = scratch[i, x.size(1) - 1 - hl.arange(x.size(1))] + 1
    return out


def prefix_sums(x: torch.Tensor) -> torch.Tensor:
    """Sibling loops, one after another: `log2(n)` doubling steps in place, each in tiles of its own."""
    s = x.clone()
    for i in hl.grid(x.size(0)):
        for shift in (1, 2, 4, 8, 16, 32, 64):
            index = hl.arange(128)
            before = hl.load(s, [i, index - shift], extra_mask=index >= shift)
            s[i, :] = s[i, :] + before
    return s


def lu(a: torch.Tensor) -> torch.Tensor:
    """Around the back edge of a loop: elimination in place without pivoting, one matrix a program."""
    n = hl.specialize(a.size(1))
    for b in hl.grid(a.size(0)):
        index = hl.arange(n)
        for k in hl.grid(n):
            column, row, pivot = a[b, :, k], a[b, k, :], a[b, k, k]
            factor = torch.where(index > k, column / pivot, 0.0)
            a[b, :, :] = a[b, :, :] - factor[:, None] * torch.where(index > k, row, 0.0)[None, :]
            a[b, :, k] = torch.where(index > k, factor, column)
    return a


def lu_reference(a: torch.Tensor) -> torch.Tensor:
    a = a.clone()
    for k in range(a.size(1)):
        a[:, k + 1 :, k] /= a[:, k, k, None]
        a[:, k + 1 :, k + 1 :] -= a[:, k + 1 :, k, None] * a[:, k, None, k + 1 :]
    return a


def shortest_paths(d: torch.Tensor) -> torch.Tensor:
    """Floyd and Warshall's, one graph a program, tiles of rows in a loop inside of the loop over nodes."""
    for b in hl.grid(d.size(0)):
        for k in hl.grid(d.size(1)):
            for rows in hl.tile(d.size(1)):
                through = d[b, rows, k][:, None] + d[b, k, :][None, :]
                d[b, rows, :] = torch.minimum(d[b, rows, :], through)
    return d


def shortest_paths_reference(d: torch.Tensor) -> torch.Tensor:
    d = d.clone()
    for k in range(d.size(1)):
        d = torch.minimum(d, d[:, :, k, None] + d[:, None, k, :])
    return d


def stencil(x: torch.Tensor, steps: int) -> torch.Tensor:
    """Two buffers in turn: what one iteration stores, the next one loads, with other lanes."""
    buffers = torch.zeros([x.size(0), 2, x.size(1)], device=x.device)
    for i in hl.grid(x.size(0)):
        for t in hl.tile(x.size(1)):
            buffers[i, 0, t] = x[i, t]
        for step in hl.grid(steps):
            for t in hl.tile(x.size(1)):
                near = buffers[i, step % 2, t - 1] + buffers[i, step % 2, t + 1]
                buffers[i, (step + 1) % 2, t] = buffers[i, step % 2, t] / 2 + near / 4
    return buffers[:, steps % 2]


def stencil_reference(x: torch.Tensor, steps: int) -> torch.Tensor:
    for _ in range(steps):
        padded = torch.nn.functional.pad(x, (1, 1))
        x = x / 2 + (padded[:, :-2] + padded[:, 2:]) / 4
    return x


def counted(x: torch.Tensor) -> torch.Tensor:
    """Atomics, then loads of what they made: each row's histogram, read backwards."""
    counts = torch.zeros([x.size(0), 64], dtype=torch.int32, device=x.device)
    out = torch.empty_like(counts)
    for i in hl.grid(x.size(0)):
        for t in hl.tile(x.size(1)):
            hl.atomic_add(counts, [i, x[i, t]], 1)
        out[i, :] = counts[i, 63 - hl.arange(64)]
    return out


def counted_reference(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.bincount(row, minlength=64) for row in x]).int().flip(1)


def through_a_view(x: torch.Tensor) -> torch.Tensor:
    """Stored as a matrix, loaded as a vector."""
    scratch = torch.empty_like(x)
    flat = scratch.view(-1)
    out = torch.empty_like(x)
    n = x.size(1)
    for i in hl.grid(x.size(0)):
        scratch[i, :] = x[i, :] * 2
        out[i, :] = flat[i * n + (n - 1 - hl.arange(n))]
    return out


def powers(x: torch.Tensor) -> torch.Tensor:
    """Loads that feed a product, which a pipeline would make iterations ahead of the store that they must see."""
    y = x.clone()
    for b in hl.grid(x.size(0)):
        for step in hl.grid(4):
            y[b, :, :] = torch.mm(y[b, :, :], x[b, :, :]) + step
    return y


def powers_reference(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    for step in range(4):
        y = y @ x + step
    return y


def _matrices() -> torch.Tensor:
    return torch.rand(2, 32, 32) + 32 * torch.eye(32)


CASES: dict[str, Any] = {
    "reversed": (
        reversed_through_scratch,
        lambda: (torch.randn(3, 512),),
        lambda x: x.flip(1) * 2 + 1,
        [{"num_warps": 4}, {"num_warps": 2, "pid_type": "persistent_blocked", "num_stages": 3}],
    ),
    "prefix sums": (prefix_sums, lambda: (torch.randn(2, 128),), lambda x: x.cumsum(1), [{"num_warps": 4}]),
    "lu": (lu, lambda: (_matrices(),), lu_reference, [{"num_warps": 4, "range_num_stages": [3]}]),
    "shortest paths": (
        shortest_paths,
        lambda: (torch.rand(2, 32, 32),),
        shortest_paths_reference,
        [{"block_sizes": [8], "num_warps": 4, "range_num_stages": [0, 4], "num_stages": 3}],
    ),
    "stencil": (
        stencil,
        lambda: (torch.randn(2, 300), 5),
        stencil_reference,
        [
            {
                "block_sizes": [64, 128],
                "num_warps": 4,
                "range_num_stages": [2, 2, 3],
                "range_flattens": [None, True, None],
            }
        ],
    ),
    "counted": (counted, lambda: (torch.randint(0, 64, (2, 300)),), counted_reference, [{"block_sizes": [128]}]),
    "through a view": (through_a_view, lambda: (torch.randn(3, 512),), lambda x: x.flip(1) * 2, [{"num_warps": 4}]),
    "powers": (
        powers,
        lambda: (torch.randn(2, 32, 32) / 16,),  # four products in tf32
        powers_reference,
        [{"num_stages": 4, "num_warps": 4}, {"range_num_stages": [4], "indexing": "tensor_descriptor"}],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_program_sees_what_it_has_stored(name: str, seed: int) -> None:
    kernel, args, reference, configs = CASES[name]
    given = args()
    run_everywhere(
        kernel, given, reference, configs=configs, error_scale=100, uses_dot=name == "powers", capabilities=(90,)
    )
    source = helion.kernel(kernel).bind(given).to_triton_code(configs[0])
    assert "tl.debug_barrier()" in source


@pytest.mark.parametrize("name", CASES)
@pytest.mark.compiles
def test_compiles_for_every_gpu(name: str) -> None:
    kernel, args, _, configs = CASES[name]
    given = args()
    for launches in compile_for(helion.kernel(kernel), given, configs[-1]):
        assert any("bar.sync" in stages["ptx"] for stages in launches)


@pytest.mark.compiles
def test_no_stage_of_a_pipeline_loads_ahead_of_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product alone is pipelined with these Configs; with the store in the loop it is not."""

    def product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            acc = hl.zeros([tile, 64])
            for k in hl.tile(y.size(0)):
                acc = torch.addmm(acc, x[tile, k], y[k, :])
            out[tile, :] = acc
        return out

    x, y = torch.randn(64, 64), torch.randn(64, 64)
    (launches,) = compile_for(helion.kernel(product), (x, y), {"block_sizes": [32, 16], "num_stages": 3}, [80])
    assert "cp.async" in launches[0]["ptx"]
    for config in ({"num_stages": 3}, {"range_num_stages": [3]}):
        (launches,) = compile_for(helion.kernel(powers), (torch.randn(2, 32, 32),), config, [80])
        assert "cp.async" not in launches[0]["ptx"]


def test_tensors_that_are_stored_and_loaded_have_no_descriptors() -> None:
    x = torch.randn(2, 64, 64)
    bound = helion.kernel(powers).bind((x,))
    source = bound.to_triton_code({"indexing": "tensor_descriptor"})
    assert "make_tensor_descriptor(y" not in source


def test_warps_of_several_kinds_are_refused() -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        for i in hl.grid(x.size(0)):
            for _ in hl.grid(3):
                x[i, :] = x[i, 63 - hl.arange(64)] + 1
        return x

    from helion.target import Target

    bound = helion.kernel(kernel, allow_warp_specialize=True).bind((torch.randn(4, 64),))
    with pytest.raises(exc.InvalidConfig, match="range_warp_specializes"):
        bound.generated_source({"range_warp_specializes": [True]}, Target("nvidia", 100))


def test_warps_of_several_kinds_need_a_product() -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for i in hl.grid(x.size(0)):
            for tile in hl.tile(x.size(1)):
                out[i, tile] = x[i, tile] + 1
        return out

    from helion.target import Target

    target = Target("nvidia", 100)
    bound = helion.kernel(kernel, allow_warp_specialize=True).bind((torch.randn(4, 64),))
    with pytest.raises(exc.InvalidConfig, match="range_warp_specializes"):
        bound.generated_source({"range_warp_specializes": [None, True]}, target)
    assert bound.generated_source({"range_warp_specializes": [None, False]}, target)
