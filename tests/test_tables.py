"""Benchmarks that are tables: they keep their time, go on where an earlier run ended, and print what they know."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

import helion
from benchmarks import defaults_gpu
from benchmarks import table
from examples.catalog import EXAMPLES
from helion.autotuner.measure import Timing
from helion.target import Target


class Clock:
    """Time that passes only in rows."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def task(self, key: str, seconds: float = 1.0, error: Exception | None = None) -> table.Task:
        def measure() -> table.Row:
            self.now += seconds
            if error is not None:
                raise error
            return {"ratio": seconds}

        return table.Task(key, measure)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _run(clock: Clock, tasks: list[table.Task], device: str = "one", **options: object) -> list[str]:
    chosen = argparse.Namespace(**{"seconds": 100.0, "join": None, "json": None, **options})
    rows = table.run(tasks, {"device": device}, chosen, lambda row: row["key"], clock=clock)
    return [row["key"] for row in rows]


def test_no_row_is_begun_that_would_end_too_late(clock):
    tasks = [clock.task("slow", 30.0), clock.task("quick", 1.0), clock.task("second", 30.0), clock.task("third", 30.0)]
    assert _run(clock, tasks, seconds=70.0) == ["slow", "quick", "second"]
    assert clock.now <= 70.0


def test_a_run_goes_on_where_the_one_before_ended(clock, tmp_path):
    path = tmp_path / "rows.json"
    first = [clock.task("a", 30.0), clock.task("b", 30.0)]
    assert _run(clock, first, seconds=40.0, join=path) == ["a"]
    assert _run(clock, [clock.task("a", error=AssertionError("measured again")), first[1]], join=path) == ["a", "b"]
    assert [row["key"] for row in json.loads(path.read_text())["rows"]] == ["a", "b"]


def test_rows_of_another_device_are_kept_and_measured_again(clock, tmp_path):
    path = tmp_path / "rows.json"
    _run(clock, [clock.task("a")], join=path)
    assert _run(clock, [clock.task("a")], device="two", join=path) == ["a", "a"]


def test_a_row_that_fails_is_a_row_with_its_error_and_is_tried_again_last(clock, tmp_path, capsys):
    path = tmp_path / "rows.json"
    failing = clock.task("a", error=RuntimeError("no memory"))
    assert _run(clock, [failing, clock.task("b")], join=path) == ["a", "b"]
    assert "failed: a: RuntimeError: no memory" in capsys.readouterr().out
    rows = table.known_rows(path)
    assert table.failures(rows) == "failed: a: RuntimeError: no memory" and len(table.measured(rows)) == 1
    assert _run(clock, [clock.task("a"), clock.task("b"), clock.task("c")], join=path) == ["b", "c", "a"]
    assert table.failures(table.known_rows(path)) == ""


def test_rows_that_are_no_longer_true_are_measured_anew(clock, tmp_path):
    path = tmp_path / "rows.json"
    _run(clock, [clock.task("a"), clock.task("b")], join=path)
    options = argparse.Namespace(seconds=100.0, join=path, json=None)
    tasks = [clock.task("a", 2.0), clock.task("b", 2.0)]
    rows = table.run(tasks, {"device": "one"}, options, str, clock=clock, keep=lambda row: row["key"] != "a")
    assert {row["key"]: row["ratio"] for row in rows} == {"a": 2.0, "b": 1.0}


def test_rows_of_another_default_are_not_current(monkeypatch):
    monkeypatch.setattr(defaults_gpu, "target_of", lambda device: Target("nvidia", 90))
    row = {"name": "matmul", "size": [4096, 4096, 4096], "default": {"num_warps": 8}}
    assert not defaults_gpu.is_current(row)
    bound = EXAMPLES["matmul"].kernel.bind(EXAMPLES["matmul"].args((4096, 4096, 4096), device="meta"))
    spec = bound.backend(Target("nvidia", 90)).spec
    assert defaults_gpu.is_current({**row, "default": dict(spec.default_config().minimize(spec))})


def test_every_example_and_form_has_something_of_pytorch_beside_it():
    for name, example in {**EXAMPLES, **defaults_gpu.forms()}.items():
        assert "eager" in defaults_gpu.of_torch(example, False), name


def test_a_page_keeps_everything_around_a_table(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n<!-- begin rows -->\nold\n<!-- end rows -->\nbelow\n")
    for text in ("| first |", "| second |"):
        table.put_on_page(page, "rows", "Measured on one.", text)
    assert page.read_text() == (
        "# Title\n<!-- begin rows -->\nMeasured on one.\n\n| second |\n<!-- end rows -->\nbelow\n"
    )
    with pytest.raises(ValueError, match="no place for defaults"):
        table.put_on_page(page, "defaults", "Measured on one.", "| x |")


def test_the_page_of_the_docs_has_a_place_for_both_tables(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text(Path("docs/performance.md").read_text())
    for name in ("rows", "defaults"):
        table.put_on_page(page, name, "Measured on one.", f"| {name} |")
    assert "| rows |" in page.read_text() and "| defaults |" in page.read_text()


def test_attention_in_any_form_is_timed_beside_the_attention_of_pytorch():
    """Of three dimensions `scaled_dot_product_attention` takes another kernel, which is slower by a factor."""
    for name in ("attention_of_batches", "attention", "attention_causal"):
        assert {"eager", "flash", "cudnn"} == set(
            defaults_gpu.of_torch({**EXAMPLES, **defaults_gpu.forms()}[name], False)
        )
    assert set(defaults_gpu.of_torch(EXAMPLES["softmax"], False)) == {"eager"}
    q, k, v = (torch.randn(2, 5, 8) for _ in range(3))
    expected = torch.softmax(q @ k.mT / 8**0.5, -1) @ v
    torch.testing.assert_close(defaults_gpu.forms()["attention_of_batches"].reference(q, k, v), expected)


def test_best_config_is_the_fastest_that_runs(monkeypatch, capsys):
    """Also where a search had no time to measure, and where a known Config does not fit this GPU."""
    example = EXAMPLES["add"]
    args = example.args(device="cpu")
    bound = example.kernel.bind(args)
    slow, fast, broken = (helion.Config(block_sizes=[size]) for size in (16, 32, 64))
    times = {slow: 2.0, fast: 1.0}
    compiled = {config: (lambda *args, config=config: times[config]) for config in (slow, fast, broken)}
    monkeypatch.setattr(defaults_gpu, "candidates", lambda *args: [slow, broken, fast])
    monkeypatch.setattr(type(bound), "compile_config", lambda self, config: compiled[config])
    monkeypatch.setattr(defaults_gpu, "time_call", lambda run, *args: Timing((run(),)))
    assert defaults_gpu._best(bound, args, example, argparse.Namespace(tune=0.0, draw=0)) == fast
    assert "KeyError" in capsys.readouterr().err


def test_what_is_left_begins_where_the_rows_end(monkeypatch):
    options = argparse.Namespace(sizes=1)
    monkeypatch.setattr(defaults_gpu, "is_current", lambda row: row["default"] == "today's")
    names = ["exp", "add", "softmax"]
    first = {"key": defaults_gpu.tasks(names, options)[0].key, "device": "one", "default": "today's"}
    left = defaults_gpu._left(names, options, [first], {"device": "one"})
    assert [example.name for example, _ in left] == ["add", "exp"]
    for other in ({"device": "two"}, {"default": "yesterday's"}, {"error": "no memory"}):
        assert len(defaults_gpu._left(names, options, [{**first, **other}], {"device": "one"})) == 3


def _row(name: str, **ratios: float) -> table.Row:
    us: dict[str, float] = {"default": 2.0, "best": 1.0}
    about = {"group": "memory", "held out": defaults_gpu.is_held_out(name), "size": [8, 16], "us": us}
    return {"key": name, "name": name, "of best": 0.5, **about, **ratios}


def test_both_halves_have_kernels_and_a_line_each():
    names = [*defaults_gpu.EXAMPLES, *defaults_gpu.FORMS]
    held = [name for name in names if defaults_gpu.is_held_out(name)]
    assert len(names) >= 40
    assert 0.35 < len(held) / len(names) < 0.65
    text = defaults_gpu.summaries([_row(name, **{"of torch": 2.0}) for name in names])
    assert f"held out: {len(held)} rows: of best 0.500 (least 0.50), of torch 2.000 (least 2.00)" in text


def test_a_kernel_that_pytorch_has_not_is_a_row_too(tmp_path):
    rows = [_row("softmax", **{"of torch": 1.5, "default of torch": 1.2}), _row("fp8_scaled_mm")]
    rows[0]["us"] |= {"eager": 4.0, "compile": 3.0}
    assert "| fp8_scaled_mm | 8x16 | 2.0 | 1.0 |  |  | 0.50 |  |  |" in defaults_gpu.markdown(rows).replace(
        " (held out)", ""
    )
    defaults_gpu.plot(rows, tmp_path / "plot.svg")
    assert "softmax" in (tmp_path / "plot.svg").read_text()


def test_a_short_run_sees_every_group():
    options = argparse.Namespace(sizes=1)
    keys = [task.key.split()[0] for task in defaults_gpu.tasks(["add", "exp", "matmul", "attention"], options)]
    assert {defaults_gpu.group_of(defaults_gpu.EXAMPLES[key]) for key in keys[:3]} == {
        "memory",
        "products",
        "attention",
    }
