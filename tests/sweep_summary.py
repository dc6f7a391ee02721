"""The op sweep's report at the end of a test session: the counts of all parts, which run in several processes."""

from __future__ import annotations

from collections import Counter
from typing import Any

#: Name of the property under which a test of the sweep records its counts.
SUMMARY = "op_sweep"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print, for each runner and dtype, how many ops passed, were refused and failed."""
    totals: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed"):
        for test in terminalreporter.stats.get(outcome, []):
            for name, counts in getattr(test, "user_properties", []):
                if name == SUMMARY:
                    totals.setdefault(counts["sweep"], Counter()).update(
                        {k: v for k, v in counts.items() if k != "sweep"}
                    )
    if totals:
        terminalreporter.section("torch ops on tiles")
    for sweep, counts in sorted(totals.items()):
        terminalreporter.line(f"{sweep}: " + ", ".join(f"{n} {status}" for status, n in sorted(counts.items())))
