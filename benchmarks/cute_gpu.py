"""CuTe kernels on a GPU: right, and how fast beside PyTorch's own, in one run.

    python benchmarks/cute_gpu.py [--json FILE]                       where there is a GPU and the CuTe toolkit
    python benchmarks/cute_gpu.py --prepare DIR [--capability 90]     compile everything into DIR; needs the toolkit,
    and no GPU HELION_CACHE_DIR=DIR python benchmarks/cute_gpu.py                run on a GPU machine without the
    toolkit

For fp8 (plain, with row-wise scales, and with exact accumulation) and bf16, square and LLM shapes: each of a few
schedules is checked against a float32 product and timed, and the best of them takes turns with `torch._scaled_mm` or
`torch.mm` (medians; L2 is overwritten before every run). The schedules are fixed here and not searched, so that they
can be compiled ahead. A run that makes no progress for 30 s ends, saying where.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import helion
from examples.fp8_matmul import fp8_matmul
from examples.fp8_scaled_mm import fp8_scaled_mm
from helion import exc
from helion.target import Target

SQUARE = ((4096, 4096, 4096), (8192, 8192, 8192))
# (n, k) of the two linear layers of a feed-forward block with 4096 channels and 14336 hidden ones.
LLM = tuple((m, n, k) for m in (16, 64, 512, 2048) for n, k in ((14336, 4096), (4096, 14336)))
# Edges of tiles in every direction; checked, not timed.
TAILS = ((1, 16, 16), (17, 272, 144), (255, 521, 272), (257, 1000, 1040))
ROUNDS, REPEATS = 5, 8


def fast(kernel: helion.Kernel) -> helion.Kernel:
    """The same function with all of k summed in the tensor core, as ``use_fast_accum=True`` does."""
    return helion.kernel(kernel.fn, backend="cute", fast_math=True)


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kernel and what it is compared with.

    Attributes:
        kernel: ours.
        rival: the same in PyTorch, from the same arguments.
        dtype: of A and B.
        scaled: whether there are row-wise scales.
        widest: the widest tile along n.
    """

    kernel: helion.Kernel
    rival: Callable[..., torch.Tensor]
    dtype: torch.dtype
    scaled: bool = False
    widest: int = 256


def _scaled_mm(fast_accumulate: bool) -> Callable[..., torch.Tensor]:
    def run(x: torch.Tensor, y: torch.Tensor, *scales: torch.Tensor) -> torch.Tensor:
        a, b = scales or (_one(x.device), _one(x.device))
        return torch._scaled_mm(x, y, a, b, out_dtype=torch.bfloat16, use_fast_accum=fast_accumulate)

    return run


_ones: dict[torch.device, torch.Tensor] = {}


def _one(device: torch.device) -> torch.Tensor:
    if device not in _ones:
        _ones[device] = torch.ones((), device=device)
    return _ones[device]


_FP8 = torch.float8_e4m3fn
KINDS = {
    "bf16": Kind(fp8_matmul, torch.mm, torch.bfloat16),  # the same function; the operands' dtype makes the difference
    "fp8": Kind(fast(fp8_matmul), _scaled_mm(True), _FP8),
    "fp8 rowwise": Kind(fast(fp8_scaled_mm), _scaled_mm(True), _FP8, scaled=True),
    "fp8 exact": Kind(fp8_matmul, _scaled_mm(False), _FP8, widest=128),
}
TIMED = [
    *((kind, shape) for kind in KINDS for shape in SQUARE),
    *((kind, shape) for kind in ("bf16", "fp8 rowwise") for shape in LLM),
]


def arguments(kind: Kind, shape: tuple[int, int, int], device: str) -> tuple[torch.Tensor, ...]:
    """A [m, k] row-major, B [k, n] column-major, and scales; random on a GPU, unwritten on a CPU (only shapes count
    there).
    """
    m, n, k = shape

    def matrix(rows: int, dtype: torch.dtype) -> torch.Tensor:
        if device == "cpu":
            return torch.empty(rows, k, dtype=dtype)
        return torch.randn(rows, k, device=device).to(dtype)

    args: tuple[torch.Tensor, ...] = (matrix(m, kind.dtype), matrix(n, kind.dtype).t())
    if kind.scaled:
        args += (torch.rand(m, 1, device=device) + 0.5, torch.rand(1, n, device=device) + 0.5)
    return args


def schedules(
    bound: helion.BoundKernel, kind: Kind, shape: tuple[int, int, int], capability: int
) -> Iterator[dict[str, Any]]:
    """A few Configs for a shape, each with the deepest ring that fits."""
    m = shape[0]
    block_k = 128 // kind.dtype.itemsize
    if capability == 90:
        if m <= 64:
            wide = [(64, w, 1, 1) for w in (32, 64, 128)]
        elif m <= 512:
            wide = [(128, 64, 1, 1), (128, 128, 1, 1), (64, 128, 1, 1), (128, 128, 2, 1)]
        else:
            wide = [(128, w, *cluster) for w in (128, 256) for cluster in ((1, 1), (2, 1), (1, 2)) if w <= kind.widest]
    elif m <= 128:
        wide = [(128, w, 1, 1) for w in (32, 64, 128)]
    else:
        wide = [(256, 128, 2, 1), (256, 256, 2, 1), (128, 128, 1, 1)]
    bands = (1, 8) if m >= 2048 else (1,)
    for block_m, block_n, cluster_m, cluster_n in wide:
        for band in bands:
            for stages in range(12, 1, -1):
                config = {
                    "block_sizes": [block_m, block_n, block_k],
                    "tcgen05_ab_stages": stages,
                    "tcgen05_c_stages": 2,
                    "tcgen05_cluster_m": cluster_m,
                    "tcgen05_cluster_n": cluster_n,
                    "tcgen05_l2_swizzle_size": band,
                }
                try:
                    bound.generated_source(config, Target("nvidia", capability))
                except exc.InvalidConfig:
                    continue
                yield config
                break


def tail_shapes(kind: Kind) -> list[tuple[int, int, int]]:
    """Those of `TAILS` whose rows of A and B are multiples of 16 bytes."""
    return [(m, n, k) for m, n, k in TAILS if k * kind.dtype.itemsize % 16 == 0]


def prepare(capability: int) -> None:
    """Compile all kernels of a run into the disk cache."""
    from helion.cross_compile import cross_compile

    start, count, size = time.perf_counter(), 0, 0
    for name, shape in [*((name, s) for name, kind in KINDS.items() for s in tail_shapes(kind)), *TIMED]:
        kind = KINDS[name]
        args = arguments(kind, shape, "cpu")
        bound = kind.kernel.bind(args)
        for config in [None] if shape in TAILS else schedules(bound, kind, shape, capability):
            size += sum(len(s["cubin"]) for s in cross_compile(bound, args, config, capability))
            count += 1
    print(
        f"{count} kernels for sm_{capability}a, {size / 2**20:.1f} MiB of binaries, {time.perf_counter() - start:.0f} s"
    )


class Watchdog:
    """Ends the process when a step takes too long: a GPU that hangs answers no signal."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._step, self._deadline = "start", time.monotonic() + 4 * seconds
        threading.Thread(target=self._watch, daemon=True).start()

    def step(self, name: str) -> None:
        self._step, self._deadline = name, time.monotonic() + self._seconds

    def _watch(self) -> None:
        while time.monotonic() < self._deadline:
            time.sleep(0.2)
        print(f"no progress for {self._seconds:.0f} s in: {self._step}", file=sys.stderr, flush=True)
        os._exit(3)


def error_of(got: torch.Tensor, want: torch.Tensor) -> float:
    """Largest error, as a part of the largest value."""
    return ((got.float() - want).abs().max() / want.abs().max()).item()


def reference(kind: Kind, args: tuple[torch.Tensor, ...]) -> torch.Tensor:
    product = args[0].float() @ args[1].float()
    return product * args[2] * args[3] if kind.scaled else product


def milliseconds(run: Callable[[], Any], repeats: int, flush: torch.Tensor) -> float:
    """Median time of one run on the GPU, each after a flush of L2."""
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for start, end in marks:
        flush.zero_()
        start.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in marks)


def measure(
    name: str, shape: tuple[int, int, int], capability: int, flush: torch.Tensor, watchdog: Watchdog
) -> dict[str, Any]:
    """One row of the table."""
    kind = KINDS[name]
    args = arguments(kind, shape, "cuda")
    want = reference(kind, args)
    rival_error = error_of(kind.rival(*args), want)
    bound = kind.kernel.bind(args)
    best: tuple[float, dict[str, Any]] | None = None
    worst_error = 0.0
    for config in schedules(bound, kind, shape, capability):
        watchdog.step(f"{name} {shape} {config}")
        bound.set_config(config)
        kind.kernel(*args)
        worst_error = max(worst_error, error_of(kind.kernel(*args), want))
        took = milliseconds(lambda: kind.kernel(*args), REPEATS, flush)
        if best is None or took < best[0]:
            best = took, config
    assert best is not None
    bound.set_config(best[1])
    watchdog.step(f"{name} {shape} beside PyTorch")
    kind.kernel(*args)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(milliseconds(lambda: kind.kernel(*args), REPEATS, flush))
        theirs.append(milliseconds(lambda: kind.rival(*args), REPEATS, flush))
    mine, rival = statistics.median(ours), statistics.median(theirs)
    m, n, k = shape
    return {
        "kind": name,
        "shape": list(shape),
        "microseconds": mine * 1e3,
        "torch_microseconds": rival * 1e3,
        "tflops": 2e-9 * m * n * k / mine,
        "torch_tflops": 2e-9 * m * n * k / rival,
        "ratio": rival / mine,
        "error": worst_error,
        "torch_error": rival_error,
        "right": worst_error <= max(2 * rival_error, 2**-8),
        "config": best[1],
    }


def check_tails(watchdog: Watchdog) -> list[str]:
    """Shapes with edges under the default Config; returns what is wrong."""
    wrong = []
    for name, kind in KINDS.items():
        for shape in tail_shapes(kind):
            watchdog.step(f"{name} {shape} default config")
            args = arguments(kind, shape, "cuda")
            bound = kind.kernel.bind(args)
            bound.set_config(bound.config_spec.default_config())
            error = error_of(kind.kernel(*args), reference(kind, args))
            if not error <= 2**-6:
                wrong.append(f"{name} {shape}: error {error:.1e}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", metavar="DIR", help="compile all kernels into DIR and stop")
    parser.add_argument("--capability", type=int, default=90, help="for --prepare: 90, 100 or 103")
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument("--only", metavar="KIND", choices=sorted(KINDS), help="this kind alone")
    options = parser.parse_args()
    if options.prepare:
        os.environ["HELION_CACHE_DIR"] = str(Path(options.prepare).resolve())
        prepare(options.capability)
        return 0
    if not torch.cuda.is_available():
        print("there is no GPU here; --prepare compiles for one", file=sys.stderr)
        return 1
    torch.manual_seed(0)
    start = time.perf_counter()
    major, minor = torch.cuda.get_device_capability()
    watchdog = Watchdog(30)
    # Far more than L2, and long to write: the host is done with a call before the GPU begins it, extension or not.
    flush = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, helion cute kernels for sm_{major}{minor}a")
    wrong = check_tails(watchdog)
    print("edges: " + ("; ".join(wrong) or "right"))
    print(
        f"{'kernel':12} {'m n k':>17} {'us':>8} {'torch us':>9} {'TFLOP/s':>8} {'torch':>7} {'ratio':>6} "
        f"{'error':>8} {'torch':>8}  config"
    )
    rows = []
    for name, shape in TIMED:
        if options.only and name != options.only:
            continue
        row = measure(name, shape, 10 * major + minor, flush, watchdog)
        rows.append(row)
        config = row["config"]
        text = (
            f"{'x'.join(map(str, config['block_sizes']))} cluster "
            f"{config['tcgen05_cluster_m']}x{config['tcgen05_cluster_n']}"
        )
        text += f" stages {config['tcgen05_ab_stages']} band {config['tcgen05_l2_swizzle_size']}"
        print(
            f"{name:12} {' '.join(map(str, shape)):>17} {row['microseconds']:8.1f} "
            f"{row['torch_microseconds']:9.1f} {row['tflops']:8.0f}"
            f" {row['torch_tflops']:7.0f} {row['ratio']:6.2f} {row['error']:8.1e} {row['torch_error']:8.1e}  "
            f"{text}{'' if row['right'] else '  WRONG'}",
            flush=True,
        )
    if options.json:
        record = {
            "gpu": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "seconds": time.perf_counter() - start,
            "wrong_edges": wrong,
            "rows": rows,
        }
        Path(options.json).write_text(json.dumps(record, indent=1))
    print(f"{time.perf_counter() - start:.0f} s")
    return 1 if wrong or not all(row["right"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
