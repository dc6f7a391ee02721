"""Row kernels against a copy of as many bytes: how far from the speed of light they are without tuning, on this GPU.

    python benchmarks/rows_gpu.py                             all kernels, rows of 256 to 262,144 columns: 140 s
    python benchmarks/rows_gpu.py softmax --columns 4096 65536
    python benchmarks/rows_gpu.py --join rows.json --seconds 100      some of them, more with each run
    python benchmarks/rows_gpu.py --join rows.json --seconds 0 --page docs/performance.md      no GPU: into its place

Each kernel has its computed default Config, and bfloat16 data.  It, a copy and eager PyTorch are timed in turn, three
rounds, by CUDA events with a cold L2 cache; medians.  The copy moves as many bytes in all as the kernel must: its
tensor arguments once and its results once.  `of copy` is the copy's time over the kernel's (1 is the speed of light,
more is possible where a kernel reads much and writes little), `of eager` PyTorch's over the kernel's (of the backward
passes of rms_norm and cross_entropy: of both passes, which autograd runs).  The last lines have geometric means and the
least.  The backward passes of norms are what one calls, a function that takes another kernel for very long rows.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["HELION_AUTOTUNE_EFFORT"] = "none"  # calls use the default Config

import helion
import helion.language as hl
from benchmarks import table
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


#: Name -> (kernel or function that calls some, eager, arguments).
KERNELS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "softmax": (softmax.softmax, softmax.reference, softmax.make_args),
    "softmax_backward": (softmax_backward, _eager_softmax_backward, _softmax_backward_args),
    "log_softmax": (log_softmax, _eager_log_softmax, softmax.make_args),
    "rms_norm": (rms_norm.rms_norm, rms_norm.reference, rms_norm.make_args),
    "rms_norm_backward": (rms_norm.backward, rms_norm.reference_backward, rms_norm.make_backward_args),
    "layer_norm": (layer_norm.layer_norm, layer_norm.reference, layer_norm.make_args),
    "layer_norm_backward": (
        layer_norm.backward,
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


@dataclasses.dataclass
class _Copy:
    """A copy that moves as many bytes as a kernel: reads half of them and writes half."""

    source: torch.Tensor
    target: torch.Tensor

    def __call__(self) -> None:
        self.target.copy_(self.source)


def measure(name: str, columns: int, dtype: torch.dtype) -> table.Row:
    """One row of the table."""
    kernel, eager, make_args = KERNELS[name]
    device = torch.device("cuda:0")
    torch.manual_seed(0)
    args = make_args(ELEMENTS // columns, columns, dtype=dtype, device="cuda")
    began = time.perf_counter()
    moved = _bytes(args) + _bytes(kernel(*args))
    torch.cuda.synchronize()
    compiled = time.perf_counter() - began
    source = torch.empty(moved // 2, dtype=torch.int8, device="cuda")
    runs: dict[str, Callable[[], Any]] = {
        "helion": lambda: kernel(*args),
        "copy": _Copy(source, torch.empty_like(source)),
        "eager": lambda: eager(*args),
    }
    for run in runs.values():
        run()
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
        "compile seconds": compiled,
    }


def _line(row: table.Row) -> str:
    us = " ".join(f"{kind} {value:8.1f}" for kind, value in row["us"].items())
    return (
        f"{row['name']:24} {row['columns']:7} {us}  of copy {row['of copy']:.3f}  of eager {row['of eager']:.2f}  "
        f"compiled in {row['compile seconds']:.1f} s"
    )


def grid(rows: list[table.Row]) -> str:
    """The table of docs/performance.md: of a copy's speed, a line for each kernel, a column for each length of rows."""
    columns = sorted({row["columns"] for row in rows})
    found = {(row["name"], row["columns"]): f"{row['of copy']:.2f}" for row in rows}
    lines = [f"| columns | {' | '.join(map(str, columns))} |", "|---" * (len(columns) + 1) + "|"]
    for name in dict.fromkeys(row["name"] for row in rows):
        lines.append(f"| {name} | {' | '.join(found.get((name, n), '') for n in columns)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"kernels (default: all of {', '.join(KERNELS)})")
    parser.add_argument("--columns", type=int, nargs="+", default=COLUMNS)
    parser.add_argument("--dtype", default="bfloat16")
    table.add_options(parser, seconds=140.0)
    options = parser.parse_args()
    rows = table.known_rows(options.join)
    if options.seconds > 0:
        if not torch.cuda.is_available():
            parser.error("there is no GPU")
        rows = table.run(tasks(options), environment(), options, _line, torch.cuda.empty_cache)
    failed, rows = table.failures(rows), table.measured(rows)
    if failed:
        print(failed)
    if not rows:
        return
    text = f"{grid(rows)}\n\n```\n{summaries(rows)}\n```"
    print(text)
    if options.page:
        about = f"Measured on {table.devices(rows)}, {options.dtype}, by `python benchmarks/rows_gpu.py`."
        table.put_on_page(options.page, "rows", about, text)


def tasks(options: argparse.Namespace) -> list[table.Task]:
    """All rows to measure."""
    dtype = getattr(torch, options.dtype)
    # By columns first, so that a run that is cut short has seen every kernel.
    return [
        table.Task(f"{name} {columns} {options.dtype}", functools.partial(measure, name, columns, dtype))
        for columns in sorted(options.columns, key=lambda n: (n != 4096, n))
        for name in options.names or KERNELS
    ]


def summaries(rows: list[table.Row]) -> str:
    """Geometric means and the least, of all rows and of long ones."""
    long = [row for row in rows if row["columns"] >= 4096]
    parts = {"all": rows, "4096 columns and more": long}
    return "\n".join(table.summary(some, ("of copy", "of eager"), title) for title, some in parts.items())


if __name__ == "__main__":
    main()
