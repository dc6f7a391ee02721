"""ForkServer: the parent's end of the process that workers are forked from.

Importing PyTorch, Triton and helion costs a worker seconds, which is most of a short search.  So one process per
program imports them once and is forked for every worker, in milliseconds.  It is a fresh interpreter and not a fork of
the program itself, which has threads, and CUDA, that a fork breaks.  It ends with the program, however that ends, and
after a quarter of an hour without work; one that is gone is replaced by the next search.

Where it cannot be (`shared` says when), each worker is a new interpreter (`process.py`).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from collections.abc import Sequence
from importlib.machinery import PathFinder
from multiprocessing.connection import wait
from pathlib import Path

from .._locks import new_lock
from ..runtime.cache_files import own_directory
from .fork_main import BORN
from .fork_main import ENDED
from .fork_main import FORK
from .fork_main import KILL
from .fork_main import NEWS
from .fork_main import REQUEST

log = logging.getLogger("helion.autotuner")

_START = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; what it means is the parent's decision
if sys.path[:1] == [""]:
    del sys.path[0]  # PYTHONPATH has every place that the parent looks in
from helion.autotuner.fork_main import main
main(int(sys.argv[1]), int(sys.argv[2]))
"""

MOST_DEATHS = 3
"""After so many servers that died under their workers, no further one is tried in this program."""

# What is read while a process or a library starts.  A worker that is forked has everything else from its parent as it
# is now; where one of these has changed since the server started, it needs another server.
# Not among them: what libraries set themselves (scikit-learn KMP_..., PyTorch's compiler TORCHINDUCTOR_...).
_READ_AT_START = ("LD_", "PYTHON", "OMP_", "GOMP_", "MKL_", "TORCH_", "PYTORCH_", "TRITON_INTERPRET")
_RUN_AT_START = ("sitecustomize", "usercustomize")
_READ_AT_IMPORT = frozenset({"HELION_LOGS", "HELION_MEASURE_COMPILE_TIME", "HELION_NO_EXTENSION"})


# NumPy's OpenBLAS starts a thread for every core when it is imported, and a process with threads is not to be forked.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


def python_path() -> list[str]:
    """Where this process finds modules, however it came to: helion's own place, then `sys.path`."""
    package_root = str(Path(__file__).resolve().parents[2])
    return list(dict.fromkeys([package_root, *(p or os.getcwd() for p in sys.path)]))


class ForkedProcess:
    """A worker that is the server's child, with the methods of `subprocess.Popen` that a WorkerProcess uses.

    Attributes:
        returncode: how it ended; negative: by which signal; None: it runs, or will.
    """

    def __init__(self, server: ForkServer, number: int) -> None:
        self._server = server
        self._number = number
        self._pid: int | None = None
        self.returncode: int | None = None

    @property
    def pid(self) -> int | None:
        """Process id, waiting for the fork; None if there never was one."""
        while self._pid is None and self.returncode is None:
            self._server.listen(1.0)
        return self._pid

    def poll(self) -> int | None:
        """`returncode`, as it is now."""
        if self.returncode is None:
            self._server.listen(0.0)
        return self.returncode

    def kill(self) -> None:
        """End it at once; nothing where it has ended, or the server has, which ends its children."""
        self._server.request(KILL, self._number)

    def wait(self) -> int:
        """`returncode`, once there is one."""
        while self.returncode is None:
            self._server.listen(1.0)
        return self.returncode

    def heard(self, what: bytes, value: int) -> None:
        """Take in news of this worker."""
        if what == BORN:
            self._pid = value
        else:
            self.returncode = value


class ForkServer:
    """A running server.

    Args:
        environment: of the server; workers have the parent's of the time when they are started.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.owner = os.getpid()
        self.key = _key(environment)
        self.started = time.monotonic()
        self.ready_after: float | None = None
        """Seconds until the first worker was forked."""
        self._lock = new_lock()
        self._numbers = itertools.count()
        self._workers: dict[int, ForkedProcess] = {}
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, str(its.fileno()), str(os.getpid())],
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env=_environment(environment),
            )
        except OSError:
            ours.close()
            self._output.close()
            raise
        finally:
            its.close()
        self._control = ours

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def busy(self) -> bool:
        """Whether it has workers."""
        return bool(self._workers)

    def start(self, connection: int, output: int, files: Sequence[int]) -> ForkedProcess:
        """Ask for a worker; returns at once.

        Args:
            connection: the worker's end of a socket.
            output: where it prints.
            files: of its `Setup`.
        """
        number = next(self._numbers)
        worker = ForkedProcess(self, number)
        with self._lock:
            self._workers[number] = worker
        if not self.request(FORK, number, (connection, output, *files)):
            self._mourn()
        return worker

    def request(self, what: bytes, number: int, descriptors: Sequence[int] = ()) -> bool:
        """Send a request; False if the server is gone."""
        try:
            socket.send_fds(self._control, [REQUEST.pack(what, number)], list(descriptors))
        except OSError:
            return False
        return True

    def listen(self, seconds: float) -> None:
        """Take in news, waiting up to so long for some.  Whichever thread hears of a worker tells it."""
        with contextlib.suppress(OSError, ValueError):  # closed by another thread: noticed below
            if seconds and not wait([self._control], min(seconds, 0.1)):
                return
        with self._lock:
            while True:
                try:
                    message = self._control.recv(NEWS.size, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    return
                except OSError:
                    message = b""
                if len(message) < NEWS.size:
                    break
                what, number, value = NEWS.unpack(message)
                if self.ready_after is None:
                    self.ready_after = time.monotonic() - self.started
                worker = self._workers.get(number)
                if worker is not None:
                    worker.heard(what, value)
                    if what == ENDED:
                        del self._workers[number]
        self._mourn()

    def _mourn(self) -> None:
        """The server is gone, and its workers with it: the system has killed them."""
        with self._lock:
            for worker in self._workers.values():
                worker.heard(ENDED, -signal.SIGKILL)
            self._workers.clear()

    def last_words(self) -> str:
        """How it ended, and what it printed."""
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(size - 2000, 0))
        lines = [line for line in self._output.read().decode(errors="replace").splitlines() if line.strip()]
        return f"exit status {self._process.poll()}{': ' if lines else ''}{' | '.join(lines[-3:])}"

    def close(self) -> None:
        """End it, and every worker that it still has."""
        if os.getpid() == self.owner:
            self._process.kill()
            self._process.wait()
        self._mourn()
        self._control.close()
        self._output.close()


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The server's environment: the program's, with a place for compiled modules where PyTorch's are not kept.

    In containers Python often writes no bytecode.  Then the imports are compiled each time, which takes two thirds of
    them: 5 of 7.7 seconds, most of a short search.
    """
    found = {**environment, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(python_path())}
    spec = importlib.util.find_spec("torch")
    kept = spec is None or spec.cached is None or os.path.exists(spec.cached)
    directory = None if kept or sys.pycache_prefix is not None else own_directory("bytecode")
    if directory is not None:
        found["PYTHONPYCACHEPREFIX"] = str(directory)
        found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


def _key(environment: Mapping[str, str]) -> frozenset[tuple[str, str | None]]:
    """What a server must have been started with to be forked for a worker with this environment."""
    variables = {
        (name, value)
        for name, value in environment.items()
        if name.startswith(_READ_AT_START) or name in _READ_AT_IMPORT
    }
    path = python_path()
    found = ((name, PathFinder.find_spec(name, path)) for name in _RUN_AT_START)
    return frozenset({*variables, *((name, spec.origin) for name, spec in found if spec is not None)})


class _Servers:
    """The servers of this process: one, unless the environment changes."""

    def __init__(self) -> None:
        self.lock = new_lock()
        self.servers: list[ForkServer] = []
        self.started = 0
        self.deaths = 0
        self.problem: str | None = None if sys.platform == "linux" else "forks are only safe on Linux"
        if self.problem is None and not hasattr(os, "pidfd_open"):
            self.problem = "this Python has no os.pidfd_open"

    def shared(self) -> ForkServer | None:
        with self.lock:
            self._forget_dead()
            if self.problem is not None:
                return None
            key = _key(os.environ)
            for server in self.servers:
                if server.key == key:
                    return server
            try:
                server = ForkServer(os.environ)
            except OSError as error:  # no memory, too many processes or files: a worker may still find room
                log.debug("no fork server: %s", error)
                return None
            self.started += 1
            for other in [s for s in self.servers if not s.busy]:
                self.servers.remove(other)
                other.close()
            self.servers.append(server)
            return server

    def _forget_dead(self) -> None:
        for server in list(self.servers):
            if server.owner != os.getpid():  # this process is a fork of the one that it serves
                self.servers.remove(server)
                server.close()
            elif not server.alive:
                self.servers.remove(server)
                if server._process.returncode != 0:
                    self._died(server)
                server.close()

    def _died(self, server: ForkServer) -> None:
        self.deaths += 1
        words = server.last_words()
        server.listen(0.0)
        if server.ready_after is None and server._process.returncode > 0:
            self.problem = f"the fork server could not start: {words}"
        elif self.deaths >= MOST_DEATHS:
            self.problem = f"{self.deaths} fork servers died, the last with {words}"
        if self.problem is not None:
            log.info("each worker of the tuner imports PyTorch by itself: %s", self.problem)
        else:
            log.info("the fork server is started again: %s", words)

    def close(self) -> None:
        for server in self.servers:
            server.close()
        self.servers.clear()


_servers = _Servers()


@atexit.register
def _close() -> None:
    with contextlib.suppress(OSError):
        _servers.close()


def shared() -> ForkServer | None:
    """The server of this program, started if there is none; workers may be asked for while it still imports.

    Returns:
        None where workers have to be new interpreters: not on Linux; before Linux 5.3 or Python 3.9 (no pidfd, by
        which the server hears of the program's end); where importing PyTorch, Triton and helion leaves threads behind
        or opens the GPU's driver; after `MOST_DEATHS` servers that were killed.
    """
    return _servers.shared()
