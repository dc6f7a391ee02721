"""Warp instructions that a CuTe kernel executes for one tile, counted on the software GPU (no GPU needed).

    python benchmarks/cute_dynamic.py

For one 256x128 tile of e4m3 -> bf16 on a pair of CTAs: all warps of both CTAs, at two sizes of k, and from their difference the instructions of
one k tile. Polls of a barrier that is not ready yet count too, and depend on the software GPU's order of events.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

# The software GPU is part of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HELION_NO_EXTENSION", "1")

from tests import softgpu
from tests.backends.cute.gpu import Problem
from tests.backends.cute.problems import FP8
from tests.backends.cute.problems import matmul
from tests.backends.cute.problems import pair
from tests.backends.cute.problems import rowwise

K_TILE = 128


def executed(k: int, scaled: bool) -> int:
    """Warp instructions of one launch over one tile."""
    spec = matmul(256, 128, k, FP8)
    if scaled:
        spec = dataclasses.replace(spec, epilogue=rowwise())
    softgpu.reset()
    Problem.random(spec, 0).launch(pair(), clusters=1)
    return softgpu.instructions()


def main() -> None:
    softgpu.install(capability=100)
    for name, scaled in (("plain", False), ("row-wise scales", True)):
        short, long = executed(8 * K_TILE, scaled), executed(16 * K_TILE, scaled)
        print(f"{name:16} k={8 * K_TILE}: {short}  k={16 * K_TILE}: {long}  a k tile: {(long - short) / 8:.0f}")


if __name__ == "__main__":
    main()
