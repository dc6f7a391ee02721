"""Atomics in ref mode: results, returned old values, repeated places, masks, dtypes."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.language.atomics import ATOMIC_DTYPES
from tests.support import run_everywhere

PYTHON = {
    "atomic_add": lambda old, v: old + v,
    "atomic_and": lambda old, v: old & v,
    "atomic_or": lambda old, v: old | v,
    "atomic_xor": lambda old, v: old ^ v,
    "atomic_max": max,
    "atomic_min": min,
    "atomic_xchg": lambda old, v: v,
}


CASES = [
    (name, dtype)
    for name in PYTHON
    for dtype in (torch.int32, torch.int64, torch.uint32, torch.float32, torch.float64)
    if dtype in ATOMIC_DTYPES[name]
]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_repeated_places_are_updated_one_after_the_other(ref, blocks, rng, name, dtype):
    op = getattr(hl, name)

    def kernel(target, index, values, old):
        for t in hl.tile(index.size(0)):
            old[t] = op(target, [index[t]], values[t])
        return old

    start = torch.randint(0, 100, (7,), generator=rng)
    index, values = torch.randint(0, 7, (40,), generator=rng), torch.randint(0, 100, (40,), generator=rng)
    target, old = start.to(dtype, copy=True), torch.zeros(40, dtype=dtype)
    ref(kernel, target, index, values.to(dtype), old, config=blocks)

    state, expected_old = start.tolist(), []
    for i, v in zip(index.tolist(), values.tolist(), strict=True):
        expected_old.append(state[i])
        state[i] = PYTHON[name](state[i], v)
    assert target.tolist() == state
    assert old.tolist() == expected_old


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32])
def test_compare_and_swap_lets_the_first_one_win(ref, dtype):
    def kernel(target, index, expected, values, old):
        for t in hl.tile(index.size(0)):
            old[t] = hl.atomic_cas(target, [index[t]], expected[t], values[t], sem="acq_rel")
        return old

    target = torch.tensor([0, 5]).to(dtype)
    index = torch.tensor([0, 0, 1, 1])
    expected, values = torch.tensor([0, 0, 4, 5]).to(dtype), torch.tensor([1, 2, 3, 4]).to(dtype)
    old = ref(kernel, target, index, expected, values, torch.empty(4, dtype=dtype))
    assert target.tolist() == [1, 4] and old.tolist() == [0, 1, 5, 5]


def swap_all(target: torch.Tensor, index: torch.Tensor, expected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    old = torch.empty_like(expected)
    for t in hl.tile(index.size(0)):
        old[t] = hl.atomic_cas(target, [index[t]], expected[t], 7)
    return target, old


def swap_some(target: torch.Tensor, index: torch.Tensor, expected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    old = torch.empty([index.size(0), 3], dtype=expected.dtype, device=index.device)
    for t, u in hl.tile([index.size(0), 3]):
        mask = (expected[t] != 4)[:, None] & (u.index != 1)[None, :]
        old[t, u] = hl.atomic_cas(target, [index[t][:, None] * 3 + u.index], expected[t][:, None], 7, extra_mask=mask)
    return target, old


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32])
def test_compare_and_swap_takes_partial_tiles(dtype):
    """Those of any Config; lanes outside change nothing, the first element included."""
    index = torch.tensor([8, 7, 6, 5, 4, 3, 2, 1, 0])
    target, expected = torch.tensor([-1, 1, 2, 3, 4, 5, 6, 7, 0]).to(dtype), torch.tensor([0, 3] * 4 + [3]).to(dtype)

    def reference(target, index, expected):
        target, old = target.clone(), target[index]
        target[index] = torch.where(old == expected, 7, old)
        return target, old

    run_everywhere(
        swap_all,
        (target, index, expected),
        reference,
        configs=[{"block_sizes": [b]} for b in (1, 4, 16)],
        error_scale=0,
    )


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32])
def test_compare_and_swap_takes_masks(dtype):
    index = torch.tensor([4, 3, 2, 1, 0])
    target, expected = (torch.arange(15) // 3).to(dtype), torch.tensor([4, 0, 2, 1, 0]).to(dtype)

    def reference(target, index, expected):
        target, places = target.clone(), index[:, None] * 3 + torch.arange(3)
        mask = (expected != 4)[:, None] & (torch.arange(3) != 1)
        old = torch.where(mask, target[places], 0)
        target[places] = torch.where(mask & (old == expected[:, None]), 7, target[places])
        return target, old

    run_everywhere(swap_some, (target, index, expected), reference, configs=[{"block_sizes": [2, 4]}], error_scale=0)


def test_compare_and_swap_compares_bits(ref):
    def kernel(target):
        for _ in hl.grid(1):
            hl.atomic_cas(target, [0], 0.0, 1.0)
        return target

    assert ref(kernel, torch.tensor([-0.0])).item() == 0.0
    assert ref(kernel, torch.tensor([0.0])).item() == 1.0


def test_tiles_and_scalars_index_the_target(ref, blocks, rng):
    def kernel(x, out):
        for tm, tn in hl.tile(list(x.shape)):
            hl.atomic_add(out, [0, tn], x[tm, tn].sum(0))
            hl.atomic_add(out, [1, tn], 1)
        return out

    x = torch.randn(20, 11, generator=rng, dtype=torch.float64)
    got = ref(kernel, x, torch.zeros(2, 11, dtype=torch.float64), config=blocks)
    torch.testing.assert_close(got[0], x.sum(0))
    assert got[1].min() == got[1].max() >= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_atomic_add_takes_16_bit_floats(ref, dtype):
    def kernel(out):
        for t in hl.tile(8):
            hl.atomic_add(out, [t.index * 0], torch.full([t], 0.5))
        return out

    assert ref(kernel, torch.zeros(1, dtype=dtype)).item() == 4.0


def test_masked_elements_are_left_alone_and_give_zero(ref):
    def kernel(x, index, old):
        for t in hl.tile(index.size(0)):
            old[t] = hl.atomic_add(x, [index[t]], 10, extra_mask=index[t] < 3)
        return old

    x = torch.tensor([1, 2, 3])
    old = ref(kernel, x, torch.tensor([0, 99, 2]), torch.empty(3, dtype=torch.int64))
    assert x.tolist() == [11, 2, 13] and old.tolist() == [1, 0, 3]


def test_unsigned_maxima_compare_as_unsigned(ref):
    def kernel(x):
        for _ in hl.grid(1):
            hl.atomic_max(x, [0], 7)
            hl.atomic_min(x, [1], 7)
        return x

    x = torch.tensor([2**32 - 1, 2**32 - 1]).to(torch.uint32)
    assert ref(kernel, x).tolist() == [2**32 - 1, 7]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("atomic_and", torch.float32),
        ("atomic_max", torch.float16),
        ("atomic_add", torch.int8),
        ("atomic_cas", torch.bool),
    ],
)
def test_dtypes_without_the_atomic_are_an_error_that_lists_the_others(ref, name, dtype):
    def kernel(x):
        for _ in hl.grid(1):
            getattr(hl, name)(x, [0], *([1] * (2 if name == "atomic_cas" else 1)))
        return x

    with pytest.raises(exc.UnsupportedDtype, match=f"hl.{name}"):
        ref(kernel, torch.zeros(1, dtype=dtype))


def test_an_atomic_on_a_device_value_is_an_error(ref):
    def kernel(x):
        for t in hl.tile(4):
            hl.atomic_add(hl.zeros([t]), [0], 1)
        return x

    with pytest.raises(exc.AtomicOnDeviceTensor, match="needs a host tensor"):
        ref(kernel, torch.zeros(4))


def test_an_unknown_memory_order_is_an_error(ref):
    def kernel(x):
        for t in hl.tile(4):
            hl.atomic_add(x, [t], 1, sem="eventually")
        return x

    with pytest.raises(exc.InvalidAPIUsage, match="memory order 'eventually'"):
        ref(kernel, torch.zeros(4))


def counted_under_a_lock(total: torch.Tensor, lock: torch.Tensor, n: int) -> torch.Tensor:
    for _ in hl.grid(n):
        while hl.atomic_cas(lock, [0], 0, 1) == 1:
            pass
        total[0] = total[0] + 1
        hl.atomic_xchg(lock, [0], 0)
    return total


def counted_as_it_says(total: torch.Tensor, lock: torch.Tensor, n: int) -> torch.Tensor:
    for _ in hl.grid(n):
        while hl.atomic_cas(lock, [0], 0, 1, sem="acquire") == 1:
            pass
        total[0] = total[0] + 1
        hl.atomic_xchg(lock, [0], 0, sem="release")
    return total


def test_a_lock_that_does_not_say_so() -> None:
    """The advice was to use hl.barrier."""
    args = (torch.zeros(1), torch.zeros(1, dtype=torch.int32), 8)
    with pytest.raises(exc.LoopDependencyError, match='say so, sem="acquire"'):
        helion.kernel(counted_under_a_lock)(*args)
    assert helion.kernel(counted_as_it_says)(*args).item() == 8
