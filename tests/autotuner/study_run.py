"""A participant of a shared study, as a process of its own: `python -m tests.autotuner.study_run STORAGE LOG
EVALUATIONS [POINT [PARTICIPANTS]]`.

It begins when there are as many PARTICIPANTS, and each has imported everything. Each measured Config is appended to
LOG, so that the tests see what was measured twice. At POINT, counted in halves of a measurement, it waits to be killed:
N.0 is after N measurements, N.5 after another whose result nobody was told.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from helion.autotuner import api
from helion.autotuner import session
from helion.autotuner.executor import InProcessExecutor
from helion.autotuner.trial import Trial

from . import kernels
from .kernels import FunctionTarget


class Recording(InProcessExecutor):
    """Writes down what it measured, after it did."""

    def __init__(self, log: Path, point: float) -> None:
        super().__init__((torch.ones(64, 4),))
        self.log = log
        self.point = point
        self.measured = 0

    def wait_at(self, point: float) -> None:
        if point == self.point:
            self.log.with_suffix(".waits").touch()
            time.sleep(3600)

    def poll(self, seconds: float) -> list[Trial]:
        time.sleep(0.05)  # for the others
        self.wait_at(self.measured)
        trials = super().poll(seconds)
        for trial in trials:
            with self.log.open("a") as file:
                file.write(f"{os.getpid()} {trial.config['mode']} {trial.config['salt']}\n")
            self.wait_at(self.measured + 0.5)
            self.measured += 1
        return trials


def main() -> None:
    storage, log, evaluations = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    made: Any = Recording(log, float(sys.argv[4]) if len(sys.argv) > 4 else -1.0)
    session._make_executor = lambda *a: made  # type: ignore[assignment]
    target = FunctionTarget(
        "misbehaving",
        kernels.Misbehaving.spec,
        autotune_config_filter=lambda c: c["mode"] in ("good", "slow", "raise", "wrong"),
        autotune_random_seed=os.getpid(),
    )
    args = (torch.ones(64, 4),)
    log.with_suffix(f".{os.getpid()}").touch()
    while len(list(log.parent.glob(f"{log.stem}.[0-9]*"))) < (int(sys.argv[5]) if len(sys.argv) > 5 else 1):
        time.sleep(0.01)
    result = api.run_search(
        target,
        args,
        evaluations=evaluations,
        effort="quick",
        search="RandomSearch",
        storage=storage,
        progress_bar=False,
        log_level="error",
    )
    print(result.config["mode"], result.config["salt"], len(result.trials))


if __name__ == "__main__":
    main()
