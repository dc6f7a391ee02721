"""Wheels of `tools/build_wheels.sh`, each in an environment of its own that has no other helion.

    python -m tests.ship.wheels [PYTHON ...]      # make check-wheels

builds those of the interpreters (default: this one, and those at hand), and with each runs a kernel, and where the
extension is in it the examples' demo and the launch benchmark. The suite does the first of it with the pure wheel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

KERNEL = """
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


def build(out: Path, pythons: Sequence[str], *, pure: bool = False) -> list[Path]:
    """The wheels that the script makes for these interpreters."""
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONS": " ".join(pythons), "ONLY_PURE": "1" if pure else ""}
    script = ["bash", str(ROOT / "tools" / "build_wheels.sh"), str(out)]
    result = subprocess.run(script, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    print(*[line for line in result.stdout.splitlines() if line.startswith("skipped")], sep="\n")
    return sorted(out.glob("*.whl"))


class Installed:
    """A wheel in a new environment, which takes torch and the rest from that of an interpreter."""

    def __init__(self, wheel: Path, directory: Path, python: str = sys.executable) -> None:
        self.directory = directory
        if python == sys.executable:
            venv.create(directory)
        else:
            subprocess.run([python, "-m", "venv", "--without-pip", str(directory)], check=True)
        self.python = str(directory / "bin" / "python")
        install = ["-m", "pip", "--python", self.python, "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
        # That interpreter's own pip, which knows its tags.
        result = subprocess.run([python, *install], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        # An environment may see packages of others, by .pth files that are not read from here.
        paths = "[p for p in sys.path if os.path.basename(p) in ('site-packages', 'dist-packages')]"
        where = [python, "-c", f"import os, sys; print(*{paths}, sep='\\n')"]
        others = subprocess.run(where, capture_output=True, text=True, check=True).stdout
        # After the environment's own packages: where torch comes from, and nothing else of helion.
        site = next(directory.glob("lib/python*/site-packages"))
        (site / "others.pth").write_text(others)

    def run(self, *command: str) -> str:
        """What a program says, run by the environment's interpreter in its directory."""
        environment = {**os.environ, "PYTHONPATH": "", "HELION_CACHE_DIR": str(self.directory / "cache")}
        result = subprocess.run(
            [self.python, *command], capture_output=True, text=True, env=environment, cwd=self.directory, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def kernel(self) -> list[str]:
        """Run a kernel; where helion is, whether it uses its extension, and its version."""
        (self.directory / "program.py").write_text(KERNEL)
        return self.run("program.py").split()


def python_of(wheel: Path, pythons: Sequence[str]) -> str | None:
    """The interpreter that a wheel with the extension is for."""
    for python in pythons:
        said = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_config_var('SOABI'))"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        # cpython-311-x86_64-linux-gnu -> -cp311-
        if said and f"-cp{said.split('-')[1]}-" in wheel.name:
            return python
    return None


def main() -> int:
    """Build and try all of them; returns the exit status."""
    pythons = sys.argv[1:] or [sys.executable]
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for number, wheel in enumerate(build(root / "dist", pythons)):
            pure = wheel.name.endswith("none-any.whl")
            python = sys.executable if pure else python_of(wheel, pythons)
            assert python is not None, wheel
            made = Installed(wheel, root / f"env{number}", python)
            file, extension, version = made.kernel()
            assert Path(file).is_relative_to(root) and (extension == "True") is not pure, (file, extension)
            assert pure or "+torch" in version, version
            assert pure or "-manylinux_" in wheel.name or shutil.which("auditwheel") is None, wheel
            if not pure:
                # Copies, so that the tree's helion is not beside them.
                for part in ("examples", "benchmarks", "tests/softgpu"):
                    shutil.copytree(ROOT / part, made.directory / part)
                (made.directory / "tests" / "__init__.py").touch()
                made.run("-m", "examples.demo")
                print(made.run("benchmarks/launch_overhead.py", "--summary", "--quick"), end="")
            print(f"{wheel.name}: runs, helion {version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
