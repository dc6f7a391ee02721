"""Write docs/settings.md from the table in helion/settings.py; a test holds the two equal."""

from __future__ import annotations

from pathlib import Path

from helion._environment import VARIABLES
from helion.settings import TABLE
from helion.settings import RefMode

TARGET = Path(__file__).resolve().parent.parent / "docs" / "settings.md"


def text() -> str:
    """The page."""
    lines = [
        "# Settings",
        "",
        (
            "Given as keywords of `@helion.kernel` (or `helion.Settings`), or by environment variable. A "
            "keyword beats its variable."
        ),
        "Written by `tools/write_settings_doc.py` from `helion/settings.py`.",
        "",
        "| setting | environment variable | default | meaning |",
        "|---|---|---|---|",
    ]
    for row in TABLE:
        default = "off" if isinstance(row.default, RefMode) else repr(row.default)
        if callable(row.default):
            default = "helion's own"
        lines.append(f"| `{row.name}` | {f'`{row.env}`' if row.env else ''} | `{default}` | {row.doc} |")
    lines += [
        "",
        "Variables that are not settings of a kernel:",
        "",
        "| variable | meaning |",
        "|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in VARIABLES.items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
