"""Counts the words of memory that calls of one kernel in many threads share, and that one of the threads writes.

    PYTHON_GIL=0 python3.14t tests/csrc/shared_writes.py [--threads 16] [--keep build/shared-writes]

For a free-threaded Python. The extension is built in a copy of the tree, as it ships but with its accesses to memory
instrumented; ``shared_writes.cpp`` notes them in steady calls on the software GPU. Prints, for each kind of call, how
many words (8 bytes) several threads touched and how many of these one wrote, with the places; ends with 1 if any was.
Where none is, calls wait for nothing that the extension knows, however many processors there are. Seen is what the
extension does, and what of Python and PyTorch is compiled into it: reference counts, atomics. Not what happens inside
of them. Cache lines that are shared and written though no word is: neighbours on the C library's heap, such as version
counters of tensors. The last case, where all threads write to one tensor, shows that the count sees what is shared.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CALLS = 300
SHARED = "one output"
CASES = ("in place", "new output", "keywords", "two dimensions", "eight shapes", SHARED)


def build(folder: Path) -> Path:
    """Builds the runtime and the extension; gives the runtime's path."""
    from run_sanitized import copy_tree  # beside this file

    folder.mkdir(parents=True, exist_ok=True)
    copy_tree(folder)
    # Under the name that the compiler links with -fsanitize=thread.
    runtime = folder / "libtsan.so"
    source = ROOT / "tests/csrc/shared_writes.cpp"
    command = [
        "g++",
        "-O2",
        "-std=c++17",
        "-fPIC",
        "-shared",
        f"-Wl,-soname,{runtime}",
        str(source),
        "-o",
        str(runtime),
    ]
    subprocess.run([*command, "-ldl"], check=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HELION_")}
    environment |= {"HELION_BUILD_EXTENSION": "1", "HELION_BUILD_SANITIZE": "thread", "LDFLAGS": f"-L{folder}"}
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder, env=environment, check=True
    )
    return runtime


class SharedWrites(ctypes.Structure):
    """As in ``shared_writes.cpp``."""

    _fields_ = [("touched", ctypes.c_int), ("written", ctypes.c_int), ("lines", ctypes.c_int)]


def count(runtime: ctypes.CDLL, threads: int, work: Callable[[], Callable[[], object]]) -> SharedWrites:
    """What threads share in steady calls of ``work()``, each with one of its own."""
    settled, begin, called, end = (threading.Barrier(threads + more) for more in (0, 1, 1, 1))

    def run() -> None:
        call = work()
        for _ in range(100):
            call()
        settled.wait()  # whatever the other threads' first calls have changed
        for _ in range(100):
            call()
        begin.wait()
        begin.wait()
        for _ in range(CALLS):
            call()
        called.wait()
        end.wait()  # a thread that ends gives back what it holds

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    begin.wait()
    runtime.shared_writes_start()
    begin.wait()
    called.wait()
    shared = SharedWrites()
    runtime.shared_writes_stop(ctypes.byref(shared))
    end.wait()
    for worker in workers:
        worker.join()
    return shared


def steady(call: Callable[..., object], *arguments: Any) -> Callable[[], Callable[[], object]]:
    """Each thread's calls with copies of the arguments."""

    def work() -> Callable[[], object]:
        own = [argument.clone() for argument in arguments]
        return lambda: call(*own)

    return work


def cases(kernels: Any, name: str) -> dict[str, Callable[[], Callable[[], object]]]:
    """What a thread's calls are, by what they show."""
    import torch

    def tensors(*shape: int) -> list[torch.Tensor]:
        return [torch.zeros(shape, device=name) for _ in range(2)]

    def eight_shapes() -> Callable[[], object]:
        pairs = [tensors(1024 + 64 * index) for index in range(8)]
        return lambda: [kernels.add2(x, y) for x, y in pairs]

    two, shared = tensors(4096), tensors(4096)
    return {
        "in place": steady(kernels.add2_in_place, *two),
        "new output": steady(kernels.add2, *two),
        "keywords": steady(lambda x, y: kernels.add2(x0=x, x1=y), *two),
        "two dimensions": steady(kernels.broadcast_add, tensors(64, 128)[0], tensors(128)[0]),
        "eight shapes": eight_shapes,
        SHARED: lambda: lambda: kernels.add2_in_place(*shared),
    }


def measure(path: str, threads: int, case: str) -> int:
    """Counts for one of the cases, and prints it; gives the exit status."""
    runtime = ctypes.CDLL(path)
    import helion._extension
    from benchmarks.launch_overhead import device
    from benchmarks.launch_overhead import load_kernels

    assert helion._extension.C is not None, helion._extension.why_not
    with device() as (name, _), tempfile.TemporaryDirectory() as folder:
        shared = count(runtime, threads, cases(load_kernels(folder), name)[case])
    print(
        f"{case:16}{threads:4} threads: {shared.touched:4} words are shared, {shared.written} of them written; "
        f"{shared.lines} cache lines shared and written"
    )
    return int((shared.written > 0) != (case == SHARED))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--keep", type=Path, help="build here and leave it there")
    parser.add_argument("--measure", nargs=2, metavar=("RUNTIME", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        sys.exit("with a GIL threads take turns: PYTHON_GIL=0 python3.14t tests/csrc/shared_writes.py")
    if options.measure:
        runtime, case = options.measure
        sys.exit(measure(runtime, options.threads, case))
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        preloaded = str(build(folder))
        environment = {**os.environ, "LD_PRELOAD": preloaded, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
        command = [sys.executable, "tests/csrc/shared_writes.py", "--threads", str(options.threads), "--measure"]
        runs = [subprocess.run([*command, preloaded, case], cwd=folder, env=environment, check=False) for case in CASES]
        sys.exit(max(abs(run.returncode) for run in runs))


if __name__ == "__main__":
    main()
