"""Log files, the report, and what is shown while tuning."""

from __future__ import annotations

import io
import json
import math
import random
from pathlib import Path

import pytest
from autotune_landscapes import LANDSCAPES

from helion import exc
from helion.autotuner.__main__ import main
from helion.autotuner.log_file import FIELDS
from helion.autotuner.log_file import TrialLog
from helion.autotuner.log_file import read_log
from helion.autotuner.progress import PlainProgress
from helion.autotuner.progress import RichProgress
from helion.autotuner.progress import decorator_line
from helion.autotuner.progress import format_ms
from helion.autotuner.progress import status_line
from helion.autotuner.report import influence
from helion.autotuner.report import write_report
from helion.autotuner.strategy import RandomStrategy
from helion.autotuner.trial import Status
from helion.autotuner.trial import Trial
from helion.autotuner.tuner import Budget
from helion.autotuner.tuner import Tuner
from helion.autotuner.tuner import TuningResult
from helion.config import Config

from . import kernels
from .kernels import misbehaving_target as misbehaving
from .test_tuner import FakeExecutor

LANDSCAPE = LANDSCAPES[2]


def tuner() -> Tuner:
    target = misbehaving()
    from helion.autotuner.space import SearchSpace

    return Tuner(target, RandomStrategy(SearchSpace(target.config_spec)), FakeExecutor({}), Budget(evaluations=10))


@pytest.fixture(params=[".csv", ".json"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A log of 60 trials of a landscape, some of them failures."""
    path = tmp_path / f"search{request.param}"
    written, run = TrialLog(path), tuner()
    rng, space = random.Random(3), LANDSCAPE.space()
    written.started(run)
    for _ in range(60):
        config = space.random(rng)
        assert config is not None
        written.trial(LANDSCAPE.measure(config, rng), run)
        read_log(path)  # whole after every trial
    return path


def test_a_log_reads_back_as_it_was_written(log: Path) -> None:
    records = read_log(log)
    assert [r["number"] for r in records] == list(range(60))
    assert set(records[0]) == set(FIELDS)
    rng, space = random.Random(3), LANDSCAPE.space()
    for record in records:
        config = space.random(rng)
        assert config is not None
        trial = LANDSCAPE.measure(config, rng)
        assert Config.from_dict(record["config"]) == config
        assert record["time_ms"] == trial.time_ms and record["status"] == trial.status.value
    assert any(math.isinf(r["time_ms"]) for r in records)


def test_a_second_run_adds_to_the_log(log: Path) -> None:
    TrialLog(log).trial(Trial(Config(a=[1, 'x,\n"']), Status.CRASH, message='killed by "SIGSEGV",\nsomewhere'), tuner())
    records = read_log(log)
    assert len(records) == 61 and records[-1]["config"] == {"a": [1, 'x,\n"']}


def test_seconds_in_the_log_do_not_follow_a_clock_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([5e9, 4e9, 3e9, 2e9])
    monkeypatch.setattr("time.time", lambda: next(times))
    written, run = TrialLog(tmp_path / "log.json"), tuner()
    for _ in range(3):
        written.trial(Trial(Config(), Status.OK, 1.0), run)
    seconds = [r["seconds"] for r in read_log(tmp_path / "log.json")]
    assert seconds == sorted(seconds) and seconds[0] >= 0


def test_other_endings_are_refused() -> None:
    with pytest.raises(exc.InvalidAPIUsage, match=r"\.csv nor \.json"):
        TrialLog("search.txt")


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".html", b"<!doctype html>")])
@pytest.mark.slow
def test_the_report_is_drawn(log: Path, ending: str, start: bytes) -> None:
    output = log.with_suffix(ending)
    assert main(["report", str(log), "-o", str(output)]) == 0
    data = output.read_bytes()
    assert data.startswith(start) and len(data) > 10_000
    if ending == ".html":
        text = data.decode()
        assert "out of resource" in text or "illegal memory access" in text or "longer than 60 s" in text
        assert 'src="data:image/png' in text and "http" not in text  # one file, nothing fetched


def test_the_report_escapes_what_kernels_say(tmp_path: Path) -> None:
    log, run = TrialLog(tmp_path / "log.json"), tuner()
    log.trial(Trial(Config(), Status.RUN_ERROR, message="<script>alert(1)</script>"), run)
    log.trial(Trial(Config(a=1), Status.OK, 1.0), run)
    write_report(tmp_path / "log.json", tmp_path / "out.html")
    assert "<script>" not in (tmp_path / "out.html").read_text()


@pytest.mark.parametrize("text", ["[]", "{", "[1]", '[{"number": 1}]'])
def test_a_log_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.json").write_text(text)
    with pytest.raises(exc.InvalidAPIUsage):
        write_report(tmp_path / "log.json", tmp_path / "out.png")


def test_influence_finds_the_tunable_that_matters() -> None:
    rng = random.Random(9)
    records = []
    for _ in range(200):
        config = {
            "num_warps": rng.choice([1, 2, 4]),
            "block_sizes": [rng.choice([16, 32, 64])],
            "salt": rng.choice("ab"),
        }
        ms = config["block_sizes"][0] / 16 * (1 + 0.1 * config["num_warps"]) * rng.uniform(0.99, 1.01)
        records.append({"config": config, "time_ms": ms})
    first, second, third = influence(records)
    assert first[0] == "block_sizes[0]" and first[2] == 16 and first[1] == pytest.approx(4, rel=0.1)
    assert second[0] == "num_warps" and third[0] == "salt" and third[1] < 1.1


def test_a_value_that_stands_for_equal_ones_counts_for_each_of_them() -> None:
    records = [
        {"config": {"indexing": kind}, "time_ms": ms}
        for kind, ms in (("pointer", 1.0), (["pointer", "block_ptr"], 2.0), ("block_ptr", 2.0))
        for _ in range(3)
    ]
    assert [(name, round(ratio, 2), best) for name, ratio, best in influence(records)] == [
        ("indexing[1]", 2.0, "pointer"),
        ("indexing[0]", 2.0, "pointer"),
    ][::-1]


def test_times_have_units() -> None:
    assert [format_ms(t) for t in (2500.0, 12.345, 0.01234, None, math.inf)] == [
        "2.5 s",
        "12.3 ms",
        "12.3 us",
        "-",
        "-",
    ]


def test_the_decorator_line_leaves_defaults_out() -> None:
    config = kernels.Misbehaving.spec.normalize({"salt": 8})
    assert decorator_line(config, kernels.Misbehaving.spec) == "@helion.kernel(config=helion.Config(salt=8))"


def test_the_status_line_names_best_rate_failures_and_time_left() -> None:
    run = tuner()
    for salt, ms in ((1, 2.0), (2, None), (4, 1.5)):
        run._record(
            Trial(Config(mode="good", salt=salt), Status.CRASH)
            if ms is None
            else Trial(Config(mode="good", salt=salt), Status.OK, ms)
        )
    line = status_line(run)
    assert "3/10 configs" in line and "best 1.5 ms" in line and "1 failed" in line and "/min" in line and "left" in line


@pytest.mark.parametrize("cls", [PlainProgress, RichProgress])
def test_a_display_goes_from_start_to_summary(cls: type[PlainProgress] | type[RichProgress]) -> None:
    out, run = io.StringIO(), tuner()
    shown = cls(kernels.Misbehaving.spec, out)
    trial = Trial(Config(mode="good", salt=2), Status.OK, 1.0)
    shown.started(run)
    shown.trial(trial, run)
    shown.choosing([trial], run)
    shown.finished(
        TuningResult("misbehaving", trial.config, 1.0, 2.0, (trial, Trial(Config(), Status.CRASH)), 75.0, "interrupted")
    )
    text = out.getvalue()
    assert "2.00x the speed of the default config" in text
    assert "2 configs in 1:15, 1 crash failed; ended: interrupted" in text
    assert "    @helion.kernel(config=helion.Config(salt=2))" in text


def test_log_files_are_json(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "log.json")
    log.trial(Trial(Config(a=1), Status.OK, 1.0), tuner())
    assert json.loads((tmp_path / "log.json").read_text())[0]["config"] == {"a": 1}
