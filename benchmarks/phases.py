"""Phases of one launch beside one launch per phase, on a GPU.

    python benchmarks/phases.py [--json FILE]

Standardizing the columns of a matrix takes three loops over it: means, deviations, results.  `one launch` is a kernel
with `hl.barrier()` between them, `three launches` the same loops as kernels of their own, called one after the other.
GPU time is the median between CUDA events with the matrix in L2 or memory as the calls before left it; `us a call` is
the time of many calls one after the other with a wait at the end, so for small matrices the host's.  Best of a few
schedules each.

The time of a barrier is that of a kernel with 21 rounds of nothing but barriers less that of one with one round.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import triton
import triton.language as tl

import helion
import helion.language as hl
from helion.runtime.triton_helpers import hlt_grid_barrier

SIZES = ((256, 256), (1024, 1024), (4096, 4096), (16384, 8192))


def mean_of(x: torch.Tensor, columns: hl.Tile) -> torch.Tensor:
    """Means of a tile of columns; called in the kernels, like the next one."""
    total = hl.zeros([columns])
    for rows in hl.tile(x.size(0)):
        total = total + x[rows, columns].sum(0)
    return total / x.size(0)


def deviation_of(x: torch.Tensor, mean: torch.Tensor, columns: hl.Tile) -> torch.Tensor:
    """Standard deviations of a tile of columns."""
    squares = hl.zeros([columns])
    for rows in hl.tile(x.size(0)):
        centered = x[rows, columns] - mean[columns][None, :]
        squares = squares + (centered * centered).sum(0)
    return torch.sqrt(squares / x.size(0))


def standardize(x: torch.Tensor) -> torch.Tensor:
    """Columns of a matrix with mean 0 and deviation 1."""
    n = x.size(1)
    mean, deviation = torch.empty([n], device=x.device), torch.empty([n], device=x.device)
    out = torch.empty_like(x)
    for columns in hl.tile(n):
        mean[columns] = mean_of(x, columns)
    hl.barrier()
    for columns in hl.tile(n):
        deviation[columns] = deviation_of(x, mean, columns)
    hl.barrier()
    for rows, columns in hl.tile(x.shape):
        out[rows, columns] = (x[rows, columns] - mean[columns][None, :]) / deviation[columns][None, :]
    return out


def means(x: torch.Tensor) -> torch.Tensor:
    """The first loop of `standardize`."""
    mean = torch.empty([x.size(1)], device=x.device)
    for columns in hl.tile(x.size(1)):
        mean[columns] = mean_of(x, columns)
    return mean


def deviations(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """The second."""
    deviation = torch.empty_like(mean)
    for columns in hl.tile(x.size(1)):
        deviation[columns] = deviation_of(x, mean, columns)
    return deviation


def results(x: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """The third."""
    out = torch.empty_like(x)
    for rows, columns in hl.tile(x.shape):
        out[rows, columns] = (x[rows, columns] - mean[columns][None, :]) / deviation[columns][None, :]
    return out


@triton.jit
def _barriers(x, ROUNDS: tl.constexpr):
    for _ in range(ROUNDS):
        hlt_grid_barrier(False)


def gpu_us(call: Callable[[], Any], samples: int = 50) -> float:
    """Median GPU time of a call in microseconds."""
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(samples + 3)]
    for start, stop in events:
        start.record()
        call()
        stop.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(stop) for start, stop in events[3:]) * 1e3


def us_a_call(call: Callable[[], Any], calls: int = 200, rounds: int = 7) -> float:
    """Time of a call among many, in microseconds: least of a few rounds."""
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / calls)
    return min(times) * 1e6


def fastest(
    make: Callable[[helion.Config | None], Callable[[], Any]], configs: list[helion.Config]
) -> Callable[[], Any]:
    """The call with the schedule of the least GPU time; schedules that the GPU has no room for are left out."""
    timed = []
    for config in configs:
        call = make(config)
        try:
            for _ in range(4):
                call()
        except RuntimeError as error:
            if "too many blocks" not in str(error):
                raise
            continue
        timed.append((gpu_us(call, 10), call))
    return min(timed, key=lambda pair: pair[0])[1]


def measure(size: tuple[int, int]) -> dict[str, Any]:
    """One row of the table."""
    x = torch.randn(*size, device="cuda")
    schedules = list(itertools.product((16, 32), (64, 128), (4, 8)))

    def one(config: helion.Config | None) -> Callable[[], Any]:
        kernel = helion.kernel(standardize, config=config)
        return lambda: kernel(x)

    one_launch = fastest(
        one,
        [
            helion.Config(block_sizes=[c, r, c, r, 32, 128], num_warps=w, num_sm_multiplier=k)
            for (c, r, w), k in itertools.product(schedules, (1, 2, 4))
        ],
    )

    def alone(fn: Callable[..., Any], *args: torch.Tensor) -> Callable[[helion.Config | None], Callable[[], Any]]:
        def make(config: helion.Config | None) -> Callable[[], Any]:
            kernel = helion.kernel(fn, config=config)
            return lambda: kernel(*args)

        return make

    columns = [helion.Config(block_sizes=[c, r], num_warps=w) for c, r, w in schedules]
    first = fastest(alone(means, x), columns)
    mean = first()
    kernels = [
        first,
        fastest(alone(deviations, x, mean), columns),
        fastest(
            alone(results, x, mean, x.std(0)),
            [helion.Config(block_sizes=[r, 128], num_warps=w) for r in (16, 32) for w in (4, 8)],
        ),
    ]

    def three_launches() -> None:
        for kernel in kernels:
            kernel()

    torch.testing.assert_close(one_launch(), (x - x.mean(0)) / x.std(0, correction=0), rtol=1e-3, atol=1e-3)
    return {
        "size": list(size),
        "one_launch_gpu_us": gpu_us(one_launch),
        "three_launches_gpu_us": gpu_us(three_launches),
        "one_launch_us_a_call": us_a_call(one_launch),
        "three_launches_us_a_call": us_a_call(three_launches),
    }


def barrier_us(programs: int) -> float:
    """Time of one barrier of so many programs of four warps."""
    x = torch.empty(1, device="cuda")
    times = [gpu_us(lambda n=n: _barriers[(programs,)](x, ROUNDS=n, launch_cooperative_grid=True)) for n in (21, 1)]
    return (times[0] - times[1]) / 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write the rows to this file")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a GPU")
    sms = torch.cuda.get_device_properties(0).multi_processor_count
    barriers = {programs: barrier_us(programs) for programs in (sms, 2 * sms, 4 * sms)}
    print(f"helion {helion.__version__}, torch {torch.__version__}, {torch.cuda.get_device_name()}")
    for programs, us in barriers.items():
        print(f"a barrier of {programs} programs: {us:.2f} us")
    print(f"{'matrix':<14}{'GPU us: one':>12}{'three':>9}{'ratio':>7}{'us a call: one':>17}{'three':>9}{'ratio':>7}")
    rows = []
    for size in SIZES:
        row = measure(size)
        rows.append(row)
        gpu, call = (
            (
                row[f"one_launch_{kind}"],
                row[f"three_launches_{kind}"],
                row[f"one_launch_{kind}"] / row[f"three_launches_{kind}"],
            )
            for kind in ("gpu_us", "us_a_call")
        )
        print(
            f"{'x'.join(map(str, size)):<14}{gpu[0]:>12.1f}{gpu[1]:>9.1f}{gpu[2]:>7.2f}"
            f"{call[0]:>17.1f}{call[1]:>9.1f}{call[2]:>7.2f}"
        )
    if options.json:
        Path(options.json).write_text(json.dumps({"barrier_us": barriers, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
