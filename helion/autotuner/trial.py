"""Trial: one measured Config, and the ways a candidate can fail.

Plain data that every part of the autotuner passes around: searches, executors, logs, caches.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

from ..config import Config
from . import schema


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
        """The Trial that `to_dict` described; unknown keys are ignored.

        Raises:
            ValueError: the record describes no Trial.
        """
        found = schema.record(record, {"config": schema.config, "status": Status}, _OPTIONAL)
        if found.get("time_ms") is None:
            if found["status"] is Status.OK:
                raise ValueError("a time is missing")
            found["time_ms"] = math.inf
        return cls(**found)


_OPTIONAL: dict[str, schema.Check] = {
    "time_ms": schema.optional(schema.milliseconds),
    "spread": schema.number,
    "message": schema.text,
    "compile_s": schema.number,
    "worker": schema.text,
}
