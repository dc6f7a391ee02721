"""Configs beyond what searches try, and those that do not apply to all of a kernel: each runs in every way there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from examples.catalog import EXAMPLES
from tests.support import run_everywhere
from tests.variants import check_config

pytestmark = pytest.mark.gpu

FORMS: list[tuple[str, dict[str, Any]]] = [
    # Tiles that tensor cores cannot take as they are, and those that are larger than their loop.
    *(("matmul", {"block_sizes": sizes}) for sizes in ([32, 8, 8], [4, 1, 2], [128, 64, 8], [64, 64, 1])),
    *(("matmul", {"block_size": sizes}) for sizes in ([256, 16, 16], [16, 16, 256])),
    ("bmm", {"block_sizes": [1, 64, 64, 8]}),
    ("bmm", {"block_sizes": [2, 32, 16, 4]}),
    ("add", {"block_size": 1 << 15}),
    *(("softmax", {"reduction_loop": n}) for n in (1, 2, 4, 8, 1 << 20)),
    ("layer_norm", {"reduction_loop": 8}),
    # Keys that leave out what they do not apply to.
    ("matmul", {"block_sizes": [16, 32, 16], "pid_type": "xyz", "l2_groupings": 4}),
    ("exp", {"block_sizes": [8, 32], "pid_type": "xyz", "flatten_loops": True}),
    ("exp", {"block_sizes": [8, 32], "loop_order": [1, 0], "flatten_loops": True, "l2_groupings": 8}),
    ("matmul", {"block_sizes": [16, 16, 16], "flatten_loops": True, "loop_order": [1, 0]}),
    ("add", {"pid_type": "xyz", "indexing": ["tensor_descriptor"]}),
    ("matmul", {"block_sizes": [16, 16, 16], "epilogue_subtile": True}),
    ("matmul", {"block_sizes": [16, 64, 16], "num_stages": 9, "num_threads": [128], "occupancy": 2}),
    # Cache modifiers.
    ("matmul", {"block_sizes": [16, 32, 16], "load_cache_modifiers": [".cg"], "store_cache_modifiers": ".cs"}),
    ("add", {"load_cache_modifiers": ["", ".cg"], "store_cache_modifiers": ".wt", "indexing": "block_ptr"}),
    ("add", {"load_cache_modifiers": ".cg", "load_eviction_policies": "first"}),
    # The loop of persistent programs.
    *(
        (
            "matmul",
            {"block_sizes": [16, 32, 16], "pid_type": p, "range_num_stages": [2, 3], "range_flattens": [f, None]},
        )
        for p, f in (("persistent_interleaved", True), ("persistent_blocked", False))
    ),
    ("exp", {"block_sizes": [8, 32], "pid_type": "persistent_blocked", "range_unroll_factor": 2}),
    ("matmul", {"block_sizes": [16, 32, 16], "pid_type": "persistent_blocked", "num_sm_multiplier": 128}),
]


@pytest.mark.compiles
@pytest.mark.parametrize(("number", "form"), list(enumerate(FORMS)), ids=lambda v: str(v).replace("'", ""))
def test_form_is_right_and_compiles(number: int, form: tuple[str, dict[str, Any]], seed: int) -> None:
    check_config(*form, number)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("inner", [2, 8])
def test_products_over_few_elements(dtype: torch.dtype, inner: int, seed: int) -> None:
    """More of them than are added up one by one: zeros between the elements make it a product of tensor cores."""

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        total = torch.float32 if a.dtype.is_floating_point else torch.int32
        out = torch.empty([a.size(0), b.size(1)], dtype=total, device=a.device)
        for m, n in hl.tile([a.size(0), b.size(1)]):
            acc = hl.zeros([m, n], dtype=total)
            for k in hl.tile(a.size(1)):
                acc = hl.dot(a[m, k], b[k, n], acc)
            out[m, n] = acc
        return out

    a, b = (torch.randint(-7, 8, shape).to(dtype) for shape in ((70, 37), (37, 130)))  # exact in every dtype
    wide = torch.int32 if dtype is torch.int8 else torch.float64
    run_everywhere(
        product,
        (a, b),
        lambda a, b: a @ b,
        configs=[{"block_sizes": [64, 128, inner]}],
        reference_args=(a.to(wide), b.to(wide)),
    )


def code(name: str, **config: Any) -> str:
    return EXAMPLES[name].kernel.bind(EXAMPLES[name].args()).to_triton_code(config)


def test_cache_modifiers_are_in_the_code() -> None:
    text = code("matmul", load_cache_modifiers=["", ".cg"], store_cache_modifiers=[".wt"])
    assert text.count("cache_modifier='.cg'") == 1 and text.count("cache_modifier='.wt'") == 1


def test_the_outer_slot_of_range_keys_is_of_persistent_programs_only() -> None:
    assert code("matmul", range_num_stages=[3, 0]) == code("matmul")
    persistent = code("matmul", range_num_stages=[3, 2], pid_type="persistent_interleaved")
    assert "tl.num_programs(0), num_stages=3):" in persistent and "BLOCK_INNER, num_stages=2):" in persistent


def test_range_slots_follow_the_loop_statements_of_the_source() -> None:
    @helion.kernel
    def two(x: torch.Tensor) -> torch.Tensor:
        out, sums = torch.empty_like(x), x.new_empty([x.size(0)])
        for first in hl.tile(x.size(0)):
            seen = hl.zeros([first])
            for inner in hl.tile(x.size(1)):
                out[first, inner] = x[first, inner] * 2 + seen[:, None]
                seen = seen + 1
        for second in hl.tile(x.size(0)):
            acc = hl.zeros([second])
            for again in hl.tile(x.size(1)):
                acc = acc + x[second, again].sum(1)
            sums[second] = acc
        return out

    bound = two.bind((torch.ones(32, 32),))
    text = bound.to_triton_code({"range_unroll_factors": [0, 2, 0, 4]})
    lines = [line for line in text.splitlines() if "loop_unroll_factor" in line]
    assert ["offset_inner" in lines[0], "offset_again" in lines[1]] == [True, True]
    assert [line.rsplit("=", 1)[1] for line in lines] == ["2):", "4):"]


def test_advanced_controls_are_an_option_of_ptxas_and_their_text_is_part_of_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "kernel.acf"
    assert f"ptx_options='--apply-controls {path}'" in code("add", advanced_controls_file=str(path))
    path.write_text("one")
    first = code("add", advanced_controls_file=str(path))
    path.write_text("two")
    second = code("add", advanced_controls_file=str(path))
    assert first != second and "ptx_options" in first
    assert "ptx_options" not in code("add", advanced_controls_file="")


@pytest.mark.parametrize(("begin", "form"), [(0, "descriptor"), (1, "tl.load"), (4, "descriptor")])
def test_descriptors_begin_at_multiples_of_16_bytes(begin: int, form: str) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[8, 16], indexing=["tensor_descriptor", "pointer"]))
    def doubled(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        for rows, columns in hl.tile([0, begin], x.shape):
            out[rows, columns] = x[rows, columns] * 2
        return out

    x = torch.randn(32, 24)
    assert form in doubled.bind((x,)).to_triton_code().replace("make_tensor_descriptor", "descriptor")
    assert torch.equal(doubled(x)[:, begin:], x[:, begin:] * 2)


def doubled(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.shape):
        out[t] = x[t] * 2
    return out


@pytest.mark.parametrize(
    ("shape", "blocks"),
    [((5, 7), (1, 4)), ((8, 7), (4, 4)), ((7, 8), (4, 4)), ((8, 8), (4, 4)), ((5, 7), (1, 1)), ((3, 4, 5), (1, 4, 2))],
    ids=str,
)
@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
def test_a_flattened_loop_ends_at_its_last_element(shape: tuple[int, ...], blocks: tuple[int, ...], static: bool):
    kernel = helion.kernel(doubled, static_shapes=static)
    config = {"block_sizes": list(blocks), "flatten_loops": [True]}
    run_everywhere(kernel, (torch.randn(shape),), lambda x: x * 2, configs=[config], capabilities=[90], error_scale=0)


def short_columns(x: torch.Tensor, w: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0), w.size(1)], dtype=torch.float16, device=x.device)
    for t, c in hl.tile([x.size(0), w.size(1)], block_size=[None, 4]):
        out[t, c] = torch.matmul(x[t, :], w[:, c]) * y[t, :].sum(1)[:, None]
    return out


def test_a_descriptor_is_of_the_tile_and_not_of_a_padded_product(seed: int) -> None:
    x, w, y = torch.randn(16, 4).half(), torch.randn(4, 8).half(), torch.randn(16, 4).half()
    everywhere = [{"block_sizes": [16], "indexing": "tensor_descriptor"}]
    run_everywhere(
        short_columns, (x, w, y), lambda x, w, y: x @ w * y.sum(1)[:, None], configs=everywhere, error_scale=300
    )


def weighted_rows(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = torch.empty([b.size(1)], dtype=b.dtype, device=b.device)
    for j in hl.tile(b.size(1)):
        acc = hl.zeros([j])
        for k in hl.tile(b.size(0)):
            acc = acc + (a[k][:, None] * b[k, j]).sum(0)
        out[j] = acc
    return out


@pytest.mark.compiles
def test_boxes_of_less_than_128_bytes_are_loaded_through_pointers(seed: int) -> None:
    """The stages of a pipelined loop have their buffers close together: TMA wrote to a misaligned address."""
    few = {"block_sizes": [8, 2], "indexing": "tensor_descriptor", "range_num_stages": [0, 4]}
    enough = {**few, "block_sizes": [8, 4]}
    kernel, args = helion.kernel(weighted_rows), (torch.randn(40), torch.randn(40, 40))
    bound = kernel.bind(args)
    assert "make_tensor_descriptor(b" not in bound.to_triton_code(few)
    assert "make_tensor_descriptor(b" in bound.to_triton_code(enough)
    run_everywhere(kernel, args, lambda a, b: a @ b, configs=[few, enough], capabilities=[90], error_scale=40)


def beyond(u: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    m, n = w.shape
    sums, around = torch.empty_like(w), u.new_zeros([m, u.size(1)])
    for i in hl.grid(m):
        for t in hl.tile(n):
            sums[i, t] = w[i, t] + u[i, t]
        for t in hl.tile(-2, n):
            around[i, t] = u[i, t] * 2
    return sums, around


@pytest.mark.compiles
@pytest.mark.parametrize("kind", ["pointer", "block_ptr", "tensor_descriptor"])
@pytest.mark.parametrize("block", [1, 2, 8])
def test_loops_whose_tiles_are_whole_stay_inside_of_shorter_tensors(kind: str, block: int, seed: int) -> None:
    """Block pointers had no check where the block size divides the range: they read the next row, and wrote there."""

    def plain(u: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return w + torch.nn.functional.pad(u, (0, 7)), u * 2

    config = {"block_sizes": [block, block], "indexing": kind}
    run_everywhere(beyond, (torch.randn(4, 33), torch.randn(4, 40)), plain, configs=[config], capabilities=[90])
