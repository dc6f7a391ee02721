"""The log of a search: every trial as a row of a CSV file or an object of a JSON file.

The ending of the name chooses; without one there are two files, NAME.csv and the text NAME.log, and with details a
third, NAME.meta.jsonl, with an object for each run.  A file is complete after every trial, so a killed run leaves a log
that can be read; a second run on the same file adds to it.
"""

from __future__ import annotations

import csv
import json
import math
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import exc
from . import schema
from .trial import Trial
from .tuner import Tuner
from .tuner import TuningResult

FIELDS = ("kernel", "number", "seconds", "status", "time_ms", "spread", "compile_s", "worker", "message", "config")
"""Columns.  `number` counts from 0 within a run; `seconds` is since the run's start, by a clock that only goes
forward.
"""

_TAIL = "\n]\n"


class TrialLog:
    """Writes trials to a file.

    Args:
        file: its ending says what is written: `.csv`, or `.json` (one array of objects); without an ending, `.csv` and
            a text with the ending `.log`.
        details: also write what the run was, to the same name with the ending `.meta.jsonl`.
        source: of the kernel, for that.

    Raises:
        exc.InvalidAPIUsage: another ending.
    """

    def __init__(self, file: str | os.PathLike[str], details: bool = False, source: str = "") -> None:
        self.path = Path(file)
        self._text: Path | None = None
        base = self.path.with_suffix("") if self.path.suffix in _WRITERS else self.path
        if not self.path.suffix:
            self._text = Path(f"{base}.log")
            self.path = Path(f"{base}.csv")
        elif self.path.suffix not in _WRITERS:
            raise exc.InvalidAPIUsage(
                f"autotune_log={str(file)!r} ends in neither .csv nor .json",
                fix="name the log something.csv or something.json, or give a name without an ending.",
            )
        self._meta = Path(f"{base}.meta.jsonl") if details else None
        self._source = source
        self.run_id = uuid.uuid4().hex
        self._configs: list[dict[str, Any]] = []
        self._started = time.monotonic()
        self._count = 0

    def started(self, tuner: Tuner) -> None:
        self._started = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._say(f"run {self.run_id}: tuning {tuner.target.kernel_name} with {tuner.search.name}")

    def _say(self, text: str) -> None:
        if self._text is not None:
            with self._text.open("a", encoding="utf-8") as file:
                file.write(f"[{time.monotonic() - self._started:.1f}s] {text}\n")

    def trial(self, trial: Trial, tuner: Tuner) -> None:
        record = {
            "kernel": tuner.target.kernel_name,
            "number": self._count,
            "seconds": round(time.monotonic() - self._started, 3),
            **trial.to_dict(),
        }
        self._count += 1
        self._configs.append(dict(trial.config))
        outcome = f"{trial.time_ms:.6g} ms" if trial.ok else trial.message
        self._say(f"{record['number']}: {trial.status.value} {outcome} {trial.config!r}")
        _WRITERS[self.path.suffix](self.path, {field: record[field] for field in FIELDS})

    def choosing(self, candidates: Sequence[Trial], tuner: Tuner) -> None:
        self._say(f"measuring the best {len(candidates)} again")

    def finished(self, result: TuningResult) -> None:
        self._say(f"ended: {result.ended}; {result.time_ms} ms with {result.config!r}")

    def close(self) -> None:
        """Write down what the run was, whatever its end."""
        if self._meta is not None:
            record = {"run_id": self.run_id, "kernel_source": self._source, "configs": self._configs}
            with self._meta.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")


def _append_csv(path: Path, record: dict[str, Any]) -> None:
    new = not path.exists() or path.stat().st_size == 0
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        writer.writerow({**record, "config": json.dumps(record["config"])})


def _append_json(path: Path, record: dict[str, Any]) -> None:
    text = json.dumps(record)
    if not path.exists() or path.stat().st_size == 0:
        path.write_text(f"[\n{text}{_TAIL}", encoding="utf-8")
        return
    # The end of the array is overwritten in one write, so that the file is an array again at once.
    with path.open("r+b") as file:
        file.seek(-len(_TAIL), os.SEEK_END)
        file.write(f",\n{text}{_TAIL}".encode())


_WRITERS = {".csv": _append_csv, ".json": _append_json}


def read_log(file: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a log, with `config` as a dict and `time_ms` infinite for failures.

    Raises:
        exc.InvalidAPIUsage: the file is not a log.
    """
    path = Path(file)
    try:
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as stream:
                records = [{**row, "config": schema.parse(row["config"])} for row in csv.DictReader(stream)]
        else:
            records = schema.list_of(schema.mapping_of(lambda value: value))(schema.parse(path.read_bytes()))
        for record in records:
            record["number"] = int(record["number"])
            for field in ("seconds", "spread", "compile_s"):
                record[field] = float(record[field])
            record["time_ms"] = float(record["time_ms"]) if record["time_ms"] not in (None, "") else math.inf
    except FileNotFoundError:
        raise exc.InvalidAPIUsage(
            f"there is no file {path}", fix="give the file named by autotune_log / HELION_AUTOTUNE_LOG."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise exc.InvalidAPIUsage(
            f"{path} is not a tuning log: {error!r}", fix="give the file named by autotune_log / HELION_AUTOTUNE_LOG."
        ) from None
    return records
