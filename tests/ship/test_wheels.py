"""Wheels: what `tools/build_wheels.sh` makes installs into an empty environment, and runs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.spawns, pytest.mark.compiles]

_KERNEL = """
import torch
import helion
import helion.language as hl
from helion import _extension

@helion.kernel
def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] + y[tile]
    return out

x = torch.randn(100)
assert torch.equal(add(x, x), 2 * x)
print(helion.__file__, _extension.C is not None, helion.__version__)
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> list[Path]:
    pytest.importorskip("pip")
    out = tmp_path_factory.mktemp("dist")
    script = ["bash", str(ROOT / "tools" / "build_wheels.sh"), str(out)]
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONS": sys.executable}
    result = subprocess.run(script, capture_output=True, text=True, env=environment, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    return sorted(out.glob("*.whl"))


def run_in_empty_environment(wheel: Path, directory: Path) -> list[str]:
    """Install a wheel, and run a kernel with the torch of this environment; what the program says."""
    venv.create(directory, with_pip=True)
    python = str(directory / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    result = subprocess.run(install, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    (directory / "program.py").write_text(_KERNEL)
    # After the environment's own packages: where torch comes from, and nothing else of helion.
    others = sysconfig.get_paths()["purelib"]
    site = next(directory.glob("lib/python*/site-packages"))
    (site / "others.pth").write_text(others + "\n")
    environment = {**os.environ, "PYTHONPATH": "", "HELION_CACHE_DIR": str(directory / "cache")}
    result = subprocess.run(
        [python, str(directory / "program.py")], capture_output=True, text=True, env=environment, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_the_pure_wheel_runs_anywhere(wheels: list[Path], tmp_path) -> None:
    (pure,) = [wheel for wheel in wheels if wheel.name.endswith("py3-none-any.whl")]
    names = zipfile.ZipFile(pure).namelist()
    assert not [name for name in names if name.endswith((".so", ".cpp"))]
    assert {"helion/py.typed", "helion/_C.pyi", "helion/bundles/load.py"} <= set(names)
    file, extension, _ = run_in_empty_environment(pure, tmp_path / "pure")
    assert file.startswith(str(tmp_path)) and extension == "False"


def test_the_wheel_with_the_extension_uses_it_and_names_its_torch(wheels: list[Path], tmp_path) -> None:
    (compiled,) = [wheel for wheel in wheels if not wheel.name.endswith("py3-none-any.whl")]
    file, extension, version = run_in_empty_environment(compiled, tmp_path / "compiled")
    assert file.startswith(str(tmp_path)) and extension == "True"
    assert "+torch" in version
