"""What only several real GPUs of one host can show: contexts, streams and memory that belong to one of them.

Left out where there are fewer than two (tests/softgpu/pytest_plugin.py): the rules themselves are tested on software
GPUs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
import helion.runtime.output_pool
from helion import exc

pytestmark = pytest.mark.real_gpu(devices=2)

ROOT = Path(__file__).resolve().parents[3]


def make_add():
    @helion.kernel(config=helion.Config(block_sizes=[1024]))
    def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + y[tile]
        return out

    return add


def make_center():
    @helion.kernel(config=helion.Config(block_sizes=[16, 16, 64]))
    def center(x: torch.Tensor) -> torch.Tensor:
        mean, out = torch.empty_like(x[0]), torch.empty_like(x)
        for tile in hl.tile(x.size(1)):
            mean[tile] = x[:, tile].mean(0)
        hl.barrier()
        for tile_m, tile_n in hl.tile(x.shape):
            out[tile_m, tile_n] = x[tile_m, tile_n] - mean[tile_n][None, :]
        return out

    return center


def launches(kernel: Any) -> Counter[str]:
    """How many launches of it each layer has done."""
    return Counter(kernel.stats.snapshot().layers)


@pytest.fixture(params=[False, True], ids=["fresh", "pool"])
def pooled(request):
    helion.runtime.output_pool.configure(request.param)
    yield request.param
    helion.runtime.output_pool.configure(False)


@pytest.mark.parametrize("current", [0, 1])
def test_a_call_runs_where_its_tensors_are(current, pooled, seed) -> None:
    add = make_add()
    inputs = [[torch.randn(4096, device=f"cuda:{i}") for _ in range(2)] for i in (0, 1)]
    with torch.cuda.device(current):
        for turn in range(20):
            if turn == 10:
                before = launches(add)
            for i, (x, y) in enumerate(inputs):
                out = add(x, y)
                assert out.device == x.device and torch.equal(out, x + y), (turn, i)
        assert torch.cuda.current_device() == current
    assert launches(add) - before == {"plan": 20}


def test_phases_wait_on_the_device_of_the_tensors(seed) -> None:
    center = make_center()
    for turn in range(6):
        x = torch.randn(200, 300, device=f"cuda:{turn % 2}")
        torch.testing.assert_close(center(x), x - x.mean(0), rtol=1e-4, atol=1e-5)


def test_tensors_of_two_gpus_are_refused(seed) -> None:
    add = make_add()
    x, y = (torch.randn(4096, device=f"cuda:{i}") for i in (0, 1))
    for _ in range(3):
        add(x, x)
        with pytest.raises(exc.BaseError, match="cuda:1"):
            add(x, y)


def test_a_thread_for_each_gpu(pooled, seed) -> None:
    add, failures = make_add(), []

    def work(index: int) -> None:
        torch.cuda.set_device(index)
        x = torch.randn(5000, device="cuda")
        for i in range(2000):
            y = torch.full_like(x, float(i))
            out = add(x, y)
            if i % 100 == 0 and not torch.equal(out, x + y):
                failures.append((index, i))

    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_graph_of_the_second_gpu(seed) -> None:
    add, center = make_add(), make_center()
    with torch.cuda.device(1):
        x = torch.randn(64, 64, device="cuda")
        flat = x.view(-1)
        add(flat, flat)
        center(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            doubled = add(flat, flat)
            centered = center(x)
    for _ in range(3):
        x.normal_()
        with torch.cuda.device(1):
            graph.replay()
        assert torch.equal(doubled, flat + flat)
        torch.testing.assert_close(centered, x - x.mean(0), rtol=1e-4, atol=1e-5)


_TUNE = """
import json, sys, torch, helion, helion.language as hl

@helion.kernel
def scale(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size()):
        out[tile] = x[tile] * 3
    return out

if __name__ == "__main__":
    from helion.autotuner.api import run_search
    from helion.autotuner.bound import BoundTarget
    x = torch.randn(4096, 4096, device="cuda")
    options = json.loads(sys.argv[1])
    result = run_search(BoundTarget(scale.bind((x,))), (x,), evaluations=24, effort="quick", progress_bar=False,
    **options)
    scale.bind((x,)).set_config(result.config)
    assert torch.equal(scale(x), x * 3)
    print(json.dumps([len(result.trials), sum(t.ok for t in result.trials), dict(result.config)]))
"""


def tune(tmp_path: Path, options: dict[str, object], *visible: str) -> list[list[object]]:
    """Run a search in a process for each of `visible`, at the same time; trials, how many were right, and the winner of
    each.
    """
    script = tmp_path / "tune.py"
    script.write_text(_TUNE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), json.dumps(options)],
            env={**environment, "CUDA_VISIBLE_DEVICES": gpus, "HELION_CACHE_DIR": str(tmp_path / gpus)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for gpus in visible
    ]  # fmt: skip
    found = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        found.append(json.loads(out.splitlines()[-1]))
    return found


def test_a_search_measures_on_both_gpus(seed, tmp_path) -> None:
    ((trials, right, _),) = tune(tmp_path, {"devices": ["cuda:0", "cuda:1"]}, "0,1")
    assert trials >= 20 and right >= trials // 2


def test_two_processes_with_a_gpu_each_share_a_search(seed, tmp_path) -> None:
    first, second = tune(tmp_path, {"storage": str(tmp_path / "tune.journal")}, "0", "1")
    assert first[0] == second[0] >= 20
    assert first[2] == second[2]
