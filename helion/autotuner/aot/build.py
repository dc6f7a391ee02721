"""Making the file that AOTAutotuneCache reads: collect, measure, write, evaluate.

Each step is a function of the command line (`../__main__.py`) and leaves its result in one JSON file of measurements,
so steps can be repeated, and collected on several machines, one device model after the other.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ... import exc
from ...config import Config
from ...runtime.cache_files import replace_file
from .. import schema
from ..api import run_search
from ..bound import BoundTarget
from ..progress import format_ms
from ..target import resolve
from . import decision_tree
from .cache import FORMAT
from .cache import Table
from .cache import batch_dimensions
from .cache import features_of
from .cache import read_tables
from .cache import shipped_file
from .cache import source_hash
from .options import AOTOptions
from .options import Batched


@dataclasses.dataclass
class Measurements:
    """The working file of one kernel on one device model.

    Attributes:
        kernel: name.
        device: model.
        source_hash: of the kernel's source.
        batched: see `options.AOTOptions`.
        configs: Configs found by `collect`, each once.
        shapes: features of each call measured.
        times: by shape and Config, milliseconds; inf for a failure.
        calls: the arguments of each call, for people: `float32[16, 512]`.
    """

    kernel: str
    device: str
    source_hash: str
    batched: Batched = None
    configs: list[Config] = dataclasses.field(default_factory=list)
    shapes: list[dict[str, float]] = dataclasses.field(default_factory=list)
    times: list[list[float]] = dataclasses.field(default_factory=list)
    calls: list[str] = dataclasses.field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the file in one step."""
        record = {
            **dataclasses.asdict(self),
            "configs": [dict(c) for c in self.configs],
            "times": [[t if math.isfinite(t) else None for t in row] for row in self.times],
        }
        replace_file(path, json.dumps(record, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Measurements:
        """Read what `save` wrote.

        Raises:
            exc.InvalidAPIUsage: the file is missing or not of this kind.
        """
        try:
            found = cls(**schema.record(schema.parse(path.read_bytes()), _FIELDS, _OPTIONAL))
            found.times = [[math.inf if t is None else t for t in row] for row in found.times]
            if any(len(row) != len(found.configs) for row in found.times):
                raise ValueError("a row of times has another length than there are configs")
            return found
        except FileNotFoundError:
            raise exc.InvalidAPIUsage(
                f"there is no file {path}", fix="run `python -m helion.autotuner collect` first."
            ) from None
        except (OSError, ValueError) as error:
            raise exc.InvalidAPIUsage(
                f"{path} holds no measurements: {error}", fix="run `python -m helion.autotuner collect` again."
            ) from None


_FIELDS: dict[str, schema.Check] = {
    "kernel": schema.text,
    "device": schema.text,
    "source_hash": schema.text,
    "configs": schema.list_of(schema.config),
}
_OPTIONAL: dict[str, schema.Check] = {
    "batched": batch_dimensions,
    "shapes": schema.list_of(schema.mapping_of(schema.number)),
    "times": schema.list_of(schema.list_of(schema.optional(schema.milliseconds))),
    "calls": schema.list_of(schema.text),
}


def describe(args: Sequence[Any]) -> str:
    """The arguments of a call, for people."""

    def one(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        if isinstance(value, (list, tuple)):
            return f"({', '.join(map(one, value))})"
        return repr(value) if isinstance(value, (bool, int, float, str, type(None))) else type(value).__name__

    return ", ".join(map(one, args))


def find_kernel(name: str) -> tuple[Any, str, AOTOptions]:
    """The kernel that `file.py:kernel` names.

    Returns:
        The Kernel, its source file, its options.

    Raises:
        exc.InvalidAPIUsage: it is not an aot_kernel.
    """
    file, _, qualname = name.rpartition(":")
    if not file:
        raise exc.InvalidAPIUsage(f"{name!r} names no kernel", fix="write file.py:kernel.")
    kernel = resolve(file, qualname)
    options = getattr(kernel, "aot", None)
    if not isinstance(options, AOTOptions):
        raise exc.InvalidAPIUsage(
            f"{qualname} in {file} is not an ahead-of-time kernel",
            fix="decorate it with @helion.aot_kernel(collect_fn=...).",
        )
    return kernel, file, options


def calls_of(kernel: Any, function: Callable[[], Iterable[Sequence[Any]]] | None) -> list[tuple[Any, ...]]:
    if function is None:
        raise exc.InvalidAPIUsage(
            f"{kernel.name} has no collect_fn",
            fix="give @helion.aot_kernel(collect_fn=...) a function that returns argument tuples.",
        )
    calls = [kernel.normalize_args(*args) for args in function()]
    if not calls:
        raise exc.InvalidAPIUsage(
            f"the collect_fn of {kernel.name} returned no arguments", fix="return at least one tuple of arguments."
        )
    return calls


def collect(
    name: str,
    path: Path,
    say: Callable[[str], None],
    evaluations: int | None = None,
    isolate: bool = True,
    **options: Any,
) -> Measurements:
    """Tune the kernel for every call of its `collect_fn` and keep the winners.

    Args:
        name: `file.py:kernel`.
        path: the working file; Configs in it are kept and tried first.
        say: called with progress.
        evaluations: Configs measured for each call.
        isolate: as for `autotune`.
        **options: as for `autotune`.
    """
    kernel, _, aot = find_kernel(name)
    calls = calls_of(kernel, aot.collect_fn)
    found: Measurements | None = None
    for number, args in enumerate(calls, 1):
        target = BoundTarget(kernel.variant(kernel.normalize_args(*args)))
        key = target.cache_key(args)
        if found is None:
            found = Measurements(kernel.name, key.device, source_hash(key.source), aot.batched)
            if path.exists():
                old = Measurements.load(path)
                if (old.kernel, old.device) != (found.kernel, found.device):
                    raise exc.InvalidAPIUsage(
                        f"{path} is of {old.kernel} on {old.device}", fix="name another file with --data."
                    )
                found.configs = old.configs
        fitting = [c for c in found.configs if target.config_spec.is_valid(c)]
        result = run_search(
            target, args, evaluations=evaluations, isolate=isolate, **{"seed_configs": fitting, **options}
        )
        say(
            f"{number}/{len(calls)} {describe(args)}: {format_ms(result.time_ms)} with "
            f"{result.config.minimize(target.config_spec)}"
        )
        for config in (result.config, target.config_spec.default_config()):
            if config not in found.configs:
                found.configs.append(config)
        found.save(path)  # a long collection that is interrupted keeps what it has
    assert found is not None
    return found


def measure(name: str, path: Path, say: Callable[[str], None], isolate: bool = True, **options: Any) -> Measurements:
    """Time every collected Config on every call of `measure_fn` (or `collect_fn`)."""
    kernel, _, aot = find_kernel(name)
    data = Measurements.load(path)
    data.shapes, data.times, data.calls = [], [], []
    calls = calls_of(kernel, aot.measure_fn or aot.collect_fn)
    for number, args in enumerate(calls, 1):
        target = BoundTarget(kernel.variant(kernel.normalize_args(*args)))
        fitting = [c for c in data.configs if target.config_spec.is_valid(c)]
        result = run_search(
            target, args, configs=fitting, isolate=isolate, **{"effort": "full", "log_level": "warning", **options}
        )
        times = {t.config: t.time_ms for t in result.trials}
        normal = target.config_spec.normalize
        row = [times.get(normal(c), math.inf) if c in fitting else math.inf for c in data.configs]
        if not any(math.isfinite(t) for t in row):
            raise exc.NoConfigFound(kernel=kernel.name, reason=f"every config failed for {describe(args)}")
        data.shapes.append(features_of(args, aot.batched))
        data.times.append(row)
        data.calls.append(describe(args))
        say(f"{number}/{len(calls)} {data.calls[-1]}: best {format_ms(min(row))}")
        data.save(path)
    return data


def build_table(data: Measurements, limit: int = 8) -> Table:
    """Learn the tree.

    Raises:
        exc.InvalidAPIUsage: nothing was measured, or calls have different features.
    """
    _check(data)
    slow = decision_tree.log_slowdowns(data.times)
    columns = decision_tree.select(slow, limit, 0.002)
    tree = decision_tree.renumber(decision_tree.learn(data.shapes, slow, columns), columns)
    return Table(tuple(data.configs[c] for c in columns), tree, data.source_hash, data.batched)


def _check(data: Measurements) -> None:
    if not data.times:
        raise exc.InvalidAPIUsage(
            f"nothing was measured for {data.kernel}", fix="run `python -m helion.autotuner measure` first."
        )
    names = {frozenset(shape) for shape in data.shapes}
    if len(names) > 1:
        raise exc.InvalidAPIUsage(
            f"the calls of {data.kernel} differ in the number or kind of their arguments",
            fix="collect calls of one kind (ranks and types alike).",
        )


def write(name: str, path: Path, limit: int = 8) -> tuple[Path, Table]:
    """Write the table beside the kernel; tables of other kernels and devices in the file stay.

    Returns:
        The file and the table.
    """
    _, file, _ = find_kernel(name)
    data = Measurements.load(path)
    table = build_table(data, limit)
    target = shipped_file(file)
    kernels = {k: {d: t.to_record() for d, t in devices.items()} for k, devices in read_tables(target).items()}
    kernels.setdefault(data.kernel, {})[data.device] = table.to_record()
    replace_file(target, json.dumps({"format": FORMAT, "kernels": kernels}, indent=1, sort_keys=True) + "\n")
    return target, table


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How good choices are: geometric mean slow-down against each shape's best Config, 1.0 being perfect.

    Attributes:
        shipped: the tree on the shapes it was learned from.
        unseen: for every shape, a tree learned from the others: what to expect on new shapes.  None for one shape.
        single: the best single Config for all shapes.
        shapes: for every call its arguments, the best time in ms, and the tree's slow-down.
        configs: how many are shipped.
    """

    shipped: float
    unseen: float | None
    single: float
    shapes: tuple[tuple[str, float, float], ...]
    configs: int


def evaluate(data: Measurements, limit: int = 8) -> Evaluation:
    """Judge the tree that `write` would ship."""
    _check(data)
    slow = decision_tree.log_slowdowns(data.times)
    count = len(slow)
    columns = decision_tree.select(slow, limit, 0.002)
    tree = decision_tree.learn(data.shapes, slow, columns)
    chosen = [slow[i][decision_tree.choose(tree, data.shapes[i])] for i in range(count)]
    unseen = None
    if count > 1:
        total = 0.0
        for out in range(count):
            rest = [i for i in range(count) if i != out]
            rest_slow = [slow[i] for i in rest]
            rest_columns = decision_tree.select(rest_slow, limit, 0.002)
            other = decision_tree.learn([data.shapes[i] for i in rest], rest_slow, rest_columns)
            total += slow[out][decision_tree.choose(other, data.shapes[out])]
        unseen = math.exp(total / count)
    single = min(sum(row[c] for row in slow) for c in range(len(slow[0])))
    labels = data.calls or [str(shape) for shape in data.shapes]
    rows = tuple((labels[i], min(data.times[i]), math.exp(chosen[i])) for i in range(count))
    return Evaluation(math.exp(sum(chosen) / count), unseen, math.exp(single / count), rows, len(columns))
