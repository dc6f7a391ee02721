"""What the CuTe backend's kernels look like in machine code, without a GPU.

    python benchmarks/cute_static.py [--json] [--ptxas PATH]

Prints, for 4096^3 e4m3 -> bf16 (tile 256x128x128, 2-CTA pairs, cluster 2x1) plain and with row-wise scales, and for the
wgmma kernels: instructions without padding, registers, sites of the instructions that matter, stages and shared memory.
Beside them, for the same problem, NVIDIA's own persistent example for the CuTe DSL as it was measured with the same
method (2026-11). ``--ptxas`` assembles the same PTX with another assembler.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sass
import torch

from helion.backends.cute.compile import compile_matmul
from helion.backends.cute.schedule import MatmulSchedule
from helion.backends.cute.spec import Aux
from helion.backends.cute.spec import Epilogue
from helion.backends.cute.spec import MatmulSpec
from helion.backends.cute.spec import Operand
from helion.backends.cute.spec import Statement

SIZE = 4096
COLUMNS = ("UTMALDG", "UTMASTG", "MMA", "SYNCS", "LDTM", "LDG", "LDL", "STL")

# NVIDIA's dense_gemm_persistent example, same problem, tile and cluster: instructions, registers, sites.
REFERENCE = {
    "example sm_100a, ptxas 13.4": (
        900,
        40,
        {"UTMALDG": 2, "UTMASTG": 4, "MMA": 8, "SYNCS": 84, "LDTM": 4, "LDL": 0, "STL": 0},
    ),
    "example sm_100a, ptxas 12.9": (1020, 43, {}),
    "example sm_90a 128x256": (728, 168, {"MMA": 8}),
}


def rowwise() -> Epilogue:
    """acc * scale_a[m] * scale_b[n], as torch._scaled_mm has it."""
    f32 = torch.float32
    return Epilogue(
        (Aux("scale_a", f32, "column", m=1), Aux("scale_b", f32, "row", n=1)),
        (
            Statement("scaled_rows", "mul", ("acc", "scale_a"), f32),
            Statement("scaled", "mul", ("scaled_rows", "scale_b"), f32),
        ),
        "scaled",
    )


def problem(dtype: torch.dtype, epilogue: Epilogue = Epilogue(), fast: bool = False) -> MatmulSpec:
    """SIZE^3, A row-major, B column-major, bf16 output."""
    ab = Operand(dtype, SIZE, 1)
    out = Operand(torch.bfloat16, SIZE, 1)
    return MatmulSpec("matmul", SIZE, SIZE, SIZE, ab, ab, out, epilogue=epilogue, fast_accumulate=fast)


def cases() -> dict[str, tuple[MatmulSpec, MatmulSchedule]]:
    """Name -> (problem, schedule)."""
    fp8, bf16 = torch.float8_e4m3fn, torch.bfloat16
    blackwell = MatmulSchedule()
    hopper = MatmulSchedule(tile_m=128, tile_n=256, tile_k=128, cluster_m=1, ab_stages=3, acc_stages=1, arch="sm_90a")
    return {
        "sm_100a e4m3": (problem(fp8), blackwell),
        "sm_100a e4m3 scaled": (problem(fp8, rowwise()), blackwell),
        "sm_100a bf16": (problem(bf16), dataclasses.replace(blackwell, tile_k=64)),
        "sm_90a bf16": (problem(bf16), dataclasses.replace(hopper, tile_k=64)),
        "sm_90a e4m3 fast": (problem(fp8, fast=True), hopper),
        "sm_90a e4m3 scaled": (problem(fp8, rowwise()), dataclasses.replace(hopper, tile_n=128, ab_stages=6)),
    }


def measure(ptxas: str | None) -> dict[str, dict[str, object]]:
    """Statistics of every case."""
    rows: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, (spec, schedule) in cases().items():
            compiled = compile_matmul(spec, schedule, Path(scratch))
            cubin = compiled.assembly.cubin
            if ptxas is not None:
                cubin = sass.assemble(compiled.assembly.ptx, schedule.arch, ptxas)
            stats = sass.statistics(cubin)
            rows[name] = {
                "instructions": stats.instructions,
                "registers": stats.registers,
                "stack_bytes": stats.stack_bytes,
                "sites": stats.sites,
                "ab_stages": schedule.ab_stages,
                "acc_stages": schedule.acc_stages,
                "c_stages": schedule.c_stages,
                "shared_bytes": compiled.facts.shared_bytes,
                "ptxas": stats.ptxas,
            }
    return rows


def table(rows: dict[str, dict[str, object]]) -> str:
    """The rows and the reference figures as text."""
    head = f"{'kernel':30} {'instr':>6} {'regs':>5} " + " ".join(f"{c:>7}" for c in COLUMNS)
    lines = [head + f" {'ab/acc/c':>9} {'shared':>8} {'ptxas':>6}"]
    for name, row in rows.items():
        sites = row["sites"]
        assert isinstance(sites, dict)
        counts = " ".join(f"{sites[c]:>7}" for c in COLUMNS)
        stages = f"{row['ab_stages']}/{row['acc_stages']}/{row['c_stages']}"
        lines.append(
            f"{name:30} {row['instructions']:>6} {row['registers']:>5} {counts} {stages:>9} "
            f"{row['shared_bytes']:>8} {row['ptxas']:>6}"
        )
    for name, (instructions, registers, known) in REFERENCE.items():
        counts = " ".join(f"{known.get(c, '-'):>7}" for c in COLUMNS)
        lines.append(f"{name:30} {instructions:>6} {registers:>5} {counts}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--ptxas", help="assemble the PTX with this ptxas instead of the toolkit's own")
    options = parser.parse_args()
    rows = measure(options.ptxas)
    if options.json:
        json.dump(rows, sys.stdout, indent=1)
        print()
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
