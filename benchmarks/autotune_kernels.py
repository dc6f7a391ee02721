"""Tuning real kernels: how soon the search is within 5% of its final best, and how the result compares with PyTorch.

For matmul 4096^3, softmax 4096x8192, rms_norm, attention and cross entropy (the kernels of `examples/`): tunes with the
chosen effort, and then times, in the same run and the same way (CUDA events, cold L2 cache), the default config, the
tuned config, eager PyTorch (for matmul: cuBLAS) and `torch.compile(mode="max-autotune")`.

    python benchmarks/autotune_kernels.py --effort full

`--small` shrinks the problems so that the script itself can be tried without a GPU; its times then mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from examples import attention
from examples import cross_entropy
from examples import matmul
from examples import rms_norm
from examples import softmax
from helion.autotuner.api import run_search
from helion.autotuner.bound import BoundTarget
from helion.autotuner.log_file import read_log
from helion.autotuner.measure import Effort
from helion.autotuner.measure import time_call


@dataclasses.dataclass(frozen=True)
class Problem:
    """One kernel with the sizes of its arguments, on a GPU and for trying the script."""

    name: str
    kernel: Any
    reference: Callable[..., Any]
    make_args: Callable[..., Any]
    sizes: tuple[int, ...]
    small: tuple[int, ...]
    dtype: torch.dtype


PROBLEMS = (
    Problem("matmul 4096^3 bf16", matmul.matmul, matmul.reference, matmul.make_args, (4096, 4096, 4096), (64, 64, 64), torch.bfloat16),
    Problem("softmax 4096x8192", softmax.softmax, softmax.reference, softmax.make_args, (4096, 8192), (64, 128), torch.float32),
    Problem("rms_norm 8192x4096 bf16", rms_norm.rms_norm, rms_norm.reference, rms_norm.make_args, (8192, 4096), (64, 128), torch.bfloat16),
    Problem("attention 4x16x2048x64", attention.attention, attention.reference, attention.make_args, (4, 16, 2048, 2048, 64), (1, 2, 64, 64, 16), torch.bfloat16),
    Problem("cross_entropy 4096x32768", cross_entropy.cross_entropy, cross_entropy.reference, cross_entropy.make_args, (4096, 32768), (64, 128), torch.float32),
)


def time_to_within(records: list[dict[str, Any]], within: float) -> tuple[int, float] | None:
    """(evaluations, seconds) until the best time measured was within this ratio of the last best."""
    final = min((r["time_ms"] for r in records), default=math.inf)
    for count, record in enumerate(records, 1):
        if record["time_ms"] <= final * (1 + within):
            return count, record["seconds"]
    return None


def run(problem: Problem, device: str, small: bool, options: dict[str, Any]) -> dict[str, Any]:
    """Tune and compare one kernel."""
    args = problem.make_args(*(problem.small if small else problem.sizes), dtype=problem.dtype, device=device)
    target = BoundTarget(problem.kernel.bind(args))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "search.json"
        result = run_search(target, args, log=str(log), progress_bar=False, **options)
        reached = time_to_within(read_log(log), 0.05)
    bound = problem.kernel.bind(args)
    compiled = torch.compile(problem.reference, mode="max-autotune")
    contenders: dict[str, Callable[..., Any]] = {
        "default": bound.compile_config(target.config_spec.default_config()),
        "tuned": bound.compile_config(result.config),
        "eager": problem.reference,
        "torch.compile": compiled,
    }
    times = {}
    for name, fn in contenders.items():
        fn(*args)
        times[name] = time_call(lambda fn=fn: fn(*args), torch.device(device), Effort(total_ms=300)).median
    return {
        "problem": problem.name,
        "times_ms": times,
        "evaluations": len(result.trials),
        "failed": sum(result.failures().values()),
        "within_5_percent": reached,
        "seconds": result.seconds,
        "config": dict(result.config),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effort", choices=("quick", "full"), default="full")
    parser.add_argument("--evaluations", type=int)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--problems", nargs="*", type=int, default=list(range(len(PROBLEMS))))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.small:
        parser.error("there is no GPU; --small tries the script without one")
    results = []
    print(f"{'':26} {'default':>10} {'tuned':>10} {'eager':>10} {'compile':>10}   [us]   within 5% after")
    for i in options.problems:
        found = run(PROBLEMS[i], device, options.small, {"effort": options.effort, "evaluations": options.evaluations})
        results.append(found)
        times = " ".join(f"{t * 1e3:10.1f}" for t in found["times_ms"].values())
        reached = found["within_5_percent"]
        when = "-" if reached is None else f"{reached[0]} of {found['evaluations']} configs, {reached[1]:.0f} of {found['seconds']:.0f} s"
        print(f"{found['problem']:26} {times}          {when}", flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
