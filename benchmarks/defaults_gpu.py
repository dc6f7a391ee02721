"""How good the computed default Config is: against the best of many others, and against eager PyTorch, on this GPU.

For every example at several sizes: the default Config, the catalog's, and `--draw` drawn from the kernel's space are
compiled side by side and measured; then the default, the best of them and eager PyTorch are timed once more, in turn
and the same way (CUDA events, cold L2 cache).

    python benchmarks/defaults_gpu.py --json defaults.json              the examples at their realistic sizes
    python benchmarks/defaults_gpu.py matmul softmax --sizes 4          and at sizes a quarter of that and less
    python benchmarks/defaults_gpu.py --draw 0                          against the catalog's Configs only: quick
    python benchmarks/defaults_gpu.py forms --draw 4                    the forms of forms.py: about 60 s
    python benchmarks/defaults_gpu.py forms matmul attention --draw 0 --compile    and torch.compile: 20 s more for each

Columns: us of each; `of best`: the best one's time over the default's (1 is the best there can be); `of torch`: the
time of the fastest of PyTorch's (eager, and with `--compile` also torch.compile in mode max-autotune) over the
default's.  The forms of one computation should have times alike.  The last line has the geometric means.  The rules of
`helion/backends/triton/defaults.py` were chosen by such runs.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

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
from helion.autotuner.space import SearchSpace


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


def measure(example: Example, size: tuple[int, ...], draw: int, compiled: bool) -> dict[str, Any]:
    """One row of the table.

    Args:
        example: the kernel.
        size: its arguments'.
        draw: how many Configs to draw.
        compiled: whether to time torch.compile too.
    """
    device = torch.device("cuda:0")
    torch.manual_seed(0)
    args = example.args(size, device="cuda")
    bound = example.kernel.bind(args)
    target = BoundTarget(bound)
    tried = candidates(target, example, draw)
    result = run_search(target, args, configs=tried, progress_bar=False, log_level=0, ignore_errors=True)
    default = target.config_spec.default_config()
    eager = example.eager or example.reference
    runs = {"default": bound.compile_config(default), "best": bound.compile_config(result.config), "eager": eager}
    if compiled:
        runs["compile"] = torch.compile(eager, mode="max-autotune-no-cudagraphs", dynamic=False)
    for run in runs.values():
        run(*args)
    times = compare({name: (lambda run=run: run(*args)) for name, run in runs.items()}, device)
    return {
        "name": example.name,
        "size": size,
        "us": {name: round(ms * 1e3, 2) for name, ms in times.items()},
        "of best": min(times["default"], times["best"]) / times["default"],
        "of torch": min(times["eager"], times.get("compile", math.inf)) / times["default"],
        "default": dict(default.minimize(target.config_spec)),
        "config": dict(result.config.minimize(target.config_spec)),
        "measured": len(result.trials),
    }


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / max(len(values), 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="examples, forms, or `forms` for all of these (default: examples)")
    parser.add_argument("--sizes", type=int, default=1, help="how many sizes of each")
    parser.add_argument("--draw", type=int, default=24, help="Configs drawn from each kernel's space")
    parser.add_argument("--seconds", type=float, default=3600.0, help="begin no further kernel after this long")
    parser.add_argument("--compile", action="store_true", help="time torch.compile too")
    parser.add_argument("--json", type=Path, help="write everything here")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no GPU")
    about = environment()
    print(json.dumps(about))
    end = time.monotonic() + options.seconds
    rows: list[dict[str, Any]] = []
    known = {**EXAMPLES, **forms()}
    for name in [n for given in options.names or EXAMPLES for n in (FORMS if given == "forms" else [given])]:
        for size in sizes_of(known[name], options.sizes):
            if time.monotonic() > end:
                break
            try:
                row = measure(known[name], size, options.draw, options.compile)
            except Exception as error:  # a kernel that fails costs its own row
                print(f"{name} {size}: {type(error).__name__}: {error}"[:200], flush=True)
                continue
            rows.append(row)
            us = " ".join(f"{kind} {value:9.1f}" for kind, value in row["us"].items())
            of = f"of best {row['of best']:.2f}  of torch {row['of torch']:.2f}"
            print(f"{name:28} {'x'.join(map(str, size)):26} {us}  {of}", flush=True)
            torch.cuda.empty_cache()
            if options.json:
                options.json.write_text(json.dumps({"environment": about, "rows": rows}, indent=1))
    if rows:
        best, torch_ = ([row[key] for row in rows] for key in ("of best", "of torch"))
        print(
            f"{len(rows)} rows: of best {geometric_mean(best):.3f} (least {min(best):.2f}), "
            f"of torch {geometric_mean(torch_):.3f} (least {min(torch_):.2f})"
        )


if __name__ == "__main__":
    main()
