"""Write the table of guards in docs/launch.md from helion/runtime/launch/guards.py; a test holds the two equal."""

from __future__ import annotations

from pathlib import Path

from helion.runtime.launch.guards import GUARDS

TARGET = Path(__file__).resolve().parent.parent / "docs" / "launch.md"

HEAD = "| guard | what would go wrong | in Python | in C |\n|---|---|---|---|\n"


def table() -> str:
    """The table."""
    rows = []
    for guard in GUARDS:
        python = "the launch function" if guard.python else guard.elsewhere
        rows.append(f"| `{guard.name}` | {guard.why} | {python} | {'yes' if guard.c else 'by construction'} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    text = TARGET.read_text()
    before, after = text.split(HEAD)
    rest = after.split("\n\n", 1)[1]
    TARGET.write_text(f"{before}{table()}\n{rest}")
