"""All use of the CuTe toolkit by helion itself: is it there, which version, and source in, cubin out.

Printed kernels import the toolkit's public modules; nothing else of helion does. The toolkit is pinned because it still
renames public names between minor versions, and because the kernels' instruction counts are stated for one compiler.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import re
import tempfile
import warnings
from types import ModuleType

from ... import exc

__all__ = ["DISTRIBUTION", "PINNED_VERSION", "Assembly", "compile_entry", "installed", "require", "version"]

DISTRIBUTION = "nvidia-cutlass-dsl"
PINNED_VERSION = "4.8.1"


@dataclasses.dataclass(frozen=True)
class Assembly:
    """What the toolkit makes of one host entry.

    Args:
        symbol: the kernel's name in the cubin.
        ptx: the PTX text that was assembled.
        cubin: the binary for one architecture.
    """

    symbol: str
    ptx: str
    cubin: bytes


def version() -> str | None:
    """The installed toolkit's version, or None."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed() -> bool:
    """Whether the toolkit is here, in the version that the printed kernels are written for.

    Raises:
        BackendUnsupported: it is here in another version.
    """
    found = version()
    if found is None or importlib.util.find_spec("cutlass") is None:
        return False
    if found.split(".")[:2] != PINNED_VERSION.split(".")[:2]:
        raise exc.BackendUnsupported(
            backend="cute",
            reason=f"{DISTRIBUTION} {found} is installed; the printed kernels are written for {PINNED_VERSION}",
            fix=f'pip install {DISTRIBUTION}=={PINNED_VERSION}, or use backend="triton".',
        )
    return True


def require(missing: str) -> None:
    """Raise BackendUnsupported, saying what to install, unless the toolkit can be used.

    Args:
        missing: what it is needed for, for the message.
    """
    if not installed():
        raise exc.BackendUnsupported(
            backend="cute",
            reason=f"the CuTe toolkit ({DISTRIBUTION}) is not installed, and {missing}",
            fix=f'pip install "helion[cute]" (that is {DISTRIBUTION}=={PINNED_VERSION}), or compile '
            "this kernel and Config on a machine that has it, with helion.cross_compile, and bring its cache along "
            '(docs/cute.md), or use backend="triton".',
        )


def compile_entry(module: ModuleType, entry: str, arch: str) -> Assembly:
    """Compile the host entry of a printed module. Needs no GPU and no driver.

    Args:
        module: an imported printed module; it offers ``example_arguments()``.
        entry: name of its ``@cute.jit`` function.
        arch: e.g. ``sm_100a``.

    Raises:
        ErrorCompilingKernel: with the toolkit's message, and the file that was compiled.
    """
    require(f"{entry} is to be compiled for {arch}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import cutlass.cute as cute  # optional, and slow to load

        with tempfile.TemporaryDirectory(prefix="helion-cute-") as scratch:
            # Without --keep-* the PTX and the cubin are dropped; the files themselves are not what we read.
            options = f"--gpu-arch {arch} --keep-ptx --keep-cubin --dump-dir {scratch}"
            try:
                compiled = cute.compile(getattr(module, entry), *module.example_arguments(), options=options)
            # The toolkit traces the printed module: what goes wrong there comes out as any type of exception.
            except Exception as error:
                raise exc.ErrorCompilingKernel(
                    kernel=entry, reason=f"{module.__file__}: {_plain(str(error))}"
                ) from error
            ptx, cubin = compiled.__ptx__, compiled.__cubin__
    if not isinstance(ptx, str) or not isinstance(cubin, bytes):
        raise exc.InternalError(reason=f"{DISTRIBUTION} {version()} kept no PTX or cubin of {entry}")
    found = re.search(r"\.visible \.entry (\w+)\(", ptx)
    if found is None:
        raise exc.InternalError(reason=f"there is no kernel in the PTX of {entry}")
    return Assembly(found.group(1), ptx, cubin)


def _plain(text: str) -> str:
    """``text`` without terminal colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()
