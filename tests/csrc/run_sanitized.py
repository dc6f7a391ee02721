"""Builds the extension with sanitizers in a copy of the tree and runs its tests there.

    python tests/csrc/run_sanitized.py                          # address and undefined behaviour, tests/csrc
    python tests/csrc/run_sanitized.py --keep /tmp/asan -- tests/csrc/test_dispatcher.py -x

Needs GCC with libasan and libubsan. The interpreter itself is not instrumented: the sanitizers' runtime is preloaded, and
Python allocates with malloc, so that a use after free of an object is seen. Leaks are not reported here, since Python and
torch free little at exit; ``test_memory.py`` is about leaks.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("csrc", "helion", "tests", "setup.py", "pyproject.toml", "README.md", "LICENSE")


def runtime(name: str) -> str:
    """Path of a sanitizer's runtime library."""
    path = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
    if path == name:
        sys.exit(f"GCC has no {name} here")
    return path


def copy_tree(to: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyc")
            shutil.copytree(source, to / name, ignore=ignored, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy2(source, to / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sanitize", default="address,undefined")
    parser.add_argument("--keep", type=Path, help="build here and leave it there; built again only where sources changed")
    parser.add_argument("pytest_arguments", nargs="*", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        copy_tree(folder)
        environment = {
            **os.environ,
            "HELION_BUILD_EXTENSION": "1",
            "HELION_BUILD_SANITIZE": options.sanitize,
        }
        subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder, env=environment, check=True)
        environment |= {
            "LD_PRELOAD": " ".join([runtime("libasan.so"), runtime("libubsan.so"), runtime("libstdc++.so")]),
            "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:abort_on_error=1:detect_odr_violation=0",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
            "PYTHONMALLOC": "malloc",
        }
        tests = options.pytest_arguments or ["-q", "tests/csrc", "--ignore", "tests/csrc/test_memory.py"]
        done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests], cwd=folder, env=environment)
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
