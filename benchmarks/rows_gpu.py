"""Row kernels against a copy of as many bytes: how far from the speed of light they are without tuning, on this GPU.

    python benchmarks/rows_gpu.py                             all kernels, rows of 256 to 262,144 columns: 140 s
    python benchmarks/rows_gpu.py softmax --columns 4096 65536
    python benchmarks/rows_gpu.py --json rows.json --seconds 100

Each kernel has its computed default Config, and bfloat16 data.  It, a copy and eager PyTorch are timed in turn, three
rounds, by CUDA events with a cold L2 cache; medians.  The copy moves as many bytes in all as the kernel must: its
tensor arguments once and its results once.  `of copy` is the copy's time over the kernel's (1 is the speed of light,
more is possible where a kernel reads much and writes little), `of eager` PyTorch's over the kernel's (of the backward
passes of rms_norm and cross_entropy: of both passes, which autograd runs).  The last lines have geometric means and the
least.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import helion
import helion.language as hl
from benchmarks.autotune_gpu import environment
from examples import cross_entropy
from examples import layer_norm
from examples import rms_norm
from examples import softmax
from helion.autotuner.measure import Effort
from helion.autotuner.measure import time_call

#: Elements of the matrix: 128 MiB in 16 bits, more than an L2 cache holds.
ELEMENTS = 1 << 26
COLUMNS = (256, 1024, 4096, 16384, 65536, 262144)
ROUNDS = 3


@helion.kernel
def log_softmax(x: torch.Tensor) -> torch.Tensor:
    """log_softmax(x, dim=1) of a matrix."""
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        out[rows, :] = torch.log_softmax(x[rows, :].to(torch.float32), dim=1)
    return out


@helion.kernel
def softmax_backward(grad: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Gradient of softmax's argument, given that of its result and the result."""
    result = torch.empty_like(out)
    for rows in hl.tile(out.size(0)):
        y, dy = out[rows, :].to(torch.float32), grad[rows, :].to(torch.float32)
        result[rows, :] = y * (dy - (y * dy).sum(1, keepdim=True))
    return result


def _eager_log_softmax(x: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(x, dim=1)


def _eager_softmax_backward(grad: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    return torch.ops.aten._softmax_backward_data(grad, out, 1, out.dtype)


def _softmax_backward_args(m: int, n: int, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    (x,) = softmax.make_args(m, n, **kwargs)
    return torch.randn_like(x), torch.softmax(x, dim=1)


#: Name -> (kernel, eager, arguments).
KERNELS: dict[str, tuple[helion.Kernel, Callable[..., Any], Callable[..., Any]]] = {
    "softmax": (softmax.softmax, softmax.reference, softmax.make_args),
    "softmax_backward": (softmax_backward, _eager_softmax_backward, _softmax_backward_args),
    "log_softmax": (log_softmax, _eager_log_softmax, softmax.make_args),
    "rms_norm": (rms_norm.rms_norm, rms_norm.reference, rms_norm.make_args),
    "rms_norm_backward": (rms_norm.rms_norm_backward, rms_norm.reference_backward, rms_norm.make_backward_args),
    "layer_norm": (layer_norm.layer_norm, layer_norm.reference, layer_norm.make_args),
    "layer_norm_backward": (
        layer_norm.layer_norm_backward,
        layer_norm.reference_backward,
        layer_norm.make_backward_args,
    ),
    "cross_entropy": (cross_entropy.cross_entropy, cross_entropy.reference, cross_entropy.make_args),
    "cross_entropy_backward": (
        cross_entropy.cross_entropy_backward,
        cross_entropy.reference_backward,
        cross_entropy.make_backward_args,
    ),
}


def _bytes(values: Any) -> int:
    if isinstance(values, torch.Tensor):
        return values.nbytes
    return sum(map(_bytes, values)) if isinstance(values, (tuple, list)) else 0


def measure(name: str, columns: int, dtype: torch.dtype) -> dict[str, Any]:
    """One row of the table."""
    kernel, eager, make_args = KERNELS[name]
    device = torch.device("cuda:0")
    torch.manual_seed(0)
    args = make_args(ELEMENTS // columns, columns, dtype=dtype, device="cuda")
    bound = kernel.bind(args)
    default = bound.config_spec.default_config()
    began = time.perf_counter()
    run = bound.compile_config(default)
    moved = _bytes(args) + _bytes(run(*args))
    torch.cuda.synchronize()
    compiled = time.perf_counter() - began
    source = torch.empty(moved // 2, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    runs: dict[str, Callable[[], Any]] = {
        "helion": lambda: run(*args),
        "copy": lambda: target.copy_(source),
        "eager": lambda: eager(*args),
    }
    times: dict[str, list[float]] = {contender: [] for contender in runs}
    for _ in range(ROUNDS):
        for contender, call in runs.items():
            times[contender].append(time_call(call, device, Effort(total_ms=25)).median)
    us = {contender: statistics.median(each) * 1e3 for contender, each in times.items()}
    return {
        "name": name,
        "columns": columns,
        "us": us,
        "of copy": us["copy"] / us["helion"],
        "of eager": us["eager"] / us["helion"],
        "copy GB/s": moved / us["copy"] / 1e3,
        "config": dict(default.minimize(bound.config_spec)),
        "compile seconds": compiled,
    }


def _summary(rows: list[dict[str, Any]]) -> str:
    def of(key: str, some: list[dict[str, Any]]) -> str:
        values = [row[key] for row in some]
        mean = math.exp(sum(map(math.log, values)) / len(values))
        return f"{key} {mean:.3f} (least {min(values):.2f})"

    long = [row for row in rows if row["columns"] >= 4096]
    lines = [f"{len(rows)} rows: {of('of copy', rows)}, {of('of eager', rows)}"]
    if long:
        lines.append(f"{len(long)} of 4096 columns and more: {of('of copy', long)}, {of('of eager', long)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"kernels (default: all of {', '.join(KERNELS)})")
    parser.add_argument("--columns", type=int, nargs="+", default=COLUMNS)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--seconds", type=float, default=140.0, help="begin no further row after this long")
    parser.add_argument("--json", type=Path, help="write everything here")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no GPU")
    about = environment()
    print(json.dumps(about))
    end = time.monotonic() + options.seconds
    rows: list[dict[str, Any]] = []
    # By columns first, so that a run that is cut short has seen every kernel.
    for columns in sorted(options.columns, key=lambda n: (n != 4096, n)):
        for name in options.names or KERNELS:
            if time.monotonic() > end:
                print(f"no time for {name} {columns}")
                continue
            try:
                row = measure(name, columns, getattr(torch, options.dtype))
            except Exception as error:  # a kernel that fails costs its own row
                print(f"{name} {columns}: {type(error).__name__}: {error}"[:300], flush=True)
                continue
            rows.append(row)
            us = " ".join(f"{kind} {value:8.1f}" for kind, value in row["us"].items())
            of = f"of copy {row['of copy']:.3f}  of eager {row['of eager']:.2f}"
            print(f"{name:24} {columns:7} {us}  {of}  {row['config']}", flush=True)
            torch.cuda.empty_cache()
            if options.json:
                options.json.write_text(json.dumps({"environment": about, "rows": rows}, indent=1))
    if rows:
        print(_summary(rows))


if __name__ == "__main__":
    main()
