"""`Kernel.autotune_multi`: one Config for several calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.autotuner import multi
from helion.autotuner.tuner import TuningResult

SETS = [(torch.ones(64, 8),), (torch.ones(256, 16),)]
QUICK: dict[str, Any] = {"effort": "quick", "progress_bar": False, "log_level": 0, "isolate": False}


def doubled(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        out[rows, :] = x[rows, :] * 2
    return out


@pytest.fixture
def kernel() -> helion.Kernel:
    return helion.kernel(doubled)


#: Milliseconds of block sizes, for the two calls.
TIMES = ({16: 1.0, 64: 3.0, 32: 1.2}, {16: 9.0, 64: 2.0, 32: 2.4})


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Searches that find 16, 64 and 32 as `TIMES` says."""
    seen: list[Any] = []

    def search(target: Any, args: Any, *, configs: Any = None, **options: Any) -> TuningResult:
        seen.append(configs)
        known = TIMES[int(args[0].size(0) == 256)]
        normal = target.config_spec.normalize
        blocks = [c["block_sizes"][0] for c in configs] if configs else [min(known, key=known.__getitem__)]
        trials = [
            type("Trial", (), {"config": normal({"block_sizes": [b]}), "time_ms": known.get(b, 50.0)}) for b in blocks
        ]
        best = min(trials, key=lambda trial: trial.time_ms)
        return type("Result", (), {"config": best.config, "time_ms": best.time_ms, "trials": trials})

    monkeypatch.setattr(multi, "run_search", search)
    return seen


def test_one_config_is_found_and_used_for_every_call(kernel: helion.Kernel) -> None:
    config = kernel.autotune_multi(SETS, evaluations=3, **QUICK)
    for args in SETS:
        assert kernel.bind(args).config_spec.normalize(config) == config
        assert torch.equal(kernel(*args), args[0] * 2)
        assert kernel.bind(args).config_source == "set_config()"


def test_the_geometric_mean_decides(kernel: helion.Kernel, times: list[Any]) -> None:
    assert kernel.autotune_multi(SETS)["block_sizes"] == [64]  # 3 * 2 against 1 * 9


def test_the_longest_time_decides(kernel: helion.Kernel, times: list[Any]) -> None:
    assert kernel.autotune_multi(SETS, aggregation="max")["block_sizes"] == [64]


def test_times_relative_to_a_baseline(kernel: helion.Kernel, times: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        multi, "_unit", lambda target, args, goal, default, options: 100.0 if args[0].size(0) == 256 else 1.0
    )
    # The second call counts for nothing: the first one's best has the smaller maximum.
    assert kernel.autotune_multi(SETS, aggregation="max", relative_to="default")["block_sizes"] == [16]


def test_the_cache_knows_the_calls_and_the_tag(kernel: helion.Kernel, times: list[Any]) -> None:
    kernel.autotune_multi(SETS, cache_tag="a")
    searched = len(times)
    assert kernel.autotune_multi(SETS, cache_tag="a", force=False)["block_sizes"] == [64]
    assert len(times) == searched
    kernel.autotune_multi(SETS, cache_tag="b", force=False)
    assert len(times) > searched
    searched = len(times)
    kernel.autotune_multi(SETS[:1], cache_tag="a", force=False)
    assert len(times) > searched


@pytest.mark.parametrize(
    ("sets", "options", "match"),
    [
        ([], {}, "at least one call"),
        ([torch.ones(4)], {}, "list of tuples"),
        (SETS, {"aggregation": "median"}, "'geomean', 'max'"),
        (SETS, {"relative_to": "best"}, "'default', 'baseline'"),
        (SETS, {"relative_to": "baseline"}, "autotune_baseline_fn"),
        (SETS, {"cache_tag": 3}, "pass a string"),
        (SETS, {"efort": "quick"}, "unknown option 'efort'"),
    ],
)
def test_bad_options_are_refused_before_binding(
    kernel: helion.Kernel, sets: Any, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(exc.InvalidAPIUsage, match=match):
        kernel.autotune_multi(sets, **options)
    assert not kernel._bound
