"""Waiting for what a test wants to have happened, and not for a time: one busy core takes as long as it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["wait_until"]


def wait_until(happened: Callable[[], object], seconds: float = 300.0) -> None:
    """Return once ``happened()`` is true.

    Raises:
        TimeoutError: it was not in `seconds`, which is for a test that fails and not a limit that another may meet.
    """
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"did not happen in {seconds:g} s")
        time.sleep(0.02)
