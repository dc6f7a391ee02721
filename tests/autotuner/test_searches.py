"""The searches, on synthetic landscapes."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable

import pytest
import torch
from autotune_landscapes import LANDSCAPES

from helion import exc
from helion.autotuner import gaussian
from helion.autotuner import surrogate
from helion.autotuner.evolution import DifferentialEvolutionStrategy
from helion.autotuner.gaussian import LevelProcess
from helion.autotuner.gaussian import _Likelihood
from helion.autotuner.lfbo import LFBOPatternStrategy
from helion.autotuner.model import ModelStrategy
from helion.autotuner.pattern import PatternStrategy
from helion.autotuner.space import SearchSpace
from helion.autotuner.strategy import FiniteStrategy
from helion.autotuner.strategy import RandomStrategy
from helion.autotuner.strategy import Strategy
from helion.autotuner.trial import Status
from helion.autotuner.trial import Trial
from helion.config import Config
from helion.config_spec import ConfigSpec
from helion.fragments import PowerOfTwoFragment

ALL = [RandomStrategy, PatternStrategy, DifferentialEvolutionStrategy, LFBOPatternStrategy, ModelStrategy]
SOFTMAX = LANDSCAPES[2]


def drive(search: Strategy, measure: Callable[[Config], Trial], evaluations: int, batch: int = 4) -> list[Config]:
    """Ask and tell until the search ends or the budget is spent; returns what was tried, in order."""
    tried: list[Config] = []
    while len(tried) < evaluations and not search.finished:
        asked = search.ask(min(batch, evaluations - len(tried)))
        if not asked:
            break
        for config in asked:
            tried.append(config)
            search.tell(measure(config))
    return tried


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.slow
def test_every_candidate_is_new_and_valid_and_the_default_comes_first(cls: type[Strategy]) -> None:
    rng = random.Random(1)
    search = cls(SOFTMAX.space(), seed=1)
    tried = drive(search, lambda c: SOFTMAX.measure(c, rng), 60)
    assert tried[0] == SOFTMAX.spec.default_config() == SOFTMAX.space().default()
    assert len(set(tried)) == len(tried) == 60
    assert all(SOFTMAX.spec.is_valid(c) for c in tried)


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.slow
def test_same_seed_and_outcomes_give_the_same_candidates(cls: type[Strategy]) -> None:
    def once(seed: int) -> list[Config]:
        rng = random.Random(7)
        return drive(cls(SOFTMAX.space(), seed=seed), lambda c: SOFTMAX.measure(c, rng), 24)

    assert once(3) == once(3)
    assert once(3) != once(4)


@pytest.mark.parametrize("cls", [PatternStrategy, DifferentialEvolutionStrategy, LFBOPatternStrategy, ModelStrategy])
@pytest.mark.slow
def test_a_search_beats_random_search(cls: type[Strategy]) -> None:
    """Median over seeds of the best true time after 80 evaluations."""

    def best(kind: type[Strategy], seed: int) -> float:
        rng = random.Random(seed)
        search = kind(SOFTMAX.space(), seed=seed)
        drive(search, lambda c: SOFTMAX.measure(c, rng), 80)
        assert search.best is not None
        return SOFTMAX.true_ms(search.best.config)

    seeds = range(3)
    assert sorted(best(cls, s) for s in seeds)[1] < sorted(best(RandomStrategy, s) for s in seeds)[1]


@pytest.mark.parametrize("cls", ALL)
def test_a_small_space_is_tried_completely_and_then_ends(cls: type[Strategy]) -> None:
    space = SearchSpace(ConfigSpec("k", {"num_warps": PowerOfTwoFragment(1, 16, 4), "wide": PowerOfTwoFragment(1, 2)}))
    search = cls(space, seed=0)
    tried = drive(search, lambda c: Trial(c, Status.OK, float(c["num_warps"])), 100)
    assert len(tried) == 10
    assert search.best is not None and search.best.config["num_warps"] == 1


@pytest.mark.parametrize("cls", ALL)
def test_a_space_where_everything_fails_ends_within_the_budget(cls: type[Strategy]) -> None:
    search = cls(SOFTMAX.space(), seed=0)
    tried = drive(search, lambda c: Trial(c, Status.CRASH), 50)
    assert tried and search.best is None


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.slow
def test_told_an_earlier_run_a_search_repeats_none_of_it(cls: type[Strategy]) -> None:
    rng = random.Random(2)
    first = cls(SOFTMAX.space(), seed=5)
    tried = drive(first, lambda c: SOFTMAX.measure(c, rng), 30)
    second = cls(SOFTMAX.space(), seed=5)
    for config in tried:
        second.tell(first.history[config])
    assert second.best == first.best
    again = drive(second, lambda c: SOFTMAX.measure(c, rng), 20)
    assert len(again) == 20 and not set(again) & set(tried)


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.slow
def test_outcomes_may_come_late_and_in_any_order(cls: type[Strategy]) -> None:
    rng = random.Random(3)
    search = cls(SOFTMAX.space(), seed=0)
    waiting: list[Config] = []
    tried: set[Config] = set()
    while len(tried) < 60:
        for config in search.ask(6 - len(waiting)):
            assert config not in tried
            tried.add(config)
            waiting.append(config)
        assert waiting
        search.tell(SOFTMAX.measure(waiting.pop(rng.randrange(len(waiting))), rng))


def test_a_requeued_config_is_proposed_again() -> None:
    search = RandomStrategy(SOFTMAX.space(), seed=0)
    (config,) = search.ask(1)
    search.requeue(config)
    assert search.ask(1) == [config]


def test_seed_configs_are_tried_right_after_the_default() -> None:
    mine = SOFTMAX.spec.normalize({"num_warps": 16})
    search = ModelStrategy(SOFTMAX.space(), first=[Config(num_warps=16)])
    assert search.ask(2) == [SOFTMAX.spec.default_config(), mine]


def test_what_the_spec_suggests_is_tried_after_seed_configs_as_far_as_the_overrides_allow() -> None:
    spec = dataclasses.replace(
        SOFTMAX.spec,
        find_starts=lambda: [{"num_warps": 16}, {"num_warps": 8, "num_stages": 3}, {"num_warps": 16, "num_stages": 1}],
    )
    space = SearchSpace(spec, {"num_stages": 2}, lambda c: c["num_warps"] != 8)
    asked = ModelStrategy(space, first=[Config(num_warps=2)]).ask(3)
    assert [(c["num_warps"], c["num_stages"]) for c in asked] == [(4, 2), (2, 2), (16, 2)]


def test_a_finite_search_tries_nothing_that_the_spec_suggests() -> None:
    space = SearchSpace(dataclasses.replace(SOFTMAX.spec, find_starts=lambda: [{"num_warps": 16}]))
    assert [c["num_warps"] for c in FiniteStrategy(space, [Config(num_warps=2)]).ask(4)] == [2]


def test_finite_search_tries_the_list_once_in_order() -> None:
    configs = [Config(num_warps=w) for w in (8, 2, 8, 4)]
    search = FiniteStrategy(SOFTMAX.space(), configs)
    tried = drive(search, lambda c: Trial(c, Status.OK, 1.0), 100, batch=2)
    assert [c["num_warps"] for c in tried] == [8, 2, 4]
    assert search.finished


def test_finite_search_refuses_a_config_that_does_not_fit() -> None:
    with pytest.raises(exc.InvalidConfig, match="num_warps"):
        FiniteStrategy(SOFTMAX.space(), [Config(num_warps=3)])


def test_without_scikit_learn_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(exc.AutotuneError, match=r"helion\[tune\]"):
        LFBOPatternStrategy(SOFTMAX.space())


def test_the_default_search_learns_what_fails() -> None:
    rng = random.Random(4)
    search = ModelStrategy(SOFTMAX.space(), seed=4)
    drive(search, lambda c: SOFTMAX.measure(c, rng), 60)
    works = search.surrogate.predict([search.space.point(c) for c in search.history])[2].tolist()
    good, bad = ([w for w, t in zip(works, search.history.values()) if t.ok is ok] for ok in (True, False))
    assert bad and statistics.mean(good) > statistics.mean(bad) + 0.3


# -- the model ------------------------------------------------------------------------------------------


def test_the_process_learns_many_small_effects_from_few_trials(seed: int) -> None:
    """Twelve tunables of three unordered values each: 24 effects and noise, told from 60 observations."""
    rng = random.Random(seed)
    effects = [[rng.gauss(0, 0.05) for _ in range(3)] for _ in range(12)]
    rows = [[rng.randrange(3) for _ in range(12)] for _ in range(160)]
    truth = [sum(e[i] for e, i in zip(effects, row)) for row in rows]
    process = LevelProcess([math.inf] * 12)
    process.fit(rows[:60], [t + rng.gauss(0, 0.01) for t in truth[:60]])
    mean, std = process.predict(rows[60:])
    errors = [abs(m - t) for m, t in zip(mean.tolist(), truth[60:])]
    spread = statistics.pstdev(truth)
    assert statistics.mean(errors) < 0.2 * spread
    assert all(0 < s < 4 * spread for s in std.tolist())


def test_the_gradient_by_hand_is_that_of_autograd(seed: int) -> None:
    rng = random.Random(seed)
    process = LevelProcess([3.5, math.inf, 2.0])
    rows = [[rng.randrange(-3, 8), rng.randrange(3), rng.randrange(5)] for _ in range(30)]
    y = [rng.gauss(0, 1) for _ in rows]
    process.fit(rows, y)
    observed = torch.tensor(y, dtype=torch.float64)
    theta = torch.tensor([rng.gauss(0, 1) for _ in range(5)], dtype=torch.float64)
    value, gradient = _Likelihood(process, observed).value_and_gradient(theta)

    leaf = theta.clone().requires_grad_()
    distance = (process._levels[:, None] - process._levels).abs()
    differences = process._apart[torch.arange(3), distance]
    covariance = torch.exp(leaf[0] + torch.log1p(-torch.sigmoid(leaf[2:]) * differences).sum(-1))
    covariance = covariance + (torch.exp(leaf[1]) + gaussian._JITTER) * torch.eye(30, dtype=torch.float64)
    expected = -torch.distributions.MultivariateNormal(torch.zeros(30, dtype=torch.float64), covariance).log_prob(
        observed
    ) - 15 * math.log(2 * math.pi)
    expected = expected + 0.5 * (((leaf - process._expected) / process._width) ** 2).sum()
    expected.backward()
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, leaf.grad)


def test_the_process_gives_a_share_to_what_matters_only(seed: int) -> None:
    rng = random.Random(seed)
    rows = [[rng.randrange(8), rng.randrange(8), rng.randrange(3)] for _ in range(80)]
    process = LevelProcess([3.5, 3.5, math.inf])
    process.fit(rows, [0.3 * a + 0.2 * (c == 1) + rng.gauss(0, 0.01) for a, _, c in rows])
    first, second, third = process.shares
    assert first > 3 * second and third > 3 * second  # by chance the second one looks as if it mattered a little


def test_the_process_knows_what_it_was_told_and_is_unsure_far_away() -> None:
    process = LevelProcess([2.0])
    rows = [[i] for i in range(6)]
    process.fit(rows, [math.sin(i) for i in range(6)])
    mean, std = process.predict([*rows, [40]])
    assert all(abs(m - math.sin(i)) < 0.1 for i, m in enumerate(mean[:6].tolist()))
    assert float(std[6]) > 3 * float(std[:6].max())


def test_searches_in_several_threads_leave_torchs_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    inside, over = threading.Event(), threading.Event()

    def first() -> None:
        with gaussian.one_thread():
            inside.set()
            time.sleep(0.2)  # the second one comes, and stays for longer
        over.set()

    def second() -> None:
        inside.wait()
        with gaussian.one_thread():
            over.wait()

    torch.set_num_threads(3)
    try:
        threads = [threading.Thread(target=think) for think in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_expected_improvement_is_the_mean_of_the_improvement() -> None:
    draws = torch.randn(200_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for mean, std in ((0.0, 1.0), (0.5, 0.3), (-1.0, 0.1)):
        expected = (0.2 - (mean + std * draws)).clamp(min=0).mean()
        got = surrogate.expected_improvement(
            torch.tensor([mean], dtype=torch.float64), torch.tensor([std], dtype=torch.float64), 0.2
        )
        torch.testing.assert_close(got[0], expected, atol=0.005, rtol=0.01)
