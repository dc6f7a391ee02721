"""What the driver and the allocator alone cost: launches of one kernel, and allocations, without anything around them.

Compiled with the machine's C compiler; for `launch_overhead.py`. In a loop in C the driver's own code stays in the
caches. Called from a loop in Python, which is how a kernel is called, it does not, and costs more; so there are both.
"""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

SOURCE = """\
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

typedef int (*launch_t)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,
                        void **);
/* CUlaunchConfig */
typedef struct {
  unsigned grid[3], block[3], shared;
  void *stream, *attributes;
  unsigned count;
} config_t;
typedef int (*launch_ex_t)(const config_t *, void *, void **, void **);
typedef int (*allocate_t)(uint64_t, void **);
typedef int (*release_t)(void *);

static launch_t launch;
static launch_ex_t launch_ex;
static void *function;
static unsigned grid, block, shared;
static uint64_t values[64];
static void *parameters[64];

static PyObject *answer(int error) {
  if (error) return PyErr_Format(PyExc_RuntimeError, "the driver returned %d", error);
  Py_RETURN_NONE;
}

static int once(void) { return launch(function, grid, 1, 1, block, 1, 1, shared, 0, parameters, 0); }

static int once_ex(void) {
  config_t config = {{grid, 1, 1}, {block, 1, 1}, shared, 0, 0, 0};
  return launch_ex(&config, function, parameters, 0);
}

/* prepare(cuLaunchKernel, cuLaunchKernelEx, function, grid, block, shared, addresses) */
static PyObject *prepare(PyObject *self, PyObject *args) {
  unsigned long long at, at_ex, handle;
  PyObject *addresses;
  if (!PyArg_ParseTuple(args, "KKKIIIO!", &at, &at_ex, &handle, &grid, &block, &shared, &PyTuple_Type, &addresses))
    return NULL;
  launch = (launch_t)(uintptr_t)at;
  launch_ex = (launch_ex_t)(uintptr_t)at_ex;
  function = (void *)(uintptr_t)handle;
  for (Py_ssize_t i = 0; i < 64; ++i) parameters[i] = &values[i];
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(addresses) && i < 60; ++i)
    values[i] = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(addresses, i));
  if (PyErr_Occurred()) return NULL;
  Py_RETURN_NONE;
}

static PyObject *call(PyObject *self, PyObject *unused) { return answer(once()); }
static PyObject *call_ex(PyObject *self, PyObject *unused) { return answer(once_ex()); }
static PyObject *call_without_gil(PyObject *self, PyObject *unused) {
  int error;
  Py_BEGIN_ALLOW_THREADS
  error = once_ex();
  Py_END_ALLOW_THREADS
  return answer(error);
}

static PyObject *loop(PyObject *self, PyObject *count) {
  int error = 0;
  for (long n = PyLong_AsLong(count); n > 0 && !error; --n) error = once();
  return answer(error);
}
static PyObject *loop_ex(PyObject *self, PyObject *count) {
  int error = 0;
  for (long n = PyLong_AsLong(count); n > 0 && !error; --n) error = once_ex();
  return answer(error);
}

/* allocations(allocate, release, bytes, count): one block at a time, as a result that replaces the last one. */
static PyObject *allocations(PyObject *self, PyObject *args) {
  unsigned long long at, release_at, bytes;
  long n;
  int error = 0;
  void *held = NULL;
  if (!PyArg_ParseTuple(args, "KKKl", &at, &release_at, &bytes, &n)) return NULL;
  for (; n > 0 && !error; --n) {
    void *block = NULL;
    error = ((allocate_t)(uintptr_t)at)(bytes, &block);
    if (held) ((release_t)(uintptr_t)release_at)(held);
    held = block;
  }
  if (held) ((release_t)(uintptr_t)release_at)(held);
  return answer(error);
}

static PyMethodDef methods[] = {
    {"prepare", prepare, METH_VARARGS, 0}, {"call", call, METH_NOARGS, 0},
    {"call_ex", call_ex, METH_NOARGS, 0},  {"call_without_gil", call_without_gil, METH_NOARGS, 0},
    {"loop", loop, METH_O, 0},             {"loop_ex", loop_ex, METH_O, 0},
    {"allocations", allocations, METH_VARARGS, 0}, {0}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "bare", 0, -1, methods};
PyMODINIT_FUNC PyInit_bare(void) { return PyModule_Create(&definition); }
"""


def build(folder: str) -> Any:
    """The module; None without a C compiler or Python's headers."""
    source, library = Path(folder) / "bare.c", Path(folder) / "bare.so"
    source.write_text(SOURCE)
    include = sysconfig.get_paths()["include"]
    command = ["cc", "-O2", "-shared", "-fPIC", "-w", f"-I{include}", "-o", str(library), str(source)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    spec = importlib.util.spec_from_file_location("bare", library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases(folder: str, compiled: Any, grid: int, tensors: list[Any]) -> dict[str, tuple[Any, int]]:
    """Case -> (function, calls it makes; -1: it takes their number), for a kernel that Triton has compiled.

    The last tensor is what allocations are as large as.
    """
    bare = build(folder)
    if bare is None:
        return {}
    driver = ctypes.CDLL("libcuda.so.1")
    entries = [_address(getattr(driver, name)) for name in ("cuLaunchKernel", "cuLaunchKernelEx")]
    warps, _, shared = compiled.packed_metadata
    addresses = tuple(tensor.data_ptr() for tensor in tensors)
    bare.prepare(*entries, compiled.function, grid, 32 * warps, shared, addresses)
    found: dict[str, tuple[Any, int]] = {
        "cuLaunchKernel in a C loop": (bare.loop, -1),
        "cuLaunchKernelEx in a C loop": (bare.loop_ex, -1),
        "cuLaunchKernel, called from Python": (bare.call, 1),
        "cuLaunchKernelEx, called from Python": (bare.call_ex, 1),
        "cuLaunchKernelEx without the GIL, called from Python": (bare.call_without_gil, 1),
    }
    if (allocator := caching_allocator()) is not None:
        size = tensors[-1].nbytes
        found["allocation in a C loop"] = (lambda n: bare.allocations(*allocator, size, n), -1)
    return found


def caching_allocator() -> tuple[int, int] | None:
    """Addresses of the functions by which CUDA's caching allocator allocates and frees; None where torch has none."""
    import torch

    library = Path(torch.__file__).parent / "lib" / "libtorch_cuda.so"
    names = ("aoti_torch_cuda_caching_allocator_raw_alloc", "aoti_torch_cuda_caching_allocator_raw_delete")
    try:
        functions = [getattr(ctypes.CDLL(str(library)), name) for name in names]
    except (OSError, AttributeError):
        return None
    return _address(functions[0]), _address(functions[1])


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0
