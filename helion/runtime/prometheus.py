"""``prometheus_text()``: what this process counts, for a scraper."""

from __future__ import annotations

from . import events
from .stats import launch_stats

__all__ = ["prometheus_text"]


def _label(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def prometheus_text() -> str:
    """All counters of this process in Prometheus' text format: serve it as ``text/plain; version=0.0.4``.

    Returns:
        ``helion_events_total`` and ``helion_event_seconds_total`` by event and kernel, ``helion_launches_total`` by
        kernel and layer.
    """
    totals = events.totals()
    lines = ["# HELP helion_events_total Events beside the steady call.", "# TYPE helion_events_total counter"]
    for (name, kernel), (count, _) in totals.items():
        lines.append(f'helion_events_total{{event="{name}",kernel="{_label(kernel)}"}} {count}')
    lines += ["# HELP helion_event_seconds_total Time they took.", "# TYPE helion_event_seconds_total counter"]
    for (name, kernel), (_, seconds) in totals.items():
        lines.append(f'helion_event_seconds_total{{event="{name}",kernel="{_label(kernel)}"}} {seconds:.6f}')
    lines += ["# HELP helion_launches_total Launches by layer.", "# TYPE helion_launches_total counter"]
    for kernel, stats in launch_stats().items():
        for layer, launches in stats.layers.items():
            lines.append(f'helion_launches_total{{kernel="{_label(kernel)}",layer="{layer}"}} {launches}')
    return "\n".join(lines) + "\n"
