"""Builds the extension with sanitizers in a copy of the tree and runs its tests there, once as they are and once
without guards.

    python tests/csrc/run_sanitized.py                          # address and undefined behaviour, tests/csrc
    python tests/csrc/run_sanitized.py --only guards            # the second run only
    python tests/csrc/run_sanitized.py --sanitize thread --only tests -- tests/csrc/test_threads.py
    python tests/csrc/run_sanitized.py --keep build/sanitized -- tests/csrc/test_dispatcher.py -x
    python tests/csrc/run_sanitized.py --fuzz 3600              # random calls through C and through Python, for an hour

``make sanitize`` is the first of these, and part of ``make test``. It is a debug build (assertions on) in which guards
can be taken out one at a time (``csrc/guard.h``): the second run takes out the guard that a test is marked with, and
the test must fail then.

Needs GCC with libasan and libubsan. The interpreter itself is not instrumented: the sanitizers' runtime is preloaded,
and Python allocates with malloc, so that a use after free of an object is seen. Leaks are not reported here, since
Python and torch free little at exit; ``test_memory.py`` is about leaks.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    "csrc",
    "helion",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "tests/*.py",
    "tests/csrc",
    "tests/softgpu",
)

TSAN_SUPPRESSIONS = ROOT / "tests/csrc/tsan_suppressions.txt"

#: Left out: about leaks; about loading in processes of its own; about the sources.
LEFT_OUT = ("test_memory.py", "test_loading.py", "test_guards.py")

#: Run with the sanitized extension: fails unless it is, and unless the runtime notices what it should.
PROBE = """
import ctypes, helion._extension as e
assert e.C is not None, e.why_not
assert b"__asan_report_load8" in open(e.C.__file__, "rb").read(), "the extension is not instrumented"
process = ctypes.CDLL(None)
process.malloc.restype = process.__asan_region_is_poisoned.restype = ctypes.c_void_p
block = ctypes.c_void_p(process.malloc(8))
process.free(block)
assert process.__asan_region_is_poisoned(block, ctypes.c_size_t(8)), "freed memory is not poisoned"
"""


def runtime(name: str) -> str:
    """Path of a sanitizer's runtime library."""
    path = subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if path == name:
        sys.exit(f"GCC has no {name} here")
    return path


def preloaded(sanitizers: str) -> list[str]:
    """The runtime libraries of some sanitizers, and what they are to find before torch does."""
    names = {"address": "asan", "thread": "tsan", "undefined": "ubsan"}
    return [*[names[sanitizer] for sanitizer in sanitizers.split(",")], "stdc++"]


def copy_changed(source: str, to: str) -> None:
    """Copies a file whose content is another than before, with the time of now, so that what depends on it is built
    again.
    """
    if not os.path.exists(to) or Path(source).read_bytes() != Path(to).read_bytes():
        shutil.copy(source, to)


def copy_tree(to: Path) -> None:
    for source in [path for pattern in COPIED for path in ROOT.glob(pattern)]:
        name = source.relative_to(ROOT)
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "_C.*.so", "*.pyc")
            shutil.copytree(source, to / name, ignore=ignored, dirs_exist_ok=True, copy_function=copy_changed)
        else:
            copy_changed(str(source), str(to / name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sanitize", default="address,undefined")
    parser.add_argument(
        "--keep", type=Path, help="build here and leave it there; built again only where sources changed"
    )
    parser.add_argument("--only", choices=["build", "tests", "guards"], help="the build, or it and one of the two runs")
    parser.add_argument(
        "--fuzz", type=int, metavar="SECONDS", help="tests/csrc/test_fuzz.py alone for so long, and what it counted"
    )
    parser.add_argument("--jobs", type=int, default=0, help="processes to run tests in; 0 for none but this one")
    parser.add_argument("pytest_arguments", nargs="*", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        copy_tree(folder)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HELION_", "PYTEST_"))}
        building = {
            "HELION_BUILD_EXTENSION": "1",
            "HELION_BUILD_SANITIZE": options.sanitize,
            "HELION_BUILD_DEBUG": "1",
            "HELION_BUILD_MUTABLE": "1",
            "HELION_BUILD_STRICT": "1",
        }
        build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        subprocess.run(build, cwd=folder, env={**environment, **building}, check=True)
        if options.only == "build":
            return
        environment |= {
            "LD_PRELOAD": " ".join(runtime(f"lib{name}.so") for name in preloaded(options.sanitize)),
            # Only what runs in the extension is instrumented: a race that others take part in is not seen.
            "TSAN_OPTIONS": f"halt_on_error=1:ignore_noninstrumented_modules=1:suppressions={TSAN_SUPPRESSIONS}",
            "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:abort_on_error=1:detect_odr_violation=0",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        }
        if sysconfig.get_config_var("Py_GIL_DISABLED"):
            environment["PYTHON_GIL"] = "0"  # Triton's library would turn it on; such a Python has one allocator only
        else:
            environment["PYTHONMALLOC"] = "malloc"
        if "address" in options.sanitize:
            subprocess.run([sys.executable, "-c", PROBE], cwd=folder, env=environment, check=True)
        if options.fuzz:
            environment["HELION_FUZZ_SECONDS"] = str(options.fuzz)
            options.only, options.pytest_arguments = "tests", ["-s", "tests/csrc/test_fuzz.py"]
        chosen = options.pytest_arguments or ["tests/csrc", *(f"--ignore=tests/csrc/{name}" for name in LEFT_OUT)]
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(options.jobs), *chosen]
        if options.only != "guards":
            subprocess.run(pytest, cwd=folder, env=environment, check=True)
        if options.only != "tests":
            subprocess.run(pytest, cwd=folder, env={**environment, "HELION_TEST_WITHOUT_GUARDS": "1"}, check=True)


if __name__ == "__main__":
    main()
