"""Make the development environment in .venv: run by make, needs only the standard library.

A Python that already has a fitting torch and Triton is used as it is (the environment sees its packages);
otherwise the pinned ones of requirements/torch.txt are installed.  Then the packages of requirements/dev.txt that
are missing, and the extension is built in place (HELION_BUILD_EXTENSION as for setup.py: 1 makes its failure an error).
Nothing is done when nothing has changed since the last time.

`--tests` builds beside it what `make test` would build later, one after the other: the software GPU and the extension
with sanitizers.  Each is one or a few compilers for a minute and more, so together they keep two cores busy.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
STAMP = ENVIRONMENT / "stamp"

#: What --tests builds.  Whoever uses it builds it again if that failed, and says so.
_FOR_TESTS = (
    ("-c", "from tests.softgpu import build; build.build(); build.build_storages()"),
    ("tests/csrc/run_sanitized.py", "--keep", "build/sanitized", "--only", "build"),
)

# Run by the base Python: says whether its torch and Triton are new enough.
_PROBE = """
import importlib.metadata as m
def version(name): return tuple(int(p) for p in m.version(name).split("+")[0].split(".")[:2])
raise SystemExit(not (version("torch") >= (2, 11) and version("triton") >= (3, 6)))
"""

# Run by the environment's Python: prints which of the given pins are not installed in any version, or in one that
# cannot build a wheel (pyproject.toml).
_MISSING = """
import importlib.metadata as m, sys
oldest = {"setuptools": (70, 1)}
for pin in sys.argv[1:]:
    name = pin.split("==")[0]
    try:
        version = m.version(name).split(".")[:2]
        if name not in oldest or tuple(map(int, version)) >= oldest[name]:
            continue
    except m.PackageNotFoundError:
        pass
    print(pin)
"""


def pins(path: Path) -> list[str]:
    """The requirements of a file, comments left out."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def fingerprint() -> str:
    """A hash of all that the environment is made from."""
    digest = hashlib.sha256(sys.executable.encode())
    sources = [*sorted((ROOT / "requirements").glob("*.txt")), *sorted((ROOT / "csrc").rglob("*"))]
    sources += [ROOT / "helion" / "_C.pyi", ROOT / "setup.py", Path(__file__)]
    for path in sources:
        if path.is_file():
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def run(*command: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=True, text=True, **kwargs)  # type: ignore[call-overload, no-any-return]


def extension_files() -> list[Path]:
    """The extension, if it was built in place."""
    return list((ROOT / "helion").glob("_C.*.so"))


def main() -> None:
    wanted = fingerprint()
    extension = os.environ.get("HELION_BUILD_EXTENSION", "auto")
    stale = not STAMP.exists() or STAMP.read_text() != wanted or (extension == "1" and not extension_files())
    if stale:
        make_environment()
    others = [subprocess.Popen([str(PYTHON), *c], cwd=ROOT) for c in _FOR_TESTS if "--tests" in sys.argv]
    try:
        if stale:
            environment = {**os.environ, "HELION_BUILD_EXTENSION": extension}
            run(str(PYTHON), "setup.py", "-q", "build_ext", "--inplace", cwd=ROOT, env=environment)
            STAMP.write_text(wanted)
    finally:
        for other in others:
            other.wait()


def make_environment() -> None:
    """The environment with its packages."""
    has_torch = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True).returncode == 0
    print(f"setting up {ENVIRONMENT} ({'the torch that is here' if has_torch else 'installing torch'})", flush=True)
    if not PYTHON.exists():
        venv.EnvBuilder(system_site_packages=has_torch, with_pip=True).create(ENVIRONMENT)
    if has_torch:
        # A virtual environment nested in another sees the interpreter's packages, not that environment's: add them.
        paths = run(
            sys.executable,
            "-c",
            "import site, sys; print('\\n'.join(p for p in sys.path if 'site-packages' in p))",
            capture_output=True,
        ).stdout
    else:
        paths = ""
    site = next((ENVIRONMENT / "lib").glob("python3*/site-packages"))
    (site / "helion-development.pth").write_text(f"{ROOT}\n{paths}")
    wanted_pins = [] if has_torch else pins(ROOT / "requirements" / "torch.txt")
    wanted_pins += pins(ROOT / "requirements" / "dev.txt")
    missing = run(str(PYTHON), "-c", _MISSING, *wanted_pins, capture_output=True).stdout.split()
    if missing:
        # torch by itself first, so that nothing else pulls in another build of it.
        for group in (
            [p for p in missing if p.startswith(("torch==", "triton=="))],
            [p for p in missing if not p.startswith(("torch==", "triton=="))],
        ):
            if group and subprocess.run([str(PYTHON), "-m", "pip", "install", "-q", *group]).returncode:
                print(f"could not install {', '.join(group)}; what needs them will say so", flush=True)


if __name__ == "__main__":
    main()
