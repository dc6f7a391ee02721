"""A decode step of an engine: 28 kernels one after another, eager. What the host does meanwhile, three ways.

    python benchmarks/serving_loop.py [--kernels 28] [--steps 50] [--json FILE]

- `helion`: each call a plan in C;
- `Triton`: the same kernels and schedules; the generated host function launches by Triton's `kernel[grid](...)`;
- `graph`: the step of `helion` captured once as a CUDA graph and replayed, on a GPU only.

Each way is a process of its own. Host time is until the last call of a step returns; on a GPU the queue is drained
before each step, and `to the end` is with the GPU's work: there 100 steps are queued one behind another. Ratios are to
as many `torch.add` of two 4-element CPU tensors, timed right before each step. Without a GPU it is the software GPU
with launches that do nothing, so that only host time says something.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import child as child_process  # noqa: E402

WAYS: dict[str, dict[str, str]] = {
    "helion": {},
    "Triton": {"HELION_NO_EXTENSION": "1", "HELION_SKIP_FAST_LAUNCHER": "1"},
    "graph": {},
}
#: Steps queued one behind another.
_QUEUED = 100


def _device() -> tuple[Any, Callable[[], None]]:
    """Where tensors go, and what waits for it."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda"), torch.cuda.synchronize
    from tests import softgpu

    softgpu.install(90, execute=False)
    return torch.device("cpu"), lambda: None


def _calls(count: int, names: list[str], device: Any) -> dict[str, Callable[[], Any]]:
    """Name -> a call of that example's kernel, warm; the first `count` that are plans, or those of these names."""
    import helion
    from examples.catalog import EXAMPLES

    found: dict[str, Callable[[], Any]] = {}
    kernels = set()
    for name, example in EXAMPLES.items():
        kernel = example.kernel
        if len(found) == count or not isinstance(kernel, helion.Kernel) or kernel in kernels:
            continue
        if names and name not in names:
            continue
        args = kernel.normalize_args(*example.make_args(*example.small, dtype=example.dtype, device=device))
        for _ in range(4):
            kernel(*args)
        if names or kernel.has_plan(args):
            kernels.add(kernel)
            found[name] = lambda kernel=kernel, args=args: kernel(*args)
    return found


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def child(way: str, count: int, names: list[str], steps: int) -> dict[str, Any]:
    """One process' times, in seconds."""
    import torch

    warnings.simplefilter("ignore")
    device, wait = _device()
    if way == "graph" and device.type != "cuda":
        return {}
    calls = _calls(count, names, device)
    functions = list(calls.values())

    def step() -> None:
        for call in functions:
            call()

    run = _captured(step) if way == "graph" else step
    small = torch.randn(4), torch.randn(4)
    host, ratios = [], []
    for _ in range(steps):
        wait()
        before = time.perf_counter()
        for _ in functions:
            torch.add(*small)
        between = time.perf_counter()
        run()
        after = time.perf_counter()
        host.append(after - between)
        ratios.append((after - between) / (between - before))
    wait()
    before = time.perf_counter()
    for _ in range(_QUEUED):
        run()
    wait()
    total = (time.perf_counter() - before) / _QUEUED
    return {"names": list(calls), "host": statistics.median(host), "ratio": statistics.median(ratios), "total": total}


def _run(way: str, count: int, names: list[str], steps: int) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HELION_AUTOTUNE_EFFORT": "none", **WAYS[way]}
    run = [sys.executable, __file__, "--child", way, "--kernels", str(count), "--steps", str(steps)]
    return child_process.result([*run, "--names", ",".join(names)], environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=int, default=28)
    parser.add_argument("--steps", type=int, default=50, help="timed steps")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--names", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = [name for name in options.names.split(",") if name]
    if options.child:
        print(json.dumps(child(options.child, options.kernels, names, options.steps)))
        return
    results: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        results[way] = _run(way, options.kernels, names, options.steps)
        names = names or results[way]["names"]
    print(f"{len(names)} kernels a step; us")
    print(f"{'way':10}{'host a step':>14}{'a kernel':>11}{'torch.adds':>12}{'to the end':>13}")
    for way, found in results.items():
        if not found:
            print(f"{way:10}{'needs a GPU':>14}")
            continue
        host = 1e6 * found["host"]
        print(f"{way:10}{host:14.1f}{host / len(names):11.2f}{found['ratio']:12.2f}{1e6 * found['total']:13.1f}")
    print(f"Triton's launcher takes {results['Triton']['ratio'] / results['helion']['ratio']:.1f} times the host time.")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
