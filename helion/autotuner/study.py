"""SharedStudy: one search by many processes and hosts, and across kills, through an Optuna storage.

Why Optuna's storage: it is a library on top of a file or a database that a site already has (a journal file on a shared
file system, or PostgreSQL/MySQL), with locking and crash safety solved; Ray would need a running cluster, and its
strength, moving work to free machines, is not wanted where each host measures on its own devices.  Only the storage is
used, not Optuna's samplers.

Every outcome is written before it is used, and every participant reads all outcomes, so a run killed at any point goes
on from what was measured.  What is being measured is claimed, so that no two hosts measure the same Config; claims of
the dead are released.
"""

from __future__ import annotations

import datetime
import importlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from typing import TypeVar

from filelock import FileLock

from .. import exc
from ..config import Config
from . import schema
from .trial import Trial

log = logging.getLogger("helion.autotuner")

T = TypeVar("T")

ANSWER_SECONDS = 60.0
"""A storage that has not answered by then is given up: its server is gone, its file system hangs, or a process that was
stopped has its lock."""


def answer(question: Callable[[], T]) -> T:
    """What a question to a storage finds.

    Raises:
        TimeoutError: no answer in `ANSWER_SECONDS`; the question goes on in its thread, and nobody hears of it.
        Exception: what the question raises.
    """
    found: list[T] = []
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            found.append(question())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=ask, daemon=True, name="helion shared study")
    thread.start()
    thread.join(ANSWER_SECONDS)
    if raised:
        raise raised[0]
    if not found:
        raise TimeoutError(f"the storage has not answered in {ANSWER_SECONDS:g} seconds")
    return found[0]


def _optuna() -> Any:
    try:
        optuna = importlib.import_module("optuna")
    except ImportError:
        raise exc.AutotuneError(
            "tuning with a shared storage needs Optuna, which is not installed", fix="`pip install helion[tune]`."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _storage(optuna: Any, where: str) -> Any:
    if "://" in where:
        return optuna.storages.RDBStorage(where)
    path = Path(where)
    path.parent.mkdir(parents=True, exist_ok=True)
    backend = importlib.import_module("optuna.storages.journal")
    return optuna.storages.JournalStorage(backend.JournalFileBackend(str(path), lock_obj=_Lock(path)))


class _Lock:
    """The journal's lock, by the operating system: that of a killed process is free at once, where Optuna's own lock
    files are waited for half a minute."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path.with_name(path.name + ".flock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def _spelled(config: Config) -> str:
    return json.dumps(dict(config), sort_keys=True)


def _has_proc() -> bool:
    return Path("/proc/self").exists()


class SharedStudy:
    """The common memory of all processes that tune one kernel for one key.

    Args:
        where: a path (journal file; may be on a network file system) or a database URL as SQLAlchemy takes it.
        name: of the study: the cache key's digest.
        lease_seconds: a claim of another host older than this is taken to be dead.

    Raises:
        exc.AutotuneError: Optuna is not installed, or the storage cannot be opened.
    """

    def __init__(self, where: str, name: str, lease_seconds: float = 900.0) -> None:
        self._optuna = _optuna()
        try:
            self._study = answer(
                lambda: self._optuna.create_study(
                    storage=_storage(self._optuna, where),
                    study_name=name,
                    load_if_exists=True,
                    # Nothing is sampled, but the default sampler would read the whole study at every `ask`.
                    sampler=self._optuna.samplers.RandomSampler(),
                )
            )
        except Exception as error:  # databases, drivers and file systems raise their own kinds
            raise exc.AutotuneError(
                f"autotune_storage cannot be opened: {type(error).__name__}: {error}",
                fix="name a file that can be written, or a database that SQLAlchemy has a driver for and that answers; "
                "without autotune_storage this process tunes alone.",
            ) from error
        self.lease_seconds = lease_seconds
        self.host = socket.gethostname()
        self.owner = f"{self.host}:{os.getpid()}"
        self._mine: dict[Config, Any] = {}
        self._seen: set[int] = set()
        self._said = False

    # -- reading ------------------------------------------------------------------------------------

    def updates(self) -> list[Trial]:
        """Outcomes of others (and of earlier runs) that this object has not returned yet, oldest first."""
        mine = {t.number for t in self._mine.values()}
        found = []
        for record in self._study.get_trials(deepcopy=False):
            if record.number in self._seen or record.number in mine or "trial" not in record.user_attrs:
                continue
            self._seen.add(record.number)
            try:
                found.append(Trial.from_dict(record.user_attrs["trial"]))
            except ValueError as error:
                self._ignore(f"trial {record.number}", error)
        return found

    def _ignore(self, what: str, error: object) -> None:
        """What others wrote and is damaged counts as absent; the first time a line in the log says so."""
        if not self._said:
            log.warning("ignoring damaged records of the shared study %s: %s: %s", self._study.study_name, what, error)
        self._said = True

    def claimed(self) -> set[Config]:
        """Configs that others are measuring now.  Claims of dead processes are released."""
        mine = {t.number for t in self._mine.values()}
        alive = set()
        for record in self._running():
            if record.number in mine:
                continue
            if self._is_dead(record):
                self._release(record)
            elif "config" in record.user_attrs:
                try:
                    alive.add(schema.config(schema.parse(schema.text(record.user_attrs["config"]))))
                except ValueError as error:
                    self._ignore(f"claim {record.number}", error)
                    self._release(record)
        return alive

    def _running(self) -> list[Any]:
        states = (self._optuna.trial.TrialState.RUNNING,)
        records = self._study.get_trials(deepcopy=False, states=states)
        return [r for r in records if "trial" not in r.user_attrs]

    def _is_dead(self, record: Any) -> bool:
        owner = str(record.user_attrs.get("owner", ""))
        host, _, pid = owner.rpartition(":")
        if host == self.host and pid.isdigit():
            return _has_proc() and not Path(f"/proc/{pid}").exists()
        if record.datetime_start is None:
            return True
        age = (datetime.datetime.now() - record.datetime_start).total_seconds()
        # Measured with two hosts' clocks: a claim from the future is alive, and one that looks old costs at worst
        # one Config measured twice.
        return bool(age > self.lease_seconds)

    def _release(self, record: Any) -> None:
        try:
            self._study.tell(record.number, state=self._optuna.trial.TrialState.FAIL)
        except (ValueError, self._optuna.exceptions.UpdateFinishedTrialError):
            pass  # its owner, or somebody else who noticed, was faster

    # -- writing ------------------------------------------------------------------------------------

    def claim(self, config: Config) -> bool:
        """Announce that this process measures a Config; False if another one already does."""
        mine = self._study.ask()
        mine.set_user_attr("config", _spelled(config))
        mine.set_user_attr("owner", self.owner)
        # Announce first and look then: of two that announce at once, both see both, and the lower number wins.  So does
        # one that was done in the meantime.
        for record in self._study.get_trials(deepcopy=False):
            if record.number >= mine.number or record.user_attrs.get("config") != _spelled(config):
                continue
            if self._is_measured(record) or (not record.state.is_finished() and not self._is_dead(record)):
                self._study.tell(mine.number, state=self._optuna.trial.TrialState.FAIL)
                return False
        self._mine[config] = mine
        return True

    def _is_measured(self, record: Any) -> bool:
        try:
            return "trial" in record.user_attrs and Trial.from_dict(record.user_attrs["trial"]) is not None
        except ValueError:
            return False  # damaged

    def report(self, trial: Trial) -> None:
        """Write an outcome, with which the claim ends."""
        finished = self._optuna.exceptions.UpdateFinishedTrialError
        record = self._mine.pop(trial.config, None) or self._study.ask()
        # One write holds the outcome: killed before `tell`, the trial is still read back.
        try:
            record.set_user_attr("trial", trial.to_dict())
        except finished:  # the claim was taken for dead and released meanwhile
            record = self._study.ask()
            record.set_user_attr("trial", trial.to_dict())
        self._seen.add(record.number)
        states = self._optuna.trial.TrialState
        try:
            if trial.ok:
                self._study.tell(record.number, trial.time_ms)
            else:
                self._study.tell(record.number, state=states.FAIL)
        except (ValueError, finished):
            pass  # released between the two writes; the outcome counts all the same

    def give_up(self) -> None:
        """End the claims of candidates that were not measured after all."""
        for record in self._mine.values():
            self._release(record)
        self._mine.clear()

    def agree(self, config: Config, time_ms: float, fits: Callable[[Config], Config | None]) -> tuple[Config, float]:
        """The winner all participants return: the first one proposed that is one.

        Args:
            config: this participant's.
            time_ms: its time.
            fits: the Config in full if it fits the kernel, else None.

        Returns:
            The Config and its time in milliseconds.
        """
        attributes = self._study.user_attrs
        if "winner" in attributes:
            try:
                winner = schema.record(attributes["winner"], {"config": schema.config, "time_ms": schema.milliseconds})
                full = fits(winner["config"])
                if full is not None:
                    return full, winner["time_ms"]
                self._ignore("the winner", f"{winner['config']} does not fit the kernel, or does not work")
            except ValueError as error:
                self._ignore("the winner", error)
        self._study.set_user_attr("winner", {"config": dict(config), "time_ms": time_ms})
        return config, time_ms
