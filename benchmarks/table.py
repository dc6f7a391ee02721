"""A benchmark that is a table: rows measured one by one while there is time, in a file that the next run goes on with.

Each row is measured completely in one process, all its contenders in turn, so that rows of several runs can stand in
one table; a row knows its device, and only rows of this one count as done.  A row that fails is a row with its `error`,
which the next run tries again after all others.  What to measure is the caller's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

#: Seconds that a row is taken to need while none has been measured.
FIRST_ROW_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Task:
    """One row to come.

    Attributes:
        key: its name, unique.
        measure: makes the row.
    """

    key: str
    measure: Callable[[], Row]


def add_options(parser: argparse.ArgumentParser, seconds: float) -> None:
    """The options that every such benchmark has."""
    parser.add_argument("--seconds", type=float, default=seconds, help="be done after this long")
    parser.add_argument("--join", type=Path, help="a file with rows of earlier runs: go on with it")
    parser.add_argument("--json", type=Path, help="write everything here, anew")
    parser.add_argument("--page", type=Path, help="put the tables into their place on this page")


def known_rows(path: Path | None) -> list[Row]:
    """The rows of a file; none if there is no file yet."""
    return json.loads(path.read_text())["rows"] if path is not None and path.exists() else []


def measured(rows: Iterable[Row]) -> list[Row]:
    """Those that did not fail."""
    return [row for row in rows if "error" not in row]


def failures(rows: Iterable[Row]) -> str:
    """A line for each row that failed."""
    return "\n".join(f"failed: {row['key']}: {row['error']}" for row in rows if "error" in row)


def run(
    tasks: Iterable[Task],
    about: dict[str, Any],
    options: argparse.Namespace,
    show: Callable[[Row], str],
    after: Callable[[], Any] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    keep: Callable[[Row], bool] = lambda row: True,
) -> list[Row]:
    """Measure rows until the time is over, and print each.

    Args:
        tasks: in the order of importance.
        about: the environment; `device` tells which rows of a file count.
        options: of `add_options`.
        show: a row as a line.
        after: called after each row, to free what it used.
        clock: seconds.
        keep: whether a row of this device from the file is still true; others are measured anew.

    Returns:
        All rows, those of earlier runs first.
    """
    began, longest = clock(), 0.0
    device, rows = about.get("device"), known_rows(options.join)
    failed = {row["key"] for row in rows if "error" in row and row.get("device") == device}
    rows = [row for row in rows if row.get("device") != device or ("error" not in row and keep(row))]
    done = {row["key"] for row in rows if row.get("device") == device}
    for task in sorted(tasks, key=lambda task: task.key in failed):
        if task.key in done:
            continue
        # A row that is begun is finished: none is, if one as slow as the slowest so far would come too late.
        if clock() - began + (longest or FIRST_ROW_SECONDS) > options.seconds:
            print(f"no time for {task.key}", flush=True)
            continue
        start = clock()
        row = {"key": task.key, "device": device}
        try:
            row |= task.measure()
        except Exception as error:  # a kernel that fails costs its own row
            row["error"] = f"{type(error).__name__}: {error}"[:300]
        row["seconds"] = round(clock() - start, 1)
        rows.append(row)
        print(show(row) if "error" not in row else failures([row]), flush=True)
        for path in filter(None, (options.join, options.json)):
            _write(path, {"environment": about, "rows": rows})
        longest = max(longest, clock() - start)
        after()
    return rows


def _write(path: Path, content: dict[str, Any]) -> None:
    """A file that is whole at any time, also when the run is killed."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1))
    part.replace(path)


def put_on_page(page: Path, name: str, about: str, text: str) -> None:
    """Replace what a page has between `<!-- begin NAME -->` and `<!-- end NAME -->`.

    Args:
        page: a Markdown file that has both marks.
        name: of the place.
        about: what made the text: a line of its own above it.
        text: Markdown.

    Raises:
        ValueError: the page has no such place.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page} has no place for {name}: {begin} and {end}")
    page.write_text(f"{before}{begin}\n{about}\n\n{text}\n{end}{after}")


def devices(rows: list[Row]) -> str:
    """The devices that rows were measured on, for people."""
    return " and ".join(sorted({str(row["device"]) for row in rows if row.get("device")})) or "no device"


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive numbers; 1 of none."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else 1.0


def summary(rows: list[Row], keys: Iterable[str], title: str) -> str:
    """One line: of each key the geometric mean and the least, over the rows that have it."""
    parts = []
    for key in keys:
        values = [row[key] for row in rows if row.get(key)]
        if values:
            parts.append(f"{key} {geometric_mean(values):.3f} (least {min(values):.2f})")
    return f"{title}: {len(rows)} rows: {', '.join(parts)}"
