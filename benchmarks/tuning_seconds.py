"""What a few seconds of tuning are worth, and where they go.

Searches of 10 seconds for row kernels and of 20 for products and attention, one after the other in one process, as a
program would: the first of them starts the fork server, the others find it running.  For each: the seconds from the
call until the Config is there, how many Configs were measured, the times of the default and of the winner (in turn, in
this process), their ratio, and the table of phases.

    python benchmarks/tuning_seconds.py --best best.json

`--best` names a file with the best times known, which every run lowers: the last column is the ratio to that.
`--small` shrinks the problems so that the script itself can be tried without a GPU; its times then mean nothing.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import importlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from helion.autotuner import fork_server
from helion.autotuner.api import run_search
from helion.autotuner.bound import BoundTarget
from helion.autotuner.measure import Effort
from helion.autotuner.measure import time_call

ROUNDS = 9


@dataclasses.dataclass(frozen=True)
class Problem:
    """A kernel with arguments.

    Attributes:
        module: of `examples`.
        kernel: in it.
        dtype: of the arguments.
        sizes: for its `make_args`.
        small: those for trying the script.
        seconds: of the search.
    """

    module: str
    kernel: str
    dtype: str
    sizes: tuple[int, ...]
    small: tuple[int, ...]
    seconds: float


PROBLEMS = (
    Problem("reductions", "long_sum", "float32", (16, 1 << 20), (4, 1 << 12), 10.0),
    Problem("softmax", "softmax", "bfloat16", (4096, 8192), (64, 128), 10.0),
    Problem("rms_norm", "rms_norm", "bfloat16", (8192, 4096), (64, 128), 10.0),
    Problem("layer_norm", "layer_norm", "bfloat16", (8192, 4096), (64, 128), 10.0),
    Problem("matmul", "matmul", "bfloat16", (4096, 4096, 4096), (64, 64, 64), 20.0),
    Problem("attention", "attention", "bfloat16", (4, 16, 2048, 2048, 64), (1, 2, 64, 64, 16), 20.0),
)


def compare(calls: dict[str, Any], device: torch.device) -> dict[str, float]:
    """Milliseconds of each, measured in turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name].append(time_call(call, device, Effort(total_ms=30)).median)
    return {name: statistics.median(each) for name, each in times.items()}


def run(problem: Problem, options: argparse.Namespace, best: dict[str, float]) -> None:
    """Tune one kernel and print what came of it."""
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    module = importlib.import_module(f"examples.{problem.module}")
    kernel = getattr(module, problem.kernel)
    torch.manual_seed(0)
    sizes = problem.small if options.small else problem.sizes
    args = module.make_args(*sizes, dtype=getattr(torch, problem.dtype), device=str(device))
    seconds = options.budget or problem.seconds
    began = time.perf_counter()
    fork_server.shared()  # as a first call does before it traces
    bound = kernel.bind(args)
    target = BoundTarget(bound)
    result = run_search(
        target,
        args,
        progress_bar=False,
        log_level=0,
        budget_seconds=seconds,
        effort="full",
        random_seed=options.seed,
        search=options.search,
    )
    took = time.perf_counter() - began
    default, tuned = (bound.compile_config(c) for c in (target.config_spec.default_config(), result.config))
    times = compare({"default": lambda: default(*args), "tuned": lambda: tuned(*args)}, device)
    name = f"{problem.kernel} {'x'.join(map(str, sizes))} {problem.dtype}"
    best[name] = min(best.get(name, times["tuned"]), times["tuned"], times["default"])
    failed = ", ".join(f"{count} {status.value}" for status, count in result.failures().most_common())
    print(
        f"== {name}: {result.seconds:.1f} of {seconds:.0f} s ({took:.1f} with binding), "
        f"{len(result.trials)} configs ({failed or 'none'} failed); "
        f"default {times['default'] * 1e3:.1f} us, tuned {times['tuned'] * 1e3:.1f} us, "
        f"ratio {times['default'] / times['tuned']:.3f}, of best known {best[name] / times['tuned']:.3f}"
    )
    print(f"   ended: {result.ended}; {result.config.minimize(target.config_spec)!r}")
    if result.time_ms is not None and result.default_ms is not None:
        # How well a comparison in the measuring process tells what this one finds.
        print(f"   final comparison: {result.default_ms * 1e3:.1f} us against {result.time_ms * 1e3:.1f} us")
    for (status, text), count in collections.Counter(
        (t.status.value, t.message[:160]) for t in result.trials if not t.ok
    ).most_common(4):
        print(f"   {count} x {status}: {text}")
    print(result.phases.table(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="small problems, to try the script")
    parser.add_argument("--budget", type=float, help="seconds of every search")
    parser.add_argument("--only", nargs="*", help="names of kernels")
    parser.add_argument("--seed", type=int, default=0, help="of the searches")
    parser.add_argument("--search", help="a row of helion.autotuner.session.SEARCHES")
    parser.add_argument("--best", type=Path, help="a file with the best times known")
    options = parser.parse_args()
    best = json.loads(options.best.read_text()) if options.best and options.best.exists() else {}
    for problem in PROBLEMS:
        if not options.only or problem.kernel in options.only:
            run(problem, options, best)
    print(f"fork servers started: {fork_server._servers.started}; problem: {fork_server._servers.problem}")
    if options.best:
        options.best.write_text(json.dumps(best, indent=1))


if __name__ == "__main__":
    main()
