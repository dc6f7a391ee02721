"""A participant of a shared study, as a process of its own: `python -m tests.autotuner.study_run STORAGE LOG
EVALUATIONS`.

Each measured Config is appended to LOG, so that the tests see what was measured twice.
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

    def __init__(self, log: Path) -> None:
        super().__init__((torch.ones(64, 4),))
        self.log = log

    def poll(self, seconds: float) -> list[Trial]:
        time.sleep(0.05)
        trials = super().poll(seconds)
        for trial in trials:
            with self.log.open("a") as file:
                file.write(f"{os.getpid()} {trial.config['mode']} {trial.config['salt']}\n")
        return trials


def main() -> None:
    storage, log, evaluations = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    made: Any = Recording(log)
    session._make_executor = lambda *a: made  # type: ignore[assignment]
    target = FunctionTarget(
        "misbehaving",
        kernels.Misbehaving.spec,
        autotune_config_filter=lambda c: c["mode"] in ("good", "slow", "raise", "wrong"),
        autotune_random_seed=os.getpid(),
    )
    args = (torch.ones(64, 4),)
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
