"""The log of a search: every trial as a row of a CSV file or an object of a JSON file.

The ending of the name chooses.  A file is complete after every trial, so a killed run leaves a log that can be read;
a second run on the same file adds to it.
"""

from __future__ import annotations

import csv
import json
import math
import os
import time
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
        file: its ending says what is written: `.csv`, or `.json` (one array of objects).

    Raises:
        exc.InvalidAPIUsage: another ending.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.path = Path(file)
        if self.path.suffix not in _WRITERS:
            raise exc.InvalidAPIUsage(
                f"autotune_log={str(file)!r} ends in neither .csv nor .json",
                fix="name the log something.csv or something.json.",
            )
        self._started = time.monotonic()
        self._count = 0

    def started(self, tuner: Tuner) -> None:
        self._started = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def trial(self, trial: Trial, tuner: Tuner) -> None:
        record = {
            "kernel": tuner.target.kernel_name,
            "number": self._count,
            "seconds": round(time.monotonic() - self._started, 3),
            **trial.to_dict(),
        }
        self._count += 1
        _WRITERS[self.path.suffix](self.path, {field: record[field] for field in FIELDS})

    def choosing(self, candidates: Sequence[Trial], tuner: Tuner) -> None:
        pass

    def finished(self, result: TuningResult) -> None:
        pass


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
