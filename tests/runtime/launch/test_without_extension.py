"""``HELION_NO_EXTENSION=1``: the guards' tests again in a process that never loads ``helion._C``.

``test_guards_on_gpu.py`` takes the extension away kernel by kernel; here ``Kernel`` itself is another class.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.spawns

HERE = Path(__file__).parent


def test_guards_hold_in_a_process_without_the_extension() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HELION_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "test_guards_on_gpu.py")]
    done = subprocess.run(
        [*command, "-k", "fast_launcher and not torch_compile and not threads"],
        cwd=HERE.parents[2],
        env={**environment, "HELION_NO_EXTENSION": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]
