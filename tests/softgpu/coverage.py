"""Opcode coverage: every opcode in the PTX of the test suite's kernels, with a test that covers it.

    SOFTGPU_COVERAGE=opcodes.json python -m pytest tests
    python -m tests.softgpu.coverage opcodes.json

prints one line an opcode: how often it stands in those kernels, in how many tests, and the first of them; then the rows of the
opcode tables that no test's kernel uses.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from . import opcode_families


def report(record: dict[str, dict[str, object]]) -> str:
    """The report for what ``SOFTGPU_COVERAGE`` recorded."""
    families = set(opcode_families())
    used: set[str] = set()
    lines = [f"{'opcode':60s} {'sites':>7s} {'tests':>6s}  first test"]
    for opcode, entry in record.items():
        tests = entry["tests"]
        assert isinstance(tests, list)
        lines.append(f"{opcode:60s} {entry['sites']:>7} {len(tests):>6d}  {tests[0]}")
        parts = opcode.split(".")
        prefixes = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
        used.add(next((p for p in prefixes if p in families), parts[0]))
    lines.append(f"\n{len(record)} opcodes of {len(used)} families")
    lines.append("families in the tables that no kernel used: " + ", ".join(sorted(families - used)))
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(json.loads(Path(sys.argv[1]).read_text())))
