"""WorkerProcess: the parent's end of one worker, with start, deadlines, death and its cause.

A worker is forked from the program's fork server (`fork_server.py`); where there can be none, it is a new interpreter.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO

from . import fork_server
from .fork_main import Surroundings
from .fork_server import ForkedProcess
from .fork_server import python_path
from .phases import Phases
from .travel import CannotTravel
from .travel import while_others_import
from .worker import Job
from .worker import Ready
from .worker import Running
from .worker import Setup

# The first thing a worker that is a new interpreter does.  It ends with its parent, even one that is killed while a
# candidate hangs here: the system sends the signal, and where the parent died before it was asked to, this process has
# another parent by now.  Ctrl-C reaches the whole process group; what it means is the parent's decision.
_START = """
import ctypes, os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
parent, connection, *files = map(int, sys.argv[1:])
try:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
except (AttributeError, OSError):
    pass  # not Linux: it ends when it next reads from the socket
if os.getppid() != parent:
    os._exit(1)
if sys.path[:1] == [""]:
    del sys.path[0]  # PYTHONPATH has every place that the parent looks in
from helion.autotuner.worker import main
main(connection, files)
"""


def _surroundings(threads: int | None) -> Surroundings:
    """This process's, as it is now."""
    environment = dict(os.environ)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        folder = None
    return Surroundings(environment, python_path(), folder, threads)


def _spawn(
    connection: int, output: IO[bytes], files: tuple[int, ...], surroundings: Surroundings
) -> subprocess.Popen[bytes]:
    """A worker that is a new interpreter.

    Args:
        connection: its end of the socket.
        output: where it prints: not into the progress display.
        files: of its `Setup`.
        surroundings: what it has in common with this process.
    """
    descriptors = (connection, *files)
    return subprocess.Popen(
        [sys.executable, "-c", _START, str(os.getpid()), *map(str, descriptors)],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        # It must find the same modules as this process, however this one found them.
        env={**surroundings.environment, "PYTHONPATH": os.pathsep.join(surroundings.path)},
    )


START_SECONDS = 120.0
"""How long a worker may take to import torch and load the arguments."""


class WorkerProcess:
    """One worker.

    Args:
        setup: what its jobs share.
        name: for messages, for example `compile 3` or `cuda:0`.
        threads: CPU threads it may use in torch; None for as many as the parent.
        times: is told how long it took to start.
    """

    def __init__(self, setup: Setup, name: str, threads: int | None = None, times: Phases | None = None) -> None:
        self.name = name
        self.ready = False
        self.limit = START_SECONDS
        self.deadline = time.monotonic() + START_SECONDS
        self.killed_for: str | None = None
        self.started_running = False
        self.idle_since = 0.0
        """When a measuring worker last had nothing to do, by the monotonic clock."""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._times = times
        self._asked = time.monotonic()
        parent, child = Pipe()
        surroundings = _surroundings(threads)
        files = (setup.args_fd, setup.expected_fd)
        server = fork_server.shared()
        self._process: ForkedProcess | subprocess.Popen[bytes]
        if server is not None:
            self._process = server.start(child.fileno(), self._stderr.fileno(), files)
        else:
            self._process = _spawn(child.fileno(), self._stderr, files, surroundings)
        child.close()
        self.connection: Connection = parent
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # dead already: noticed when it is read from
            self.connection.send(surroundings)
            self.connection.send(setup)

    @property
    def pid(self) -> int | None:
        """Process id; None if it could not be started."""
        return self._process.pid

    def submit(self, job: Job) -> bool:
        """Give it a job, which it does after those that it has; False if the process is gone.

        Raises:
            CannotTravel: the job cannot be sent to another process.
        """
        if self._process.poll() is not None:
            return False  # died while idle; the socket would still take the message
        try:
            while_others_import(lambda: self.connection.send(job))
        except (BrokenPipeError, ConnectionResetError):
            return False
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise CannotTravel(f"a candidate cannot be sent to a worker process: {error}") from error
        return True

    def begin(self, seconds: float) -> None:
        """From now on it does a job that was submitted, and must answer in `seconds`."""
        self.started_running = False
        self.limit = seconds
        self.deadline = time.monotonic() + seconds

    def receive(self) -> object | None:
        """The next message, or None if the process is gone.  Call when the connection is readable."""
        try:
            message: object = self.connection.recv()
        except (EOFError, ConnectionResetError, pickle.UnpicklingError):
            return None
        if isinstance(message, Ready):
            self.ready = True
            self.idle_since = time.monotonic()
            if self._times is not None:
                self._times.add("worker start", message.began - self._asked)
                self._times.add("arguments, context", message.load_s)
            self.deadline = float("inf")
        elif isinstance(message, Running):
            self.started_running = True
        else:
            self.deadline = float("inf")
        return message

    @property
    def overdue(self) -> bool:
        """Whether its deadline has passed."""
        return time.monotonic() > self.deadline

    def kill(self, reason: str) -> None:
        """End it at once."""
        self.killed_for = reason
        if self._process.poll() is None:
            self._process.kill()

    def close(self) -> None:
        """End it and free everything."""
        self.connection.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._stderr.close()

    def cause_of_death(self) -> tuple[str, bool]:
        """How the process ended.

        Returns:
            A description with the last lines it printed, and whether somebody else may have killed it.
        """
        code = self._process.wait()
        if code < 0:
            try:
                what = f"killed by {signal.Signals(-code).name}"
            except ValueError:
                what = f"killed by signal {-code}"
        else:
            what = f"exited with status {code}"
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(size - 4000, 0))
        lines = [x for x in self._stderr.read().decode(errors="replace").splitlines() if x.strip()]
        tail = " | ".join(lines[:3] if code < 0 else lines[-3:])
        # Memory faults are the candidate's doing; SIGKILL and SIGTERM come from outside.
        from_outside = code in (-signal.SIGKILL, -signal.SIGTERM) and self.killed_for is None
        return f"{what}{': ' + tail if tail else ''}"[:800], from_outside
