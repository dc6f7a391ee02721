"""Calls per second of one kernel in several threads, of Python without a GIL (3.14t) or with one.

    PYTHON_GIL=0 python3.14t benchmarks/threads.py [--plot docs/threads.svg] [--threads 1,2,4,8,16]

Triton's library turns the GIL on where it is imported, unless ``PYTHON_GIL=0`` says that it stays off; a process that
runs kernels from a bundle never imports it. Each thread has tensors of its own and calls the same kernel, in place and
with a new output, then ``torch.add`` of two 4-element CPU tensors, which shows how far this machine and PyTorch scale.
On the software GPU launches do nothing. Threads beyond the processors that are free share them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.launch_overhead import device
from benchmarks.launch_overhead import load_kernels

SECONDS = 1.0


def calls_per_second(call: Callable[[Any, Any], Any], make: Callable[[], tuple[Any, Any]], threads: int) -> float:
    """Of all threads together, each with arguments of its own; the best of three times ``SECONDS``."""
    best = 0.0
    for _ in range(3):
        counts = [0] * threads
        begin, stop = threading.Barrier(threads + 1), threading.Event()

        def work(index: int) -> None:
            x, y = make()
            for _ in range(50):
                call(x, y)
            begin.wait()
            done = 0
            while not stop.is_set():
                for _ in range(100):
                    call(x, y)
                done += 100
            counts[index] = done

        workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
        for worker in workers:
            worker.start()
        begin.wait()
        started = time.perf_counter()
        time.sleep(SECONDS)
        stop.set()
        for worker in workers:
            worker.join()
        best = max(best, sum(counts) / (time.perf_counter() - started))
    return best


def measure(counts: list[int]) -> dict[str, Any]:
    import tempfile

    import torch

    with device() as (name, _), tempfile.TemporaryDirectory() as folder:
        kernels = load_kernels(folder)

        def tensors() -> tuple[torch.Tensor, torch.Tensor]:
            return torch.zeros(4096, device=name), torch.zeros(4096, device=name)

        def small() -> tuple[torch.Tensor, torch.Tensor]:
            return torch.zeros(4), torch.zeros(4)

        cases = {
            "in place": (kernels.add2_in_place, tensors),
            "new output": (kernels.add2, tensors),
            "torch.add": (torch.add, small),
        }
        rates = {
            case: {threads: calls_per_second(call, make, threads) for threads in counts}
            for case, (call, make) in cases.items()
        }
        return {
            "device": torch.cuda.get_device_name() if name == "cuda" else "software GPU, execute=False",
            "python": sys.version.split()[0],
            "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
            "processors": len(os.sched_getaffinity(0)),
            "calls per second": rates,
        }


def plot(report: dict[str, Any], path: str) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for case, rates in report["calls per second"].items():
        axes.plot(list(rates), [rate / 1e6 for rate in rates.values()], marker="o", label=case)
    axes.set(xlabel="threads", ylabel="million calls per second", ylim=(0, None))
    axes.set_title(f"Python {report['python']}, {report['device']}, {report['processors']} processors", fontsize=9)
    axes.legend()
    figure.savefig(path, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1,2,4,8,16")
    parser.add_argument("--json", help="write the figures here, too")
    parser.add_argument("--plot", help="write a plot here (needs matplotlib)")
    options = parser.parse_args()
    report = measure([int(count) for count in options.threads.split(",")])
    print(f"Python {report['python']}, GIL {'on' if report['gil'] else 'off'}, {report['device']}")
    for case, rates in report["calls per second"].items():
        one = next(iter(rates.values()))
        print(
            f"{case:12}", *(f"{threads:3}: {rate / 1e6:6.3f} M ({rate / one:5.2f}x)" for threads, rate in rates.items())
        )
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1))
    if options.plot:
        plot(report, options.plot)


if __name__ == "__main__":
    main()
