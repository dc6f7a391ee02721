"""The fork server: a process that has imported PyTorch, Triton and helion, and is forked for every worker.

It runs no code of the user's and asks no driver anything, so that a fork of it is as good as a fresh interpreter:
CUDA, threads and modules of the program's own begin in the worker.  It reads requests and tells of births and deaths;
the parent's end is `fork_server.py`, and what a worker does is `worker.py`.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import importlib
import os
import select
import signal
import socket
import struct
import sys
import traceback
from typing import NoReturn

import torch

from .worker import main as work

#: A request: what (`FORK`, `KILL`), and the worker's number.  A `FORK` comes with the worker's descriptors: its socket,
#: where it prints, and the files of its `Setup`.
REQUEST = struct.Struct("<cq")
FORK, KILL = b"f", b"k"
#: News: what (`BORN`, `ENDED`), the worker's number, and its process id, or how it ended (negative: the signal).
NEWS = struct.Struct("<cqq")
BORN, ENDED = b"b", b"e"

DESCRIPTORS = 4
IDLE_SECONDS = 900.0
"""Without workers for so long it ends: a program that has tuned its kernels needs its memory for something else."""
UNUSED_SECONDS = 120.0
"""The same for one that never had a worker: the search that it was started for found its answer in a cache."""

CANNOT_FORK = 3
"""Exit status of a server that must not be forked; it prints why."""

# What workers import, besides the worker itself.  CUDA is not asked for by any of them.
_MODULES = ("triton", "helion.kernel", "helion.bound_kernel", "helion.backends.triton.candidate")


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """First message to a forked worker: what a new process would have inherited from the parent.

    Attributes:
        environment: variables.
        path: `sys.path`.
        folder: the current directory; None if it has been removed.
        threads: CPU threads that torch may use; None for as many as the parent.
    """

    environment: dict[str, str]
    path: list[str]
    folder: str | None
    threads: int | None

    def apply(self) -> None:
        """Make them this process's."""
        os.environ.clear()
        os.environ.update(self.environment)
        sys.path[:] = self.path
        # The server may keep its modules elsewhere: `fork_server`.
        sys.pycache_prefix = self.environment.get("PYTHONPYCACHEPREFIX")
        sys.dont_write_bytecode = bool(self.environment.get("PYTHONDONTWRITEBYTECODE"))
        importlib.invalidate_caches()
        if self.folder is not None:
            with contextlib.suppress(OSError):  # removed meanwhile
                os.chdir(self.folder)
        if self.threads is not None:
            torch.set_num_threads(self.threads)


def die_with(parent: int) -> None:
    """Let the system end this process with its parent, even one that is killed; at once if that has happened."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    except (AttributeError, OSError):
        pass  # not Linux: it ends when it next reads from the socket
    if os.getppid() != parent:
        os._exit(1)


def why_not_forked() -> str | None:
    """Why a fork of this process, as it is now, would not be like a new one; None if it would."""
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        return f"{threads} threads are running after the imports, and a fork has only one of them"
    for name in os.listdir("/proc/self/fd"):
        try:
            file = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the folder itself, read by listdir
        if file.startswith(("/dev/nvidia", "/dev/kfd")):
            return f"an import has opened {file}, and CUDA does not survive a fork"
    return None


class _Server:
    def __init__(self, control: socket.socket, parent: int) -> None:
        self.control = control
        self.parent = parent
        self.own_pid = os.getpid()
        self.used = False
        self.poll = select.poll()
        self.pidfds: dict[int, tuple[int, int]] = {}
        """Descriptor that becomes readable when a worker ends -> its number and process id."""

    def run(self) -> None:
        # Told of the parent's end by the system: the other end of the socket may live on in a fork of the parent.
        parent = os.pidfd_open(self.parent)
        if os.getppid() != self.parent:
            return
        self.poll.register(parent, select.POLLIN)
        self.poll.register(self.control, select.POLLIN)
        gc.collect()
        gc.freeze()  # a collection in a worker would copy every page that holds an object
        while True:
            seconds = IDLE_SECONDS if self.used else UNUSED_SECONDS
            ready = [descriptor for descriptor, _ in self.poll.poll(seconds * 1e3)]
            if parent in ready or not (ready or self.pidfds):
                return
            for descriptor in ready:
                if descriptor in self.pidfds:
                    self.bury(descriptor)
            if self.control.fileno() in ready and not self.answer():
                return

    def answer(self) -> bool:
        """Do what one request says; False if there will be no more."""
        message, descriptors, _, _ = socket.recv_fds(self.control, REQUEST.size, DESCRIPTORS)
        if len(message) < REQUEST.size:
            return False
        what, number = REQUEST.unpack(message)
        if what == KILL:
            for known, pid in self.pidfds.values():
                if known == number:
                    os.kill(pid, signal.SIGKILL)  # it is not reaped yet, so the id is still its own
        else:
            self.fork(number, descriptors)
        return True

    def fork(self, number: int, descriptors: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:  # no memory, too many processes
            os.write(descriptors[1], f"fork: {error}\n".encode())
            self.tell(ENDED, number, 1)
        else:
            if pid == 0:
                self.become_worker(descriptors)
            pidfd = os.pidfd_open(pid)
            self.pidfds[pidfd] = (number, pid)
            self.used = True
            self.poll.register(pidfd, select.POLLIN)
            self.tell(BORN, number, pid)
        for descriptor in descriptors:
            os.close(descriptor)

    def bury(self, pidfd: int) -> None:
        number, pid = self.pidfds.pop(pidfd)
        self.poll.unregister(pidfd)
        os.close(pidfd)
        self.tell(ENDED, number, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    def tell(self, what: bytes, number: int, value: int) -> None:
        try:
            self.control.send(NEWS.pack(what, number, value))
        except OSError:
            os._exit(0)  # nobody is left to hear it

    def become_worker(self, descriptors: list[int]) -> NoReturn:
        status = 1
        try:
            die_with(self.own_pid)
            self.control.close()
            for pidfd in self.pidfds:
                os.close(pidfd)
            connection, printed, *files = descriptors
            os.dup2(printed, 1)
            os.dup2(printed, 2)
            os.close(printed)
            work(connection, files)
            status = 0
        except BaseException:  # goes where the parent looks for a worker's last words
            traceback.print_exc()
        finally:
            # Not through Python's exit: what the server registered to be done there is the server's.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def main(descriptor: int, parent: int) -> None:
    """Be the server of a process, with it at the other end of a socket."""
    for name in _MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # a worker that needs it says what is missing
    problem = why_not_forked()
    if problem is not None:
        print(problem, file=sys.stderr)
        sys.exit(CANNOT_FORK)
    _Server(socket.socket(fileno=descriptor), parent).run()
    os._exit(0)
