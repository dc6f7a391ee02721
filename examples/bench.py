"""Every example at realistic sizes on this machine's GPU: right against float64, and timed against eager PyTorch.

    python -m examples.bench                         all of them
    python -m examples.bench matmul attention        some of them
    python -m examples.bench --tune 30 long_sum      and what the autotuner finds in 30 seconds each, as a line to paste
    python -m examples.bench --json results.json     and the numbers in a file
    python -m examples.bench --compile 90            compile each for a GPU that need not be there, run nothing
    python -m examples.bench --device cpu            small sizes through the tile executor; times then mean nothing

Worker processes compile side by side; what runs on the GPU takes turns.  A kernel that fails, hangs or takes its
process down with it costs its own row of the table and nothing else.

Columns: `error` is the largest difference from the reference in float64 over what is allowed (1 is the limit); times
are medians of CUDA events around single calls with a cold L2 cache; `x eager` is eager PyTorch's time over ours; GB/s
counts every tensor argument and result once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import helion
from helion._compat_triton import compile_without_device
from helion.backends.cute._compat import installed as cute_installed
from helion.cross_compile import record_launches

from .catalog import CUTE_EXAMPLES
from .catalog import EXAMPLES
from .entry import Example
from .entry import errors
from .entry import in_double
from .entry import tensors

_ALL = {**EXAMPLES, **CUTE_EXAMPLES}

# Bytes written between two timed calls: more than any L2 cache.
_FLUSH_BYTES = 256 << 20


@dataclasses.dataclass
class Row:
    """The outcome for one example; times in milliseconds."""

    name: str
    ok: bool
    message: str = ""
    size: tuple[int, ...] = ()
    dtype: str = ""
    error: float | None = None
    ms: float | None = None
    eager_ms: float | None = None
    config: dict[str, Any] | None = None
    config_ms: list[float | None] = dataclasses.field(default_factory=list)
    tuned_ms: float | None = None
    tuned_config: dict[str, Any] | None = None
    gb_per_s: float | None = None
    tflops: float | None = None
    seconds: float = 0.0
    fatal: bool = False


# -- one example
# ---------------------------------------------------------------------------------------------------------


def median_ms(call: Callable[[], Any], budget_ms: float = 60.0, most: int = 100) -> float:
    """Median time of a call on the GPU: CUDA events around each of several, with the L2 cache overwritten before it."""
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device="cuda")

    def timed(count: int) -> list[float]:
        starts, stops = ([torch.cuda.Event(enable_timing=True) for _ in range(count)] for _ in range(2))
        for start, stop in zip(starts, stops):
            flush.zero_()
            start.record()
            call()
            stop.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(stop) for start, stop in zip(starts, stops)]

    guess = min(timed(3)[1:])
    return statistics.median(timed(max(5, min(most, int(budget_ms / max(guess, 1e-3))))))


def check(example: Example, actual: Any, expected: Any) -> float:
    """Largest error of a result over what is allowed."""
    worst = 0.0
    for tensor, error in errors(actual, expected):
        allowed = example.allowed(tensor.dtype)
        worst = max(worst, error / allowed if allowed else (float("inf") if error else 0.0))
    return worst


def run_example(
    example: Example,
    device: str,
    turn: Callable[[], contextlib.AbstractContextManager[None]],
    tune_seconds: float | None = None,
) -> Row:
    """Check and time one example with each of its configs; the row of the fastest that is right.

    Args:
        example: the example.
        device: "cuda", or "cpu" for small sizes through the tile executor.
        turn: a context in which this process has the device for itself.
        tune_seconds: how long to search for a better config; None: not at all.
    """
    began = time.perf_counter()
    size = example.size if device == "cuda" else example.small
    row = Row(example.name, ok=False, size=size, dtype=str(example.dtype).removeprefix("torch."))
    torch.manual_seed(0)
    with turn():
        args = example.args(size, device=device)
        expected = example.reference(*in_double(args))
        if device == "cuda":
            torch.cuda.empty_cache()  # the other processes want memory too
    bound = example.kernel.bind(args)
    measure = median_ms if device == "cuda" else _wall_ms
    problems = []
    best: tuple[float, Callable[..., Any], Any] | None = None
    given = example.configs if device == "cuda" else ()  # schedules for the realistic size
    for config in given or (None,):
        row.config_ms.append(None)
        try:
            run = bound.compile_config(config) if config is not None else bound
            result = run(*args)  # compiles
            with turn():
                error = check(example, result, expected)
                row.error = max(error, row.error or 0.0)
                if error > 1:
                    problems.append(f"error {error:.3g} times what is allowed{_of(config)}")
                    continue
                result = None
                ms = measure(lambda: run(*args))
        except Exception as problem:  # A failure of one schedule is a line of the report, whatever it was.
            problems.append(f"{type(problem).__name__}: {problem}{_of(config)}")
            if _device_is_lost(device):
                row.fatal = True
                break
            continue
        row.config_ms[-1] = ms
        if best is None or ms < best[0]:
            best = (ms, run, config)
    if best is not None and not row.fatal:
        row.ms, run, config = best
        row.config = dict(config) if config is not None else None
        eager = example.eager or example.reference
        with turn():
            row.eager_ms = measure(lambda: eager(*args))
            moved = sum(t.numel() * t.element_size() for t in [*tensors(args), *tensors(run(*args))])
        row.gb_per_s = moved / row.ms / 1e6
        row.tflops = example.flops(*size) / row.ms / 1e9 if example.flops else None
    if tune_seconds is not None and not row.fatal:
        try:
            with turn():
                config = bound.autotune(args, budget_seconds=tune_seconds, seed_configs=given, progress_bar=False)
                error = check(example, bound(*args), expected)
                if error > 1:
                    problems.append(f"error {error:.3g} times what is allowed{_of(config)}")
                else:
                    row.tuned_ms = measure(lambda: bound(*args))
                    row.tuned_config = dict(config.minimize(bound.config_spec))
        except Exception as problem:  # a search that fails is a line of the report too
            problems.append(f"tuning: {type(problem).__name__}: {problem}")
    row.ok = not problems
    row.message = "; ".join(problems)
    row.seconds = time.perf_counter() - began
    return row


def _of(config: Any) -> str:
    return "" if config is None else f" [{dict(config)}]"


def _wall_ms(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _device_is_lost(device: str) -> bool:
    """Whether an earlier error has made the CUDA context of this process unusable."""
    if device != "cuda":
        return False
    try:
        torch.cuda.synchronize()
        torch.zeros(1, device="cuda").item()
    except RuntimeError:
        return True
    return False


# Bytes of shared memory a program may have (CUDA C programming guide, technical specifications by compute capability).
_SHARED_BYTES = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}


def compile_example(example: Example, capability: int) -> Row:
    """Compile one example at its realistic size with each of its configs, on the CPU, for a GPU that need not be
    there.
    """
    began = time.perf_counter()
    row = Row(example.name, ok=True, size=example.size, dtype=str(example.dtype).removeprefix("torch."))
    args = example.args(example.size)
    bound = example.kernel.bind(args)
    for config in example.configs or (None,):
        try:
            for launch in record_launches(bound.generated_source(config), bound.kernel.normalize_args(*args)):
                compiled = compile_without_device(launch.kernel, launch.args, launch.options, capability)
                if compiled.metadata.shared > _SHARED_BYTES[capability]:
                    raise ValueError(f"{compiled.metadata.shared} bytes of shared memory")
        except Exception as problem:
            row.ok = False
            row.message += f"{type(problem).__name__}: {problem}{_of(config)} "
    row.seconds = time.perf_counter() - began
    return row


# -- worker processes
# ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the GPU: one process at a time; the system gives it back when a process dies."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def work(device: str, capability: int | None, lock: str, tune_seconds: float | None) -> None:
    """Run the examples named on standard input; a line of JSON for each on standard output."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what kernels and compilers print is not part of the answer
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        example = _ALL[line.strip()]
        try:
            if capability is not None:
                row = compile_example(example, capability)
            else:
                row = run_example(example, device, lambda: _locked(lock), tune_seconds)
        except Exception as problem:  # whatever it was, it belongs in the table
            traceback.print_exc()
            row = Row(example.name, False, f"{type(problem).__name__}: {problem}", fatal=_device_is_lost(device))
        print(json.dumps(dataclasses.asdict(row)), file=output, flush=True)
        if row.fatal:
            return
        if device == "cuda":
            torch.cuda.empty_cache()


class Worker:
    """A worker process, started anew when it dies or hangs."""

    def __init__(self, options: list[str], log: Any) -> None:
        self.options = options
        self.log = log
        self.process: subprocess.Popen[str] | None = None

    def run(self, name: str, timeout: float) -> Row:
        """The row of one example; a failed one if the process does not answer in time."""
        if self.process is None:
            command = [sys.executable, "-m", "examples.bench", "--worker", *self.options]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
                cwd=Path(__file__).resolve().parents[1],
            )  # fmt: skip
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        began = time.perf_counter()
        try:
            process.stdin.write(name + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
        if answer:
            row = Row(**json.loads(answer))
            if row.fatal:
                self.stop()
            return row
        seconds = time.perf_counter() - began
        self.stop()
        reason = (
            f"no answer within {timeout:.0f} s"
            if seconds >= timeout - 1
            else f"its process ended ({process.returncode})"
        )
        return Row(name, False, reason, seconds=seconds)

    def stop(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def run_all(
    names: list[str], options: list[str], workers: int, timeout: float, budget: float, report: Callable[[Row], None]
) -> list[Row]:
    """Run examples in worker processes until all are done or the time is over; rows in the order of `names`."""
    deadline = time.perf_counter() + budget
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as directory, open(Path(directory, "log"), "w") as log:
        lock = ["--lock", str(Path(directory, "gpu"))]

        def serve() -> None:
            worker = Worker([*options, *lock], log)
            with contextlib.suppress(queue.Empty):
                while True:
                    name = waiting.get_nowait()
                    left = deadline - time.perf_counter()
                    row = worker.run(name, min(timeout, left)) if left > 2 else Row(name, False, "not run: out of time")
                    rows[name] = row
                    report(row)
            worker.stop()

        threads = [threading.Thread(target=serve) for _ in range(min(workers, len(names)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if any(not row.ok for row in rows.values()):
            sys.stderr.write(Path(directory, "log").read_text()[-4000:])
    return [rows[name] for name in names]


# -- report
# --------------------------------------------------------------------------------------------------------------


def _number(value: float | None, digits: int, width: int) -> str:
    return ("-" if value is None else f"{value:.{digits}f}").rjust(width)


def table(rows: list[Row]) -> str:
    """The rows as text: what ran first, then why the others did not."""
    lines = [
        (
            f"{'example':24} {'size':28} {'dtype':9} {'error':>6} {'ms':>9} {'eager ms':>9} {'x eager':>7} "
            f"{'GB/s':>6} {'TFLOP/s':>7}"
        )
    ]
    for row in rows:
        ratio = row.eager_ms / row.ms if row.ms and row.eager_ms else None
        lines.append(
            f"{row.name:24} {'x'.join(map(str, row.size)):28} {row.dtype[:9]:9} "
            f"{_number(row.error, 2, 6)} {_number(row.ms, 4, 9)} "
            f"{_number(row.eager_ms, 4, 9)} {_number(ratio, 2, 7)} {_number(row.gb_per_s, 0, 6)} "
            f"{_number(row.tflops, 1, 7)}" + ("" if row.ok else "  FAILED")
        )
    failed = [row for row in rows if not row.ok]
    lines.append(f"{len(rows) - len(failed)} of {len(rows)} right")
    lines += [f"FAILED {row.name}: {' '.join(row.message.split())[:600]}" for row in failed]
    return "\n".join(lines)


def tuning_report(rows: list[Row]) -> str:
    """For each example that was tuned: the time under each config of the catalog, and the tuned one as a line to
    paste.
    """
    lines = []
    for row in rows:
        if row.tuned_ms is None or row.tuned_config is None:
            continue
        lines.append(f"{row.name}: eager{_number(row.eager_ms, 4, 8)} ms")
        configs = _ALL[row.name].configs if row.config is not None else ({},)
        lines += [f"  catalog{_number(ms, 4, 8)} ms  {dict(config)}" for config, ms in zip(configs, row.config_ms)]
        lines.append(
            f"  tuned  {_number(row.tuned_ms, 4, 8)} ms  @helion.kernel(config={helion.Config(**row.tuned_config)!r})"
        )
    return "\n".join(lines)


def main() -> int:
    """Run the examples named on the command line, or all; 0 if all of them are right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="example", help=f"of: {' '.join(_ALL)}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", type=int, metavar="CAPABILITY", help="compile for 80, 90 or 100 and run nothing")
    parser.add_argument("--tune", type=float, metavar="SECONDS", help="search that long for a better config of each")
    parser.add_argument("--json", metavar="FILE", help="write the rows to this file")
    parser.add_argument("--workers", type=int, help="processes that compile; when tuning one, as the tuner has its own")
    parser.add_argument(
        "--timeout", type=float, help="seconds one example may take: 60, and when tuning twice that time more"
    )
    parser.add_argument(
        "--budget", type=float, help="seconds all of them may take: 220, and when tuning enough for all"
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--lock", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.device, options.compile, options.lock, options.tune)
        return 0
    if options.tune and options.compile:
        parser.error("--tune runs what --compile does not")
    unknown = [name for name in options.names if name not in _ALL]
    if unknown:
        parser.error(f"no example {', '.join(unknown)}; there are: {' '.join(_ALL)}")
    on_cute = options.device == "cuda" and not options.compile and cute_installed()
    everything = list(_ALL if on_cute else EXAMPLES)
    began = time.perf_counter()
    names = options.names or everything
    passed_on = ["--device", options.device] + (["--compile", str(options.compile)] if options.compile else [])
    passed_on += ["--tune", str(options.tune)] if options.tune else []
    workers = options.workers or (1 if options.tune else max(1, min(6, (os.cpu_count() or 2) // 2)))
    timeout = options.timeout or 60 + 2 * (options.tune or 0)
    budget = options.budget or (timeout * len(names) if options.tune else 220)
    rows = run_all(
        names, passed_on, workers, timeout, budget,
        lambda row: print(f"{row.name}: {'right' if row.ok else 'FAILED'} ({row.seconds:.1f} s)", file=sys.stderr),
    )  # fmt: skip
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"helion {helion.__version__}, torch {torch.__version__}, {device}: {time.perf_counter() - began:.0f} s")
    print(table(rows))
    if options.tune:
        print(tuning_report(rows))
    if options.json:
        Path(options.json).write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
