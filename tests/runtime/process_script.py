"""For ``test_processes.py``, in a process of its own: forks, and what a machine can do to one.

``python -m tests.runtime.process_script FUNCTION cpu|softgpu``: the function says what goes wrong by raising.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

import torch

import helion
import helion.language as hl
from helion import _compat_triton
from tests import softgpu


def double(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = 2 * x[tile]
    return out


def make() -> helion.Kernel:
    return helion.kernel(double, config=helion.Config(block_sizes=[64]))


def check(kernel: helion.Kernel, *sizes: int) -> None:
    for x in [torch.randn(size) for size in sizes for _ in range(4)]:
        assert torch.equal(kernel(x), 2 * x)


def start_child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        faulthandler.dump_traceback_later(600, exit=True)  # instead of waiting for ever
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def wait_for(*pids: int) -> None:
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)


def in_every_state() -> list[helion.Kernel]:
    """Kernels that have nothing, a binding, a compiled kernel, a plan."""
    _, bound, called, planned = kernels = [make() for _ in range(4)]
    bound.bind((torch.randn(128),))
    called(torch.randn(128))
    check(planned, 128)
    return kernels


def check_all(kernels: list[helion.Kernel]) -> None:
    for kernel in kernels:
        check(kernel, 128, 256)
        kernel.reset()
        check(kernel, 128)


def fork_in_every_state() -> None:
    """A child goes on with what its parent had."""
    kernels = in_every_state()
    wait_for(start_child(lambda: check_all(kernels)))
    for kernel in kernels:
        check(kernel, 128, 256)


def in_spawned(kernels: list[helion.Kernel], device: str) -> None:
    install(device)
    check_all(kernels)


def spawn_in_every_state() -> None:
    """A child gets its parent's kernels by pickle, and begins with nothing but them."""
    kernels = in_every_state()
    child = multiprocessing.get_context("spawn").Process(target=in_spawned, args=(kernels, sys.argv[2]))
    child.start()
    child.join()
    assert child.exitcode == 0
    for kernel in kernels:
        check(kernel, 128, 256)


def fork_while_another_thread_compiles() -> None:
    kernel = make()
    check(kernel, 64)  # an import that another thread has begun is CPython's to wait for
    stop = threading.Event()

    def compile_many() -> None:
        size = 100
        while not stop.is_set():
            size += 1
            kernel(torch.ones(size))

    thread = threading.Thread(target=compile_many)
    thread.start()
    try:
        for n in range(6):
            time.sleep(0.05 + 0.03 * n)
            wait_for(start_child(lambda n=n: check(kernel, 20 + n)))
    finally:
        stop.set()
        thread.join()


class Imports:
    """Finds nothing; notes in whose turn Triton imports what it needs at its first launch."""

    def __init__(self) -> None:
        self.in_turn: dict[str, bool] = {}

    def find_spec(self, name: str, *_: object) -> None:
        if name.startswith("triton.experimental"):
            self.in_turn[name] = _compat_triton._importing.locked()


def first_launch_imports_in_turn() -> None:
    imports = Imports()
    sys.meta_path.insert(0, imports)  # type: ignore[arg-type]
    check(make(), 128)
    assert imports.in_turn, "Triton was imported as a whole before"
    assert all(imports.in_turn.values()), imports.in_turn


def on_one_cold_cache(processes: int = 4) -> None:
    kernels = [make() for _ in range(processes)]
    wait_for(*[start_child(lambda kernel=kernel: check(kernel, 128)) for kernel in kernels])
    check(make(), 128)


def many_on_one_cold_cache() -> None:
    on_one_cold_cache(20)


def no_room_on_the_disk() -> None:
    """Not one byte can be written from here on, as on a full disk."""
    import resource

    check(make(), 64)  # PyTorch's compiler looks for a folder that it can write to when it is imported
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    check(make(), 128, 192)


def install(device: str) -> None:
    if device == "softgpu":
        softgpu.install(capability=90)


if __name__ == "__main__":
    install(sys.argv[2])
    globals()[sys.argv[1]]()
