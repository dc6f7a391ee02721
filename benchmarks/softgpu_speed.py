"""How fast the software GPU interprets: warp instructions per second on a few kernels.

    python benchmarks/softgpu_speed.py [--capability 80] [--case NAME]

A warp instruction does its work for 32 lanes. The second run of each kernel is measured: compiled, loaded and decoded before.
The library is the one of tests/softgpu; nothing here runs on a GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import triton.language as tl

from tests import softgpu


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


CASES: dict[str, Callable[[], Callable[[], object]]] = {
    "add of 2^20 fp32": add,
    "softmax of 512x1000 fp32": softmax,
    "sort of 64 times 256 int32": sort,
    "matmul 256^3 bf16": lambda: matmul(torch.bfloat16),
    "matmul 256^3 fp32 as tf32": lambda: matmul(torch.float32),
    "matmul 256^3 e5m2": lambda: matmul(torch.float8_e5m2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, default=80, choices=softgpu.CAPABILITIES)
    parser.add_argument("--case", help="only cases whose name contains this")
    arguments = parser.parse_args()
    softgpu.install(capability=arguments.capability)
    torch.manual_seed(0)
    print(f"{'sm_' + str(arguments.capability):30s} {'ms':>9s} {'instructions':>13s} {'million/s':>10s} {'ns each':>8s}")
    for name, make in CASES.items():
        if arguments.case and arguments.case not in name:
            continue
        run = make()
        run()
        softgpu.reset()
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        count = softgpu.instructions()
        print(f"{name:30s} {seconds * 1e3:9.1f} {count:13,d} {count / seconds / 1e6:10.2f} {seconds / count * 1e9:8.1f}")


if __name__ == "__main__":
    main()
