"""A participant of a shared study, as a process of its own: `python -m tests.autotuner.study_run STORAGE LOG
EVALUATIONS [POINT [PARTICIPANTS]]`.

It begins when there are as many PARTICIPANTS, and each has imported everything; after its first measurement it waits
for the first one of each other. Each measured Config is appended to
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
from tests.waiting import wait_until

from . import kernels
from .kernels import FunctionTarget


class Recording(InProcessExecutor):
    """Writes down what it measured, after it did."""

    def __init__(self, log: Path, point: float, participants: int) -> None:
        super().__init__((torch.ones(64, 4),))
        self.log = log
        self.point = point
        self.participants = participants
        self.measured = 0

    def begun(self) -> int:
        """How many participants have measured something."""
        return len({line.split()[0] for line in self.log.read_text().splitlines()})

    def wait_at(self, point: float) -> None:
        if point == self.point:
            self.log.with_suffix(".waits").touch()
            time.sleep(3600)

    def poll(self, seconds: float) -> list[Trial]:
        if self.measured == 1:
            wait_until(
                lambda: len({line.split()[0] for line in self.log.read_text().splitlines()}) >= self.participants
            )
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
    participants = int(sys.argv[5]) if len(sys.argv) > 5 else 1
    made: Any = Recording(log, float(sys.argv[4]) if len(sys.argv) > 4 else -1.0, participants)
    session._make_executor = lambda *a: made  # type: ignore[assignment]
    target = FunctionTarget(
        "misbehaving",
        kernels.Misbehaving.spec,
        autotune_config_filter=lambda c: c["mode"] in ("good", "slow", "raise", "wrong"),
        autotune_random_seed=os.getpid(),
    )
    args = (torch.ones(64, 4),)
    log.with_suffix(f".{os.getpid()}").touch()
    wait_until(lambda: len(list(log.parent.glob(f"{log.stem}.[0-9]*"))) >= participants)
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
