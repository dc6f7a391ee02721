"""How good the computed default Config is: against a tuned one, eager PyTorch and torch.compile, on this GPU.

For every example and the forms of `forms.py`: a search of `--tune` seconds that also knows the catalog's Configs; then
the default Config, the best of them, eager PyTorch (attention also with each of its kernels by name) and, with
`--compile`, torch.compile (mode max-autotune without CUDA graphs), once more, in turn and the same way (CUDA events,
cold L2 cache).  What takes the time is torch.compile: with `--ahead 12`, twelve processes fill its caches first, for as
many kernels as they come to in a quarter of the time; then one process measures alone.

    python benchmarks/defaults_gpu.py --join defaults.json --seconds 540 --tune 16 --compile --ahead 12    go on with it
    python benchmarks/defaults_gpu.py --join defaults.json --seconds 0 --plot defaults.svg   the tables and the plot
    python benchmarks/defaults_gpu.py --join defaults.json --seconds 0 --page docs/performance.md    into their place
    python benchmarks/defaults_gpu.py matmul softmax --sizes 4 --tune 20               and at sizes a quarter and less
    python benchmarks/defaults_gpu.py forms --tune 0                                   only the catalog's Configs

Columns: us of each; `of best`: the best one's time over the default's (1 is the best there can be); `of torch`: the
time of the fastest of PyTorch's over the best one's; `default of torch`: over the default's.  The forms of one
computation should have times alike.  The rules of `helion/backends/triton/default*.py` were chosen by looking at one
half of the kernels; the other half (`is_held_out`) has a summary of its own.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import os
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend
from torch.nn.attention import sdpa_kernel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import table
from benchmarks.autotune_gpu import compare
from benchmarks.autotune_gpu import environment
from benchmarks.forms import FAMILIES
from benchmarks.forms import FORMS
from benchmarks.forms import Family
from benchmarks.forms import config_of
from examples.catalog import EXAMPLES
from examples.entry import Example
from helion import Config
from helion.autotuner.api import run_search
from helion.autotuner.bound import BoundTarget
from helion.autotuner.measure import Effort
from helion.autotuner.measure import time_call
from helion.autotuner.space import SearchSpace
from helion.bound_kernel import BoundKernel
from helion.runtime.device import target_of


def _form_args(family: Family) -> Callable[..., tuple[torch.Tensor, ...]]:
    return lambda *size, dtype, device: family.make_args(size, dtype, device)


def forms() -> dict[str, Example]:
    """The forms of `forms.py` as examples."""
    found = {}
    for name, form in FORMS.items():
        family = FAMILIES[form.family]
        found[name] = Example(
            *(name, form.kernel, family.reference, _form_args(family), family.size, family.small),
            dtype=torch.float16,
            configs=(config_of(form),),
        )
    return found


def sizes_of(example: Example, count: int) -> Iterator[tuple[int, ...]]:
    """The realistic size, and that with its first dimensions of 256 and more divided by 4, again and again."""
    size = example.size
    for _ in range(count):
        yield size
        smaller = tuple(n // 4 if n >= 1024 else n for n in size)
        if smaller == size:
            return
        size = smaller


def is_held_out(name: str) -> bool:
    """Whether nobody looked at a kernel when the rules were chosen: half of them, by a number that is no choice."""
    return bool(zlib.crc32(name.encode()) % 2)


def group_of(example: Example) -> str:
    """What limits a kernel: how it is grouped in the tables."""
    if "attention" in example.name:
        return "attention"
    is_product = example.uses_dot or "matmul" in example.name
    return "products" if is_product else "memory"


def candidates(target: BoundTarget, example: Example, draw: int) -> list[Config]:
    """The default Config, those of the catalog that fit, and some of the kernel's space."""
    spec = target.config_spec
    found = [spec.default_config(), *(spec.normalize(config) for config in example.configs if spec.is_valid(config))]
    space, rng = SearchSpace(spec), random.Random(example.name)
    for _ in range(draw):
        drawn = space.random(rng)
        if drawn is not None:
            found.append(drawn)
    return list(dict.fromkeys(found))


def _best(bound: BoundKernel, args: tuple[Any, ...], example: Example, options: argparse.Namespace) -> Config:
    """The fastest Config of those that are known and what a search of so many seconds finds.

    They are timed once more here: a search may be over before its workers have measured anything (they import torch
    first, for some eight seconds on a new machine), and then it has found nothing.
    """
    target = BoundTarget(bound)
    known = candidates(target, example, options.draw)
    if options.tune > 0:
        quiet: dict[str, Any] = {"progress_bar": False, "log_level": 0, "ignore_errors": True}
        seeds = {"seed_configs": known[1:], "budget_seconds": options.tune}
        known.append(run_search(target, args, **quiet, **seeds).config)
    times: dict[Config, float] = {}
    for config in dict.fromkeys(known):
        try:
            run = bound.compile_config(config)
            run(*args)
            times[config] = time_call(lambda run=run: run(*args), torch.device("cuda:0"), Effort(total_ms=25)).median
        except Exception as error:  # one that does not fit this GPU
            print(f"{example.name}, {config}: {type(error).__name__}"[:300], file=sys.stderr)
    return min(times, key=lambda config: times[config])


#: PyTorch's kernels of attention; which of them it takes by itself depends on its version.
_ATTENTIONS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
#: Part of the time that goes into filling torch.compile's caches.
_AHEAD_PART = 0.25


# What torch.compile makes of it (torch 2.11) reads at a misaligned address, after which nothing runs in the process.
_NOT_COMPILED = {"moe_matmul"}


def of_torch(example: Example, compiles: bool) -> dict[str, Callable[..., Any]]:
    """What PyTorch has for an example: name -> function."""
    eager = example.eager or example.reference

    def through(backend: SDPBackend, *args: Any) -> Any:
        with sdpa_kernel(backend):
            return eager(*args)

    found: dict[str, Callable[..., Any]] = {"eager": eager}
    code = getattr(eager, "__code__", None)  # torch.mm has none
    if code is not None and "scaled_dot_product_attention" in code.co_names:
        found |= {name: functools.partial(through, backend) for name, backend in _ATTENTIONS.items()}
    if compiles and example.name not in _NOT_COMPILED:
        found["compile"] = torch.compile(eager, mode="max-autotune-no-cudagraphs", dynamic=False)
    return found


def measure(example: Example, size: tuple[int, ...], options: argparse.Namespace) -> table.Row:
    """One row of the table."""
    device = torch.device("cuda:0")
    torch.manual_seed(0)
    args = example.args(size, device="cuda")
    bound = example.kernel.bind(args)
    default, best = bound.config_spec.default_config(), _best(bound, args, example, options)
    runs = {"default": bound.compile_config(default), "best": bound.compile_config(best)}
    for run in runs.values():
        run(*args)
    others = of_torch(example, options.compile)
    failed = {}
    for name, run in others.items():
        try:
            run(*args)
            runs[name] = run
        except Exception as error:  # PyTorch's kernels do not take every dtype; a row without them is one still
            failed[name] = f"{type(error).__name__}: {error}"[:200]
    times = compare({name: (lambda run=run: run(*args)) for name, run in runs.items()}, device)
    torch_ms = min((times[name] for name in others if name in times), default=math.nan)
    fastest = min(times["default"], times["best"])
    found: table.Row = {
        "name": example.name,
        "group": group_of(example),
        "held out": is_held_out(example.name),
        "size": size,
        "us": {name: round(ms * 1e3, 2) for name, ms in times.items()},
        "of best": fastest / times["default"],
        "default": dict(default.minimize(bound.config_spec)),
        "config": dict(best.minimize(bound.config_spec)),
        "tuned for": options.tune,
        "failed": failed,
    }
    if math.isfinite(torch_ms):
        found.update({"of torch": torch_ms / fastest, "default of torch": torch_ms / times["default"]})
    return found


_ALWAYS = ("default", "best", "eager")
RATIOS = ("of best", "of torch", "default of torch")


def _line(row: table.Row) -> str:
    us = " ".join(f"{kind} {value:9.1f}" for kind, value in row["us"].items())
    of = "  ".join(f"{key} {row[key]:.2f}" for key in RATIOS if key in row)
    return f"{row['name']:28} {'x'.join(map(str, row['size'])):26} {us}  {of}"


def markdown(rows: list[table.Row]) -> str:
    """The table of the docs: microseconds, and ratios."""
    kinds = [kind for kind in (*_ALWAYS, *_ATTENTIONS, "compile") if any(kind in row["us"] for row in rows)]
    lines = [f"| kernel | size | {' | '.join(kinds)} | {' | '.join(RATIOS)} |", "|---" * (2 + len(kinds) + 3) + "|"]
    for row in sorted(rows, key=lambda row: (row["group"], row["name"])):
        us = " | ".join(f"{row['us'][kind]:.1f}" if kind in row["us"] else "" for kind in kinds)
        of = " | ".join(f"{row[key]:.2f}" if key in row else "" for key in RATIOS)
        mark = " (held out)" if row["held out"] else ""
        lines.append(f"| {row['name']}{mark} | {'x'.join(map(str, row['size']))} | {us} | {of} |")
    return "\n".join(lines)


def summaries(rows: list[table.Row]) -> str:
    """One line for all rows, for each group, and for each half."""
    parts = {"all": rows}
    for group in sorted({row["group"] for row in rows}):
        parts[group] = [row for row in rows if row["group"] == group]
    parts["looked at"] = [row for row in rows if not row["held out"]]
    parts["held out"] = [row for row in rows if row["held out"]]
    return "\n".join(table.summary(some, RATIOS, title) for title, some in parts.items() if some)


def plot(rows: list[table.Row], path: Path) -> None:
    """For each kernel a bar as long as its default is good, and dots where both Configs are against PyTorch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = sorted(rows, key=lambda row: (row["group"], row["of best"]))
    figure, axes = pyplot.subplots(figsize=(8, 1.5 + 0.19 * len(rows)), layout="constrained")
    axes.barh(range(len(rows)), [row["of best"] for row in rows], color="#8ac", label="default, of the best found")
    for key, face in (("of torch", "none"), ("default of torch", "#c60")):
        dots = [(row[key], place) for place, row in enumerate(rows) if key in row]
        label = "best found" if key == "of torch" else "default"
        axes.scatter(*zip(*dots), s=14, facecolors=face, edgecolors="#c60", label=f"{label}, of the best of PyTorch")
    axes.axvline(1.0, color="#888", linewidth=0.8)
    axes.set_xlim(0, 3)
    axes.set_yticks(range(len(rows)), [f"{row['name']}{' *' if row['held out'] else ''}" for row in rows], fontsize=6)
    axes.set_xlabel("speed, as a ratio (* held out when the rules were chosen)")
    axes.legend(fontsize=7, loc="lower right")
    figure.savefig(path)


#: What says most, of each group first: what programs are made of, and the forms that nobody tuned.
_FIRST = (
    *("softmax", "rms_norm", "layer_norm", "cross_entropy", "layer_norm_backward", "rms_norm_backward", "swiglu"),
    *("cross_entropy_backward", "geglu", "rope", "dropout", "sum_rows", "norm_of_views", "norm_of_vectors", "add"),
    *("matmul", "matmul_of_turned", "matmul_of_batches", "matmul_epilogue", "bmm", "matmul_broadcast", "fp8_scaled_mm"),
    *("fp8_matmul", "moe_matmul", "matmul_grouped", "matmul_int4", "matmul_softmax", "mamba2_chunk_scan"),
    *("attention", "attention_of_batches", "attention_of_grid", "attention_causal", "attention_bias"),
    *("attention_backward", "attention_jagged", "attention_of_heads", "attention_flex", "attention_fp8"),
)


def tasks(names: list[str], options: argparse.Namespace) -> list[table.Task]:
    """All rows to measure: of each group one in turn, so that a run that is cut short has seen all groups."""
    known = {**EXAMPLES, **forms()}
    groups: dict[str, list[table.Task]] = {}
    for name in sorted(names, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST)):
        for size in sizes_of(known[name], options.sizes):
            key = f"{name} {'x'.join(map(str, size))}"
            task = table.Task(key, functools.partial(measure, known[name], size, options))
            groups.setdefault(group_of(known[name]), []).append(task)
    turns = itertools.zip_longest(*groups.values())
    return [task for turn in turns for task in turn if task is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="examples, forms, or `forms` for all of these (default: everything)")
    parser.add_argument("--sizes", type=int, default=1, help="how many sizes of each")
    parser.add_argument("--tune", type=float, default=16.0, help="seconds to search for a better Config")
    parser.add_argument("--draw", type=int, default=0, help="Configs drawn from each kernel's space, besides")
    parser.add_argument("--compile", action="store_true", help="time torch.compile too")
    parser.add_argument("--ahead", type=int, default=0, help="processes that fill torch.compile's caches first")
    parser.add_argument("--share", help=argparse.SUPPRESS)  # I/N: such a process, of so many
    parser.add_argument("--plot", type=Path, help="write an SVG here")
    table.add_options(parser, seconds=500.0)
    options = parser.parse_args()
    names = [n for given in options.names or [*EXAMPLES, *FORMS] for n in (FORMS if given == "forms" else [given])]
    rows = table.known_rows(options.join)
    if options.seconds > 0:
        if not torch.cuda.is_available():
            parser.error("there is no GPU")
        about = environment()
        if options.share:
            return _compile_share(_left(names, options, rows, about), options)
        print(about)
        if options.ahead and options.compile:
            _compile_ahead(options)
        rows = table.run(tasks(names, options), about, options, _line, _free, keep=is_current)
    failed, rows = table.failures(rows), table.measured(rows)
    if rows:
        text = "\n".join([markdown(rows), "\n```", summaries(rows), *([failed] if failed else []), "```"])
        print(text)
        if options.plot:
            plot(rows, options.plot)
        if options.page:
            tuned = " and ".join(str(seconds) for seconds in sorted({row["tuned for"] for row in rows}))
            about_page = (
                f"Measured on {table.devices(rows)} by `python benchmarks/defaults_gpu.py`; `best` is that of a search "
                f"of {tuned} s."
            )
            table.put_on_page(options.page, "defaults", about_page, text)


def _left(
    names: list[str], options: argparse.Namespace, rows: list[table.Row], about: dict[str, Any]
) -> list[tuple[Example, tuple[int, ...]]]:
    """What is not measured yet on this device, in the order in which it will be."""
    done = {row["key"] for row in table.measured(rows) if row.get("device") == about.get("device") and is_current(row)}
    known = {**EXAMPLES, **forms()}
    left = [task.key.split(" ") for task in tasks(names, options) if task.key not in done]
    return [(known[name], tuple(map(int, size.split("x")))) for name, size in left]


def _compile_ahead(options: argparse.Namespace) -> None:
    """Have several processes compile what PyTorch's compiler is asked for, and take that from the time that is left."""
    began = time.monotonic()
    environment_ = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    command = [sys.executable, *sys.argv, "--share"]
    shares = [
        subprocess.Popen([*command, f"{i}/{options.ahead}"], env=environment_, stdout=subprocess.DEVNULL)
        for i in range(options.ahead)
    ]
    for share in shares:
        try:
            share.wait(max(_AHEAD_PART * options.seconds + began - time.monotonic(), 0) + 30)
        except subprocess.TimeoutExpired:  # in the middle of a slow one: whoever measures compiles it
            share.kill()
    options.seconds -= time.monotonic() - began
    print(f"compiled ahead in {time.monotonic() - began:.0f} s", flush=True)


def _compile_share(left: list[tuple[Example, tuple[int, ...]]], options: argparse.Namespace) -> None:
    """Fill the caches of torch.compile with every n-th of these."""
    began = time.monotonic()
    index, count = map(int, options.share.split("/"))
    for example, size in left[index::count]:
        if time.monotonic() - began > _AHEAD_PART * options.seconds:
            return
        try:
            torch.manual_seed(0)
            if run := of_torch(example, compiles=True).get("compile"):
                run(*example.args(size, device="cuda"))
        except Exception as error:  # whoever measures says so
            print(f"{example.name}: {type(error).__name__}", file=sys.stderr)
        _free()


def is_current(row: table.Row) -> bool:
    """Whether a row is of the Config that is the default today."""
    known = {**EXAMPLES, **forms()}
    example = known.get(row["name"])
    if example is None:
        return False
    try:
        bound = example.kernel.bind(example.args(tuple(row["size"]), device="meta"))
    except Exception:  # arguments that have to be computed
        return True
    spec = bound.backend(target_of(torch.device("cuda:0"))).spec
    return json.loads(json.dumps(dict(spec.default_config().minimize(spec)))) == row["default"]


def _free() -> None:
    torch.cuda.synchronize()  # after an illegal access nothing runs any more, and the run ends here
    torch.compiler.reset()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
