"""Which of a few Configs for which shape: a small decision tree over shape features, learned from measured times.

Plain Python and plain data: the tree is nested dicts, as it stands in the JSON file beside a kernel.  Learning
minimizes what matters, the summed log slow-down against each shape's best Config, and not a classification error: two
Configs that are equally fast are equally right.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from .. import schema

Node = dict[str, Any]
"""`{"config": i}`, or `{"feature": name, "at_most": x, "then": Node, "else": Node}`."""

FAILED_SLOWDOWN = 64.0
"""What a Config that fails on a shape counts as: far worse than any slow one, yet comparable."""


def choose(node: Node, features: Mapping[str, float]) -> int:
    """The index of the Config for a shape.

    Raises:
        KeyError: the shape lacks a feature that the tree asks for.
    """
    while "config" not in node:
        node = node["then"] if features[node["feature"]] <= node["at_most"] else node["else"]
    return int(node["config"])


def check_tree(node: Any, count: int, depth: int = 64) -> None:
    """Check that a tree from a file is one.

    Args:
        node: what JSON gave.
        count: how many Configs it chooses from.
        depth: deepest tree that is taken.

    Raises:
        ValueError: it is no tree over `count` Configs.
    """
    if not isinstance(node, dict) or depth == 0:
        raise ValueError("the decision tree is damaged")
    if "config" in node:
        if type(node["config"]) is not int or not 0 <= node["config"] < count:
            raise ValueError(f"the decision tree chooses Config {node['config']!r} of {count}")
        return
    schema.record(node, {"feature": schema.text, "at_most": schema.number})
    for branch in ("then", "else"):
        check_tree(node.get(branch), count, depth - 1)


def log_slowdowns(times: Sequence[Sequence[float]]) -> list[list[float]]:
    """Log of each time over its row's best.

    Args:
        times: milliseconds by shape (row) and Config (column); inf for a failure.  Every row has a finite one.
    """
    rows = []
    for row in times:
        best = min(row)
        rows.append([math.log(min(t / best, FAILED_SLOWDOWN)) for t in row])
    return rows


def select(slow: Sequence[Sequence[float]], limit: int, gain: float) -> list[int]:
    """The few Configs worth shipping.

    Args:
        slow: from `log_slowdowns`.
        limit: most Configs.
        gain: stop when one more Config lowers the mean log slow-down by less than this.

    Returns:
        Columns, in the order they were picked (each the one that helps most beside those before).
    """
    count = len(slow[0])
    chosen: list[int] = []
    current = [math.inf] * len(slow)
    while len(chosen) < min(limit, count):
        totals = {c: sum(min(now, row[c]) for now, row in zip(current, slow)) for c in range(count) if c not in chosen}
        best = min(totals, key=lambda c: (totals[c], c))
        if chosen and (sum(current) - totals[best]) / len(slow) < gain:
            break
        chosen.append(best)
        current = [min(now, row[best]) for now, row in zip(current, slow)]
    return chosen


def learn(
    features: Sequence[Mapping[str, float]],
    slow: Sequence[Sequence[float]],
    columns: Sequence[int],
    depth: int = 6,
    gain: float = 0.005,
) -> Node:
    """A tree that picks a column for each shape.

    Args:
        features: by shape; all with the same names.
        slow: from `log_slowdowns`.
        columns: the Configs it may pick.
        depth: most questions on a path.
        gain: a question must lower the mean log slow-down of its shapes by this.
    """

    def cost(rows: Sequence[int]) -> tuple[float, int]:
        totals = [(sum(slow[r][c] for r in rows), c) for c in columns]
        # Of equals the Config picked first by `select`: the one that is good in general.
        return min(totals, key=lambda item: item[0])

    def grow(rows: list[int], left: int) -> Node:
        here, column = cost(rows)
        best: tuple[float, str, float] | None = None
        if left > 0:
            for name in sorted(features[0]):
                values = sorted({features[r][name] for r in rows})
                for low, high in itertools.pairwise(values):
                    # Sizes live on a logarithmic scale: halfway between 1024 and 4096 is 2048.
                    at = math.sqrt(low * high) if low > 0 else (low + high) / 2
                    then = [r for r in rows if features[r][name] <= at]
                    other = [r for r in rows if features[r][name] > at]
                    total = cost(then)[0] + cost(other)[0]
                    if best is None or total < best[0] - 1e-12:
                        best = (total, name, at)
        if best is None or here - best[0] < gain * len(rows):
            return {"config": column}
        _, name, at = best
        return {
            "feature": name,
            "at_most": at,
            "then": grow([r for r in rows if features[r][name] <= at], left - 1),
            "else": grow([r for r in rows if features[r][name] > at], left - 1),
        }

    return grow(list(range(len(features))), depth)


def renumber(node: Node, columns: Sequence[int]) -> Node:
    """The tree with each column replaced by its place in `columns`."""
    if "config" in node:
        return {"config": list(columns).index(node["config"])}
    return {**node, "then": renumber(node["then"], columns), "else": renumber(node["else"], columns)}
