"""Tuning real kernels: how soon the search is within 5% of its final best, and how the result compares with PyTorch.

For matmul 4096^3, softmax 4096x8192, rms_norm, attention and cross entropy (the kernels of `examples/`): tunes from
scratch with a budget of seconds, and then times, in turn and the same way (CUDA events, cold L2 cache), the default
config, the tuned config, eager PyTorch, cuBLAS (for matmul), and `torch.compile(mode="max-autotune")`, with and without
its CUDA graphs, which copy the arguments at every call.

    python benchmarks/autotune_gpu.py --json autotune_gpu.json

takes at most `--total-seconds` (290): each kernel has a process of its own, so that one which fails costs only itself,
and `torch.compile` gets `--compile-seconds` for each kernel, less where time runs out.  `--small` shrinks the problems
so that the script itself can be tried without a GPU; its times then mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import os
import platform
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

WITHIN = 0.05
ROUNDS = 5
OVERHEAD_SECONDS = 30.0
"""Of one kernel's process, besides the budget of its search and torch.compile: imports, workers, comparison."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """One kernel with the sizes of its arguments, on a GPU and for trying the script.

    Attributes:
        name: in the table.
        example: module in `examples/` and kernel in it.
        dtype: of the arguments.
        sizes: for the example's `make_args`.
        small: sizes for trying the script.
    """

    name: str
    example: str
    dtype: str
    sizes: tuple[int, ...]
    small: tuple[int, ...]


PROBLEMS = (
    Problem("matmul 4096^3 bf16", "matmul", "bfloat16", (4096, 4096, 4096), (64, 64, 64)),
    Problem("softmax 4096x8192 bf16", "softmax", "bfloat16", (4096, 8192), (64, 128)),
    Problem("rms_norm 8192x4096 bf16", "rms_norm", "bfloat16", (8192, 4096), (64, 128)),
    Problem("attention 4x16x2048x64 bf16", "attention", "bfloat16", (4, 16, 2048, 2048, 64), (1, 2, 64, 64, 16)),
    Problem("cross_entropy 4096x32768 f32", "cross_entropy", "float32", (4096, 32768), (64, 128)),
)

CONTENDERS = ("default", "tuned", "eager", "cuBLAS", "compile", "compile, no graphs")


# -- one kernel, in a process of its own
# -----------------------------------------------------------------------------------


def say(seconds: float, **found: Any) -> None:
    """Tell the parent what was found, and for how many seconds nothing more may be heard."""
    print(json.dumps({"seconds_to_next": seconds, "found": found}), file=_reports, flush=True)


_reports: Any = None


def time_to_within(records: list[dict[str, Any]], within: float) -> tuple[int, float] | None:
    """(evaluations, seconds) until the best time measured was within this ratio of the last best."""
    final = min((r["time_ms"] for r in records), default=math.inf)
    for count, record in enumerate(records, 1):
        if record["time_ms"] <= final * (1 + within):
            return count, record["seconds"]
    return None


def compare(contenders: dict[str, Callable[[], Any]], device: Any) -> dict[str, float]:
    """Milliseconds of each, measured in turn: what drifts hits all alike."""
    from helion.autotuner.measure import Effort
    from helion.autotuner.measure import time_call

    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, call in contenders.items():
            times[name].append(time_call(call, device, Effort(total_ms=40)).median)
    return {name: statistics.median(each) for name, each in times.items()}


def relative_error(result: Any, exact: Any) -> float:
    """Root mean square of the difference, relative to that of the exact result."""
    difference = (result.float() - exact.float()).square().mean().sqrt()
    return float(difference / exact.float().square().mean().sqrt())


def compare_with_compile(
    reference: Callable[..., Any],
    args: tuple[Any, ...],
    contenders: dict[str, Callable[[], Any]],
    device: Any,
    seconds: float,
) -> None:
    """Add what `torch.compile` makes of the reference to the contenders, reporting each; none with no time for it."""
    import torch

    for name, mode in (("compile, no graphs", "max-autotune-no-cudagraphs"), ("compile", "max-autotune")):
        if seconds <= 0:
            return
        began = time.perf_counter()
        compiled = torch.compile(reference, mode=mode, dynamic=False)
        try:
            for _ in range(4):  # CUDA graphs warm up and record in the first calls
                compiled(*args)
        except Exception as error:  # whatever the compiler raises is a result here
            say(
                max(seconds, OVERHEAD_SECONDS),
                **{f"{name} failed": f"{type(error).__name__}: {error}"[:300]},
            )
            continue
        took = time.perf_counter() - began
        contenders[name] = lambda f=compiled: f(*args)  # type: ignore[misc]
        say(
            max(seconds, OVERHEAD_SECONDS),
            times_ms=compare(contenders, device),
            **{f"{name} seconds": round(took, 2)},
        )


def run_one(problem: Problem, options: argparse.Namespace) -> None:
    """Tune and compare one kernel, reporting every step."""
    import torch

    from helion.autotuner.api import run_search
    from helion.autotuner.bound import BoundTarget
    from helion.autotuner.log_file import read_log

    device = torch.device("cpu" if options.small and not torch.cuda.is_available() else "cuda:0")
    module = importlib.import_module(f"examples.{problem.example}")
    kernel = getattr(module, problem.example)
    torch.manual_seed(0)
    args = module.make_args(
        *(problem.small if options.small else problem.sizes), dtype=getattr(torch, problem.dtype), device=str(device)
    )
    target = BoundTarget(kernel.bind(args))
    say(options.budget + 2 * OVERHEAD_SECONDS)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        log = options.log / f"{problem.example}.json" if options.log else Path(folder) / "search.json"
        chosen = {"search": options.search} if options.search else {}
        result = run_search(
            target,
            args,
            log=str(log),
            progress_bar=False,
            effort=options.effort,
            budget_seconds=options.budget,
            evaluations=options.evaluations,
            **chosen,
        )
        reached = time_to_within(read_log(log)[-len(result.trials) :], WITHIN)
    took = time.perf_counter() - began
    say(
        OVERHEAD_SECONDS,
        config=dict(result.config.minimize(target.config_spec)),
        evaluations=len(result.trials),
        failed={status.value: count for status, count in result.failures().most_common()},
        ended=result.ended,
        search_seconds=round(result.seconds, 2),
        tuning_seconds=round(took, 2),
        within=reached,
    )

    bound = kernel.bind(args)
    tuned, default = (bound.compile_config(c) for c in (result.config, target.config_spec.default_config()))
    contenders: dict[str, Callable[[], Any]] = {
        "default": lambda: default(*args),
        "tuned": lambda: tuned(*args),
        "eager": lambda: module.reference(*args),
    }
    if problem.example == "matmul":
        out = module.reference(*args)
        contenders["cuBLAS"] = lambda: torch.mm(*args, out=out)
    wide = [a.float() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args]
    exact = module.reference(*wide)
    errors = {name: relative_error(call(), exact) for name, call in contenders.items()}
    del wide, exact
    say(max(options.compile_seconds, OVERHEAD_SECONDS), errors=errors, times_ms=compare(contenders, device))
    compare_with_compile(module.reference, args, contenders, device, options.compile_seconds)


# -- the parent
# ----------------------------------------------------------------------------------------------------------


def in_own_process(index: int, options: argparse.Namespace, compile_seconds: float) -> dict[str, Any]:
    """Run one problem and collect what it reports, until it ends, fails, or is not heard from in time."""
    problem = PROBLEMS[index]
    found: dict[str, Any] = {"problem": problem.name, "times_ms": {}}
    read, write = os.pipe()
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        *sys.argv[1:],
        "--child",
        str(index),
        str(write),
        str(compile_seconds),
    ]
    process = subprocess.Popen(command, pass_fds=[write], start_new_session=True)
    os.close(write)
    reports: queue.Queue[str | None] = queue.Queue()

    def listen() -> None:
        with os.fdopen(read) as stream:
            for line in stream:
                reports.put(line)
        reports.put(None)

    threading.Thread(target=listen, daemon=True).start()
    limit, problem_text = 2 * OVERHEAD_SECONDS, None
    try:
        while True:
            line = reports.get(timeout=limit)
            if line is None:
                break
            message = json.loads(line)
            limit = message["seconds_to_next"]
            found["times_ms"].update(message["found"].pop("times_ms", {}))
            found.update(message["found"])
        if process.wait(30) != 0:
            problem_text = f"ended with status {process.returncode}"
    except queue.Empty:
        problem_text = f"stopped after {limit:.0f} s without news"
    except subprocess.TimeoutExpired:
        problem_text = "did not end"
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # its workers and compilers too
        except ProcessLookupError:
            pass
        process.wait()
    if problem_text:
        found["problem_text"] = problem_text
    return found


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    import torch

    import helion

    found: dict[str, Any] = {
        "helion": helion.__version__,
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
    }
    for name in ("torch", "triton", "optuna"):
        spec = importlib.util.find_spec(name)
        found[name] = getattr(importlib.import_module(name), "__version__", "?") if spec else None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["device"] = f"{properties.name}, {properties.multi_processor_count} SMs"
    return found


def row(found: dict[str, Any]) -> str:
    """One line of the table."""
    times = " ".join(
        f"{found['times_ms'][c] * 1e3:10.1f}" if c in found["times_ms"] else f"{'-':>10}" for c in CONTENDERS
    )
    text = f"{found['problem']:28} {times}"
    if "within" in found:
        count, seconds = found["within"] or ("-", math.nan)
        failed = sum(found["failed"].values())
        text += (
            f"   {count} of {found['evaluations']} configs, {seconds:.0f} of "
            f"{found['search_seconds']:.0f} s; {failed} failed"
        )
    best = min((found["times_ms"][c] for c in CONTENDERS[2:] if c in found["times_ms"]), default=None)
    if best is not None and "tuned" in found["times_ms"]:
        text += f"; {best / found['times_ms']['tuned']:.2f}x the best of PyTorch"
    return text + (f"  ({found['problem_text']})" if "problem_text" in found else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=25.0, help="seconds each search may take")
    parser.add_argument(
        "--compile-seconds", type=float, default=40.0, help="seconds one torch.compile may take; 0: none"
    )
    parser.add_argument(
        "--total-seconds", type=float, default=290.0, help="for everything; torch.compile is cut short first"
    )
    parser.add_argument("--effort", choices=("quick", "full"), default="full")
    parser.add_argument("--evaluations", type=int, help="configs at most (default: what the effort says)")
    parser.add_argument("--search", help="name of a search (default: what a user gets)")
    parser.add_argument("--problems", nargs="*", type=int, default=list(range(len(PROBLEMS))), help="numbers from 0")
    parser.add_argument("--small", action="store_true", help="tiny problems, for trying the script")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--log", type=Path, help="keep every trial in JSON files in this folder")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.log:
        options.log.mkdir(parents=True, exist_ok=True)
    if options.child:
        global _reports
        index, descriptor, seconds = options.child
        options.compile_seconds = float(seconds)
        _reports = os.fdopen(int(descriptor), "w")
        run_one(PROBLEMS[int(index)], options)
        return

    about = environment()
    print(json.dumps(about))
    if "device" not in about and not options.small:
        parser.error("there is no GPU; --small tries the script without one")
    end = time.monotonic() + options.total_seconds
    print(
        f"{'[us]':28} "
        + " ".join(f"{c[-10:]:>10}" for c in CONTENDERS)
        + f"   within {WITHIN:.0%} of the final best after",
        flush=True,
    )
    results = []
    for done, index in enumerate(options.problems):
        share = (end - time.monotonic()) / (len(options.problems) - done)
        # Half for each of the two modes; the second finds much of the first one's work done.
        room = min(options.compile_seconds, share - options.budget - OVERHEAD_SECONDS)
        results.append(in_own_process(index, options, room if room > 5.0 else 0.0))
        print(row(results[-1]), flush=True)
        if options.json:
            options.json.write_text(
                json.dumps({"environment": about, "options": vars(options), "results": results}, indent=1, default=str)
            )
    for found in results:
        print(f"{found['problem']}: {json.dumps({k: v for k, v in found.items() if k not in ('problem', 'times_ms')})}")


if __name__ == "__main__":
    main()
