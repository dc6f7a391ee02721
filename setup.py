"""Build of helion._C, the compiled launch path. Everything else about the package is in pyproject.toml.

The extension is compiled against the torch of the running environment (its headers and its C++ ABI), so build without
isolation: ``pip install --no-build-isolation .`` or ``python setup.py build_ext --inplace``. Where there is no torch or
no compiler the package installs as pure Python; a line says so, and every kernel runs through the Python launch path.

Environment:
    HELION_BUILD_EXTENSION  auto (default): build it if possible. 1: a failure to build fails the installation.
                            0: do not build it.
    HELION_BUILD_DEBUG      1: -O0 -g and assertions.
    HELION_BUILD_SANITIZE   comma-separated, e.g. address,undefined: -fsanitize=... (run with the runtime preloaded).
    HELION_BUILD_COVERAGE   1: gcov instrumentation.
    HELION_BUILD_MUTABLE    1: guards can be switched off one at a time, for the tests of the tests.
    HELION_BUILD_STRICT     1: a warning is an error. Of users no compiler, which may be newer, is asked that much.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from setuptools import Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
MODE = os.environ.get("HELION_BUILD_EXTENSION", "auto")


def flag(name: str) -> bool:
    return os.environ.get(name, "0").lower() not in ("", "0", "no", "off", "false")


def say(message: str) -> None:
    print(f"helion: {message}", file=sys.stderr)


def interface() -> str:
    """What helion/_extension.py compares: an extension serves exactly the Python sources whose _C.pyi it was built
    with.
    """
    return hashlib.sha256((ROOT / "helion" / "_C.pyi").read_bytes()).hexdigest()[:16]


def extension() -> Extension | None:
    """The extension, or None where it cannot be built here."""
    if MODE == "0":
        return None
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError as error:
        if MODE == "1":
            raise
        say(
            f"building without helion._C, since torch cannot be imported in the build environment ({error}). "
            "To compile it against the installed torch: pip install --no-build-isolation ."
        )
        return None

    # torch's headers ask for C++20 from 2.14 or 2.15 on; ours are C++17.
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    compile_args = ["-std=c++20" if release >= (2, 14) else "-std=c++17", "-fvisibility=hidden"]
    # Our own code is held to every warning; torch's and Python's headers are system headers to the compiler.
    compile_args += ["-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Wno-cast-function-type"]
    # Where `vectorcall` is in an object with a C++ part (csrc/heap_type.h): all compilers know it, GCC 16 warns.
    compile_args += ["-Wno-invalid-offsetof"]
    if flag("HELION_BUILD_STRICT"):
        compile_args += ["-Werror"]
    for path in cpp_extension.include_paths():
        compile_args += ["-isystem", path]
    compile_args += ["-O0", "-g", "-UNDEBUG"] if flag("HELION_BUILD_DEBUG") else ["-O2", "-g1", "-DNDEBUG"]
    link_args: list[str] = []
    if sanitizers := os.environ.get("HELION_BUILD_SANITIZE"):
        compile_args += ["-g1"]  # lines for stack traces; more takes the compiler longer
        compile_args += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"]
        # torch is compiled without RTTI for the sanitizer to see, so checks of C++ dynamic types cannot work.
        compile_args += ["-fno-sanitize=vptr"]
        link_args += [f"-fsanitize={sanitizers}"]
    if flag("HELION_BUILD_COVERAGE"):
        compile_args += ["--coverage", "-O0"]
        link_args += ["--coverage"]
    depends = [
        *(ROOT / "csrc").glob("*.cpp"),
        *(ROOT / "csrc").glob("*.h"),
        ROOT / "helion" / "_C.pyi",
        ROOT / "setup.py",
    ]
    return Extension(
        "helion._C",
        sources=["csrc/extension.cpp"],
        depends=sorted(str(path.relative_to(ROOT)) for path in depends),
        define_macros=[
            ("HELION_TORCH_VERSION", f'"{torch.__version__}"'),
            ("HELION_INTERFACE", f'"{interface()}"'),
            *([("HELION_MUTABLE", "1")] if flag("HELION_BUILD_MUTABLE") else []),
            ("_GLIBCXX_USE_CXX11_ABI", str(int(torch._C._GLIBCXX_USE_CXX11_ABI))),
        ],
        library_dirs=cpp_extension.library_paths(),
        libraries=["c10", "torch", "torch_cpu", "torch_python"],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        language="c++",
        # A failed compilation is reported and the installation goes on without the extension.
        optional=MODE != "1",
    )


class BuildExt(build_ext):
    """Says so if the extension was left out."""

    def run(self) -> None:
        super().run()
        for ext in self.extensions:
            if not Path(self.get_ext_fullpath(ext.name)).exists() and not self.inplace:
                say("helion._C was not built (the compiler's messages are above); installing as pure Python")


built = extension()
setup(
    ext_modules=[built] if built is not None else [],
    cmdclass={"build_ext": BuildExt},
)
