"""Atomics, and programs that order each other through global memory."""

from __future__ import annotations

import contextlib

import pytest
import torch

from tests import softgpu as gpu
from tests.softgpu import kernels

pytestmark = pytest.mark.compiles

ALL = pytest.mark.softgpu(capability=[80, 90, 100])


@ALL
def test_integer_atomics_of_colliding_programs(softgpu):
    torch.manual_seed(1)
    x = torch.randint(0, 1000, (1000,), dtype=torch.int32, device=softgpu.device)
    key = (x % 16).long()
    start = torch.tensor([0, 0, 10000, 0, -1, 0], dtype=torch.int32, device=softgpu.device).repeat_interleave(16)
    out = start.clone()
    kernels.integer_atomics[(4,)](x, out, 1000, BLOCK=256)
    expected = start.view(6, 16).clone()
    expected[0].scatter_add_(0, key, x)
    expected[1].scatter_reduce_(0, key, x, "amax")
    expected[2].scatter_reduce_(0, key, x, "amin")
    for k, v in zip(key.tolist(), x.tolist()):
        expected[3, k] ^= v
        expected[4, k] &= v
        expected[5, k] |= v
    assert torch.equal(out.view(6, 16), expected)


@ALL
@pytest.mark.parametrize(
    "dtype,tolerance", [(torch.float32, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float64, 1e-14)]
)
def test_float_atomic_add(softgpu, dtype, tolerance):
    torch.manual_seed(2)
    x = torch.rand(500).to(dtype).to(softgpu.device)
    key = torch.randint(0, 64, (500,), dtype=torch.int32, device=softgpu.device)
    out = torch.zeros(64, dtype=dtype, device=softgpu.device)
    kernels.float_atomic_add[(2,)](x, key, out, 500, BLOCK=256)
    expected = torch.zeros(64, dtype=torch.float64, device=softgpu.device).scatter_add_(0, key.long(), x.double())
    torch.testing.assert_close(out.double(), expected, rtol=tolerance * 8, atol=tolerance)


def test_the_last_of_an_odd_number_of_bfloat16s_is_added_to_within_its_word(softgpu):
    gpu.install(80)
    x, key = torch.ones(4, dtype=torch.bfloat16), torch.full([4], 44, dtype=torch.int32)
    for dtype in (torch.bfloat16, torch.float16):
        out = torch.zeros(45, dtype=dtype)
        kernels.float_atomic_add[(1,)](x.to(dtype), key, out, 4, BLOCK=16)
        assert out[44] == 4 and not out[:44].any()


@ALL
def test_exchange_gives_the_old_value_and_cas_lets_one_win(softgpu):
    x = torch.arange(128, dtype=torch.int32, device=softgpu.device)
    swapped = x * 10
    old = torch.zeros_like(x)
    taken = torch.zeros(2, dtype=torch.int32, device=softgpu.device)
    kernels.exchange_and_cas[(1,)](x, swapped, old, taken)
    assert torch.equal(old, x * 10) and torch.equal(swapped, x)
    kernels.exchange_and_cas[(9,)](x, swapped, old, taken)
    assert taken[0] == 1 and taken[1] in (2, 4, 6, 8)


@ALL
def test_a_lock_keeps_programs_apart(softgpu):
    lock, counter = (torch.zeros(1, dtype=torch.int32, device=softgpu.device) for _ in range(2))
    kernels.ticket_lock[(50,)](lock, counter)
    assert counter.item() == 50 and lock.item() == 0


@ALL
@pytest.mark.parametrize("programs", [1, 2, 100])
def test_a_grid_barrier_orders_what_programs_write(softgpu, programs):
    counts = torch.zeros(programs, dtype=torch.int32, device=softgpu.device)
    kernels.rounds_of_neighbours[(programs,)](counts, ROUNDS=4, launch_cooperative_grid=True)
    assert counts.tolist() == [2**4 - 1] * programs


@pytest.mark.softgpu(capability=90, software_only=True)
def test_a_grid_barrier_in_an_ordinary_launch_is_a_null_pointer(softgpu):
    counts = torch.zeros(2, dtype=torch.int32)
    with pytest.raises(RuntimeError):
        kernels.rounds_of_neighbours[(2,)](counts, ROUNDS=1)
    (fault,) = gpu.faults()
    assert fault.kind == "out_of_bounds"


@pytest.mark.softgpu(capability=90, software_only=True)
def test_a_cooperative_launch_must_fit(softgpu):
    counts = torch.zeros(1, dtype=torch.int32)
    for programs, fits in ((132 * 8, True), (132 * 8 + 1, False)):  # 2048 threads a multiprocessor
        with (
            contextlib.nullcontext()
            if fits
            else pytest.raises(RuntimeError, match="too many blocks in cooperative launch")
        ):
            kernels.nothing[(programs,)](counts, num_warps=8, launch_cooperative_grid=True)


@ALL
def test_the_last_program_sees_what_all_others_stored(softgpu):
    torch.manual_seed(3)
    x = torch.randn(16 * 64, device=softgpu.device)
    partial, out = torch.zeros(16, device=softgpu.device), torch.zeros(1, device=softgpu.device)
    done = torch.zeros(1, dtype=torch.int32, device=softgpu.device)
    kernels.last_program_sums[(16,)](x, partial, done, out, BLOCK=64, PROGRAMS=16)
    torch.testing.assert_close(out.double(), x.double().sum()[None], rtol=1e-5, atol=1e-5)
