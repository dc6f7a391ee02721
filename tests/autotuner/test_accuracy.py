"""The accuracy check and the choice of the winner."""

from __future__ import annotations

import math
import random

import pytest
import torch
from autotune_landscapes import LANDSCAPES

from helion.autotuner import accuracy
from helion.autotuner.accuracy import Outcome
from helion.autotuner.accuracy import Tolerance
from helion.autotuner.accuracy import clone_args
from helion.autotuner.accuracy import mismatch
from helion.autotuner.accuracy import run_for_result
from helion.autotuner.measure import Effort
from helion.autotuner.measure import Timing
from helion.autotuner.measure import time_call
from helion.autotuner.trial import Status
from helion.autotuner.trial import Trial
from helion.autotuner.winner import choose
from helion.autotuner.winner import clearly_slower
from helion.autotuner.winner import leaders
from helion.config import Config

EXACT = Tolerance()


def differs(want: torch.Tensor, got: torch.Tensor, tolerance: Tolerance = EXACT) -> str | None:
    return mismatch(Outcome({"result": want}), Outcome({"result": got}), (), tolerance)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_another_order_of_additions_passes_and_a_wrong_result_does_not(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(5)
    a = torch.randn(64, 512, generator=generator, dtype=torch.float64)
    exact = a.sum(1)
    if dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        exact = exact / 10
    order = torch.randperm(512, generator=generator)
    compute = torch.float64 if dtype is torch.float64 else torch.float32
    other = a[:, order].to(compute).view(64, 16, 32).sum(2).sum(1) / (
        10 if dtype in (torch.float8_e4m3fn, torch.float8_e5m2) else 1
    )
    assert differs(exact.to(dtype), other.to(dtype)) is None
    wrong = exact.clone()
    wrong[7] += 100
    problem = differs(exact.to(dtype), wrong.to(dtype))
    assert problem is not None and "1 of 64 elements" in problem


def test_cancellation_is_judged_by_the_size_of_what_was_summed() -> None:
    want = torch.tensor([1000.0, -1000.0, 1e-5])
    assert differs(want, want + 1e-4) is None
    assert differs(want, want + 1e-4, Tolerance(atol=1e-6, rtol=1e-6)) is not None


def test_nan_and_inf_must_be_where_they_are_expected() -> None:
    want = torch.tensor([math.nan, math.inf, -math.inf, 1.0])
    assert differs(want, want.clone()) is None
    for i in range(4):
        got = want.clone()
        got[i] = 2.5
        assert differs(want, got) is not None
    got = torch.full((4,), math.nan)
    assert "3 of 4" in str(differs(want, got))


def test_integers_bools_shapes_and_types_are_exact() -> None:
    want = torch.arange(5)
    assert differs(want, want.clone()) is None
    assert "1 of 5" in str(differs(want, torch.tensor([0, 1, 2, 3, 5])))
    assert differs(want, want.int()) is not None
    assert differs(want, want[:4]) is not None
    assert differs(want > 2, want > 1) is not None
    assert differs(torch.empty(0), torch.empty(0)) is None


def test_a_missing_or_additional_result_is_a_difference() -> None:
    assert "returns" in str(mismatch(Outcome({"result[0]": torch.ones(1)}), Outcome({}), (), EXACT))


def test_results_are_what_is_returned_and_what_is_written() -> None:
    x = torch.zeros(3)
    result = run_for_result(lambda v: (v.add_(1), {"sum": v.sum()}), (x,))
    assert set(result.tensors) == {"result[0]", "result[1]['sum']", "argument[0]"}
    assert result.tensors["argument[0]"].eq(1).all() and x.eq(0).all()


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bool,
        torch.uint8,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float32,
        torch.float64,
        torch.complex64,
        torch.complex128,
    ],
)
def test_an_argument_left_alone_is_known_by_its_bits_and_not_kept(dtype: torch.dtype) -> None:
    x = torch.tensor([[0, 1, 0], [1, 1, 0]]).to(dtype).t()
    if dtype.is_floating_point:
        x[0, 0] = math.nan
    kept = run_for_result(lambda v: v.clone(), (x,))
    assert kept.unchanged == {"argument[0]"} and set(kept.tensors) == {"result"}
    changed = run_for_result(lambda v: (v[2:].copy_(v[1:2].clone()), None)[1], (x,))
    assert set(changed.tensors) == {"argument[0]"}


def test_a_candidate_that_changes_what_the_baseline_leaves_alone_is_wrong_and_the_other_way_round() -> None:
    x = torch.zeros(3)
    leaves, writes = (run_for_result(lambda v, by=by: (v.add_(by), None)[1], (x,)) for by in (0.0, 1.0))
    assert "3 of 3" in str(mismatch(leaves, writes, (x,), EXACT))
    assert "3 of 3" in str(mismatch(writes, leaves, (x,), EXACT))
    assert mismatch(leaves, leaves, (x,), EXACT) is None


def test_large_results_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "CHUNK", 7)
    want = torch.arange(24.0).view(4, 6).t()
    got = want.clone()
    assert differs(want, got) is None
    got[1, 2] += 100
    got[5, 3] = math.nan
    assert "2 of 24 elements differ, by up to inf" in str(differs(want, got))


def test_copies_keep_strides_and_shared_memory() -> None:
    base = torch.arange(24.0)
    view, transposed, overlapping = base[4:], base.view(4, 6).t(), torch.ones(1).expand(5)
    a, b, c, flag = clone_args((view, transposed, overlapping, "x"))
    assert a.data_ptr() != view.data_ptr() and flag == "x"
    assert b.stride() == transposed.stride() and c.stride() == (0,)
    a[0] = -1
    assert b.t().reshape(-1)[4] == -1 and base[4] == 4


def test_copies_of_arguments_that_need_gradients_can_be_written() -> None:
    (copy,) = clone_args((torch.ones(2, requires_grad=True),))
    copy += 1
    assert copy.eq(2).all()


# -- timing --------------------------------------------------------------------------------------------


def test_samples_follow_the_effort() -> None:
    assert Effort(total_ms=10, least=5, most=400).count(1.0) == 10
    assert Effort(total_ms=10, least=5, most=400).count(1e-9) == 400
    assert Effort(total_ms=10, least=5, most=400).count(100.0) == 5
    assert Effort(total_ms=10, least=5, most=400, give_up_ms=0.5).count(1.0) == 5


def test_a_callable_is_called_and_timed() -> None:
    calls: list[int] = []
    timing = time_call(lambda: calls.append(1), torch.device("cpu"), Effort(total_ms=1.0))
    assert len(calls) > len(timing.samples) >= 5
    assert 0 < timing.median < 1000 and timing.spread >= 0


def test_the_spread_ignores_a_single_interruption() -> None:
    assert Timing((1.0,) * 20 + (50.0,)).spread < 0.01
    assert Timing((1.0, 1.1) * 10).spread == pytest.approx(0.05, rel=0.2)


# -- the winner -----------------------------------------------------------------------------------------

SPACE = LANDSCAPES[2].space()


def trials(times: dict[int, float], spread: float = 0.01) -> list[Trial]:
    return [Trial(SPACE.spec.normalize({"num_warps": w}), Status.OK, ms, spread) for w, ms in times.items()]


def test_leaders_are_the_fast_ones_and_noise_widens_the_circle() -> None:
    times = {1: 1.0, 2: 1.05, 8: 1.2, 16: 3.0}
    assert [t.config["num_warps"] for t in leaders(trials(times))] == [1, 2]
    assert [t.config["num_warps"] for t in leaders(trials(times, spread=0.1))] == [1, 2, 8]
    assert leaders([Trial(Config(), Status.CRASH)]) == []


def test_of_two_that_cannot_be_told_apart_the_one_nearest_to_the_default_wins() -> None:
    rng = random.Random(11)
    candidates = trials({4: 1.01, 16: 1.0})  # 4 is the default
    winner, _, _ = choose(candidates, lambda c: rng.uniform(0.97, 1.03), SPACE)
    assert winner["num_warps"] == 4


def test_a_clear_difference_decides_however_far_from_the_default() -> None:
    rng = random.Random(12)
    candidates = trials({4: 1.0, 16: 1.03})
    winner, ms, _ = choose(
        candidates, lambda c: (0.9 if c["num_warps"] == 16 else 1.0) * rng.uniform(0.99, 1.01), SPACE
    )
    assert winner["num_warps"] == 16 and ms == pytest.approx(0.9, rel=0.02)


def test_drift_that_hits_all_alike_does_not_decide() -> None:
    clock = iter(range(1000))
    candidates = trials({4: 1.0, 16: 1.0})
    winner, _, times = choose(
        candidates, lambda c: (0.95 if c["num_warps"] == 16 else 1.0) * (1 + 0.05 * next(clock)), SPACE
    )
    assert winner["num_warps"] == 16
    assert {len(v) for v in times.values()} <= {3, 4, 5, 6, 7}


def test_clearly_slower_ones_are_not_measured_to_the_end() -> None:
    candidates = trials({1: 1.0, 2: 1.05, 4: 1.08})
    _, _, times = choose(candidates, lambda c: {1: 1.0, 2: 1.001, 4: 2.0}[c["num_warps"]], SPACE)
    counts = {c["num_warps"]: len(v) for c, v in times.items()}
    assert counts[4] == 3 and counts[1] == counts[2] == 7


def test_a_leader_that_fails_now_is_out_and_if_all_fail_the_first_stays() -> None:
    candidates = trials({1: 1.0, 2: 1.05})
    winner, _, _ = choose(candidates, lambda c: None if c["num_warps"] == 1 else 1.05, SPACE)
    assert winner["num_warps"] == 2
    winner, ms, _ = choose(candidates, lambda c: None, SPACE)
    assert winner["num_warps"] == 1 and ms == 1.0


def test_one_interrupted_round_does_not_hide_a_difference() -> None:
    assert clearly_slower([1.1, 1.1, 9.0, 1.1, 1.1], [1.0] * 5)
    assert not clearly_slower([1.0, 1.0, 9.0, 1.0, 1.0], [1.0] * 5)
