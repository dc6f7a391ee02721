"""How many evaluations each search needs to come within 5% of the best Config, on synthetic landscapes.

For each landscape of `autotune_landscapes.py` and each search, over several seeds: the number of evaluations
until the best Config found so far is truly (without noise) within `--within` of the best known one.  Every
search is asked for `--batch` Configs at a time, starts with the kernel's default Config, and sees noisy times and
failures. Reference points from outside: Optuna's default sampler (TPE) and scikit-optimize's default (`Optimizer`, a
Gaussian process with `gp_hedge`), both told log times, and a time eight times the slowest for a failure.

    python benchmarks/autotune_quality.py --seeds 20 --json quality.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import torch  # noqa: E402
from autotune_landscapes import LANDSCAPES  # noqa: E402
from autotune_landscapes import Failed  # noqa: E402
from autotune_landscapes import Landscape  # noqa: E402

from helion.autotuner.evolution import DifferentialEvolutionStrategy  # noqa: E402
from helion.autotuner.lfbo import LFBOPatternStrategy  # noqa: E402
from helion.autotuner.model import ModelStrategy  # noqa: E402
from helion.autotuner.pattern import PatternStrategy  # noqa: E402
from helion.autotuner.space import SearchSpace  # noqa: E402
from helion.autotuner.strategy import RandomStrategy  # noqa: E402
from helion.autotuner.strategy import Strategy  # noqa: E402
from helion.autotuner.trial import Status  # noqa: E402
from helion.autotuner.trial import Trial  # noqa: E402
from helion.config import Config  # noqa: E402


def _value(trial: Trial, history: list[Trial]) -> float:
    """What an outside optimizer is told: log time; failures count as 8 times the slowest."""
    if trial.ok:
        return math.log(trial.time_ms)
    slowest = max((t.time_ms for t in history if t.ok), default=1.0)
    return math.log(8 * slowest)


class OptunaDefault(Strategy):
    """Optuna's TPE sampler with its default options, one parameter per dimension."""

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        import optuna

        super().__init__(space, seed=seed)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        self._trials: dict[Config, Any] = {}

    def propose(self, limit: int) -> list[Config]:
        found: list[Config] = []
        for _ in range(200 * limit):
            if len(found) >= limit:
                break
            trial = self._study.ask()
            point = []
            for dimension in self.space.dimensions:
                count = len(dimension.values)
                if dimension.ordered:
                    point.append(trial.suggest_int(dimension.name, 0, count - 1))
                else:
                    point.append(trial.suggest_categorical(dimension.name, list(range(count))))
            config = self.space.config(point)
            if config is None:
                self._study.tell(trial, _value(Trial(Config(), Status.COMPILE_ERROR), list(self.history.values())))
            elif not self._is_new(config) or config in found:
                known = self.history.get(config)
                if known is not None:
                    self._study.tell(trial, _value(known, list(self.history.values())))
            else:
                self._trials[config] = trial
                found.append(config)
        return found

    def observe(self, trial: Trial) -> None:
        if trial.config in self._trials:
            self._study.tell(self._trials.pop(trial.config), _value(trial, list(self.history.values())))


class SkoptDefault(Strategy):
    """scikit-optimize's Optimizer with its default options."""

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        import skopt
        from skopt.space import Categorical
        from skopt.space import Integer

        super().__init__(space, seed=seed)
        self._axes = [i for i, d in enumerate(space.dimensions) if len(d.values) > 1]
        dimensions = [
            Integer(0, len(space.dimensions[i].values) - 1)
            if space.dimensions[i].ordered
            else Categorical(range(len(space.dimensions[i].values)))
            for i in self._axes
        ]
        self._optimizer = skopt.Optimizer(dimensions, random_state=seed)
        self._asked: dict[Config, list[int]] = {}

    def propose(self, limit: int) -> list[Config]:
        # One at a time, whatever is asked for: it guesses a batch by fitting its model once more for each Config in it.
        if self.pending:
            return []
        for _ in range(20):
            part = [int(i) for i in self._optimizer.ask()]
            point = [0] * len(self.space.dimensions)
            for axis, index in zip(self._axes, part):
                point[axis] = index
            config = self.space.config(point)
            if config is None:
                self._tell(part, Trial(Config(), Status.COMPILE_ERROR))
            elif config in self.history:
                self._tell(part, self.history[config])
            else:
                self._asked[config] = part
                return [config]
        return self._new_random(1)

    def observe(self, trial: Trial) -> None:
        part = self._asked.pop(trial.config, None)
        if part is not None:
            self._tell(part, trial)

    def _tell(self, part: list[int], trial: Trial) -> None:
        self._optimizer.tell(part, _value(trial, list(self.history.values())))


# These begin with what the Triton backend suggests for kernels with matrix products; the others with the default Config
# alone.
WITH_STARTS = {"ModelSearch with starts"}

SEARCHES: dict[str, Callable[..., Strategy]] = {
    "ModelSearch with starts": ModelStrategy,
    "ModelSearch": ModelStrategy,
    "LFBOPatternSearch": LFBOPatternStrategy,
    "PatternSearch": PatternStrategy,
    "DifferentialEvolutionSearch": DifferentialEvolutionStrategy,
    "RandomSearch": RandomStrategy,
    "Optuna TPE": OptunaDefault,
    "scikit-optimize": SkoptDefault,
}


def run_one(name: str, index: int, seed: int, target_ms: float, evaluations: int, batch: int) -> dict[str, Any]:
    """One search on one landscape with one seed."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    landscape: Landscape = LANDSCAPES[index]
    noise = random.Random(f"{landscape.name}/{seed}")
    search = SEARCHES[name](landscape.space(starts=name in WITH_STARTS), seed=seed)
    started = time.perf_counter()
    count, reached, best = 0, None, math.inf
    path: list[float] = []
    while count < evaluations and not search.finished:
        configs = search.ask(min(batch, evaluations - count))
        if not configs:
            break
        for config in configs:
            count += 1
            search.tell(landscape.measure(config, noise))
            # What counts is what the search would answer now: the truth of the Config it believes to be best.
            if search.best is not None:
                try:
                    best = min(best, landscape.true_ms(search.best.config))
                except Failed:
                    raise AssertionError("a failed Config cannot be the best") from None
            path.append(best)
            if reached is None and best <= target_ms:
                reached = count
        if reached is not None:
            break
    return {
        "search": name,
        "landscape": landscape.name,
        "seed": seed,
        "evaluations": reached,
        "best_ms": best,
        "path_ms": path,
        "tried": count,
        "seconds": time.perf_counter() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=400, help="give up after this many")
    parser.add_argument("--batch", type=int, default=4, help="Configs asked for at a time")
    parser.add_argument("--within", type=float, default=0.05)
    parser.add_argument("--searches", nargs="*", default=list(SEARCHES), choices=list(SEARCHES))
    parser.add_argument("--landscapes", nargs="*", type=int, default=list(range(len(LANDSCAPES))))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument(
        "--slow-cap", type=int, default=120, help="give up after this many in scikit-optimize, which is slow"
    )
    parser.add_argument("--slow-seeds", type=int, default=20, help="seeds for scikit-optimize")
    parser.add_argument("--json", type=Path, help="write every run here, and leave out those that are there")
    parser.add_argument("--show", nargs="*", type=Path, help="only print the tables of these files")
    options = parser.parse_args()
    if options.show:
        shown = [r for file in options.show for r in json.loads(file.read_text())]
        _show(
            shown,
            options.within,
            {r["search"]: max(q["tried"] for q in shown if q["search"] == r["search"]) for r in shown},
        )
        return

    best = {i: LANDSCAPES[i].best_ms for i in options.landscapes}
    cap = {name: options.slow_cap if name == "scikit-optimize" else options.evaluations for name in options.searches}
    # Seed by seed, so that an interrupted study has all landscapes.
    jobs = [
        (name, i, seed, best[i] * (1 + options.within), cap[name], options.batch)
        for seed in range(options.seeds)
        for name in options.searches
        for i in options.landscapes
        if seed < options.slow_seeds or name != "scikit-optimize"
    ]
    # A study that was interrupted goes on: what is in the file already is not run again.
    results: list[dict[str, Any]] = (
        json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    )
    done = {(r["search"], r["landscape"], r["seed"]) for r in results}
    jobs = [job for job in jobs if (job[0], LANDSCAPES[job[1]].name, job[2]) not in done]
    with ProcessPoolExecutor(options.processes) as executor:
        for result in executor.map(run_one, *zip(*jobs)):
            results.append(result)
            if options.json:  # after every run: an interrupted study keeps what it has
                options.json.write_text(json.dumps(results, indent=1))

    _show(results, options.within, cap)


def _show(results: list[dict[str, Any]], within: float, cap: dict[str, int]) -> None:
    """Print the tables."""
    best = {landscape.name: landscape.best_ms for landscape in LANDSCAPES}
    names = list(dict.fromkeys(r["landscape"] for r in results))
    searches = list(dict.fromkeys(r["search"] for r in results))
    width = max(len(n) for n in searches)

    def table(title: str, cell: Callable[[list[dict[str, Any]], float, int], str]) -> None:
        print(title)
        print(" " * width, *(f"{n:>22}" for n in names))
        for search in searches:
            cells = []
            for landscape in names:
                runs = [r for r in results if r["search"] == search and r["landscape"] == landscape]
                cells.append(cell(runs, best[landscape], cap[search]).rjust(22))
            print(search.ljust(width), *cells)
        print()

    def evaluations(runs: list[dict[str, Any]], least: float, limit: int) -> str:
        counts = [r["evaluations"] if r["evaluations"] is not None else math.inf for r in runs]
        median = statistics.median_high(counts)
        text = f"> {limit}" if math.isinf(median) else f"{median:.0f}"
        return f"{text} ({sum(map(math.isinf, counts))} of {len(runs)})"

    table(
        f"Evaluations until the best is within {within:.0%} of the optimum, median over seeds "
        "(runs that never got there):",
        evaluations,
    )
    for after in (60, 100, 200):

        def excess(runs: list[dict[str, Any]], least: float, limit: int) -> str:
            if after > limit:
                return "-"
            # A run ends when it is within the threshold; from there on its last value stands for it.
            return f"{statistics.median(r['path_ms'][:after][-1] / least for r in runs) - 1:+.1%}"

        table(f"Distance to the optimum after {after} evaluations, median over seeds:", excess)
    for search in searches:
        seconds = statistics.median(r["seconds"] / max(r["tried"], 1) for r in results if r["search"] == search)
        print(f"{search.ljust(width)} {seconds * 1e3:8.1f} ms per evaluation")


if __name__ == "__main__":
    main()
