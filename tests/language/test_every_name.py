"""Each `hl.*` name that no other test runs in every way: tile executor, ref mode, generated code."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
import triton

import helion
import helion.language as hl
from helion import exc
from helion.fragments import PowerOfTwoFragment
from helion.language.random import philox_bits
from helion.language.random import philox_rand4x
from tests.support import run_everywhere

SMALL = helion.Config(block_sizes=[8])


def everywhere(kernel, args, expected, **options):
    """Run with tiles of 8; results are exact."""
    kernel = helion.kernel(kernel, config=SMALL)
    options = {"error_scale": 0, "capabilities": [90], "configs": [{"block_sizes": [8]}], **options}
    run_everywhere(kernel, args, expected, reference_args=args, **options)


# -- tiles
# ----------------------------------------------------------------------------------------------------------------


def tile_functions(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([7, x.size(0)], dtype=torch.int32, device=x.device)
    for tile in hl.tile(4, x.size(0)):
        out[0, tile] = hl.tile_begin(tile) + 0 * hl.tile_index(tile)
        out[1, tile] = hl.tile_end(tile) + 0 * tile.index
        out[2, tile] = hl.tile_index(tile)
        out[3, tile] = hl.tile_block_size(tile) + 0 * tile.index
        out[4, tile] = hl.tile_id(tile) + 0 * tile.index
        out[5, tile] = hl.tile_count(tile) + 0 * tile.index
        out[6, tile] = hl.subscript(tile.index, [None, slice(None)]).sum(0)
    return out


def test_tile_functions():
    index = torch.arange(4, 23)
    number = (index - 4) // 8
    begin = 4 + 8 * number
    rows = [begin, (begin + 8).clamp(max=23), index, 0 * index + 8, number, 0 * index + 3, index]
    expected = torch.nn.functional.pad(torch.stack(rows), (4, 0)).int()
    everywhere(tile_functions, (torch.empty(23),), lambda x: expected)


def tunables(x: torch.Tensor) -> torch.Tensor:
    times = hl.register_tunable("times", PowerOfTwoFragment(1, 8, 2))
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] * times
    return out


def test_register_tunable():
    x = torch.randn(20)
    config = {"block_sizes": [8], "times": 4}
    kernel = helion.kernel(tunables, config=config)
    run_everywhere(kernel, (x,), lambda x: x * 4, configs=[config], capabilities=[80])


# -- memory
# ---------------------------------------------------------------------------------------------------------------


def masked_store(x: torch.Tensor) -> torch.Tensor:
    out = torch.full_like(x, -1.0)
    for tile in hl.tile(x.size(0)):
        keep = x[tile] > 0
        hl.store(out, [tile], hl.load(x, [tile], extra_mask=keep), extra_mask=keep)
    return out


def test_store_with_a_mask(seed):
    everywhere(masked_store, (torch.randn(21),), lambda x: torch.where(x > 0, x, -1.0))


def atomics(x: torch.Tensor, y: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    old = torch.zeros_like(targets)
    for tile in hl.tile(x.size(0)):
        old[0, tile] = hl.atomic_and(targets, [0, tile], x[tile])
        old[1, tile] = hl.atomic_or(targets, [1, tile], x[tile])
        old[2, tile] = hl.atomic_xor(targets, [2, tile], x[tile], sem="acq_rel")
        old[3, tile] = hl.atomic_max(targets, [3, tile], x[tile])
        old[4, tile] = hl.atomic_min(targets, [4, tile], x[tile])
        old[5, tile] = hl.atomic_xchg(targets, [5, tile], x[tile])
        old[6, tile] = hl.atomic_cas(targets, [6, tile], x[tile], y[tile])
        old[7, tile] = hl.atomic_add(targets, [7, tile], 3)
    return old, targets


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_atomics_and_their_old_values(dtype, seed):
    x, y = (torch.randint(-50, 50, (24,), dtype=dtype) for _ in range(2))
    targets = torch.randint(-50, 50, (8, 24), dtype=dtype)
    targets[6, ::2] = x[::2]

    def expected(x, y, t):
        swapped = torch.where(t[6] == x, y, t[6])
        rows = [t[0] & x, t[1] | x, t[2] ^ x, t[3].maximum(x), t[4].minimum(x), x, swapped, t[7] + 3]
        return t, torch.stack(rows)

    everywhere(atomics, (x, y, targets), expected)


def float_atomics(x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    old = torch.zeros_like(t)
    for tile in hl.tile(x.size(0)):
        old[0, tile] = hl.atomic_add(t, [0, tile], x[tile])
        old[1, tile] = hl.atomic_max(t, [1, tile], x[tile])
        old[2, tile] = hl.atomic_min(t, [2, tile], x[tile])
        old[3, tile] = hl.atomic_xchg(t, [3, tile], x[tile])
    return old, t


def test_atomics_of_floats(seed):
    x, t = torch.randn(21), torch.randn(4, 21)
    everywhere(float_atomics, (x, t), lambda x, t: (t, torch.stack([t[0] + x, t[1].maximum(x), t[2].minimum(x), x])))


def add_to_stack(like: torch.Tensor, addresses: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(like)
    for tile in hl.tile(like.size(0)):
        stack = hl.stacktensor_like(like, addresses[:])
        values = stack[tile]
        out[tile] = values.sum(dim=0)
        stack[tile] = values + 1
    return out


@pytest.mark.softgpu(capability=90, software_only=True)
@pytest.mark.parametrize("way", ["software GPU", "ref mode"])
@pytest.mark.compiles
def test_stacks_are_read_and_written(softgpu, seed, way):
    buffers = [torch.randn(21) for _ in range(3)]
    before = [b.clone() for b in buffers]
    kernel = helion.kernel(add_to_stack, config=SMALL)
    args = (buffers[0], torch.tensor([b.data_ptr() for b in buffers]))
    got = kernel(*args) if way == "software GPU" else kernel.bind(args).run_ref(*args)
    torch.testing.assert_close(got, sum(before))
    assert all(torch.equal(now, old + 1) for now, old in zip(buffers, before))


# -- values
# -----------------------------------------------------------------------------------------------------------------


def random_numbers(x: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    uniform = torch.empty([4, x.size(0)], device=x.device)
    whole = torch.empty([x.size(0)], dtype=torch.int32, device=x.device)
    bits = torch.empty([x.size(0)], dtype=torch.int32, device=x.device)
    for tile in hl.tile(x.size(0)):
        for i, value in enumerate(hl.rand4x([tile], seed)):
            uniform[i, tile] = value
        whole[tile] = hl.randint([tile], -5, 17, seed)
        bits[tile] = hl.philox_bits(seed, tile.index)
    return uniform, whole, bits


def test_random_numbers():
    at, seed = torch.arange(21), 2**40 + 7
    bits = philox_bits.eager_rule(seed, at)
    whole = (bits.long().abs() % 22 - 5).int()
    expected = (torch.stack(philox_rand4x.eager_rule(seed, at)), whole, philox_bits.eager_rule(seed, at.int()))
    everywhere(random_numbers, (torch.empty(21), seed), lambda x, s: expected)


def scans(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    sums, products = torch.empty_like(x), torch.empty_like(x)
    suffix, taken = torch.empty_like(x), torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        row = x[tile, :]
        sums[tile, :] = hl.cumsum(row, 1)
        products[tile, :] = hl.cumprod(row, 1)
        suffix[tile, :] = hl.cumsum(row, 1, reverse=True)
        place = (hl.iota(0, 11, 1, torch.int64) * 3 % 11)[None, :].expand_as(row)
        taken[tile, :] = hl.take_along_dim(row, place, 1)
    return sums, products, suffix, taken


def test_scans_and_take_along_dim():
    x = torch.randint(1, 3, (21, 11)).float()
    at = torch.arange(11) * 3 % 11
    everywhere(scans, (x,), lambda x: (x.cumsum(1), x.cumprod(1), x.flip(1).cumsum(1).flip(1), x[:, at]))


# -- escape hatches
# -----------------------------------------------------------------------------------------------------------


@triton.jit
def clipped_square(value, limit):
    return triton.language.minimum(value * value, limit)


def escapes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    asm, inline = torch.empty_like(x), torch.empty_like(x)
    function, source = torch.empty_like(x), torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        v = x[tile]
        asm[tile] = hl.inline_asm_elementwise("neg.f32 $0, $1;", "=f,f", [v], torch.float32, True, 1)
        inline[tile] = hl.inline_triton("twice = {v} + {v}\ntwice * {n}", {"v": v, "n": 3}, v)
        function[tile] = hl.triton_kernel(clipped_square, [v, 2.0], v)
        source[tile] = hl.triton_kernel("def plus_one(v):\n    return v + 1", [v], v)
    return asm, inline, function, source


@pytest.mark.softgpu(capability=90)
@pytest.mark.compiles
def test_escape_hatches_on_a_gpu(softgpu, seed):
    x = torch.randn(21)
    got = helion.kernel(escapes, config=SMALL)(x.to(softgpu.device))
    softgpu.synchronize()
    for value, expected in zip(got, (-x, 6 * x, (x * x).clamp(max=2), x + 1)):
        torch.testing.assert_close(value.cpu(), expected)


@pytest.mark.parametrize("call", [
    lambda v: hl.inline_asm_elementwise("neg.f32 $0, $1;", "=f,f", [v], torch.float32, True, 1),
    lambda v: hl.inline_triton("{0} + 1", [v], v),
    lambda v: hl.triton_kernel("def plus_one(v):\n    return v + 1", [v], v),
], ids=["inline_asm_elementwise", "inline_triton", "triton_kernel"])  # fmt: skip
@pytest.mark.parametrize("layer", ["tile executor", "ref mode"])
def test_escape_hatches_need_the_triton_backend(ref, call, layer):
    def kernel(x, call):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = call(x[tile])
        return out

    args = (torch.randn(21), call)
    with pytest.raises(exc.BackendUnsupported):
        helion.kernel(kernel, config=SMALL)(*args) if layer == "tile executor" else ref(kernel, *args)


def printing(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        value = x[tile] * 2
        hl.device_print("value", value)
        out[tile] = value
    return out


def test_device_print(capfd):
    x = torch.arange(3.0)
    kernel = helion.kernel(printing, config=SMALL)
    for run in (kernel, kernel.bind((x,)).run_ref):
        assert torch.equal(run(x), x * 2)
        assert "value" in capfd.readouterr().out
    assert "tl.device_print('value', value)" in kernel.bind((x,)).to_triton_code()


def printing_tiles(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        print(tile, tile.begin)
        print("moved", tile + 1)
        out[tile] = x[tile]
    return out


def test_a_tile_prints_the_same_in_both_modes(capfd):
    x = torch.arange(10.0)
    kernel = helion.kernel(printing_tiles, config=helion.Config(block_sizes=[8]))
    printed = []
    for run in (kernel.bind((x,)).compile_config(helion.Config(block_sizes=[8])), kernel.bind((x,)).run_ref):
        run(x)
        printed.append(capfd.readouterr().out)
    assert printed[0] == printed[1] == "tile[0:8] 0\nmoved tile[1:9]\ntile[8:10] 8\nmoved tile[9:11]\n"
    assert "tl.device_print('moved', 1 + offset_0, 1 + end_0)" in kernel.bind((x,)).to_triton_code()


def printing_what_is_known(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        value = x[tile, :]
        print("shape", value.shape, "of", value.dtype, value.sum())
        out[tile, :] = value
    return out


def test_texts_and_values_print_in_any_order(capfd):
    x = torch.ones(2, 5)
    kernel = helion.kernel(printing_what_is_known, config=helion.Config(block_sizes=[2]))
    kernel(x)
    assert capfd.readouterr().out == "shape 2 5\nof torch.float32 tensor(10.)\n"
    assert "tl.device_print('of torch.float32', sum_1)" in kernel.bind((x,)).to_triton_code()


def stopping(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        hl.breakpoint()
        out[tile] = x[tile]
    return out


def test_breakpoint_stops_in_ref_mode_and_is_an_error_on_a_gpu(ref, monkeypatch):
    stops = []
    monkeypatch.setattr(sys, "breakpointhook", lambda *a, **k: stops.append(1))
    x = torch.randn(21)
    assert torch.equal(ref(stopping, x, config={"block_sizes": [8]}), x) and len(stops) == 3
    monkeypatch.delenv("HELION_INTERPRET", raising=False)
    with pytest.raises(exc.BreakpointInDeviceLoopRequiresInterpret, match="cannot stop in a debugger"):
        helion.kernel(stopping, config=SMALL).bind((x,))


# -- programs that wait for each other
# ----------------------------------------------------------------------------------------------------------------


def running_sums(x: torch.Tensor, flags: torch.Tensor) -> torch.Tensor:
    """Each program adds its row to what the one before it has written."""
    out = torch.zeros([x.size(0) + 1, x.size(1)], dtype=x.dtype, device=x.device)
    for row in hl.grid(x.size(0)):
        hl.wait(flags, [row], 7)
        out[row + 1, :] = out[row, :] + x[row, :]
        hl.signal(flags, [row + 1], 7)
    return out


def all_at_once(x: torch.Tensor, flags: torch.Tensor) -> torch.Tensor:
    """Flags of a whole tile; the last tile is partial, and the flags past it are never given."""
    out = torch.zeros_like(x)
    for tile in hl.tile(x.size(0)):
        hl.signal(flags, [tile], tile.index, extra_mask=tile.index < 20)
        hl.wait(flags, [tile], tile.index, extra_mask=tile.index < 20)
        out[tile] = x[tile] + 1
    return out


def test_a_program_sees_what_was_written_before_the_signal_it_waits_for():
    x = torch.arange(60.0).reshape(5, 12)
    flags = torch.zeros(6, dtype=torch.int32)
    flags[0] = 7
    expected = torch.nn.functional.pad(x.cumsum(0), (0, 0, 1, 0))
    kernel, args = helion.kernel(running_sums, config=helion.Config()), (x, flags)
    options = {"reference_args": args, "error_scale": 0, "capabilities": [90], "configs": [{}]}
    run_everywhere(kernel, args, lambda x, flags: expected, **options)


def test_flags_of_a_tile_are_given_and_awaited_where_the_mask_says():
    x = torch.arange(23.0)
    everywhere(all_at_once, (x, torch.full((23,), -1)), lambda x, flags: x + 1)


def test_a_wait_that_no_tile_has_signalled_is_an_error_where_tiles_run_in_turn(ref):
    x, flags = torch.ones(3, 4), torch.zeros(4, dtype=torch.int32)
    with pytest.raises(exc.BackendUnsupported, match="none that has run has given the signal"):
        helion.kernel(running_sums)(x, flags)
    with pytest.raises(exc.BackendUnsupported, match="none that has run has given the signal"):
        ref(running_sums, x, flags)


def test_flags_are_integers_of_32_or_64_bits():
    with pytest.raises(exc.UnsupportedDtype, match="float32"):
        helion.kernel(running_sums)(torch.ones(3, 4), torch.ones(4))


def test_every_name_is_run_in_every_way():
    """Names of the language, and the tests that run kernels in every way (or say why not, here)."""
    everywhere = [
        p
        for p in Path(__file__).parents[1].rglob("*.py")
        if "run_everywhere" in p.read_text() or p.name == "kernels.py"
    ]
    text = "".join(p.read_text() for p in [*everywhere, Path(__file__)])
    types = {"StackTensor", "Tile"}  # what other names give
    inside = {"philox_rand", "philox_rand4x", "stack_load", "stack_store"}  # what other names call
    missing = [n for n in hl.__all__ if n not in types | inside and not re.search(rf"\bhl\.{n}\b", text)]
    assert not missing, missing
