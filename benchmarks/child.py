"""A part of a benchmark that runs in a process of its own, and prints what it found as its last line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any


def result(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """The JSON in the last line of what a command prints.

    Raises:
        RuntimeError: it failed; with what it wrote to stderr.
    """
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
