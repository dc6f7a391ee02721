"""BaseSearch: a kernel, arguments, and `autotune`, which finds a Config for them.

What `autotuner_fn` returns, and what a search of one's own derives from.  Helion's own searches are in `searches.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ..config import Config
from ..config_spec import ConfigSpec
from ..settings import Settings
from .bound import BoundTarget
from .target import TuningTarget


def target_of(kernel: Any, args: Sequence[Any]) -> TuningTarget:
    """What the tuner knows of a kernel: of a BoundKernel, or of something that is a TuningTarget itself."""
    return kernel if isinstance(kernel, TuningTarget) else BoundTarget(kernel.variant_for(tuple(args)))


class BaseSearch:
    """A search for the fastest Config of one kernel, called with some arguments.

    Args:
        kernel: a BoundKernel (`kernel.bind(args)`).
        args: arguments to measure with, by position.

    Attributes:
        kernel: the same.
        args: the same, as a tuple.
        settings: of the kernel; may be replaced.
        log: a logger.
    """

    def __init__(self, kernel: Any, args: Sequence[Any]) -> None:
        self.kernel = kernel
        self.args = tuple(args)
        self.target = target_of(kernel, args)
        self.settings: Settings = self.target.settings
        self.log = logging.getLogger("helion.autotuner")

    @property
    def config_spec(self) -> ConfigSpec:
        """The schedules that the kernel can have."""
        return self.target.config_spec

    def autotune(self, *, skip_cache: bool = False) -> Config:
        """Find a Config.

        Args:
            skip_cache: search even if a cache has one; searches without a cache have nothing to skip.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it searches: override autotune")
