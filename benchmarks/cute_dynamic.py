"""Warp instructions that CuTe kernels execute for one tile, by role, counted on the software GPU (no GPU needed).

    python benchmarks/cute_dynamic.py [--json]

For one tile of e4m3 -> bf16, 256x128 on a pair of CTAs (sm_100a) and 128x128 on one CTA (sm_90a), plain and with
row-wise scales: the instructions of each role at k = 1024, in all its warps, and from a second run with twice the k,
those of one more k tile. Failed polls of a barrier are not counted, except the first of a phase, so the figures depend
a little on the order of events: each is the median of several seeds.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import statistics
import sys
from pathlib import Path

# The software GPU is part of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HELION_NO_EXTENSION", "1")

from helion.backends.cute.schedule import MatmulSchedule
from helion.backends.cute.spec import MatmulSpec
from tests import softgpu
from tests.backends.cute.gpu import Problem
from tests.backends.cute.problems import FP8
from tests.backends.cute.problems import hopper
from tests.backends.cute.problems import matmul
from tests.backends.cute.problems import pair
from tests.backends.cute.problems import rowwise

K_TILE = 128
K_TILES = 8
SEEDS = range(5)

#: Architecture -> (capability, schedule, rows of the tile, role -> its warps).
MACHINES: dict[str, tuple[int, MatmulSchedule, int, dict[str, range]]] = {
    "sm_100a": (100, pair(), 256, {"load": range(5, 6), "mma": range(4, 5), "epilogue": range(4)}),
    "sm_90a": (
        90,
        hopper(tile_k=K_TILE),
        128,
        {"load": range(4), "multiply and epilogue": range(4, 12)},
    ),
}


def executed(capability: int, schedule: MatmulSchedule, spec: MatmulSpec, roles: dict[str, range]) -> dict[str, float]:
    """Warp instructions of one launch over one tile by role, all CTAs of the cluster together; medians over `SEEDS`."""
    counts: dict[str, list[int]] = {role: [] for role in roles}
    for seed in SEEDS:
        softgpu.install(capability, seed=seed)
        Problem.random(spec, 0).launch(schedule, clusters=1)
        for role, warps in roles.items():
            counts[role].append(sum(cta[warp] for cta in softgpu.warp_instructions() for warp in warps))
    return {role: statistics.median(values) for role, values in counts.items()}


def measure() -> list[dict[str, object]]:
    """One row for each architecture, kernel and role."""
    rows: list[dict[str, object]] = []
    for arch, (capability, schedule, m, roles) in MACHINES.items():
        for kernel in ("plain", "row-wise scales"):
            spec = matmul(m, 128, K_TILES * K_TILE, FP8)
            if kernel != "plain":
                spec = dataclasses.replace(spec, epilogue=rowwise())
            longer = matmul(m, 128, 2 * K_TILES * K_TILE, FP8)
            longer = dataclasses.replace(longer, epilogue=spec.epilogue)
            short, long = (executed(capability, schedule, s, roles) for s in (spec, longer))
            for role, warps in roles.items():
                rows.append(
                    {
                        "arch": arch,
                        "kernel": kernel,
                        "role": role,
                        "warps": len(warps) * schedule.ctas_per_mma,
                        "instructions": short[role],
                        "k_tile": (long[role] - short[role]) / K_TILES,
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args()
    with contextlib.redirect_stdout(io.StringIO()):  # the tests' helpers print seeds
        rows = measure()
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'arch':8} {'kernel':16} {'role':22} {'warps':>5} {f'k = {K_TILE * K_TILES}':>9} {'a k tile':>9}")
    for row in rows:
        print(
            f"{row['arch']:8} {row['kernel']:16} {row['role']:22} {row['warps']:>5} "
            f"{row['instructions']:>9.0f} {row['k_tile']:>9.1f}"
        )


if __name__ == "__main__":
    main()
