"""The Config of a kernel that was given none: what it goes by, and that it fits every GPU."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from examples.attention import attention
from examples.bmm import bmm
from examples.catalog import EXAMPLES
from examples.cross_entropy import cross_entropy
from examples.cross_entropy import cross_entropy_backward
from examples.layer_norm import layer_norm
from examples.layer_norm import layer_norm_backward
from examples.layer_norm import make_backward_args as layer_norm_args
from examples.matmul import matmul
from examples.reductions import sum_rows
from examples.rms_norm import make_backward_args as rms_norm_args
from examples.rms_norm import rms_norm
from examples.rms_norm import rms_norm_backward
from examples.rms_norm import rms_norm_backward_by_columns
from examples.rms_norm import rms_norm_row_numbers
from examples.softmax import softmax
from examples.vector_add import add
from helion.backends.triton.backend import TritonBackend
from helion.fragments import PowerOfTwoFragment
from helion.target import Target
from tests.support import compile_for

CAPABILITIES = (80, 89, 90, 100)
HALF = torch.bfloat16
#: An argument of which only the shape is asked: to fill 512 MB with poison takes half a second.
unread = functools.partial(torch.empty, device="meta")


def default_of(kernel: helion.Kernel, *args: Any, capability: int = 90) -> helion.Config:
    bound = kernel.bind(args)
    return TritonBackend(bound.ir, bound.settings, Target("nvidia", capability)).spec.default_config()


def product(m: int, k: int, n: int, dtype: torch.dtype = HALF) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty(m, k, dtype=dtype), torch.empty(k, n, dtype=dtype)


def test_keys_that_a_given_config_leaves_out_stay_neutral() -> None:
    spec = matmul.bind(product(4096, 256, 4096)).config_spec
    given = spec.normalize(helion.Config(block_sizes=[64, 64, 32]))
    assert (given.num_warps, given.num_stages, given.pid_type, given.l2_groupings) == (4, 1, "flat", [1])
    assert spec.default_config().num_stages > 1


def test_minimizing_keeps_what_differs_from_neutral() -> None:
    spec = matmul.bind(product(4096, 256, 4096)).config_spec
    default = spec.default_config()
    assert spec.normalize(default.minimize(spec)) == default


@helion.kernel
def scaled_cubes(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty(a.size(0), b.size(1))
    for i, j in hl.tile([a.size(0), b.size(1)]):
        acc = hl.zeros([i, j], dtype=torch.float32)
        for k in hl.tile(a.size(1)):
            acc = torch.addmm(acc, a[i, k], torch.sort(x[:, k, j], dim=0).values[0])
        out[i, j] = acc
    return out


def test_tiles_are_made_smaller_until_their_values_fit_into_registers() -> None:
    spec = scaled_cubes.bind((torch.empty(64, 512, 512), torch.empty(512, 512), torch.empty(512, 512))).config_spec
    default = spec.default_config()
    assert spec.is_promising(default), default  # 64 x block x block numbers are sorted at a time


@helion.kernel
def parts(x: torch.Tensor) -> torch.Tensor:
    split = hl.register_tunable("split", PowerOfTwoFragment(1, 64, 1))
    out = torch.empty_like(x)
    for i, j in hl.tile(x.size(), block_size=[None, helion.next_power_of_2(helion.cdiv(x.size(1), split))]):
        out[i, j] = x[i, j] + 1
    return out


def test_a_tile_whose_size_host_code_computes_from_a_tunable_has_to_fit_into_registers() -> None:
    spec = parts.bind((torch.empty(4096, 4096),)).config_spec

    def promising(rows: int, split: int) -> bool:
        return spec.is_promising(spec.normalize(helion.Config(block_sizes=[rows], split=split, num_warps=4)))

    assert promising(64, 64)
    assert not promising(64, 1)  # 64 x 4096 elements


@pytest.mark.parametrize(("m", "n"), [(4096, 4096), (1024, 4096)])
def test_large_products_get_the_tile_with_the_highest_rate(m: int, n: int) -> None:
    assert default_of(matmul, *product(m, 512, n)).block_sizes == [128, 256, 64]


@pytest.mark.parametrize("m", [1, 16, 64, 128, 256, 512])
def test_few_rows_get_tiles_small_enough_to_fill_the_gpu(m: int) -> None:
    rows, columns, _ = default_of(matmul, *product(m, 512, 4096)).block_sizes
    assert -(-m // rows) * (4096 // columns) >= 100
    assert rows <= max(m, 16)


def test_a_batch_counts_as_tiles() -> None:
    args = (torch.empty(64, 512, 128, dtype=HALF), torch.empty(64, 128, 512, dtype=HALF))
    batch, rows, columns, _ = default_of(bmm, *args).block_sizes
    assert batch == 1
    assert rows * columns >= 128 * 128


@pytest.mark.parametrize("n", [300, 1000, 4096, 32768])
def test_rows_that_fit_are_read_once(n: int) -> None:
    default = default_of(softmax, unread(4096, n, dtype=HALF))
    assert default.reduction_loops == [None]


def test_rows_that_do_not_fit_are_read_in_chunks_by_as_many_warps_as_leave_few_rows_under_way() -> None:
    def chunk_and_warps(kernel: helion.Kernel, others: int = 0) -> tuple[int, int]:
        x = unread(256, 1 << 17, dtype=HALF)
        default = default_of(kernel, x, *[x[0]] * others)
        assert default.num_stages == 1
        return default.reduction_loops[0], default.num_warps

    assert chunk_and_warps(rms_norm, 1) == (32768, 32)
    assert chunk_and_warps(layer_norm, 2) == (16384, 32)  # of which two numbers are kept for each element


def test_rows_of_exponentials_are_read_two_at_a_time_as_long_as_the_cache_has_both() -> None:
    def chunk_and_warps(n: int, capability: int = 90) -> tuple[int, int]:
        default = default_of(softmax, torch.empty(256, n, dtype=HALF, device="meta"), capability=capability)
        return default.reduction_loops[0], default.num_warps

    assert chunk_and_warps(1 << 16) == (8192, 16)  # one program computes while the other one loads
    assert chunk_and_warps(1 << 17) == (16384, 32)
    assert chunk_and_warps(1 << 17, capability=100) == (8192, 16)


def test_chunks_cover_little_more_than_the_row() -> None:
    for n in (40_000, 50_000, 65_536, 98_304, 100_000):
        x = torch.empty(256, n, dtype=HALF, device="meta")
        (chunk,) = default_of(rms_norm, x, x[0]).reduction_loops
        assert -(-n // chunk) * chunk <= 1.1 * n


def test_sums_of_rows_have_one_load_of_16_bytes_a_thread() -> None:
    for n, dtype in ((256, torch.float32), (512, HALF), (1024, torch.float32), (4096, HALF)):
        default = default_of(sum_rows, torch.empty(1 << 14, n, dtype=dtype, device="meta"))
        assert default.block_sizes[0] * n * dtype.itemsize == default.num_warps * 32 * 16


@pytest.mark.parametrize("n", [1024, 2048, 4096, 8192])
def test_rows_of_exponentials_have_a_program_each_and_few_threads_where_they_are_stored(n: int) -> None:
    x = torch.empty(1 << 14, n, dtype=HALF, device="meta")
    labels = torch.empty(1 << 14, dtype=torch.int64, device="meta")
    loss, gradient = default_of(cross_entropy, x, labels), default_of(cross_entropy_backward, labels.float(), x, labels)
    assert loss.block_sizes == gradient.block_sizes == [1]
    assert loss.num_warps == 2 * gradient.num_warps == n // 512


def test_tiles_that_a_later_phase_adds_up_are_tall() -> None:
    example = EXAMPLES["batch_norm"]
    rows, columns, *_ = default_of(example.kernel, *example.args(example.size, device="meta")).block_sizes
    assert rows > columns >= 32


def test_rows_that_are_read_once_are_loaded_ahead_in_small_chunks() -> None:
    x, grad = unread(256, 1 << 17, dtype=HALF), unread(256, 1 << 17, dtype=HALF)
    default = default_of(rms_norm_row_numbers, grad, x, x[0])
    assert (default.reduction_loops[0], default.num_warps, default.num_stages) == (8192, 16, 3)


def test_stages_of_a_kernel_are_those_of_its_loops_over_chunks() -> None:
    bound = softmax.bind((torch.empty(4, 1000),))
    code = bound.to_triton_code(helion.Config(block_sizes=[1], reduction_loops=[128], num_stages=3))
    assert code.count("tl.range(0, 1000, BLOCK_R, num_stages=3)") == 2
    code = bound.to_triton_code(helion.Config(block_sizes=[1], reduction_loops=[128]))
    assert code.count("tl.range(0, 1000, BLOCK_R)") == 2


def test_rows_of_which_nothing_is_stored_stay_whole_where_chunks_would_be_read_again() -> None:
    @helion.kernel
    def spread(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0)], device=x.device)
        for rows in hl.tile(x.size(0)):
            values = x[rows, :].to(torch.float32)
            out[rows] = (values - values.mean(1, keepdim=True)).abs().amax(1)
        return out

    @helion.kernel
    def log_sum(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty([x.size(0)], device=x.device)
        for rows in hl.tile(x.size(0)):
            values = x[rows, :].to(torch.float32)
            out[rows] = torch.log(torch.exp(values - values.amax(1, keepdim=True)).sum(1))
        return out

    x = unread(256, 1 << 16, dtype=HALF)
    assert default_of(spread, x).reduction_loops == [None]
    assert default_of(log_sum, x).reduction_loops != [None]


def test_short_rows_share_a_program_and_long_ones_get_more_warps() -> None:
    short, long = (default_of(softmax, unread(1 << 25 >> e, 1 << e, dtype=HALF)) for e in (8, 14))
    assert short.block_sizes[0] > long.block_sizes[0]
    assert short.num_warps < long.num_warps


def test_programs_that_go_over_shares_of_the_rows_fill_the_gpu() -> None:
    args = (unread(16384, 1024), unread(16384, 1024), unread(1024))
    assert 132 <= 16384 // default_of(rms_norm_backward, *args).block_sizes[0] <= 32 * 132
    args = (unread(4096, 16384), unread(4096, 16384), unread(16384))
    default = default_of(rms_norm_backward, *args)
    assert (default.block_sizes[0], default.num_warps) == (32, 8)  # 128 programs: a share each, one after the other


@pytest.mark.parametrize("kernel", [rms_norm_backward, layer_norm_backward], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("n", [256, 1024, 4096, 16384])
def test_programs_that_wait_for_each_other_fit_together(kernel: helion.Kernel, n: int) -> None:
    x, number = torch.empty(1 << 25 >> 10, n, dtype=HALF, device="meta"), torch.empty(1 << 15, device="meta")
    args = (x, x, x[0], *((number, number) if kernel is layer_norm_backward else ()))
    for capability in CAPABILITIES:
        default = default_of(kernel, *args, capability=capability)
        threads = 32 * default.num_warps * default.num_sm_multiplier
        assert default.maxnreg is not None
        assert threads * default.maxnreg <= 65536
        assert default.pid_type.startswith("persistent")


def test_a_later_phase_has_tiles_for_every_multiprocessor() -> None:
    x = torch.empty(16384, 4096, dtype=HALF, device="meta")
    _, _, columns, rows = default_of(rms_norm_backward, x, x, x[0]).block_sizes
    assert columns >= 32  # a cache line of float32
    assert 4096 // columns >= 128
    assert rows > 1


@helion.kernel
def matmul_of_groups(x: torch.Tensor, weight: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    groups, k, n = weight.shape
    out = torch.empty([x.size(0), n], dtype=x.dtype, device=x.device)
    for group, columns in hl.tile([groups, n], block_size=[1, None]):
        for rows in hl.tile(offsets[group.begin], offsets[group.begin + 1]):
            acc = hl.zeros([rows, columns], dtype=torch.float32)
            for inner in hl.tile(k):
                acc = torch.addmm(acc, x[rows, inner], weight[group.begin, inner, columns])
            out[rows, columns] = acc
    return out


def test_a_tile_is_chosen_by_what_a_program_does_of_a_group_of_unknown_size() -> None:
    x, weight = (
        torch.empty(16384, 2048, dtype=HALF, device="meta"),
        torch.empty(16, 2048, 2048, dtype=HALF, device="meta"),
    )
    default = default_of(matmul_of_groups, x, weight, torch.empty(17, dtype=torch.int64, device="meta"))
    columns, rows, _ = default.block_sizes
    assert rows >= columns  # many short programs even out what few long ones do not
    assert default.l2_groupings == [1]  # rows of tiles are a loop of the program: no programs to bring together


def test_programs_that_go_over_shares_of_the_rows_load_ahead_where_there_is_room() -> None:
    def stages(n: int, dtype: torch.dtype) -> list[int]:
        row = torch.empty(256, n, dtype=dtype)
        return default_of(rms_norm_backward, row, row, row[0]).range_num_stages[:2]

    assert stages(4096, HALF) == [0, 3]
    assert stages(16384, HALF) == [0, 3]
    assert stages(16384, torch.float32) == [0, 2]
    assert stages(32768, torch.float32) == [0, 0]


@pytest.mark.parametrize(("n", "rows", "warps", "programs"), [(256, 4, 1, 8), (1024, 4, 4, 2), (4096, 1, 8, 2)])
def test_programs_that_go_over_shares_take_a_few_short_rows_at_a_time(n, rows, warps, programs) -> None:
    row = torch.empty(1 << 16, n, dtype=HALF, device="meta")
    default = default_of(rms_norm_backward, row, row, row[0])
    assert (default.block_sizes[1], default.num_warps, default.num_sm_multiplier) == (rows, warps, programs)
    assert default.block_sizes[2:] == [32, 128]  # many shares at a time to be added up


def test_tiles_of_columns_count_as_shares_of_the_rows() -> None:
    row = unread(1024, 65536, dtype=HALF)
    number = unread(1024)
    share, columns, rows = default_of(rms_norm_backward_by_columns, row, row, row[0], number, number).block_sizes
    assert 132 <= 1024 // share * 65536 // columns <= 32 * 132
    assert rows == 1


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "moe_matmul"])  # counts on the host
def test_default_of_an_example_is_a_config_that_may_be_given(name: str) -> None:
    example = EXAMPLES[name]
    bound = example.kernel.bind(example.args(example.size, device="meta"))
    for capability in CAPABILITIES:
        spec = bound.backend(Target("nvidia", capability)).spec
        default = spec.default_config()
        assert spec.normalize(default) == default


def test_a_share_of_the_rows_is_within_the_sizes_that_a_kernel_registers() -> None:
    @helion.kernel
    def column_sums(x: torch.Tensor) -> torch.Tensor:
        m, n = x.shape
        block = hl.register_block_size(4, 16)
        partial = torch.empty([helion.cdiv(m, block), n], device=x.device)
        for part in hl.tile(m, block_size=block):
            total = hl.zeros([n])
            for rows in hl.tile(part.begin, part.end):
                total = total + x[rows, :].sum(0)
            partial[part.id, :] = total
        return partial.sum(0)

    assert default_of(column_sums, unread(1 << 17, 1024)).block_sizes[0] == 16


def test_few_elements_are_shared_out_among_the_multiprocessors() -> None:
    (block,) = default_of(add, torch.empty(1 << 16), torch.empty(1 << 16)).block_sizes
    assert (1 << 16) // block >= 132
    assert block >= 128


@helion.kernel
def turned(x: torch.Tensor) -> torch.Tensor:
    out = x.new_empty([x.size(1), x.size(0)])
    for rows, columns in hl.tile(x.shape):
        out[columns, rows] = x[rows, columns].t()
    return out


@helion.kernel
def softmax_of_columns(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for columns in hl.tile(x.size(1)):
        out[:, columns] = torch.softmax(x[:, columns].float(), 0).to(x.dtype)
    return out


@pytest.mark.parametrize("dtype", [torch.int8, HALF, torch.float32, torch.float64])
def test_tiles_of_a_transposition_are_parts_of_lines_of_both_sides(dtype: torch.dtype) -> None:
    sizes = default_of(turned, torch.empty(8191, 4096, dtype=dtype, device="meta")).block_sizes
    assert min(sizes) * dtype.itemsize >= 64
    assert sizes[0] * sizes[1] <= 4096


def test_columns_that_are_held_whole_are_read_side_by_side_while_every_multiprocessor_has_some() -> None:
    def columns(rows: int, count: int) -> int:
        return default_of(softmax_of_columns, torch.empty(rows, count, dtype=HALF, device="meta")).block_sizes[0]

    assert columns(1024, 8192) == 16
    assert columns(1024, 64) == 1


@helion.kernel
def sorted_rows(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        out[rows, :] = torch.sort(x[rows, :], 1)[0]
    return out


@pytest.mark.parametrize("count, rows, warps", [(16, 32, 4), (300, 1, 4), (1024, 1, 8), (4096, 1, 16)])
def test_sorts_have_few_elements_a_thread(count: int, rows: int, warps: int) -> None:
    config = default_of(sorted_rows, torch.empty(8192, count, device="meta"))
    assert (config.block_sizes, config.num_warps) == ([rows], warps)


KERNELS = {
    "matmul": (matmul, lambda: product(512, 256, 512)),
    "matmul_float32": (matmul, lambda: product(256, 128, 256, torch.float32)),
    "attention": (attention, lambda: tuple(torch.empty(1, 2, 256, 64, dtype=HALF) for _ in range(3))),
    "attention_wide": (attention, lambda: tuple(torch.empty(1, 2, 256, 128, dtype=HALF) for _ in range(3))),
    "softmax": (softmax, lambda: (torch.empty(512, 4096, dtype=HALF),)),
    "softmax_long": (softmax, lambda: (torch.empty(64, 32768, dtype=HALF),)),
    "rms_norm_backward": (rms_norm_backward, lambda: rms_norm_args(64, 4096, dtype=HALF)),
    "rms_norm_backward_long": (rms_norm_backward, lambda: rms_norm_args(64, 8192, dtype=HALF)),
    "layer_norm_backward": (layer_norm_backward, lambda: layer_norm_args(64, 4096, dtype=HALF)),
    "layer_norm_backward_long": (layer_norm_backward, lambda: layer_norm_args(64, 8192, dtype=HALF)),
}


@pytest.mark.compiles
def test_rows_in_chunks_fit_newer_gpus_without_spills(tmp_path: Path) -> None:
    check_spills(softmax, (torch.empty(64, 1 << 17, dtype=HALF),), (90, 100), tmp_path)


@pytest.mark.compiles
@pytest.mark.parametrize("name", KERNELS)
def test_default_fits_every_gpu_without_spills(name: str, tmp_path: Path) -> None:
    kernel, make = KERNELS[name]
    check_spills(kernel, make(), CAPABILITIES, tmp_path)


def check_spills(kernel: helion.Kernel, args: tuple[Any, ...], capabilities: Sequence[int], tmp_path: Path) -> None:
    for capability in capabilities:
        config = default_of(kernel, *args, capability=capability)
        for launch in compile_for(kernel, args, config, [capability])[0]:
            path = tmp_path / f"{capability}.cubin"
            path.write_bytes(launch["cubin"])
            # ptxas keeps two words of what a softmax does where its exact division takes long (on sm_100), and no more.
            assert spilled_bytes(path) <= (8 if kernel is softmax else 0), f"sm_{capability}: {config}"


def spilled_bytes(cubin: Path) -> int:
    """Bytes of the local memory that a kernel's registers are spilled to, from the binary's own table."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    text = subprocess.run([tool, "--dump-resource-usage", cubin], check=True, capture_output=True, text=True).stdout
    return max(int(found) for found in re.findall(r"STACK:(\d+)", text))


def test_the_default_of_a_kernel_with_large_whole_dimensions_is_valid() -> None:
    @helion.kernel
    def wide(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0), block_size=1):
            out[tile, :, :] = x[tile, :, :] * 2
        return out

    spec = wide.bind((torch.empty(3, 1024, 1000),)).config_spec
    assert spec.is_valid(spec.default_config())


def doubled(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t, :] = x[t, :] * 2
    return out


def sums_of_blocks(x: torch.Tensor) -> torch.Tensor:
    block = hl.register_block_size(x.size(0))
    out = torch.empty([helion.cdiv(x.size(0), block), x.size(1)])
    for outer in hl.tile(x.size(0), block_size=block):
        acc = hl.zeros([x.size(1)])
        for t in hl.tile(outer.begin, outer.end):
            acc = acc + x[t, :].sum(0)
        out[outer.id, :] = acc
    return out


@pytest.mark.parametrize("function", [doubled, sums_of_blocks, softmax.fn], ids=lambda f: f.__name__)
def test_dynamic_shapes_have_the_default_of_the_call_that_they_are_compiled_for(function) -> None:
    """Whole dimensions counted as one element: tiles of 256 rows and more compiled for minutes or did not fit."""
    x = torch.empty(4096, 1000)
    static, dynamic = (default_of(helion.kernel(function, static_shapes=s), x) for s in (True, False))
    assert (dynamic["block_sizes"], dynamic["num_warps"]) == (static["block_sizes"], static["num_warps"])
