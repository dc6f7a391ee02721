"""Host time of launching a CuTe kernel: helion's own launch beside the toolkit's packed entry (no GPU needed).

    python benchmarks/cute_launch.py

A row-wise scaled fp8 product of 256^3 is launched (a) through a whole helion call in C, arguments checked and tensor
maps found in the cache, (b) through the packed entry that `cute.compile` makes, which encodes the three tensor maps
anew, from a loop in C with CUDA's calls replaced by functions that return at once, (c) by `cuLaunchKernelEx` alone with
everything prepared. (a) and (c) go to the software GPU's driver with launches counted and not run. Beside them, a
helion call of a Triton kernel with as many tensors: what (a) costs more than that is what tensor maps and clusters cost
helion, and compares with (b).
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from launch_overhead import BASELINE
from launch_overhead import device
from launch_overhead import time_cases

import helion
import helion.language as hl
from helion.backends.cute.kernel import CuteKernel
from helion.runtime.native import driver as native_driver
from helion.runtime.native.launcher import NativeLauncher
from tests.backends.cute import toolkit_launch

SIZE = 256


@helion.kernel(backend="cute")
def scaled(
    x: torch.Tensor, y: torch.Tensor, scale_a: torch.Tensor, scale_b: torch.Tensor, out: torch.Tensor
) -> torch.Tensor:
    m, k = x.size()
    n = y.size(1)
    for rows, columns in hl.tile([m, n]):
        acc = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(k):
            acc = hl.dot(x[rows, inner], y[inner, columns], acc=acc)
        out[rows, columns] = (acc * scale_a[rows, :] * scale_b[:, columns]).to(torch.bfloat16)
    return out


@helion.kernel(config=helion.Config(block_sizes=[128]))
def five_tensors(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    for tile in hl.tile(out.size(0)):
        out[tile] = a[tile] + b[tile] + c[tile] + d[tile]
    return out


_PACKED = (
    toolkit_launch.CUDA_STUBS
    + r"""
int _cudaLaunchKernelEx(void *config, void *kernel, void **args) { return 0; }
int _cudaLaunchKernel(void *k, int gx, int gy, int gz, int bx, int by, int bz, void **args, long s,
void *stream) { return 0; }
void repeat(void (*entry)(void **), void **arguments, long n) { for (long i = 0; i < n; ++i) entry(arguments); }
"""
)
_DRIVER = """
typedef int (*launch_t)(void *config, void *function, void **parameters, void *extra);
int repeat(launch_t launch, void *config, void *function, void **parameters, long n) {
  int bad = 0;
  for (long i = 0; i < n; ++i) bad |= launch(config, function, parameters, 0);
  return bad;
}
"""


def packed_entry(kernel: CuteKernel, folder: Path, tensors: list[torch.Tensor]) -> Callable[[int], None]:
    """n launches through the toolkit's entry, but for the driver."""
    loaded, entry = toolkit_launch.host_library(kernel.spec, kernel.schedule, folder, _PACKED)
    arguments = toolkit_launch.PackedArguments([t.data_ptr() for t in tensors])
    address = ctypes.cast(getattr(loaded, entry), ctypes.c_void_p)

    def loop(n: int) -> None:
        loaded.repeat(address, arguments.pointers, ctypes.c_long(n))
        assert arguments.status.value == 0

    return loop


def driver_alone(launcher: NativeLauncher, folder: Path, tensors: list[torch.Tensor]) -> Callable[[int], None]:
    """n calls of cuLaunchKernelEx with the kernel's configuration; what the parameters hold does not matter."""
    (folder / "loop.c").write_text(_DRIVER)
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", folder / "loop.so", folder / "loop.c"], check=True)
    repeat = ctypes.CDLL(str(folder / "loop.so")).repeat
    function = ctypes.cast(ctypes.CDLL("libcuda.so.1").cuLaunchKernelEx, ctypes.c_void_p)
    facts = launcher.facts
    attribute = native_driver.LaunchAttribute(id=4)
    attribute.value[0:3] = facts.cluster
    config = native_driver.LaunchConfig(
        grid=(ctypes.c_uint * 3)(*facts.cluster[:2], 1),
        block=(ctypes.c_uint * 3)(*facts.block),
        shared_bytes=facts.shared_bytes,
        attributes=ctypes.pointer(attribute),
        attribute_count=1,
    )
    room = ctypes.create_string_buffer(128)
    pointers = (ctypes.c_void_p * len(facts.parameters))(*[ctypes.addressof(room)] * len(facts.parameters))
    handle = ctypes.c_void_p(launcher.description()["function"])

    def loop(n: int) -> None:
        assert repeat(function, ctypes.byref(config), handle, pointers, ctypes.c_long(n)) == 0

    return loop


def main() -> None:
    x = torch.zeros(SIZE, SIZE).to(torch.float8_e4m3fn)
    rows, columns, out = torch.ones(SIZE, 1), torch.ones(1, SIZE), torch.empty(SIZE, SIZE, dtype=torch.bfloat16)
    tensors = [x, x.t(), rows, columns, out]
    vectors = [torch.zeros(4096) for _ in range(5)]
    small = [torch.zeros(4), torch.zeros(4)]
    with device() as (_, wait), tempfile.TemporaryDirectory() as scratch:
        for _ in range(4):
            scaled(*tensors)
            five_tensors(*vectors)
        kernel = next(v for v in scaled.bind(tensors).generated_source().injected.values() if isinstance(v, CuteKernel))
        ordered = [x, x.t(), out, rows, columns]
        launcher = kernel.launch(
            (kernel.schedule.cluster_m, kernel.schedule.cluster_n, 1),
            ordered,
            device=0,
            stream=0,
            directory=Path(scratch),
        )
        names = [
            "helion call of the CuTe kernel",
            "helion call of a Triton kernel",
            "cuLaunchKernelEx alone",
            "the toolkit's packed entry, without the driver",
        ]
        cases: dict[str, tuple[Callable[..., object], int]] = {
            BASELINE: (lambda: torch.add(*small), 1),
            names[0]: (lambda: scaled(*tensors), 1),
            names[1]: (lambda: five_tensors(*vectors), 1),
            names[2]: (driver_alone(launcher, Path(scratch), ordered), -1),
            names[3]: (packed_entry(kernel, Path(scratch), ordered), -1),
        }
        found = time_cases(cases, wait, repeats=15, seconds=0.05)
    for name, row in found.items():
        print(f"{name:50} {row['us'] * 1e3:8.0f} ns {row['ratio']:7.3f} of torch.add's")


if __name__ == "__main__":
    main()
