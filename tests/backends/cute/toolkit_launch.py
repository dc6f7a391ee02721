"""What the toolkit's own host entry would launch: run it on this machine with the CUDA calls stubbed out.

`cute.compile` also makes a host function which encodes the tensor maps and launches. Its object file, linked with
functions that record instead of calling CUDA, tells what the toolkit thinks the launch of our kernel is; the tests
compare ours with it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import struct
import subprocess
import warnings
from pathlib import Path

from helion.backends.cute import cache
from helion.backends.cute.compile import launch_facts
from helion.backends.cute.printer import entry_name
from helion.backends.cute.printer import print_module
from helion.backends.cute.schedule import MatmulSchedule
from helion.backends.cute.spec import MatmulSpec

#: Clusters of the grid the host entry is asked for.
CLUSTERS = 3

#: The CUDA calls of a host entry but the launches themselves.
CUDA_STUBS = r"""
#include <string.h>
int _cudaGetDevice(int *d) { *d = 0; return 0; }
int _cudaDeviceGetAttribute(int *v, int a, int d) { *v = 232448; return 0; }
int _cudaLibraryLoadData(void **l, void *a, void *b, void *c, int d, void *e, void *f, int g) { *l = (void *)1;
return 0; }
int _cudaLibraryGetKernel(void **k, void *l, char *n) { *k = (void *)2; return 0; }
int _cuKernelGetAttribute(int *v, int a, void *k, int d) { *v = 1024; return 0; }
int _cudaFuncSetAttribute(void *k, int a, int v) { return 0; }
int _cudaKernelSetAttributeForDevice(void *k, int a, int v, int d) { return 0; }
int _cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n, void *k, int b, long s) { *n = 1; return 0; }
"""
_STUBS = (
    CUDA_STUBS
    + r"""
unsigned char params[PARAMS][128];
unsigned int dims[6];
unsigned long shared;
static const int sizes[PARAMS] = {SIZES};
int _cudaLaunchKernelEx(void *config, void *kernel, void **args) {
  memcpy(dims, config, sizeof dims);
  memcpy(&shared, (char *)config + 24, 8);
  for (int i = 0; i < PARAMS; i++) memcpy(params[i], args[i], sizes[i]);
  return 0;
}
int _cudaLaunchKernel(void *k, int gx, int gy, int gz, int bx, int by, int bz, void **args, long s, void *stream) {
  unsigned int all[6] = {gx, gy, gz, bx, by, bz};
  memcpy(dims, all, sizeof all);
  shared = s;
  for (int i = 0; i < PARAMS; i++) memcpy(params[i], args[i], sizes[i]);
  return 0;
}
"""
)


@dataclasses.dataclass(frozen=True)
class Descriptor:
    """A 128-byte tensor map as its bits say (layout found by encoding known maps)."""

    address: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int

    @staticmethod
    def decode(data: bytes) -> Descriptor:
        (address,) = struct.unpack_from("<Q", data, 0)
        (flags,) = struct.unpack_from("<I", data, 8)
        rank = (flags >> 4 & 7) + 1
        strides = tuple(16 * x for x in struct.unpack_from(f"<{rank - 1}I", data, 12))
        dims = tuple(x + 1 for x in struct.unpack_from(f"<{rank}I", data, 32))
        box = tuple(x + 1 for x in data[55 : 55 + rank])
        return Descriptor(address, dims, strides, box, (0, 32, 64, 128)[flags >> 13 & 3])


@dataclasses.dataclass(frozen=True)
class ToolkitLaunch:
    """grid, block, dynamic shared memory in bytes, and the raw parameters."""

    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_bytes: int
    parameters: tuple[bytes, ...]


def host_library(spec: MatmulSpec, schedule: MatmulSchedule, directory: Path, stubs: str) -> tuple[ctypes.CDLL, str]:
    """The toolkit's host code for a kernel, linked with ``stubs`` (C source) instead of the CUDA runtime.

    Returns:
        The library, and the name of its packed entry, a ``void (void **arguments)``.
    """
    import cutlass.cute as cute
    from cutlass.cute.runtime import find_runtime_libraries

    # The object file is made by an engine that looks for the toolkit's runtime in this process only. It is there if a
    # kernel was compiled for the GPU that the toolkit has found: the software GPU of an earlier test may be another.
    for runtime in find_runtime_libraries(enable_tvm_ffi=False):
        ctypes.CDLL(runtime, mode=ctypes.RTLD_GLOBAL)
    source = print_module(spec, schedule)
    module = cache.Entry.of(source, schedule.arch, directory).import_source(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        compiled = cute.compile(
            getattr(module, entry_name(spec)), *module.example_arguments(), options=f"--gpu-arch {schedule.arch}"
        )
    (directory / "host.o").write_bytes(compiled.dump_to_object("probe"))
    (directory / "stubs.c").write_text(stubs)
    library = directory / "host.so"
    compiler = os.environ.get("CC", "cc")
    # -Bsymbolic: the toolkit's own runtime is in this process and has functions of the same names.
    command = [
        compiler,
        "-O2",
        "-shared",
        "-fPIC",
        "-w",
        "-Wl,-Bsymbolic",
        "-o",
        library,
        directory / "host.o",
        directory / "stubs.c",
    ]
    subprocess.run(command, check=True)
    names = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    entry = next(n for n in names.split() if n.startswith("_mlir_") and "_mlir_ciface_" in n)
    return ctypes.CDLL(str(library)), entry


@dataclasses.dataclass
class PackedArguments:
    """Arguments of a packed entry: addresses of tensors, the number of clusters, a stream, and where the result
    goes.
    """

    addresses: list[int]

    def __post_init__(self) -> None:
        self.status = ctypes.c_int32(-1)
        values = (ctypes.c_uint64(a) for a in self.addresses)
        self._held = [*values, ctypes.c_int32(CLUSTERS), ctypes.c_uint64(0), self.status]
        self.pointers = (ctypes.c_void_p * len(self._held))(*(ctypes.addressof(h) for h in self._held))


def toolkit_launch(spec: MatmulSpec, schedule: MatmulSchedule, directory: Path, addresses: list[int]) -> ToolkitLaunch:
    """Launch ``spec`` through the toolkit's host entry, with recorded instead of real CUDA calls."""
    kinds = {"map": 128, "pointer": 8, "value": 4}
    sizes = [kinds[p.kind] for p in launch_facts(spec, schedule).parameters]
    stubs = _STUBS.replace("PARAMS", str(len(sizes))).replace("SIZES", ", ".join(map(str, sizes)))
    loaded, entry = host_library(spec, schedule, directory, stubs)
    arguments = PackedArguments(addresses)
    getattr(loaded, entry)(arguments.pointers)
    if arguments.status.value:
        raise RuntimeError(f"the toolkit's host entry returned {arguments.status.value}")
    dims = tuple((ctypes.c_uint32 * 6).in_dll(loaded, "dims"))
    raw = bytes((ctypes.c_ubyte * (128 * len(sizes))).in_dll(loaded, "params"))
    parameters = tuple(raw[128 * i : 128 * i + size] for i, size in enumerate(sizes))
    return ToolkitLaunch(dims[:3], dims[3:], ctypes.c_uint64.in_dll(loaded, "shared").value, parameters)
