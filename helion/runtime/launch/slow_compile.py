"""A line in the log while Triton compiles one kernel for long.

Loops that are unrolled inside of others that are multiply the code, and Triton's passes over it may take hours: a call
under such a Config seemed to hang. The Config is the user's and stays as it is; a search gives up after a time.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Iterator
from typing import Any

log = logging.getLogger("helion.runtime")

#: After so many seconds, and each time that twice as many have gone.
SECONDS = 60.0

_UNROLLED = re.compile(r"loop_unroll_factor=(\d+)")


@contextlib.contextmanager
def reported(name: str, kernel: Any, options: dict[str, Any]) -> Iterator[None]:
    """Say so while the block takes long.

    Args:
        name: of the user's kernel.
        kernel: what Triton compiles.
        options: of the launch.
    """
    done = threading.Event()

    def watch() -> None:
        seconds = SECONDS
        while not done.wait(seconds if seconds == SECONDS else seconds / 2):
            log.warning("%s", message(name, kernel, options, seconds))
            seconds *= 2

    threading.Thread(target=watch, name=f"helion compiles {name}", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def message(name: str, kernel: Any, options: dict[str, Any], seconds: float) -> str:
    """What is said.

    Args:
        name, kernel, options: as of `reported`.
        seconds: how long it has been going on.
    """
    source = str(getattr(kernel, "src", ""))
    factors = [factor for factor in _UNROLLED.findall(source) if int(factor) > 1]
    found = [f"range_unroll_factors of {', '.join(factors)}"] if factors else []
    for text, what in (("tl.static_range(", "loop(s) with static_ranges"), ("flatten=True", "with range_flattens")):
        if count := source.count(text):
            found.append(f"{count} {what}")
    of_it = f", which has {'; '.join(found)}" if found else ""
    return (
        f"kernel {name!r}: Triton has been compiling {getattr(kernel, '__name__', 'it')} for {seconds:.0f} s under "
        f"{options}{of_it}. What to do: give a Config with smaller range_unroll_factors and block_sizes and without "
        "static_ranges and range_flattens, or none: every key has a default that compiles in seconds."
    )
