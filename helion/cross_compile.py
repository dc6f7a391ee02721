"""Compiling a kernel for a GPU that this machine does not have.

Neither Triton nor the CuTe toolkit needs a device to compile, only to launch: the generated host function is called
with a launcher that records each launch, and every kernel it would have launched is compiled for the capability asked
for. Nothing runs on a device, and no output is computed.  Binaries of the CuTe backend are kept in the disk cache,
where a machine without the toolkit finds them.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from . import exc
from .backends.base import GeneratedSource
from .backends.base import Launch
from .bound_kernel import BoundKernel
from .config import Config
from .runtime.code_cache import load_module
from .runtime.code_cache import path_for
from .target import Target

__all__ = ["CAPABILITIES", "Launch", "cross_compile", "record_launches"]

#: Compute capabilities that generated code is made for: Ampere, Hopper, Blackwell.
CAPABILITIES = (80, 90, 100)

# Multiprocessors of the GPU that is not there: it only decides the grid of persistent kernels, which is not compiled.
_ASSUMED_SMS = 132


def record_launches(source: GeneratedSource, args: Sequence[Any]) -> list[Launch]:
    """The launches that a generated host function makes for these arguments, without making them.

    Args:
        source: a module of a backend.
        args: arguments of the kernel function, on any device.

    Returns:
        One `Launch` per call of the launcher, in order.
    """
    found: list[Launch] = []

    def record(kernel: Any, grid: tuple[int, ...], *launch_args: Any, **options: Any) -> None:
        found.append(Launch(kernel, tuple(grid), launch_args, options))

    module = load_module(source.text, source.function, source.injected or None)
    host = _without_device(getattr(module, source.function))
    host(*args, _launcher=record)
    return found


def _without_device(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host function with an answer to the one question it asks of a device."""
    assert isinstance(host, types.FunctionType)
    globals_ = {**host.__globals__, "_get_num_sm": lambda *args, **kwargs: _ASSUMED_SMS}
    copy = types.FunctionType(host.__code__, globals_, host.__name__, host.__defaults__, host.__closure__)
    copy.__kwdefaults__ = host.__kwdefaults__
    return copy


def cross_compile(
    bound_kernel: BoundKernel,
    args: Sequence[Any],
    config: Config | Mapping[str, Any] | None = None,
    capability: int = 90,
) -> list[Mapping[str, Any]]:
    """Compile the kernels of a specialization for a GPU that need not be there.

    Args:
        bound_kernel: the specialization, `kernel.bind(args)`.
        args: arguments as for a call, on any device; host statements of the kernel function run, device code does not.
        config: its schedule; None for the one in use, or the default.
        capability: compute capability as major * 10 + minor: 80 (A100), 90 (H100), 100 (B200).

    Returns:
        For each launch the stages of its kernel by name. Triton: "ttir", "ttgir", "llir", "ptx" (text), "cubin"
        (bytes). CuTe: "source", "ptx" (text), "cubin" (bytes), which are then in the disk cache too
        (`HELION_CACHE_DIR`).

    Raises:
        exc.InvalidConfig: the config does not fit.
        exc.BackendUnsupported: the CuTe toolkit is missing, or GPUs of that capability have no kernels of the CuTe
            backend.
        exc.ErrorCompilingKernel: the CuTe toolkit refuses the generated kernel.
        exc.TritonError: Triton or ptxas refuses the generated kernel; the message says where its source is.

    Example:
        >>> asm = cross_compile(add.bind((x, y)), (x, y), capability=90)   # doctest: +SKIP
        >>> asm[0]["ptx"].splitlines()[0]                                  # doctest: +SKIP
    """
    backend = bound_kernel.backend(Target("nvidia", capability))
    source = bound_kernel.generated_source(config, backend.target)
    launches = record_launches(source, bound_kernel.kernel.normalize_args(*args))
    try:
        return [backend.stages(launch) for launch in launches]
    except exc.BaseError:
        raise
    except Exception as error:  # Triton raises its own CompilationError, but also AssertionError, RuntimeError, ...
        raise exc.TritonError(
            kernel=source.function,
            config=f"{config if config is not None else 'the default config'} on {backend.target}",
            reason=f"{type(error).__name__}: {str(error).partition('Repro command:')[0].strip()}",  # not all of the PTX
            path=str(path_for(source.text, source.function)),
        ) from error
