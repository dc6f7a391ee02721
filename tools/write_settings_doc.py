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
        if callable(row.default):
            default = "helion's own"
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
        "neither is, with a warning. It is private unless it was there before; binaries in it that others can have "
        "written are not used |",
        "| `HELION_SKIP_CACHE` | `1`: the autotuner reads no cached results |",
        "| `HELION_ASSERT_CACHE_HIT` | `1`: where tuning would begin for want of a cached result, raise "
        "`exc.CacheAssertionError` |",
        "| `HELION_DISALLOW_AUTOTUNING` | `1`: where tuning would begin, raise "
        "`exc.AutotuningDisallowedInEnvironment` |",
        "| `HELION_AUTOTUNER` | name of the search that `autotuner_fn` uses by default |",
        "| `HELION_CAP_AUTOTUNE_NUM_NEIGHBORS` | most neighbours of a config that the pattern searches measure |",
        "| `HELION_REMOTE_CACHE` | the store behind `RemoteAutotuneCache`: an address, or `module:attribute` |",
        "| `HELION_MEASURE_COMPILE_TIME` | `1`: report where compile time went when the process ends |",
        "| `HELION_SKIP_FAST_LAUNCHER` | `1`: leave every launch to Triton |",
        "| `HELION_NO_EXTENSION` | `1`: ignore `helion._C` |",
        "| `HELION_OUTPUT_POOL` | `1`: reuse the memory of outputs that nobody holds any more |",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
