"""Trial: one measured Config, and the ways a candidate can fail.

Plain data that every part of the autotuner passes around: searches, executors, logs, caches.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

from ..config import Config


class Status(str, enum.Enum):
    """How a trial ended.  The values are what logs and reports show."""

    OK = "ok"
    COMPILE_ERROR = "compile error"
    COMPILE_TIMEOUT = "compile timeout"
    RUN_ERROR = "run error"
    RUN_TIMEOUT = "run timeout"
    OUT_OF_MEMORY = "out of memory"
    CRASH = "crash"
    WRONG_ANSWER = "wrong answer"


@dataclasses.dataclass(frozen=True)
class Trial:
    """The outcome of one candidate.

    Attributes:
        config: what was tried.
        status: `OK`, or how it failed.
        time_ms: median time of one call in milliseconds; `inf` if it failed.
        spread: relative half-width of the middle half of the samples (0.02: half of them lie within 2%).
        message: the error, for a failed trial.
        compile_s: seconds of compilation.
        worker: where it ran, for example `cuda:0` or `host3/cuda:1`.
    """

    config: Config
    status: Status
    time_ms: float = math.inf
    spread: float = 0.0
    message: str = ""
    compile_s: float = 0.0
    worker: str = ""

    @property
    def ok(self) -> bool:
        """Whether the candidate gave right results and a time."""
        return self.status is Status.OK

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form (an infinite time becomes None)."""
        return {
            "config": dict(self.config),
            "status": self.status.value,
            "time_ms": self.time_ms if math.isfinite(self.time_ms) else None,
            "spread": self.spread,
            "message": self.message,
            "compile_s": self.compile_s,
            "worker": self.worker,
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Trial:
        """The Trial that `to_dict` described; unknown keys are ignored."""
        time_ms = record.get("time_ms")
        return cls(
            config=Config.from_dict(record["config"]),
            status=Status(record["status"]),
            time_ms=math.inf if time_ms is None else float(time_ms),
            spread=float(record.get("spread", 0.0)),
            message=str(record.get("message", "")),
            compile_s=float(record.get("compile_s", 0.0)),
            worker=str(record.get("worker", "")),
        )
