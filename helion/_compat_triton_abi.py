"""The binary interface of a compiled Triton kernel (Triton 3.6 - 3.7): what ``helion._C`` needs to launch one by
itself, and how to know what Triton has made.

Nothing here loads Triton, which takes as long as the rest of helion: what it made can only be there once it is loaded.

A binary's parameters are those of the ``@triton.jit`` function that were not compiled in, in order, then two scratch
pointers. Like ``_compat_triton``, this file holds private parts of Triton and nothing else.
"""

from __future__ import annotations

import base64
import sys
from typing import Any

#: How Triton begins the message of a driver error, e.g. "Triton Error [CUDA]: an illegal memory access was
#: encountered".
DRIVER_ERROR = "Triton Error ["

#: Null pointers that follow a binary's own parameters: global scratch and profile scratch.
SCRATCH_POINTERS = 2


def compile_only(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Compile ``kernel`` for ``args`` exactly as a launch would, load it, and do not launch.

    Returns:
        Triton's ``CompiledKernel``, its binary loaded on the current device; None if one of Triton's hooks declined, or
        if it compiles in the background.
    """
    compiled = kernel.run(*args, grid=grid, warmup=True, **options)
    if compiled is None or not hasattr(compiled, "_init_handles"):
        return None
    compiled._init_handles()
    return compiled


def has_nvidia_launcher(compiled: Any) -> bool:
    """Whether launching ``compiled`` means a driver call and nothing else: Triton's own driver loaded it, and Triton's
    own
    launcher would launch it. A driver of another kind may give out handles that mean nothing to ``libcuda``."""
    nvidia = sys.modules.get("triton.backends.nvidia.driver")
    if nvidia is None:
        return False
    launcher = compiled.run
    return (
        type(sys.modules["triton"].runtime.driver.active.utils) is nvidia.CudaUtils
        and isinstance(launcher, nvidia.CudaLauncher)
        and type(launcher).__call__ is nvidia.CudaLauncher.__call__
    )


def knobs_untouched() -> bool:
    """Whether no knob was assigned and no hook added in this process: what Triton compiles depends on its files and the
    environment alone, and nobody watches it."""
    knobs = sys.modules.get("triton.knobs")
    if knobs is None:
        return True
    groups = [value for value in vars(knobs).values() if isinstance(value, knobs.base_knobs)]
    chains = [hook for hook in (knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook) if hook is not None]
    return bool(groups) and not any(vars(group) for group in groups) and not any(chain.calls for chain in chains)


def is_triton(module: object) -> bool:
    """Whether this is the package itself."""
    return module is not None and module is sys.modules.get("triton")


def is_jit_function(kernel: object) -> bool:
    """Whether this is what ``@triton.jit`` makes, or of a class derived from it."""
    jit = sys.modules.get("triton.runtime.jit")
    return jit is not None and isinstance(kernel, jit.JITFunction)


def constexpr_defaults(kernel: Any) -> dict[str, Any]:
    """The constexprs of a kernel that have a default, by name."""
    return {param.name: param.default for param in kernel.params if param.is_constexpr and param.has_default}


def cache_keys(kernel: Any) -> list[str]:
    """Names of the folders in Triton's cache that hold the binaries compiled from a ``@triton.jit`` function."""
    compiled = [binary for caches in kernel.device_caches.values() for binary in caches[0].values()]
    hashes = [getattr(binary, "hash", None) for binary in compiled]
    return [base64.b32encode(bytes.fromhex(key)).decode().rstrip("=") for key in hashes if isinstance(key, str)]


def parameters(compiled: Any) -> list[tuple[str, Any]]:
    """``(name, type)`` of each parameter of the ``@triton.jit`` function, in order.

    The type is Triton's name for it (``"*fp32"``, ``"i32"``, ...), ``"constexpr"`` for what is compiled in, a tuple of
    such for a tuple argument, or a text that begins with ``tensordesc``.
    """
    return list(compiled.src.signature.items())


def allocators(*known: Any) -> tuple[Any, ...]:
    """The ContextVar with Triton's allocator, what it holds where nobody called ``set_allocator``, and `known`.

    Asked for a kernel that Triton has compiled, so that it is loaded.
    """
    allocation: Any = sys.modules["triton.runtime._allocation"]
    return (allocation._allocator, allocation._NULL_ALLOCATOR, *known)


#: Some of `launch_extras`.
GLOBAL_SCRATCH = "global scratch memory"
CLUSTERS = "clusters"
DEPENDENT_LAUNCH = "programmatic dependent launch"


def global_scratch_bytes(compiled: Any) -> int:
    """How large that memory is for one program."""
    per_program: int = compiled.metadata.global_scratch_size * compiled.metadata.num_ctas
    return per_program


def launch_extras(compiled: Any) -> list[str]:
    """What a launch of this binary needs beyond grid, block, shared memory and parameters; empty for a plain one."""
    metadata = compiled.metadata
    found = []
    if metadata.num_ctas != 1:
        found.append(CLUSTERS)
    if metadata.launch_pdl:
        found.append(DEPENDENT_LAUNCH)
    if metadata.global_scratch_size > 0:
        found.append(GLOBAL_SCRATCH)
    if metadata.profile_scratch_size > 0:
        found.append("profile scratch memory")
    if any(isinstance(kind, str) and kind.startswith("tensordesc") for _, kind in parameters(compiled)):
        found.append("host tensor descriptors")
    return found


def num_ctas(compiled: Any) -> int:
    """Thread blocks of a program, which are a cluster."""
    count: int = compiled.metadata.num_ctas
    return count


def launches_early(compiled: Any) -> bool:
    """Whether it may start before the kernel before it in the stream has ended."""
    return bool(compiled.metadata.launch_pdl)


def is_cooperative(compiled: Any) -> bool:
    """Whether all programs of a launch must be on the GPU at the same time."""
    return bool(compiled.metadata.launch_cooperative_grid)


def used_globals(kernel: Any) -> list[tuple[str, Any, dict[str, Any]]]:
    """``(name, value, globals)`` of each global variable that was compiled into the kernel or what it calls."""
    return [(name, value, where) for (name, _), (value, where) in kernel.used_global_vals.items()]
