"""How fast the software GPU interprets: warp instructions per second on a few kernels.

    python benchmarks/softgpu_speed.py [--capability 80] [--case NAME]

A warp instruction does its work for 32 lanes. A kernel is compiled, loaded and decoded before the runs that are
measured, of which the fastest counts. The 2-CTA product needs the CuTe toolkit.
The library is the one of tests/softgpu; nothing here runs on a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import triton.language as tl

from tests import softgpu

RUNS = 5


def add(n: int = 1 << 20) -> Callable[[], object]:
    from tests.softgpu import kernels

    x, y, out = torch.randn(n), torch.randn(n), torch.empty(n)
    return lambda: kernels.add[(n // 1024,)](x, y, out, n, BLOCK=1024)


def softmax(rows: int = 512, columns: int = 1000) -> Callable[[], object]:
    from tests.softgpu import kernels

    x, out = torch.randn(rows, columns), torch.empty(rows, columns)
    return lambda: kernels.softmax[(rows,)](x, out, columns, columns, BLOCK=1024)


def sort(programs: int = 64) -> Callable[[], object]:
    from tests.softgpu import kernels

    x, index = torch.randint(0, 1000, (256,)).int(), torch.randint(0, 256, (256,)).int()
    ordered, gathered = torch.empty_like(x), torch.empty_like(x)
    return lambda: kernels.sort_and_gather[(programs,)](x, index, ordered, gathered, BLOCK=256)


def matmul(dtype: torch.dtype, n: int = 256) -> Callable[[], object]:
    from tests.softgpu import kernels

    a, b, c = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype), torch.empty(n, n)
    strides = (n, 1) * 3
    return lambda: kernels.matmul[(n // 64, n // 64)](a, b, c, n, n, n, *strides, BM=64, BN=64, BK=64, ACC=tl.float32)


def pair_gemm(n: int = 512) -> Callable[[], object]:
    """The CuTe backend's fp8 product on pairs of CTAs."""
    from tests.backends.cute import gpu
    from tests.backends.cute import problems

    problem = gpu.Problem.random(problems.matmul(n, n, n, problems.FP8), 0)
    return lambda: problem.launch(problems.pair(), clusters=4)


#: Name -> (what makes a run, the capability it needs; None for the one asked for).
CASES: dict[str, tuple[Callable[[], Callable[[], object]], int | None]] = {
    "add of 2^20 fp32": (add, None),
    "softmax of 512x1000 fp32": (softmax, None),
    "sort of 64 times 256 int32": (sort, None),
    "matmul 256^3 bf16": (lambda: matmul(torch.bfloat16), None),
    "matmul 256^3 fp32 as tf32": (lambda: matmul(torch.float32), None),
    "matmul 256^3 e5m2": (lambda: matmul(torch.float8_e5m2), None),
    "2-CTA GEMM 512^3 e4m3, sm_100a": (pair_gemm, 100),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, default=80, choices=softgpu.CAPABILITIES)
    parser.add_argument("--case", help="only cases whose name contains this")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    print(f"{os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f}; best of {RUNS} runs")
    print(
        f"{'sm_' + str(arguments.capability):32s} {'ms':>9s} {'instructions':>13s} {'million/s':>10s} {'ns each':>8s}"
    )
    for name, (make, capability) in CASES.items():
        if arguments.case and arguments.case not in name:
            continue
        softgpu.install(capability=capability or arguments.capability)
        with contextlib.redirect_stdout(io.StringIO()):  # the tests' helpers print seeds
            run = make()
        run()
        seconds = float("inf")
        for _ in range(RUNS):
            softgpu.reset()
            start = time.perf_counter()
            run()
            seconds = min(seconds, time.perf_counter() - start)
        count = softgpu.instructions()
        print(
            f"{name:32s} {seconds * 1e3:9.1f} {count:13,d} {count / seconds / 1e6:10.2f} {seconds / count * 1e9:8.1f}"
        )


if __name__ == "__main__":
    main()
