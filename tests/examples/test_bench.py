"""The runner of all examples: what it reports of results that are right, wrong, and not there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import helion
from examples import bench
from examples.catalog import EXAMPLES
from helion import Config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def run_on_cpu(example):
    return bench.run_example(example, "cpu", contextlib.nullcontext)


def test_right_result_has_an_error_below_one() -> None:
    row = run_on_cpu(EXAMPLES["softmax"])
    assert row.ok and row.error is not None and 0 < row.error < 1


def test_wrong_result_is_reported_with_its_error() -> None:
    wrong = dataclasses.replace(EXAMPLES["softmax"], reference=lambda x: torch.softmax(x, dim=1) + 1e-3)
    row = run_on_cpu(wrong)
    assert not row.ok and "times what is allowed" in row.message
    assert "FAILED softmax" in bench.table([row])


def test_result_that_is_not_finite_is_wrong() -> None:
    wrong = dataclasses.replace(EXAMPLES["exp"], reference=lambda x: torch.exp(x) / 0.0)
    row = run_on_cpu(wrong)
    assert not row.ok and "not finite" in row.message


def test_kernel_that_raises_is_a_failed_row() -> None:
    row = run_on_cpu(dataclasses.replace(EXAMPLES["softmax"], reference=lambda x: x[:5]))
    assert not row.ok and "shape" in row.message


def test_tuning_reports_the_config_as_a_line_to_paste(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def autotune(bound: helion.BoundKernel, args, **options) -> Config:
        asked.update(options)
        bound.set_config({"block_sizes": [4, 16]})
        return bound.config_spec.normalize({"block_sizes": [4, 16]})

    monkeypatch.setattr(helion.BoundKernel, "autotune", autotune)
    row = bench.run_example(EXAMPLES["exp"], "cpu", contextlib.nullcontext, tune_seconds=7)
    assert row.ok and asked["budget_seconds"] == 7
    line = bench.tuning_report([row]).splitlines()[-1]
    assert line.startswith("  tuned") and line.endswith("ms  @helion.kernel(config=helion.Config(block_sizes=[4, 16]))")


def test_tuning_that_finds_nothing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def autotune(bound: helion.BoundKernel, args, **options) -> Config:
        raise helion.exc.NoConfigFound(kernel="exp", reason="nothing was measured")

    monkeypatch.setattr(helion.BoundKernel, "autotune", autotune)
    row = bench.run_example(EXAMPLES["exp"], "cpu", contextlib.nullcontext, tune_seconds=7)
    assert not row.ok and row.ms is not None and "tuning: NoConfigFound" in row.message


@pytest.mark.spawns
def test_a_worker_that_does_not_answer_is_given_up() -> None:
    worker = bench.Worker(["--device", "cpu"], subprocess.DEVNULL)
    row = worker.run("softmax", timeout=0.01)
    assert not row.ok and row.name == "softmax" and "no answer" in row.message
    assert worker.process is None  # the next example gets a new one


@pytest.mark.spawns
def test_command_writes_the_rows(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    command = [
        sys.executable,
        "-m",
        "examples.bench",
        "--device",
        "cpu",
        "--workers",
        "1",
        "--json",
        str(out),
        "add",
        "sum_rows",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 right" in done.stdout
    assert [(row["name"], row["ok"]) for row in json.loads(out.read_text())] == [("add", True), ("sum_rows", True)]


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_configs_list_no_more_block_sizes_than_the_kernel_has(name: str) -> None:
    example = EXAMPLES[name]
    fields = example.kernel.bind(example.args()).config_spec.fields
    for config in example.configs:
        assert isinstance(config, Config)
        given = config.get("block_sizes", [])
        assert len(given) == (len(fields["block_sizes"].items) if given else 0), f"{name}: {given}"
