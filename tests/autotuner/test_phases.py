"""Where a search's seconds go: the table, what compile workers do without a GPU, and what is measured ahead."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helion.autotuner import api
from helion.autotuner.measure import Effort
from helion.autotuner.phases import PHASES
from helion.autotuner.phases import Phases
from helion.config import Config

from .kernels import misbehaving_target

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.spawns
@pytest.mark.parametrize("isolate", [True, False])
def test_a_search_says_where_its_seconds_went(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, isolate: bool
) -> None:
    # One leader needs no final comparison, and on a busy machine one of two equal candidates may be far ahead.
    monkeypatch.setattr("helion.autotuner.tuner.leaders", lambda trials: [t for t in trials if t.ok])
    configs = [Config(mode=mode, salt=salt) for mode in ("good", "raise", "slow") for salt in (1, 2)]
    with caplog.at_level(logging.DEBUG, "helion.autotuner"):
        result = api.run_search(
            misbehaving_target(), (torch.ones(8),), configs=configs, effort="quick", log_level=0, isolate=isolate
        )
    phases = result.phases
    assert phases.count["generating"] == len(configs) and phases.count["baseline"] == 1
    assert phases.count["checking"] == len(configs) and phases.count["measuring"] == 4  # the final comparison: apart
    assert phases.count["final comparison"] == 1
    assert (phases.count["compiling ahead"] > 0) == (phases.count["worker start"] > 0) == isolate
    assert phases.seconds["measuring"] >= 2 * 0.02  # two slow ones: one call is enough to know
    assert 0 < phases.reached["first time"] < result.seconds
    assert phases.table() in caplog.text


def test_the_table_lists_what_happened() -> None:
    phases = Phases()
    phases.add("measuring", 0.25)
    phases.add("measuring", 0.5)
    head, row = phases.table().splitlines()
    assert head.split()[:3] == ["phase", "times", "seconds"]
    assert row.split()[:3] == ["measuring", "2", "0.75"] and PHASES["measuring"] in row


def test_a_candidate_is_measured_the_less_the_slower_it_is() -> None:
    effort = Effort(total_ms=100.0).against(1.0)
    assert effort.doubt_ms < effort.give_up_ms
    assert effort.count(effort.give_up_ms * 1.01) == effort.least < effort.count(1.0)


_COMPILE = """
import os, sys
os.environ["TRITON_CACHE_DIR"] = sys.argv[1]
import torch
from helion.backends.triton.candidate import TritonRecipe
from helion.target import Target
from tests.autotuner import gpu_kernels

target, x = Target("nvidia", 90), torch.empty(64, 32)
source = gpu_kernels.row_sum.bind((x,)).generated_source(None, target=target)
recipe = TritonRecipe(source.text, source.function, "row_sum")
if sys.argv[2] == "absent":
    from helion.autotuner.absent import AbsentGpu
    AbsentGpu(target, 132).pretend()
    x = x.to("meta")
    from helion.runtime import device
    assert device.get_num_sm() == 132 and device.target_of() == target
else:
    from tests import softgpu
    softgpu.install(capability=90, execute=False, ptxas=True)
recipe.precompile(recipe.build((x,)), (x,))
assert not torch.cuda.is_initialized()
"""


@pytest.mark.compiles
@pytest.mark.spawns
def test_a_worker_without_a_gpu_compiles_what_a_process_with_one_finds(tmp_path: Path) -> None:
    cache = tmp_path / "triton"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HELION_CACHE_DIR": str(tmp_path / "helion")}
    found = []
    for mode in ("absent", "present"):
        code = [sys.executable, "-c", _COMPILE, str(cache), mode]
        subprocess.run(code, check=True, env=environment, cwd=ROOT, timeout=600)
        found.append({(path, path.stat().st_mtime_ns) for path in cache.rglob("*.cubin")})
    assert len(found[0]) == 1 and found[0] == found[1]
