"""Write docs/settings.md from the table in helion/settings.py; a test holds the two equal."""

from __future__ import annotations

from pathlib import Path

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
        lines.append(f"| `{row.name}` | {f'`{row.env}`' if row.env else ''} | `{default}` | {row.doc} |")
    lines += [
        "",
        "Variables that are not settings of a kernel:",
        "",
        "| variable | meaning |",
        "|---|---|",
        "| `HELION_LOGS` | what helion logs, as TORCH_LOGS: `all`, `+all`, or names of its modules |",
        "| `HELION_CACHE_DIR` | where generated source and tuning results are kept; default `~/.cache/helion`. "
        "Where it cannot be written, "
        "source goes to a temporary directory and tuning results are not kept, with a warning |",
        "| `HELION_SKIP_CACHE` | `1`: the autotuner reads no cached results |",
        "| `HELION_MEASURE_COMPILE_TIME` | `1`: report where compile time went when the process ends |",
        "| `HELION_SKIP_FAST_LAUNCHER` | `1`: leave every launch to Triton |",
        "| `HELION_NO_EXTENSION` | `1`: ignore `helion._C` |",
        "| `HELION_OUTPUT_POOL` | `1`: reuse the memory of outputs that nobody holds any more |",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
