"""The extension's tests under ASAN and UBSAN, and every guard in C taken out once: in processes of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"


@pytest.mark.spawns
def test_extension_tests_under_sanitizers_and_without_guards() -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "run_sanitized.py")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-6000:]


def test_every_guard_has_a_test_that_is_run_without_it() -> None:
    guards = {name for path in CSRC.iterdir() for name in re.findall(r'HELION_GUARD\("(\w+)"', path.read_text())}
    marked = {
        name for path in HERE.glob("test_*.py") for name in re.findall(r'mark\.guard\("(\w+)"\)', path.read_text())
    }
    assert len(guards) > 30 and guards == marked
