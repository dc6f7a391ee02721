"""Wheels: what `tools/build_wheels.sh` makes installs into an empty environment, and runs.

Those with the extension, and of other interpreters: `make check-wheels`.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.ship import wheels

pytestmark = [pytest.mark.spawns, pytest.mark.compiles]


def test_the_pure_wheel_runs_anywhere(tmp_path) -> None:
    pytest.importorskip("pip")
    (pure,) = wheels.build(tmp_path / "dist", [sys.executable], pure=True)
    assert pure.name.endswith("py3-none-any.whl")
    names = zipfile.ZipFile(pure).namelist()
    assert not [name for name in names if name.endswith((".so", ".cpp"))]
    assert {"helion/py.typed", "helion/_C.pyi", "helion/bundles/load.py"} <= set(names)
    file, extension, _ = wheels.Installed(pure, tmp_path / "pure").kernel()
    assert file.startswith(str(tmp_path)) and extension == "False"


def test_without_an_interpreter_that_can_build_it_says_so(tmp_path) -> None:
    script = Path(wheels.ROOT / "tools" / "build_wheels.sh")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONS": "/bin/false"}
    run = ["bash", str(script), str(tmp_path)]
    result = subprocess.run(run, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 1 and "no interpreter with pip and setuptools" in result.stderr
