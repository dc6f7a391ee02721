"""A handful of the examples on realistic sizes for this machine: `make demo`.

On a GPU the kernels run there.  Without one they run on the CPU through the tile executor, each is compiled for a GPU
all the same, and one of them runs its compiled code on the software GPU of the tests.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import helion
from helion.cross_compile import cross_compile

from .catalog import EXAMPLES
from .entry import Example
from .entry import in_double
from .entry import tensors

# Sizes for two CPU cores: a fraction of a second each.
_CPU_SIZES: dict[str, tuple[int, ...]] = {
    "add": (1 << 22,),
    "softmax": (1024, 2048),
    "rms_norm": (1024, 2048),
    "matmul_epilogue": (512, 512, 512),
    "cross_entropy": (512, 8000),
    "attention": (1, 8, 256, 256, 64),
}
_TARGET = 90


def largest_error(example: Example, args: tuple[Any, ...], result: Any) -> float:
    """Largest absolute difference from the reference in float64."""
    expected = tensors(example.reference(*in_double(args)))
    return max(float((e.double() - a.double()).abs().max()) for e, a in zip(expected, tensors(result)))


def _seconds(run: Callable[[], Any], device: str) -> float:
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _shape(args: tuple[Any, ...]) -> str:
    return " ".join("x".join(map(str, t.shape)) for t in tensors(args)[:2])


def run_example(table: Table, example: Example, size: tuple[int, ...], device: str) -> None:
    """Run one example and add its row."""
    args = example.args(size, device=device)
    first = _seconds(lambda: example.kernel(*args), device)
    steady = statistics.median(_seconds(lambda: example.kernel(*args), device) for _ in range(5))
    error = largest_error(example, args, example.kernel(*args))
    bound = example.kernel.bind(args)
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU, tile executor"
    if device == "cpu":
        small = example.args()
        stages = cross_compile(example.kernel.bind(small), small, capability=_TARGET)
        where += f"; compiled for sm_{_TARGET}: {sum(len(s['cubin']) for s in stages) // 1024} KiB"
    path = _short(_write_source(bound))
    dtype = str(tensors(args)[0].dtype).removeprefix("torch.")
    table.add_row(
        example.name,
        _shape(args),
        dtype,
        where,
        f"{error:.1e}",
        f"{first * 1e3:.0f} ms",
        f"{steady * 1e3:.2f} ms",
        path,
    )


def _short(path: str) -> str:
    home = str(Path.home())
    return "~" + path[len(home) :] if path.startswith(home) else path


def _write_source(bound: helion.BoundKernel) -> str:
    """The file with the generated source; written here if the CPU did not need it."""
    path = Path(bound.get_cached_path())
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(bound.to_triton_code())
    return str(path)


def run_on_software_gpu(table: Table, name: str, device: str) -> None:
    """Run an example's compiled code by interpreting its PTX."""
    from tests import softgpu

    example = EXAMPLES[name]
    args = example.args()
    softgpu.install(capability=_TARGET)
    try:
        kernel = helion.Kernel(example.kernel.fn, configs=example.kernel.configs, settings=example.kernel.settings)
        start = time.perf_counter()
        result = kernel(*args)
        first = time.perf_counter() - start
        steady = _seconds(lambda: kernel(*args), "cpu")
        error = largest_error(example, args, result)
        path = _short(kernel.bind(args).get_cached_path())
        where = f"software GPU, sm_{_TARGET} ({softgpu.instructions()} warp instructions)"
    finally:
        softgpu.uninstall()
    dtype = str(tensors(args)[0].dtype).removeprefix("torch.")
    table.add_row(
        name, _shape(args), dtype, where, f"{error:.1e}", f"{first * 1e3:.0f} ms", f"{steady * 1e3:.2f} ms", path
    )


def main() -> None:
    warnings.simplefilter("ignore", helion.exc.NoConfigGiven)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    console = Console(width=None if Console().is_terminal else 200)
    table = Table(
        title=f"helion {helion.__version__}, torch {torch.__version__}: largest error against float64", show_lines=False
    )
    for column in ("kernel", "shape", "dtype", "where and how"):
        table.add_column(column)
    for column in ("error", "first call", "then"):
        table.add_column(column, justify="right")
    table.add_column("generated source", overflow="fold")
    for name, cpu_size in _CPU_SIZES.items():
        example = EXAMPLES[name]
        with console.status(name):
            run_example(table, example, example.size if device == "cuda" else cpu_size, device)
    if device == "cpu":
        with console.status("softmax on the software GPU"):
            run_on_software_gpu(table, "softmax", device)
    console.print(table)


if __name__ == "__main__":
    main()
