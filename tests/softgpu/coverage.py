"""Opcode coverage: which opcodes the test suite's kernels have, and which test runs each.

    SOFTGPU_COVERAGE=opcodes.txt python -m pytest tests

Three sources: the PTX that the compilers left in the run's caches (also of kernels that are only compiled), the
programs that the software GPU decoded, and the instructions of these that it executed. The file has one line an opcode,
with all its modifiers: how often it stands in decoded programs, at how many of these places it was executed, and the
first test that did. pytest prints a summary: how many there are, those that no test executed, and rows of the opcode
tables that no kernel has.

Collecting costs a call of a C function after each test, and reading the PTX files at the end.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

#: The environment variable with the report's file name; nothing is collected without it.
VARIABLE = "SOFTGPU_COVERAGE"

# Where compilers keep PTX, and helion that of the CuTe toolkit.
_CACHES = ("TRITON_CACHE_DIR", "HELION_CACHE_DIR")
# A statement: an optional guard, then the opcode. Directives begin with a point, labels end with a colon.
_STATEMENT = re.compile(rb"^[\t {]*(?:@!?%?\w+[\t ]+)?([a-z][a-z0-9_]*(?:(?:\.|::)[A-Za-z0-9_]+)*)[\t ;]", re.MULTILINE)


def opcodes_of(ptx: bytes) -> set[str]:
    """The opcodes, with modifiers, of PTX text."""
    return {found.decode() for found in set(_STATEMENT.findall(ptx))}


@dataclasses.dataclass
class Seen:
    """One opcode: places in decoded programs, those executed, and the first test that executed it."""

    sites: int = 0
    executed: int = 0
    test: str = ""


class Recorder:
    """What one process, or a run of several, has seen.

    Attributes:
        tests: opcode -> `Seen`.
        caches: directories with compilers' PTX.
    """

    def __init__(self) -> None:
        self.tests: dict[str, Seen] = {}
        self.caches: set[str] = set()

    def after(self, test: str) -> None:
        """Note what has been decoded and executed since the last call; it was ``test``."""
        self.caches.update(os.environ[name] for name in _CACHES if name in os.environ)
        native = sys.modules.get("tests.softgpu.native")
        if native is None or not native.library.cache_info().currsize:
            return
        text = native.library().softgpu_take_opcodes()
        if text != b"{}":
            for opcode, (sites, executed) in json.loads(text).items():
                self._note(opcode, Seen(sites, executed, test if executed else ""))

    def _note(self, opcode: str, more: Seen) -> None:
        seen = self.tests.setdefault(opcode, Seen())
        seen.sites += more.sites
        seen.executed += more.executed
        seen.test = seen.test or more.test

    def to_json(self) -> str:
        """For another process's `add`."""
        return json.dumps([{k: dataclasses.astuple(v) for k, v in self.tests.items()}, sorted(self.caches)])

    def add(self, text: str) -> None:
        """Add another process's record."""
        tests, caches = json.loads(text)
        for opcode, values in tests.items():
            self._note(opcode, Seen(*values))
        self.caches.update(caches)


@dataclasses.dataclass(frozen=True)
class Report:
    """The suite's coverage.

    Attributes:
        seen: opcode -> `Seen`, sorted.
        only_compiled: opcodes in PTX of kernels that never reached the software GPU, and in no other.
        unused_rows: rows of the opcode tables that nothing executed.
    """

    seen: dict[str, Seen]
    only_compiled: list[str]
    unused_rows: list[str]

    @staticmethod
    def of(recorder: Recorder) -> Report:
        from . import opcode_families

        compiled: set[str] = set()
        for directory in recorder.caches:
            for file in Path(directory).rglob("*.ptx"):
                compiled |= opcodes_of(file.read_bytes())
        families = set(opcode_families())
        used = {_row_of(opcode, families) for opcode, seen in recorder.tests.items() if seen.executed}
        return Report(
            dict(sorted(recorder.tests.items())), sorted(compiled - recorder.tests.keys()), sorted(families - used)
        )

    @property
    def never_executed(self) -> list[str]:
        """Opcodes that stand in some kernel's PTX and that no test executed."""
        return sorted([*self.only_compiled, *(opcode for opcode, seen in self.seen.items() if not seen.executed)])

    def summary(self) -> Iterable[str]:
        total = len(self.seen) + len(self.only_compiled)
        yield f"{total} opcodes in the PTX of this run's kernels, {total - len(self.never_executed)} executed by a test"
        yield f"never executed ({len(self.never_executed)}): {' '.join(self.never_executed) or 'none'}"
        yield (
            f"rows of the tables that no test executed ({len(self.unused_rows)}): "
            f"{' '.join(self.unused_rows) or 'none'}"
        )

    def write(self, path: Path) -> None:
        lines = [f"{'opcode':72s} {'sites':>7s} {'run':>7s}  first test that runs it"]
        lines += [f"{opcode:72s} {s.sites:>7} {s.executed:>7}  {s.test or '-'}" for opcode, s in self.seen.items()]
        lines += [f"{opcode:72s} {'-':>7} {'-':>7}  - (only compiled)" for opcode in self.only_compiled]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*lines, "", *self.summary()]) + "\n")


def _row_of(opcode: str, families: set[str]) -> str:
    """The row of the opcode tables that an opcode belongs to: its longest dotted prefix there."""
    parts = opcode.split(".")
    prefixes = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((p for p in prefixes if p in families), parts[0])
