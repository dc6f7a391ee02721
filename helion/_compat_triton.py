"""The private parts of Triton that helion uses, and nothing else (Triton 3.6 - 3.7).

What a launch of ours relies on: a ``JITFunction`` has ``params``, ``pre_run_hooks`` and ``used_global_vals``; ``run``
returns the ``CompiledKernel``; that has ``function``, ``packed_metadata``, ``launch_metadata`` and a ``run`` that takes
``(grid x, y, z, stream, function, packed metadata, launch metadata, enter hook, exit hook, *arguments)``. Where
NVIDIA's launcher is the one of Triton 3.7, its C function is called without the Python frame around it
(``DirectLaunch``).
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import sys
from collections.abc import Callable
from typing import Any

import triton
from triton import knobs as knobs
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import ASTSource
from triton.compiler.compiler import CompiledKernel
from triton.compiler.compiler import make_backend
from triton.language.core import tuple_type
from triton.runtime import _allocation
from triton.runtime.errors import OutOfResources as OutOfResources
from triton.runtime.errors import PTXASError as PTXASError
from triton.runtime.jit import JITFunction
from triton.runtime.jit import KernelParam
from triton.runtime.jit import compute_cache_key
from triton.runtime.jit import create_function_from_signature

from ._locks import new_lock
from ._locks import open_in_children
from ._parsing import NEEDS_TURNS
from ._parsing import parse
from ._version import warn_if_untested

try:
    from triton.backends.nvidia.driver import CudaLauncher as CudaLauncher
except ImportError:  # a Triton that was built without NVIDIA's backend
    CudaLauncher = None

warn_if_untested("triton", triton.__version__)

for _member in (*vars(KernelParam).values(), *vars(tuple_type).values()):
    if hasattr(_member, "lock"):  # Python 3.11's `functools.cached_property`, whose values are made while compiling
        open_in_children(_member.lock)


class NotPrimable(Exception):
    """This kernel's launches cannot be made without ``JITFunction.run``; the message says why."""


# -- parsing
# --------------------------------------------------------------------------------------------------------------


def _parse_in_turn(self: JITFunction[Any]) -> ast.Module:
    """`JITFunction.parse`, one thread at a time.

    Where it fails in `cache_key`, the kernel keeps a placeholder as its hash, which is the same for all kernels of its
    name: from then on Triton's disk cache could give it the binary of another one.
    """
    tree = parse(self._src)
    assert len(tree.body) == 1
    assert isinstance(tree.body[0], ast.FunctionDef)
    return tree


if NEEDS_TURNS:
    setattr(JITFunction, "parse", _parse_in_turn)  # noqa: B010  (an assignment is one that mypy refuses)


# -- importing
# ------------------------------------------------------------------------------------------------------------

_importing = new_lock()


def import_rest() -> None:
    """Import what Triton imports at a process's first launch (60 ms), one thread at a time.

    Its parts import each other, so that of two threads that launch at the same time one could end with a
    `_DeadlockError` of the import system.
    """
    if "triton.experimental.gluon" in sys.modules and not _importing.locked():
        return
    with _importing, contextlib.suppress(ImportError):
        importlib.import_module("triton.experimental.gluon")


# -- scratch memory
# -------------------------------------------------------------------------------------------------------


def has_allocator() -> bool:
    """Whether somebody called ``triton.set_allocator`` in this context."""
    return not isinstance(_allocation._allocator.get(), _allocation.NullAllocator)


def set_allocator(allocate: Callable[[int, int, int | None], Any]) -> None:
    """``triton.set_allocator``: public, here beside the private question whether there is one."""
    triton.set_allocator(allocate)


# -- kernels
# --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DirectLaunch:
    """What Triton 3.7's ``CudaLauncher.__call__`` passes to its C function, captured once.

    Attributes:
        launch: the C function: ``(grid x, y, z, stream, function, cooperative, pdl, packed metadata, launch metadata,
            enter hook, exit hook, global scratch, profile scratch, annotations, signature, arguments)``.
        cooperative: ``launch_cooperative_grid`` of the kernel's metadata.
        pdl: ``launch_pdl`` of the kernel's metadata.
        annotations: per parameter, whether it is passed to the driver or a constexpr.
        signature: types of the parameters that are passed, as the C function reads them.
    """

    launch: Callable[..., None]
    cooperative: bool
    pdl: bool
    annotations: Any
    signature: bytes


@dataclasses.dataclass(frozen=True)
class LaunchHandles:
    """A compiled kernel, ready to launch.

    Attributes:
        compiled: the ``CompiledKernel``; it owns the binary.
        function: ``CUfunction`` as an int.
        packed_metadata: ``(num_warps, num_ctas, shared memory bytes)``.
        direct: None if the launch needs more than the C function: scratch memory, another launcher than NVIDIA's, or
            Triton 3.6, whose C function is another for every kernel.
    """

    compiled: CompiledKernel
    function: int
    packed_metadata: tuple[int, ...]
    direct: DirectLaunch | None


def is_jit_function(kernel: object) -> bool:
    """Whether ``kernel`` is what ``@triton.jit`` makes: not Triton's interpreter, autotuner or heuristics around it."""
    return type(kernel) is JITFunction


def is_compiled_kernel(value: object) -> bool:
    """Whether ``JITFunction.run`` returned a kernel: not None (a cache hook said no), not one that still compiles."""
    return type(value) is CompiledKernel


def default_values(kernel: Any, count: int) -> tuple[Any, ...]:
    """Defaults of the parameters after the first ``count``: the constexprs of generated kernels.

    Raises:
        NotPrimable: one of them has no default.
    """
    rest = kernel.params[count:]
    for param in rest:
        if not param.has_default:
            raise NotPrimable(f"parameter {param.name!r} is passed by name")
    return tuple(param.default for param in rest)


def _direct_launch(launcher: object) -> DirectLaunch | None:
    if CudaLauncher is None or not isinstance(launcher, CudaLauncher):
        return None
    if type(launcher).__call__ is not CudaLauncher.__call__:
        return None  # does something of its own around the launch
    if not hasattr(launcher, "arg_annotations") or not hasattr(launcher, "kernel_signature"):
        return None  # Triton 3.6
    if launcher.global_scratch_size or launcher.profile_scratch_size:
        return None
    if launcher.launch is not triton.runtime.driver.active.utils.launch:
        return None  # wrapped to unpack tensor descriptors
    return DirectLaunch(
        launcher.launch,
        bool(launcher.launch_cooperative_grid),
        bool(launcher.launch_pdl),
        launcher.arg_annotations,
        launcher.kernel_signature,
    )


def launch_handles(compiled: CompiledKernel) -> LaunchHandles:
    """The handles of a compiled kernel, loading its binary if that has not happened."""
    launcher = compiled.run
    return LaunchHandles(compiled, compiled.function, compiled.packed_metadata, _direct_launch(launcher))


def find_compiled(kernel: Any, args: tuple[Any, ...], options: dict[str, Any]) -> CompiledKernel | None:
    """The binary that ``JITFunction.run`` would launch, if it is in memory; never compiles.

    The steps of ``JITFunction.run`` up to its cache lookup.
    """
    import_rest()
    options = dict(options)
    options["debug"] = options.get("debug", kernel.debug) or knobs.runtime.debug
    options["instrumentation_mode"] = knobs.compilation.instrumentation_mode
    device = triton.runtime.driver.active.get_current_device()
    kernel_cache, kernel_key_cache, _, _, binder = kernel.device_caches[device]
    _, specialization, options = binder(*args, **options)
    stages_hook = knobs.runtime.add_stages_inspection_hook
    if stages_hook is not None:
        _, stages_hash = stages_hook()
        specialization.append(f'("custom_pipeline", {stages_hash})')
    return kernel_cache.get(compute_cache_key(kernel_key_cache, specialization, options))


# -- compiling for a GPU that is not there ----------------------------------------------------------------------------


def compile_without_device(
    kernel: Any, args: tuple[Any, ...], options: dict[str, Any], platform: tuple[str, int | str, int]
) -> CompiledKernel:
    """What ``JITFunction.run`` would compile for these arguments on another GPU; nothing is launched.

    The steps of ``JITFunction.run`` up to ``triton.compile``, with a target instead of a device.

    Args:
        kernel: a ``@triton.jit`` function.
        args: the run-time arguments of a launch; tensors may be on any device, alignment and values count as they do
            in a launch.
        options: launch options (``num_warps``, ``num_stages``, ``maxnreg``, ...).
        platform: what Triton calls the GPU: backend, architecture and threads of a warp.

    Returns:
        The compiled kernel; its ``asm`` holds every stage. It has no handle to launch.
    """
    import_rest()
    target = GPUTarget(*platform)
    backend = make_backend(target)
    binder = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, options = binder(*args, **{"debug": False, **options})
    parsed, signature, constexprs, attrs = kernel._pack_args(backend, options, bound, specialization, options)
    source = ASTSource(kernel, signature, constexprs, attrs)
    return triton.compile(source, target=target, options=parsed.__dict__)


class _AbsentDevice:
    """A Triton driver with a target and no device: enough for ``JITFunction.warmup``."""

    def __init__(self, platform: tuple[str, int | str, int]) -> None:
        self._target = GPUTarget(*platform)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self._target


def compile_for_absent_device(platform: tuple[str, int | str, int]) -> None:
    """Let ``warmup`` of every kernel of this process compile for a GPU that it does not touch; nothing can be launched.

    Args:
        platform: what Triton calls the GPU: backend, architecture and threads of a warp.
    """
    triton.runtime.driver.set_active(_AbsentDevice(platform))
