"""How large tiles of products are finished under a computed default: with the next tile under way, or in parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from examples.bmm import bmm
from examples.catalog import EXAMPLES
from examples.linear_gelu import linear_gelu as linear_gelu_of_cute
from examples.matmul import matmul
from helion.backends.triton.backend import TritonBackend
from helion.cross_compile import record_launches
from helion.target import Target

HALF = torch.bfloat16
OVERLAPPED = {
    "indexing": "tensor_descriptor",
    "pid_type": "persistent_interleaved",
    "range_flattens": [True, None],
    "epilogue_subtile": 4,
}
ORDINARY = {"indexing": "pointer", "pid_type": "flat", "range_flattens": [None, None], "epilogue_subtile": None}
#: Of shared memory that a program may use on an H100.
SHARED_BYTES = 227 << 10

linear_gelu = helion.kernel(linear_gelu_of_cute.fn, backend="triton")


@helion.kernel
def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    out = x.new_empty([x.size(0), weight.size(0)])
    for rows, columns in hl.tile(out.shape):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(x.size(1)):
            acc = hl.dot(x[rows, inner], weight[columns, inner].t(), acc=acc)
        out[rows, columns] = acc
    return out


@helion.kernel
def matmul64(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = x.new_empty([x.size(0), y.size(1)])
    for rows, columns in hl.tile(out.shape):
        acc = hl.zeros([rows, columns], dtype=torch.float64)
        for inner in hl.tile(x.size(1)):
            acc = acc + x[rows, inner] @ y[inner, columns]
        out[rows, columns] = acc
    return out


@helion.kernel
def linear_residual(x: torch.Tensor, weight: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(residual)
    for rows, columns in hl.tile([x.size(0), weight.size(0)]):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(x.size(1)):
            acc = hl.dot(x[rows, inner], weight[columns, inner].t(), acc=acc)
        out[rows, columns] = acc + residual[rows, columns]
    return out


def empty(*size: int, dtype: torch.dtype = HALF) -> torch.Tensor:
    return torch.empty(*size, dtype=dtype, device="meta")


def backend_of(kernel: helion.Kernel, args: tuple[Any, ...], capability: int = 90) -> TritonBackend:
    bound = kernel.bind(args)
    return TritonBackend(bound.ir, bound.settings, Target("nvidia", capability))


def finish(kernel: helion.Kernel, *args: Any, capability: int = 90) -> dict[str, Any]:
    """What a default says of how tiles are finished."""
    default = backend_of(kernel, args, capability).spec.default_config()
    return {key: default.get(key) for key in OVERLAPPED}


CASES: dict[str, tuple[helion.Kernel, tuple[Any, ...]]] = {
    "matmul": (matmul, (empty(4096, 512), empty(512, 4096))),
    "partial tiles": (matmul, (empty(3000, 1000), empty(1000, 5000))),
    "tall tiles": (matmul, (empty(3001, 2056), empty(2056, 4104))),
    "batches": (bmm, (empty(16, 1024, 256), empty(16, 256, 1024))),
    "gelu": (linear_gelu, (empty(4096, 1024), empty(4096, 1024), empty(4096))),
    "residual": (linear_residual, (empty(4096, 1024), empty(4096, 1024), empty(4096, 4096))),
    "view of a weight": (matmul, (empty(4096, 512), empty(8192, 512).t())),
    "tf32": (linear, (empty(4096, 1024, dtype=torch.float32), empty(4096, 1024, dtype=torch.float32))),
    "fp8": (
        EXAMPLES["fp8_matmul"].kernel,
        (empty(4096, 1024, dtype=torch.float8_e4m3fn), empty(4096, 1024, dtype=torch.float8_e4m3fn).t()),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_several_rounds_of_large_tiles_load_for_the_next_tile_while_they_finish_one(name: str) -> None:
    kernel, args = CASES[name]
    parts = finish(kernel, *args)["epilogue_subtile"]
    assert finish(kernel, *args) == {**OVERLAPPED, "epilogue_subtile": parts} and parts in (2, 4)


@pytest.mark.parametrize("name", CASES)
def test_the_loop_of_such_a_program_loads_by_descriptors_alone(name: str) -> None:
    # A loop made of two that has other loads takes two to three times as long.
    kernel, args = CASES[name]
    backend = backend_of(kernel, args)
    text = backend.generate(backend.spec.default_config()).text
    body = text[text.index("for ", text.index("flatten=True")) :]
    inner = body[body.index("for offset_inner") : body.index("acc = tl.dot")]
    assert inner.count(".load([") == 2 and "tl.load" not in inner
    assert body.count(".store([") == finish(kernel, *args)["epilogue_subtile"] and "tl.store" not in body


def test_an_epilogue_that_waits_for_a_bias_is_worth_it_where_the_weight_lies_along_k() -> None:
    @helion.kernel
    def with_bias(x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        out = x.new_empty([x.size(0), y.size(1)])
        for rows, columns in hl.tile(out.shape):
            acc = hl.zeros([rows, columns], dtype=torch.float32)
            for inner in hl.tile(x.size(1)):
                acc = hl.dot(x[rows, inner], y[inner, columns], acc=acc)
            out[rows, columns] = acc + bias[columns]
        return out

    assert finish(with_bias, empty(4096, 512), empty(512, 4096), empty(4096)) == ORDINARY
    kernel, args = CASES["gelu"]
    assert finish(kernel, *args) == OVERLAPPED


@pytest.mark.parametrize("m", [256, 512, 4096])
def test_columns_of_tiles_are_read_from_memory_once(m: int) -> None:
    default = backend_of(matmul, (empty(m, 1024), empty(1024, 16384))).spec.default_config()
    assert default.block_sizes[0] < m and default.l2_groupings == [8]
    rows = default.block_sizes[0]
    assert backend_of(matmul, (empty(rows, 64), empty(64, 16384))).spec.default_config().l2_groupings == [1]


def test_float32_along_k_has_tiles_of_warp_groups() -> None:
    def tile(kernel: helion.Kernel, capability: int = 90) -> tuple[list[int], int]:
        args = empty(4096, 1024, dtype=torch.float32), empty(4096, 1024, dtype=torch.float32)
        args = args if kernel is not matmul else (args[0], empty(1024, 4096, dtype=torch.float32))
        default = backend_of(kernel, args, capability).spec.default_config()
        return default.block_sizes, default.num_warps

    assert tile(linear) == ([128, 256, 32], 8)
    assert tile(matmul) == tile(linear, 80) == ([64, 128, 64], 2)
    assert tile(helion.kernel(linear.fn, dot_precision="highest")) == ([64, 128, 64], 2)  # no tensor cores
    columns_of_weight = empty(4096, 1024, dtype=torch.float32), empty(4096, 1024, dtype=torch.float32).t()
    assert backend_of(matmul, columns_of_weight).spec.default_config().block_sizes == [128, 256, 32]


def test_accumulators_of_float64_have_registers_for_twice_as_much() -> None:
    args = empty(1024, 1024, dtype=torch.float64), empty(1024, 1024, dtype=torch.float64)
    default = backend_of(matmul64, args).spec.default_config()
    rows, columns, _ = default.block_sizes
    assert rows * columns * 2 <= 128 * 32 * default.num_warps


def test_a_single_round_of_tiles_is_not_persistent() -> None:
    assert finish(matmul, empty(2048, 4096), empty(4096, 2048)) == ORDINARY  # 128 tiles for 132 multiprocessors


def test_tiles_that_share_a_multiprocessor_are_not_persistent() -> None:
    default = backend_of(bmm, (empty(512, 128, 128), empty(512, 128, 128))).spec.default_config()
    assert (default.num_warps, default.pid_type, default.indexing) == (4, "flat", "pointer")


def test_operands_that_are_no_boxes_are_loaded_as_ever() -> None:
    assert finish(matmul, empty(4096, 511), empty(511, 4096)) == ORDINARY  # rows begin anywhere
    assert finish(matmul, empty(4096, 512), empty(512, 8192)[:, ::2]) == ORDINARY
    dynamic = helion.kernel(matmul.fn, static_shapes=False)
    assert finish(dynamic, empty(4096, 512), empty(512, 4096)) == ORDINARY
    shifted = torch.empty_strided([4096, 512], [512, 1], dtype=HALF).flatten()[4:][: 4095 * 512].view(4095, 512)
    assert finish(matmul, shifted, torch.empty(512, 4096, dtype=HALF)) == ORDINARY  # of an address that is no 16 bytes


def test_results_that_are_no_boxes_are_stored_as_ever() -> None:
    assert finish(linear, empty(4096, 1024), empty(5000, 1024)) == OVERLAPPED
    assert finish(linear, empty(4096, 1024), empty(5001, 1024)) == ORDINARY


def test_an_epilogue_that_loads_as_much_as_it_stores_has_two_parts_and_room_in_shared_memory() -> None:
    kernel, args = CASES["residual"]
    default = backend_of(kernel, args).spec.default_config()
    assert finish(kernel, *args) == {**OVERLAPPED, "epilogue_subtile": 2} and default.num_stages == 3


def test_a_result_that_is_turned_around_leaves_no_shared_memory_to_the_next_tile() -> None:
    @helion.kernel
    def turned(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = x.new_empty([x.size(0), y.size(1)])
        for rows, columns in hl.tile(out.shape):
            acc = hl.zeros([columns, rows], dtype=torch.float32)
            for inner in hl.tile(x.size(1)):
                acc = hl.dot(y[inner, columns].t(), x[rows, inner].t(), acc=acc)
            out[rows, columns] = acc.t()
        return out

    assert finish(turned, empty(4096, 512), empty(512, 4096)) == ORDINARY


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_a_sum_of_rounded_products_is_another_accumulator(capability: int) -> None:
    @helion.kernel(ignore_warnings=[helion.exc.TiledKMatmulAccumulationWarning])
    def rounded(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = x.new_empty([x.size(0), y.size(1)])
        for rows, columns in hl.tile(out.shape):
            acc = hl.zeros([rows, columns], dtype=torch.float32)
            for inner in hl.tile(x.size(1)):
                acc = acc + torch.bmm(x[None, rows, inner], y[None, inner, columns]).squeeze(0)
            out[rows, columns] = acc
        return out

    args = empty(4096, 4096), empty(4096, 4096)
    default = backend_of(rounded, args, capability).spec.default_config()
    assert (default.block_sizes, default.num_warps) == ([128, 128, 64], 8)  # 128 x 256 were spilled


def test_no_stages_without_iterations() -> None:
    def stages(k: int) -> int:
        return backend_of(bmm, (empty(512, 128, k), empty(512, k, 128))).spec.default_config().num_stages

    assert [stages(k) for k in (64, 128, 192, 1024)] == [2, 2, 3, 3]


@pytest.mark.parametrize("capability", [80, 89, 100])
def test_gpus_that_it_was_not_measured_on_keep_ordinary_programs(capability: int) -> None:
    kernel, args = CASES["matmul"]
    assert finish(kernel, *args, capability=capability) == ORDINARY


def test_a_slow_epilogue_of_a_single_round_is_done_in_parts() -> None:
    args = empty(2048, 1024), empty(2048, 1024), empty(2048)
    assert finish(linear_gelu, *args) == {**ORDINARY, "epilogue_subtile": 2}


@pytest.mark.parametrize(
    ("batch", "heads", "m", "n", "order"),
    [
        (2, 16, 2048, 2048, [1, 0]),  # a bias of 128 MiB, keys and values of 16
        (1, 16, 2048, 2048, [0, 1]),  # nobody else reads it
        (4, 16, 1024, 512, [0, 1]),  # it stays in the cache
        (4, 32, 1024, 8192, [0, 1]),  # keys and values do not
    ],
)
def test_batches_that_share_a_bias_read_it_together(batch: int, heads: int, m: int, n: int, order: list[int]) -> None:
    half = torch.float16
    q = empty(batch, heads, m, 64, dtype=half)
    k, v = (empty(batch, heads, n, 64, dtype=half) for _ in range(2))
    kernel = EXAMPLES["attention_bias"].kernel
    default = backend_of(kernel, (q, k, v, empty(heads, m, n, dtype=half))).spec.default_config()
    assert default.loop_orders == [order]
    assert backend_of(EXAMPLES["attention"].kernel, (q, k, v)).spec.default_config().loop_orders == [[0, 1]]


@pytest.mark.compiles
@pytest.mark.parametrize("name", CASES)
def test_it_fits_shared_memory_and_registers(name: str) -> None:
    from benchmarks import sass

    kernel, args = CASES[name]
    backend = backend_of(kernel, args)
    (launch,) = record_launches(backend.generate(backend.spec.default_config()), args)
    binary = backend.binary(launch)
    assert binary.shared <= SHARED_BYTES
    assert sass.statistics(binary.cubin).stack_bytes == 0
