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
_STAGED = re.compile(r"\bnum_stages=(\d+)")


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
    found = loop_keys(kernel)
    of_it = f", which has {'; '.join(found.values())}" if found else ""
    return (
        f"kernel {name!r}: Triton has been compiling {getattr(kernel, '__name__', 'it')} for {seconds:.0f} s under "
        f"{options}{of_it}. What to do: give a Config with smaller range_unroll_factors and block_sizes and without "
        "range_num_stages, static_ranges and range_flattens, or none: every key has a default that compiles in seconds."
    )


def loop_keys(kernel: Any) -> dict[str, str]:
    """The keys of the Config that the loops of what Triton compiles show, with what they show of each."""
    source = str(getattr(kernel, "src", ""))
    found = {}
    for key, values in (("range_unroll_factors", _UNROLLED), ("range_num_stages", _STAGED)):
        if given := [value for value in values.findall(source) if int(value) > 1]:
            found[key] = f"{key} of {', '.join(given)}"
    for key, text, what in (
        ("static_ranges", "tl.static_range(", "loop(s) with static_ranges"),
        ("range_flattens", "flatten=True", "with range_flattens"),
    ):
        if count := source.count(text):
            found[key] = f"{count} {what}"
    return found
