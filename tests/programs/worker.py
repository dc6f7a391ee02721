"""Processes in which programs run: one that crashes or hangs loses its program and nothing else."""

from __future__ import annotations

import dataclasses
import gc
import math
import multiprocessing
import os
import pickle
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from helion import fragments

from . import configs
from . import run
from .building import build
from .coverage import Features
from .coverage import features
from .printing import script
from .program import Program
from .run import MODES
from .run import Outcome
from .synchronised import Parts
from .values import Invalid

#: What a worker's processes print.
LOG = "log.txt"
#: What a first program imports.
_LATE = ["helion.bound_kernel", "helion.frontend.trace", "helion.backends.triton.backend", "helion.autotuner.space"]
#: Programs after which a process is replaced: modules and kernels stay in memory.
_MOST_PROGRAMS = 150


@dataclasses.dataclass
class Task:
    """What to run: a seed, or a program that there is already."""

    seed: str
    modes: tuple[str, ...] = MODES
    program: Program | None = None


@dataclasses.dataclass
class Result:
    """What came of a task.

    Attributes:
        program: None if none was drawn or the process died early; from a worker only where something failed.
        features: what the program was made of, as a worker says it: to ask all programs was too much for one process.
    """

    task: Task
    program: Program | None
    outcomes: list[Outcome]
    features: Features | None = None


def depends_on_blocks(program: Program) -> bool:
    """Whether what a program means depends on block sizes."""
    return any(getattr(s, "chunked", False) or isinstance(s, Parts) for s in program.statements())


def _settle_tunables(program: Program) -> None:
    """Where the program means nothing definite with the Config's tunables it takes their defaults."""
    try:
        program.infer()
    except Invalid:
        for s in program.scalars.values():
            if s.origin == "tunable":
                s.value = eval(s.reference, vars(fragments)).default()
                program.config.pop(s.name, None)


def perform(task: Task, folder: Path, notify: Any = lambda what: None) -> Result:
    """Build, print and run one program in this process."""
    notify("build")
    fresh = task.program is None
    program = build(task.seed) if task.program is None else task.program
    path = folder / f"p{os.getpid()}_{random.getrandbits(48):x}.py"
    outcomes: list[Outcome] = []
    traced: run.Runner | None = None
    notify(("program", program))
    try:
        path.write_text(script(program, f"Seed {task.seed}."))
        if fresh:
            try:
                traced = run.Runner(path)
                capability = random.Random(task.seed).choice((80, 90, 100))
                program.config = configs.draw(traced.bound, capability, random.Random(task.seed))
                configs.limit(program, traced.bound, capability)
                for s in program.scalars.values():
                    if s.origin == "tunable" and s.name in program.config:
                        s.value = program.config[s.name]
                _settle_tunables(program)
            except Exception as error:
                if depends_on_blocks(program):
                    return Result(task, program, [run.outcome_of("bind", error)])
                program.config = {}  # every mode without a GPU will say so
            if depends_on_blocks(program) and not program.config.get("block_sizes"):
                program.calls = []  # the first one returns before its loops, so nobody knows the blocks of others
            path.write_text(script(program, f"Seed {task.seed}."))
            notify(("program", program))
        runner = run.Runner(path, traced)
        notify("reference")
        try:
            assert runner.expected is not None
        except Exception as error:
            return Result(task, program, [Outcome("reference", "invalid", f"{type(error).__name__}: {error}"[:300])])
        for mode in task.modes:
            if (mode == "tiles" and run.needs_config(path)) or (mode.endswith("calls") and not runner.calls):
                continue
            notify(mode)
            outcomes.append(runner.run(mode))
            notify(("outcome", outcomes[-1]))
            if outcomes[-1].is_last:
                break
    finally:
        own = f"generated_{path.stem}"
        for module in [m for m in sys.modules if m.startswith(own)]:
            del sys.modules[module]
        path.unlink(missing_ok=True)
    return Result(task, program, outcomes)


def _packed(what: Any) -> Any:
    """A program as bytes, which nobody unpacks unless the process dies: the other end serves many."""
    return ("program", pickle.dumps(what[1])) if what[0] == "program" else what


def _serve(connection: Connection, folder: str) -> None:
    """The life of a worker process; what compilers print goes to a file beside the programs."""
    log = os.open(Path(folder) / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.setdefault("HELION_AUTOTUNE_EFFORT", "none")
    gc.freeze()  # what was imported is no garbage, and there is much of it to look through
    gc.set_threshold(20_000, 20, 100)
    torch.set_num_threads(1)  # there are as many processes as cores
    while True:
        task = connection.recv()
        if task is None:
            return
        try:
            result = perform(task, Path(folder), lambda what: connection.send(("at", _packed(what))))
            if task.program is None and result.program is not None:
                result.features = features(result.program)
            if not any(o.failed for o in result.outcomes):
                result.program = None
        except Exception:
            result = Result(task, None, [Outcome("generator", "invalid", traceback.format_exc(limit=-3))])
        connection.send(("done", result))


class Worker:
    """One process, restarted as needed.

    Args:
        timeout: seconds that one step of a program (a mode) may take.
    """

    def __init__(self, timeout: float = 120) -> None:
        self.timeout = timeout
        self._folder = tempfile.TemporaryDirectory(prefix="programs_")
        self._process: Any = None
        self._connection: Any = None
        self._done = 0

    def _start(self) -> None:
        # Forked from a process that has imported everything: imports were a tenth of a program's time.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, *_LATE])
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._folder.name), daemon=True)
        self._process.start()
        theirs.close()
        self._done = 0

    def kill(self) -> None:
        """End the process as a crash does: `run` does not know of it."""
        self._process.kill()
        self._process.join()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def run(self, task: Task, until: Callable[[], float] = lambda: math.inf) -> Result:
        """Run a task to its end, to that of the process, or to a time, of the monotonic clock, which may change."""
        if self._done >= _MOST_PROGRAMS:
            self.close()
        if self._process is None:
            self._start()
        self._done += 1
        at, program, outcomes = "start", b"", []
        sent = False
        began = time.monotonic()
        while True:
            status = ""
            try:
                if not sent:
                    self._connection.send(task)
                    sent = True
                if self._connection.poll(1):
                    began = time.monotonic()
                    kind, what = self._connection.recv()
                    if kind == "done":
                        if any(outcome.is_last for outcome in what.outcomes):
                            self.close()
                        return what
                    if isinstance(what, tuple) and what[0] == "program":
                        program = what[1]
                    elif isinstance(what, tuple):
                        outcomes.append(what[1])
                    else:
                        at = what
                elif time.monotonic() > until():
                    self.close()
                    return Result(task, None, outcomes)
                elif time.monotonic() > began + self.timeout + 60 * (at == "start"):
                    status = "timeout"
            except (EOFError, ConnectionResetError, BrokenPipeError):
                self._process.join(5)
                status = "crash"
            if status:
                detail = f"exit code {self._process.exitcode}{self._last_words()}" if status == "crash" else ""
                self.close()
                died = pickle.loads(program) if program else task.program
                return Result(task, died, [*outcomes, Outcome(at, status, detail)])

    def _last_words(self) -> str:
        """The assertion or error that a process printed before it died."""
        lines = (Path(self._folder.name) / LOG).read_text(errors="replace").splitlines()
        said = [line for line in lines if "Assertion" in line or "rror:" in line]
        return f": {said[-1][:300]}" if said else ""
