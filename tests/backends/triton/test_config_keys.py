"""Every config key's variants: each runs in every way there is, and compiles for a GPU that is not there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from examples.catalog import EXAMPLES
from helion import exc
from tests.variants import check_config

pytestmark = pytest.mark.gpu  # with a GPU, every kernel runs on it too

MATMUL = {"block_sizes": [16, 32, 16]}
GRID = {"block_sizes": [8, 32]}
BMM = {"block_sizes": [1, 16, 16, 32]}
PERSISTENT = ("persistent_blocked", "persistent_interleaved")

#: Example and config; what a config leaves out has its default.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *(("matmul", {"block_sizes": sizes}) for sizes in ([16, 16, 16], [32, 64, 16], [64, 32, 64], [128, 64, 128])),
    *(("add", {"block_sizes": [size]}) for size in (1, 16, 2048)),
    *(("exp", {"block_sizes": sizes}) for sizes in ([1, 128], [64, 1], [16, 16])),
    ("matmul", {**MATMUL, "loop_orders": [[1, 0]]}),
    *(("bmm", {**BMM, "loop_orders": [order]}) for order in ([2, 0, 1], [1, 2, 0])),
    *(("matmul", {**MATMUL, "l2_groupings": [group]}) for group in (2, 8, 64)),
    ("matmul", {**MATMUL, "l2_groupings": [2], "loop_orders": [[1, 0]]}),
    ("bmm", {**BMM, "l2_groupings": [2]}),
    ("exp", {**GRID, "flatten_loops": [True]}),
    *(("exp", {**GRID, "flatten_loops": [True], "pid_type": pid_type}) for pid_type in PERSISTENT),
    *(("matmul", {**MATMUL, "pid_type": pid_type}) for pid_type in ("flat", "xyz", *PERSISTENT)),
    *(("bmm", {**BMM, "pid_type": pid_type}) for pid_type in ("xyz", *PERSISTENT)),
    *(("softmax_online", {"block_sizes": [4, 32, 64], "pid_type": pid_type}) for pid_type in PERSISTENT),
    *(("matmul", {**MATMUL, "pid_type": p, "l2_groupings": [2], "num_sm_multiplier": 2}) for p in PERSISTENT),
    *(("matmul", {**MATMUL, "num_warps": n}) for n in (1, 2, 8)),
    *(("matmul", {**MATMUL, "num_stages": n}) for n in (2, 4)),
    *(("matmul", {**MATMUL, "maxnreg": n, "pid_type": p}) for n, p in zip((96, 128), PERSISTENT)),
    *(("matmul", {**MATMUL, "indexing": kind}) for kind in ("pointer", "block_ptr", "tensor_descriptor")),
    ("matmul", {**MATMUL, "indexing": ["block_ptr", "pointer", "tensor_descriptor"]}),
    ("matmul", {**MATMUL, "indexing": "tensor_descriptor", "num_stages": 3, "pid_type": "persistent_interleaved"}),
    *(("exp", {**GRID, "indexing": kind}) for kind in ("block_ptr", "tensor_descriptor")),
    *(("add", {"indexing": kind}) for kind in ("block_ptr", "tensor_descriptor")),
    *(("softmax", {"indexing": kind}) for kind in ("block_ptr", "tensor_descriptor")),
    *(("attention", {"indexing": kind}) for kind in ("block_ptr", "tensor_descriptor")),
    ("matmul", {**MATMUL, "load_eviction_policies": ["first", "last"]}),
    ("add", {"load_eviction_policies": ["last", "first"], "indexing": "block_ptr"}),
    *(("matmul", {"block_sizes": [16, 64, 16], "epilogue_subtile": n}) for n in (2, 4)),
    ("matmul_epilogue", {**MATMUL, "epilogue_subtile": 2, "indexing": "tensor_descriptor"}),
    ("matmul_epilogue", {"block_sizes": [16, 64, 32], "epilogue_subtile": 4, "pid_type": "persistent_blocked"}),
    ("bmm", {**BMM, "block_sizes": [1, 16, 32, 32], "epilogue_subtile": 2, "indexing": "block_ptr"}),
    *(("matmul", {**MATMUL, "range_unroll_factors": [0, n]}) for n in (2, 4)),
    *(("matmul", {**MATMUL, "range_num_stages": [0, n]}) for n in (1, 3)),
    ("matmul", {**MATMUL, "static_ranges": [True]}),
    ("softmax_looped", {"block_sizes": [4, 32, 64, 128], "static_ranges": [True, False, True]}),
    *(("matmul", {**MATMUL, "range_multi_buffers": [None, flag]}) for flag in (True, False)),
    *(("matmul", {**MATMUL, "range_flattens": [None, flag]}) for flag in (True, False)),
    *(
        (name, {"reduction_loops": [chunk]})
        for name in ("softmax", "sum_rows", "rms_norm", "layer_norm", "cross_entropy")
        for chunk in (None, 32)
    ),
]


def _label(variant: tuple[str, dict[str, Any]]) -> str:
    name, config = variant
    keys = {key: value for key, value in config.items() if key != "block_sizes" or len(config) == 1}
    return f"{name}-{keys}".replace("'", "")


@pytest.mark.parametrize(("number", "variant"), list(enumerate(VARIANTS)), ids=[_label(v) for v in VARIANTS])
@pytest.mark.compiles
def test_variant_is_right_and_compiles(number: int, variant: tuple[str, dict[str, Any]], seed: int) -> None:
    check_config(*variant, number)


@pytest.mark.slow
def test_every_key_of_every_example_has_a_variant() -> None:
    tried = {key for _, config in VARIANTS for key in config}
    known = {key for e in EXAMPLES.values() for key in e.kernel.bind(e.args()).config_spec.fields}
    assert known <= tried


@pytest.mark.parametrize("specialize", [True, False])
@pytest.mark.softgpu(capability=100, software_only=True)
@pytest.mark.compiles
def test_warp_specialized_loop(specialize: bool, softgpu: Any, seed: int) -> None:
    example = EXAMPLES["matmul"]
    a, b = torch.randn(64, 96).half(), torch.randn(96, 64).half()
    config = helion.Config(
        block_sizes=[64, 64, 32], range_warp_specializes=[None, specialize], indexing="tensor_descriptor", num_stages=2
    )
    kernel = helion.kernel(example.kernel.fn, config=config)
    torch.testing.assert_close(kernel(a, b).double(), a.double() @ b.double(), rtol=1e-2, atol=1e-1)
    assert f"warp_specialize={specialize}" in kernel.bind((a, b)).to_triton_code(config)


@pytest.mark.softgpu(capability=90, software_only=True)
def test_warp_specialization_is_ignored_where_triton_has_none(softgpu: Any) -> None:
    bound = helion.kernel(EXAMPLES["matmul"].kernel.fn).bind((torch.ones(64, 64).half(), torch.ones(64, 64).half()))
    assert bound.to_triton_code({"range_warp_specializes": [None, True]}) == bound.to_triton_code({})


def test_searches_leave_out_programs_of_more_registers_than_a_multiprocessor_has() -> None:
    spec = EXAMPLES["add"].kernel.bind(EXAMPLES["add"].args()).config_spec
    for warps, registers, promising in (
        (32, 64, True),
        (32, 128, False),
        (8, 256, True),
        (16, 256, False),
        (32, None, True),
    ):
        config = spec.normalize(
            {"block_sizes": [256], "num_warps": warps, "maxnreg": registers, "pid_type": "persistent_blocked"}
        )
        assert spec.is_promising(config) is promising, config


def test_a_small_dimension_padded_for_a_product_counts_as_wide_everywhere() -> None:
    """Two columns that a product of int8 makes 32 of: sorted by 2 warps they took a thousand registers of a thread, and
    90 seconds of the compiler."""

    @helion.kernel
    def kernel(x, w):
        out = torch.empty([x.size(1), 2], dtype=torch.int32, device=x.device)
        for tile in hl.tile(x.size(1), block_size=16):
            ordered = torch.sort(x[:, tile, :], dim=0).values
            out[tile, :] = hl.dot(ordered.to(torch.int8), w[:, :, :]).sum(0)
        return out

    args = torch.zeros(64, 32, 2, dtype=torch.int8), torch.zeros(64, 2, 2, dtype=torch.int8)
    spec = kernel.bind(args).config_spec
    narrow, wide = (spec.normalize({"num_warps": warps}) for warps in (2, 32))
    reasons = [[check(dict(c)) for check in spec.unpromising] for c in (narrow, wide)]
    assert "a value does not fit into the registers of 2 warps" in reasons[0]
    assert not any(reason and "registers" in reason for reason in reasons[1])


def test_an_unrolled_loop_that_is_empty_for_the_sign_of_an_argument() -> None:
    """Its end was printed as the argument, which Triton does not unroll to."""

    @helion.kernel(config=helion.Config(block_sizes=[4, 4], static_ranges=[True]))
    def kernel(x: torch.Tensor, n: int) -> torch.Tensor:
        out = torch.zeros_like(x)
        for t in hl.tile(x.size(0)):
            for u in hl.tile(2 * n):
                out[t] = x[u].sum() + out[t]
        return out

    for text in (kernel.bind((torch.ones(10), n)).to_triton_code() for n in (-1, -2)):
        assert "tl.static_range(0, 0, " in text


def test_a_loop_that_reads_what_it_carried_through_an_inner_one_is_not_flattened() -> None:
    """Triton's flattened loop has what the last inner iteration began with."""

    @helion.kernel(config=helion.Config(block_sizes=[4], range_flattens=[None, True]))
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0), 8], dtype=x.dtype, device=x.device)
        for row in hl.tile(x.size(0)):
            total = hl.zeros([row])
            for i in hl.grid(8):
                before = total
                for j in hl.grid(4):
                    total = total + x[row, i * 4 + j]
                out[row, i] = total - before
        return out

    with pytest.raises(exc.InvalidConfig, match="reads again behind it"):
        kernel(torch.randn(5, 32))
