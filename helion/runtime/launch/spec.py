"""What the extension has to know about a compiled kernel, read off Triton's objects: the cold half of
``csrc/launcher.cpp``.

``make_launch_spec`` compiles one variant of a kernel and describes it to C; ``slow_launch`` is where a
``CompiledLauncher`` without a ``fallback`` of its own sends the calls that it does not launch itself.

Not here: when to prime and what to do when that fails (``launcher.py``).
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING
from typing import Any

from ... import _compat_triton_abi as _abi
from ... import _extension
from .. import device as _device
from ..native.binary import Binary
from ..native.launcher import NativeLauncher
from .default_launcher import default_launcher
from .native_kernel import NativeKernel

if TYPE_CHECKING:
    from ..._C import CompiledLauncher
    from ..._C import LaunchSpec

__all__ = [
    "binary_of",
    "binary_of_triton",
    "describe",
    "make_launch_spec",
    "parameter_positions",
    "slow_launch",
    "unsupported_reason",
]

log = logging.getLogger("helion.runtime")


def unsupported_reason(
    compiled: Any, argument_count: int, keywords: dict[str, Any], *, scratch: bool = False
) -> str | None:
    """Why a launch of ``compiled`` is left to Triton's own launcher; None if the extension can do it.

    Args:
        compiled: Triton's compiled kernel, or another backend's ``NativeKernel``.
        argument_count: how many arguments are passed by position.
        keywords: what else is passed by name.
        scratch: whether global scratch memory can be given to the launch (``describe``).
    """
    if isinstance(compiled, NativeKernel):
        return None
    if not _abi.has_nvidia_launcher(compiled):
        return "a driver or launcher other than Triton's own for NVIDIA runs it"
    known = {_abi.CLUSTERS, _abi.DEPENDENT_LAUNCH, *([_abi.GLOBAL_SCRATCH] if scratch else [])}
    if extras := [extra for extra in _abi.launch_extras(compiled) if extra not in known]:
        return "it needs " + ", ".join(extras)
    for index, (name, type_name) in enumerate(_abi.parameters(compiled)):
        if type_name == "constexpr":
            continue
        if isinstance(type_name, tuple):
            return f"its parameter {name!r} is a tuple"
        if name in keywords or index >= argument_count:
            return f"its parameter {name!r} is not passed by position"
    return None


def parameter_positions(compiled: Any) -> list[int]:
    """Index of the launch's argument that each of the binary's parameters comes from."""
    if isinstance(compiled, NativeKernel):
        return [argument for argument, _ in compiled.params]
    return [i for i, (_, type_name) in enumerate(_abi.parameters(compiled)) if type_name != "constexpr"]


def needs_scratch(compiled: Any) -> bool:
    """Whether a launch gets global scratch memory; only Triton's own kernels do."""
    if isinstance(compiled, Binary):
        return compiled.scratch_bytes > 0
    return hasattr(compiled, "metadata") and _abi.GLOBAL_SCRATCH in _abi.launch_extras(compiled)


def scratch_bytes(compiled: Any, grid: tuple[int, ...]) -> int:
    """How much of it; aligned to what PyTorch's allocators align to."""
    per_program = compiled.scratch_bytes if isinstance(compiled, Binary) else _abi.global_scratch_bytes(compiled)
    return per_program * math.prod(grid)


def describe(kernel: Any, compiled: Any) -> LaunchSpec:
    """The extension's description of a compiled kernel that it can launch (``unsupported_reason`` is None).

    Global scratch memory, if it needs some, is one parameter more, after those of ``parameter_positions``.
    """
    assert _extension.C is not None
    if isinstance(compiled, NativeKernel):
        native: LaunchSpec = _extension.C.LaunchSpec(
            compiled=compiled,
            jit_function=None,
            function=compiled.function,
            name=compiled.name,
            num_warps=compiled.num_warps,
            shared=compiled.shared,
            device=_device.current_device(),
            params=compiled.params,
            used_globals=(),
            scratch=0,
            cluster=compiled.cluster,
            maps=compiled.maps,
        )
        return native
    params = [
        (index, type_name) for index, (_, type_name) in enumerate(_abi.parameters(compiled)) if type_name != "constexpr"
    ]
    scratch = [(len(params), "*i8")] if needs_scratch(compiled) else []
    spec: LaunchSpec = _extension.C.LaunchSpec(
        compiled=compiled,
        jit_function=kernel,
        function=compiled.function,
        name=compiled.name,
        num_warps=compiled.metadata.num_warps,
        shared=compiled.metadata.shared,
        device=_device.current_device(),
        params=params + scratch,
        used_globals=_abi.used_globals(kernel),
        scratch=_abi.SCRATCH_POINTERS - len(scratch),
        cooperative=_abi.is_cooperative(compiled),
        num_ctas=_abi.num_ctas(compiled),
        pdl=_abi.launches_early(compiled),
    )
    return spec


def binary_of(spec: LaunchSpec) -> Binary | None:
    """The binary of a LaunchSpec with all that a launch needs, to be written to a file; None where that does not do."""
    compiled = spec.compiled
    if isinstance(compiled, NativeKernel):
        owner = compiled.owner
        return Binary.of_facts(owner.facts, owner.symbol, owner.cubin) if isinstance(owner, NativeLauncher) else None
    if set(_abi.launch_extras(compiled)) - {_abi.GLOBAL_SCRATCH} or _abi.used_globals(spec.jit_function):
        return None
    return binary_of_triton(compiled, spec.name)


def binary_of_triton(compiled: Any, name: str) -> Binary:
    """A kernel that Triton has compiled, whose launch needs nothing but scratch memory (`_abi.launch_extras`)."""
    kinds = [kind for _, kind in _abi.parameters(compiled)]
    params = [(index, kind) for index, kind in enumerate(kinds) if kind != "constexpr"]
    scratch = [(len(kinds), "*i8")] if needs_scratch(compiled) else []
    return Binary(
        name=name,
        symbol=compiled.metadata.name,
        cubin=bytes(compiled.asm["cubin"]),
        num_warps=compiled.metadata.num_warps,
        shared=compiled.metadata.shared,
        params=(*params, *scratch),
        scratch=_abi.SCRATCH_POINTERS - len(scratch),
        cooperative=_abi.is_cooperative(compiled),
        scratch_bytes=_abi.global_scratch_bytes(compiled),
    )


def make_launch_spec(
    kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], keywords: dict[str, Any]
) -> LaunchSpec | None:
    """Compile ``kernel`` for a launch with these arguments, without launching it.

    Args:
        kernel: a ``@triton.jit`` function.
        grid: as for a launcher.
        args: the launch's positional arguments.
        keywords: the launch's keyword arguments (``num_warps``, ``num_stages``, ...).

    Returns:
        What the extension needs to launch it, or None if such launches stay with Triton's launcher.

    Raises:
        whatever Triton's compiler raises.
    """
    compiled = _abi.compile_only(kernel, grid, args, keywords)
    if compiled is None:
        log.info("%s stays with Triton's launcher: a hook took over its compilation", kernel.__name__)
        return None
    if reason := unsupported_reason(compiled, len(args), keywords):
        log.info("%s stays with Triton's launcher: %s", compiled.name, reason)
        return None
    return describe(kernel, compiled)


def slow_launch(launcher: CompiledLauncher, kernel: Any, grid: Any, *args: Any, **keywords: Any) -> Any:
    """Launch through Triton, and prime ``launcher`` for the next call like this one if it can be.

    ``launcher`` calls this for every launch that it does not do itself.
    """
    result = default_launcher(kernel, grid, *args, **keywords)
    # Triton has compiled this variant by now, so asking for it again is a lookup. Not while something watches launches
    # or compilations: it would see a second one.
    if isinstance(grid, tuple) and not kernel.pre_run_hooks:
        launcher.prime(kernel, grid, args, **keywords)
    return result
