"""`while`, `break` and `continue` on values of the device, in every mode."""

from __future__ import annotations

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

ONE = {"capabilities": [90]}


def collatz(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        n, steps = x[i], 0
        while n != 1:
            if n % 2 == 0:
                n = n // 2
            else:
                n = 3 * n + 1
            steps = steps + 1
        out[i] = steps
    return out


def test_while_carries_scalars() -> None:
    expected = torch.tensor([0, 1, 7, 2, 5, 8, 16, 3, 19])
    run_everywhere(collatz, (torch.arange(1, 10),), lambda x: expected, **ONE)


def halve_until_small(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        value = x[t]
        while (value > 1.0).sum() > 0:
            value = torch.where(value > 1.0, value * 0.5, value)
        out[t] = value
    return out


def test_while_carries_tiles_and_masks_what_is_past_the_end() -> None:
    x = torch.rand(21) * 50
    expected = torch.where(x > 1, x * 0.5 ** x.log2().ceil(), x)
    run_everywhere(halve_until_small, (x,), lambda x: expected.double(), **ONE)


def grouped_sum(x: torch.Tensor, locks: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    groups = out.size(0)
    for i in hl.grid(x.size(0)):
        while hl.atomic_cas(locks, [i % groups], 0, 1, sem="acquire") == 1:
            pass
        out[i % groups, :] = out[i % groups, :] + x[i, :]
        hl.atomic_xchg(locks, [i % groups], 0, sem="release")
    return out


def test_while_takes_a_lock() -> None:
    """The software GPU tells of races: without barriers at the lock this has one."""
    args = (torch.randn(20, 30), torch.zeros(4, dtype=torch.int32), torch.zeros(4, 30))
    run_everywhere(grouped_sum, args, lambda x, locks, out: x.reshape(5, 4, 30).sum(0), error_scale=4, **ONE)


def total_under_a_lock(x: torch.Tensor, lock: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    for t in hl.tile(x.size(0), block_size=4):
        part = x[t].sum()
        while hl.atomic_cas(lock, [0], 0, 1, sem="acquire") == 1:
            pass
        out[0] = out[0] + part
        out[1] = torch.maximum(out[1], part)
        hl.atomic_xchg(lock, [0], 0, sem="release")
    return out


def test_tiles_store_to_one_place_under_a_lock() -> None:
    """It was refused when compiled, with the advice to use an atomic, and ran in ref mode."""
    x = torch.randn(30)
    args = (x, torch.zeros(1, dtype=torch.int32), torch.zeros(2))
    parts = torch.stack([part.double().sum() for part in x.split(4)])
    expected = torch.stack([parts.sum(), parts.max().clamp(min=0)])
    run_everywhere(total_under_a_lock, args, lambda x, lock, out: expected, error_scale=8, **ONE)


def before_the_lock(x: torch.Tensor, lock: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    for i in hl.grid(x.size(0)):
        out[0] = out[0] + x[i]
        while hl.atomic_cas(lock, [0], 0, 1, sem="acquire") == 1:
            pass
        hl.atomic_xchg(lock, [0], 0, sem="release")
    return out


def with_a_relaxed_lock(x: torch.Tensor, lock: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    for i in hl.grid(x.size(0)):
        while hl.atomic_cas(lock, [0], 0, 1) == 1:
            pass
        out[0] = out[0] + x[i]
        hl.atomic_xchg(lock, [0], 0)
    return out


@pytest.mark.parametrize("mode", list(helion.RefMode))
@pytest.mark.parametrize("fn", [before_the_lock, with_a_relaxed_lock])
def test_stores_that_no_lock_guards_are_refused_in_every_mode(fn, mode: helion.RefMode) -> None:
    args = (torch.randn(20), torch.zeros(1, dtype=torch.int32), torch.zeros(2))
    with pytest.raises(exc.LoopDependencyError, match="every tile of loop 'i' stores to the same elements"):
        helion.kernel(fn, ref_mode=mode)(*args)


def linked_list(start: torch.Tensor, following: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([start.size(0)], dtype=x.dtype, device=x.device)
    for i in hl.grid(start.size(0)):
        place, total = start[i], hl.zeros([])
        while place >= 0:
            total = total + x[place]
            place = following[place]
        out[i] = total
    return out


def test_while_that_reads_memory() -> None:
    start, following, x = torch.tensor([3, 0, 5]), torch.tensor([2, -1, 4, 1, -1, -1]), torch.randn(6)

    def reference(start, following, x):
        return torch.stack([x[3] + x[1], x[0] + x[2] + x[4], x[5]])

    run_everywhere(linked_list, (start, following, x), reference, error_scale=4, **ONE)


def probe(keys: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(wanted)
    for t in hl.tile(wanted.size(0)):
        slot = wanted[t] % 64
        active = keys[slot] != wanted[t]
        while active.any():
            slot = torch.where(active, (slot + 1) % 64, slot)
            active = keys[slot] != wanted[t]
        out[t] = slot
    return out


def test_while_that_gathers_by_what_it_carries() -> None:
    """A pass of Triton's asserted where the condition was carried before the tiles."""
    keys, wanted = torch.arange(64, dtype=torch.int32).flip(0), torch.randint(0, 64, (100,), dtype=torch.int32)
    configs = [{"block_sizes": [32], "num_warps": 1}, {"block_sizes": [128], "num_warps": 4}]
    run_everywhere(probe, (keys, wanted), lambda keys, wanted: 63 - wanted, configs=configs, **ONE)


def bits(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        n, count = x[i], 0
        while True:
            if n == 0:
                break
            count += n & 1
            n = n >> 1
        out[i] = count
    return out


def test_while_true_ends_by_break() -> None:
    x = torch.randint(0, 1 << 20, (9,))
    run_everywhere(bits, (x,), lambda x: torch.tensor([int(v).bit_count() for v in x]), **ONE)


def until_large(x: torch.Tensor, limit: float) -> torch.Tensor:
    out = torch.zeros([x.size(0)], dtype=x.dtype, device=x.device)
    for i in hl.grid(x.size(0)):
        total = hl.zeros([])
        for j in hl.grid(x.size(1)):
            if x[i, j] < 0:
                continue
            if x[i, j] > limit:
                break
            total = total + x[i, j]
            out[i] = total
    return out


def until_large_reference(x: torch.Tensor, limit: float) -> torch.Tensor:
    def row(values: list[float]) -> float:
        total = 0.0
        for value in values:
            if value > limit:
                break
            total += max(value, 0.0)
        return total

    return torch.tensor(list(map(row, x.tolist())), dtype=x.dtype)


def test_break_and_continue_of_a_device_loop() -> None:
    run_everywhere(until_large, (torch.randn(6, 12), 1.2), until_large_reference, error_scale=4, **ONE)


def selected_rows(x: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    out = torch.full_like(x, -1.0)
    for i in hl.grid(x.size(0)):
        if wanted[i] == 0:
            continue
        out[i, :] = x[i, :]
    return out


def test_continue_of_a_top_level_loop() -> None:
    x, wanted = torch.randn(8, 5), torch.tensor([1, 0, 0, 1, 1, 0, 1, 0])
    run_everywhere(selected_rows, (x, wanted), lambda x, w: torch.where(w[:, None] > 0, x, -1.0), **ONE)


def first_match(values: torch.Tensor, i: int) -> torch.Tensor:
    found = hl.full([], -1, dtype=torch.int64)
    for j in hl.grid(values.size(1)):
        if values[i, j] > 0:
            found = j + 0 * found
            break
    return found


def find_positive(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=torch.int64, device=x.device)
    for i in hl.grid(x.size(0)):
        out[i] = first_match(x, i)
    return out


def test_break_in_a_helper() -> None:
    x = torch.tensor([[-1.0, 2.0, 3.0], [-1.0, -1.0, -1.0], [4.0, -1.0, 1.0]])
    run_everywhere(find_positive, (x,), lambda x: torch.tensor([1, -1, 0]), **ONE)


def unrolled(x: torch.Tensor, flags: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        total = x[t]
        for j in range(10):
            if j == 4:
                break  # decided while tracing
            if flags[j] > 0:
                continue
            total = total + j
        out[t] = total
    return out


def test_jumps_of_an_unrolled_loop() -> None:
    flags = torch.tensor([0, 1, 0, 0, 0])
    run_everywhere(unrolled, (torch.randn(20), flags), lambda x, flags: x + 5, error_scale=4, **ONE)


def nested(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        n = x[i]
        count = 0
        while n > 0:
            rest = n
            while rest > 1:
                if rest == 5:
                    break
                rest = rest - 2
                count = count + 1
            n = n - 1
        out[i] = count
    return out


def test_break_leaves_the_inner_loop_only() -> None:
    def steps(n: int) -> int:
        count = 0
        for start in range(n, 0, -1):
            rest = start
            while rest > 1 and rest != 5:
                rest, count = rest - 2, count + 1
        return count

    x = torch.arange(9)
    run_everywhere(nested, (x,), lambda x: torch.tensor([steps(int(n)) for n in x]), **ONE)


def last_tile_first(x: torch.Tensor) -> torch.Tensor:
    for t in hl.tile(x.size(0)):
        x[t] = 0
        break
    return x


def test_break_of_a_top_level_loop_is_an_error() -> None:
    with pytest.raises(exc.StatementNotSupported, match="top-level loop"):
        helion.kernel(last_tile_first)(torch.ones(8))


def with_else(x: torch.Tensor) -> torch.Tensor:
    for i in hl.grid(x.size(0)):
        n = x[i]
        while n > 0:
            n = n - 1
        else:
            x[i] = n
    return x


def test_else_of_a_while_on_the_device_is_an_error() -> None:
    with pytest.raises(exc.StatementNotSupported, match="`else` on a `while`"):
        helion.kernel(with_else)(torch.ones(8))


def waits_for_ever(flags: torch.Tensor) -> torch.Tensor:
    for i in hl.grid(flags.size(0)):
        while hl.atomic_add(flags, [i], 0) == 0:
            pass
    return flags


def test_waiting_for_a_tile_that_has_not_run_is_an_error_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helion.runtime.eager.tile_program._IDLE_ITERATIONS", 100)
    with pytest.raises(exc.InvalidAPIUsage, match="changed nothing"):
        helion.kernel(waits_for_ever)(torch.zeros(2, dtype=torch.int32))


def grows(x: torch.Tensor) -> torch.Tensor:
    for i in hl.grid(x.size(0)):
        n = x[i].to(torch.int32)
        while n > 0:
            n = n - 0.5
        x[i] = n
    return x


def test_what_a_while_carries_keeps_its_dtype() -> None:
    with pytest.raises(exc.ControlFlowTensorMismatch, match="'n'"):
        helion.kernel(grows)(torch.ones(8))


def until_nothing_changes(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    for i in hl.grid(x.size(0)):
        changed = 1
        while changed > 0:
            changed = 0
            for t in hl.tile(x.size(1)):
                more = x[i, t] > out[i, t]
                out[i, t] = out[i, t] + more.to(x.dtype)
                changed += more.sum()
    return out


def test_a_round_whose_test_is_known_has_the_block_sizes_of_the_others() -> None:
    """The first round, which is traced apart, wanted a block size of its own for the same written loop."""
    x = torch.randint(0, 5, (3, 10))
    run_everywhere(until_nothing_changes, (x,), lambda x: x, configs=[{"block_sizes": [4]}], **ONE)


def test_a_while_that_is_unrolled_has_an_end() -> None:
    @helion.kernel(config=helion.Config(block_sizes=[4]))
    def rounds(x: torch.Tensor, n: int) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            v, k = x[t], 0
            while k < n:
                v, k = v * 2, k + 1
            out[t] = v
        return out

    x = torch.ones(5)
    torch.testing.assert_close(rounds(x, 3), x * 8)
    with pytest.raises(exc.InvalidAPIUsage, match=r"more than 1000 times(?s:.)*for i in hl\.grid\(n\)"):
        rounds(x, 20000)


def until_larger(x: torch.Tensor, xs: list[torch.Tensor]) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        acc = x[t]
        for i in range(5):
            if i == 2:
                break
            acc = acc + 1
        for y in xs:
            if y.size(0) == 4:
                break
        for j in range(5):
            if x[0] < 1 + j:
                break
        out[t] = acc + i * 100 + y[0] + j * 1000
    return out


def test_the_variable_of_an_unrolled_loop_behind_its_break() -> None:
    args = torch.full((9,), 2.5), [torch.full((n,), float(n)) for n in (3, 4, 5)]
    run_everywhere(until_larger, args, lambda x, xs: x + 2206, capabilities=[90])


def test_the_variable_of_a_device_loop_is_not_read_behind_it() -> None:
    @helion.kernel(config=helion.Config(block_sizes=[4]))
    def last(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            i = 7
            for i in hl.grid(5):
                pass
            out[t] = x[t] + i
        return out

    with pytest.raises(exc.UndefinedVariable, match="`last = i` in it"):
        last(torch.zeros(5))
