"""The report of a search from its log: time over evaluations, what failed, which tunables matter.  PNG or HTML.

Drawn with matplotlib, which is imported here and nowhere else.
"""

from __future__ import annotations

import base64
import collections
import html
import importlib
import io
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import exc
from .log_file import read_log
from .progress import format_ms

_COLOURS = {
    "compile error": "#b07aa1",
    "compile timeout": "#9c755f",
    "run error": "#e15759",
    "run timeout": "#f28e2b",
    "out of memory": "#edc948",
    "crash": "#d62728",
    "wrong answer": "#ff9da7",
}


def _flat(config: dict[str, Any], lengths: dict[str, int]) -> dict[str, Any]:
    """key[i] -> value, for lists, and for values that stand for as many equal ones."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key in lengths:
            items = value if isinstance(value, list) else [value] * lengths[key]
            found.update({f"{key}[{i}]": v for i, v in enumerate(items)})
        else:
            found[key] = value
    return found


def _lengths(configs: Sequence[dict[str, Any]]) -> dict[str, int]:
    """key -> length, of the keys that are lists in some Config (other than lists of lists, which are taken whole)."""
    return {
        k: len(v)
        for config in configs
        for k, v in config.items()
        if isinstance(v, list) and v and not isinstance(v[0], list)
    }


def influence(records: Sequence[dict[str, Any]]) -> list[tuple[str, float, Any]]:
    """How much each tunable seems to matter.

    For every tunable, successful trials are grouped by its value and each group is represented by its best
    quarter (median log time of it); the influence is the ratio between the worst and the best group with at
    least three trials.

    Returns:
        (tunable, ratio, best value), greatest ratio first.
    """
    ok = [r for r in records if math.isfinite(r["time_ms"])]
    lengths = _lengths([r["config"] for r in ok])
    rows = [(_flat(r["config"], lengths), math.log(r["time_ms"])) for r in ok]
    found = []
    for name in {n for config, _ in rows for n in config}:
        groups: dict[str, list[float]] = collections.defaultdict(list)
        values: dict[str, Any] = {}
        for config, log_ms in rows:
            value = config.get(name)
            groups[repr(value)].append(log_ms)
            values[repr(value)] = value
        typical = {k: statistics.median(sorted(v)[: max(len(v) // 4, 1)]) for k, v in groups.items() if len(v) >= 3}
        if len(typical) >= 2:
            best = min(typical, key=lambda k: typical[k])
            found.append((name, math.exp(max(typical.values()) - typical[best]), values[best]))
    return sorted(found, key=lambda row: (-row[1], row[0]))


def _figure(records: Sequence[dict[str, Any]], title: str) -> bytes:
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        raise exc.AutotuneError(
            "the report needs matplotlib, which is not installed", fix="`pip install helion[tune]`."
        ) from None
    matplotlib.use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5), width_ratios=(3, 2), layout="constrained")
    ok = [(i, r["time_ms"]) for i, r in enumerate(records) if math.isfinite(r["time_ms"])]
    left.scatter([i for i, _ in ok], [t for _, t in ok], s=14, color="#4e79a7", label="measured")
    best, line = math.inf, []
    for record in records:
        best = min(best, record["time_ms"])
        line.append(best if math.isfinite(best) else math.nan)
    left.step(range(len(line)), line, where="post", color="#59a14f", label=f"best so far: {format_ms(best)} in the end")
    top = max((t for _, t in ok), default=1.0) * 1.5
    for status, colour in _COLOURS.items():
        at = [i for i, r in enumerate(records) if r["status"] == status]
        if at:
            left.scatter(at, [top] * len(at), marker="x", s=20, color=colour, label=f"{status} ({len(at)})")
    left.set_yscale("log")
    left.set_xlabel("evaluation")
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set_ylabel("time of one call [ms]")
    left.set_title(title)
    left.legend(fontsize=8)
    rows = influence(records)[:14][::-1]
    right.barh([name for name, _, _ in rows], [ratio - 1 for _, ratio, _ in rows], color="#76b7b2")
    right.set_ylim(len(rows) - 0.4 - max(len(rows), 6), len(rows) - 0.4)  # few bars are not drawn fat
    right.set_xlabel("slow-down of its worst value over its best [ratio - 1]")
    right.set_title("tunables by influence")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()


def _page(records: Sequence[dict[str, Any]], title: str, picture: bytes) -> str:
    ok = sorted((r for r in records if math.isfinite(r["time_ms"])), key=lambda r: float(r["time_ms"]))
    failures = collections.Counter((r["status"], r["message"]) for r in records if r["status"] != "ok")
    best = "".join(
        f"<tr><td>{html.escape(format_ms(r['time_ms']))}</td><td>{r['spread']:.1%}</td>"
        f"<td><code>{html.escape(repr(r['config']))}</code></td></tr>"
        for r in ok[:20]
    )
    failed = "".join(
        f"<tr><td>{n}</td><td>{html.escape(s)}</td><td>{html.escape(m)}</td></tr>"
        for (s, m), n in failures.most_common(20)
    )
    matter = "".join(
        f"<tr><td><code>{html.escape(n)}</code></td><td>{r:.2f}x</td><td>{html.escape(repr(v))}</td></tr>"
        for n, r, v in influence(records)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>body{{font-family:sans-serif;margin:2em;max-width:1200px}}table{{border-collapse:collapse}}td,th{{border:1px
solid #ccc;padding:3px 8px;text-align:left}}img{{max-width:100%}}</style>
</head><body><h1>{html.escape(title)}</h1>
<p>{len(records)} evaluations, {len(ok)} successful, {records[-1]["seconds"]:.0f} s.</p>
<img alt="search" src="data:image/png;base64,{base64.b64encode(picture).decode()}">
<h2>Fastest</h2><table><tr><th>time</th><th>spread</th><th>config</th></tr>{best}</table>
<h2>Failures</h2><table><tr><th>count</th><th>status</th><th>message</th></tr>{failed}</table>
<h2>Tunables by influence</h2><table><tr><th>tunable</th><th>worst/best</th><th>best value</th></tr>{matter}</table>
</body></html>
"""


def write_report(log: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Draw a log.

    Args:
        log: what `autotune_log` wrote.
        output: a `.png` or `.html` file.

    Raises:
        exc.InvalidAPIUsage: the log cannot be read or is empty, or the output has another ending.
        exc.AutotuneError: matplotlib is missing.
    """
    records = read_log(log)
    target = Path(output)
    if not records:
        raise exc.InvalidAPIUsage(f"{log} holds no trials", fix="give a log of a run that measured something.")
    if target.suffix not in (".png", ".html"):
        raise exc.InvalidAPIUsage(
            f"{target} ends in neither .png nor .html", fix="name the output something.png or something.html."
        )
    title = f"tuning {', '.join(sorted({r['kernel'] for r in records}))}"
    picture = _figure(records, title)
    if target.suffix == ".png":
        target.write_bytes(picture)
    else:
        target.write_text(_page(records, title, picture), encoding="utf-8")
