"""Running a kernel in every way this machine can, and comparing with PyTorch in float64.

`run_everywhere` is what most tests of the compiler call:

* the tile executor, with its own large tiles and with the block sizes of each given config;
* ref mode, the user's own function on eager tiles;
* the generated code on a real GPU where there is one, on the software GPU elsewhere, for each of `CAPABILITIES`.

`compile_for` compiles generated kernels for GPUs that are not there.
"""

from __future__ import annotations

import contextvars
import dataclasses
import types
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch

import helion
from helion.cross_compile import CAPABILITIES
from helion.cross_compile import cross_compile
from helion.runtime.code_cache import load_module
from helion.runtime.host_function import clone_host_function
from helion.target import Target
from tests import quick

Configs = Sequence[Mapping[str, Any] | helion.Config]

#: Rounding error of one operation, a few units in the last place; times `error_scale` of a test.
ROUNDING = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.6e-2,
}
#: float32 products on tensor cores round their operands to 10 bits.
TF32 = 4e-3


# -- inputs
# --------------------------------------------------------------------------------------------------------------


def walk(value: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    """`value` with every tensor in it (in tuples and lists) replaced by `function(tensor)`."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(walk(v, function) for v in value))
    if isinstance(value, (tuple, list)):
        return type(value)(walk(v, function) for v in value)
    return value


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor's storage, of which it may be a view."""
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def _tensors(value: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    walk(value, lambda t: found.append(t) or t)  # type: ignore[func-returns-value]
    return found


def on_gpu(value: Any) -> Any:
    """`value` with copies on the GPU of the tensors in it, strides kept, and of those that functions in it captured."""
    if isinstance(value, types.FunctionType) and value.__closure__:
        cells = tuple(types.CellType(on_gpu(cell.cell_contents)) for cell in value.__closure__)
        return types.FunctionType(value.__code__, value.__globals__, value.__name__, value.__defaults__, cells)
    if isinstance(value, (tuple, list)):
        moved = [on_gpu(v) for v in value]
        return type(value)(*moved) if hasattr(value, "_fields") else type(value)(moved)
    return copy_of(value, "cuda") if isinstance(value, torch.Tensor) else value


def copy_of(tensor: torch.Tensor, device: str | None = None) -> torch.Tensor:
    """A tensor with memory of its own and the same sizes, strides and offset, so that views stay views."""
    storage = _whole(tensor).clone().to(device or tensor.device).untyped_storage()
    copy = torch.empty(0, dtype=tensor.dtype, device=storage.device)
    return copy.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())


def to_double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


# -- comparing
# -----------------------------------------------------------------------------------------------------------


def tolerance(dtype: torch.dtype, error_scale: float = 1.0, uses_tf32: bool = False) -> float:
    """Largest error allowed, absolute and relative, of results of a dtype; 0 for integers and bools."""
    if not dtype.is_floating_point:
        return 0.0
    unit = ROUNDING[dtype]
    return max(unit, TF32) if uses_tf32 and dtype is torch.float32 else unit * error_scale


def check(
    actual: Any,
    expected: Any,
    where: str,
    error_scale: float = 1.0,
    input_dtype: torch.dtype | None = None,
    uses_tf32: bool = False,
) -> None:
    """Compare (nested) results with a float64 reference; the message names where `actual` was computed."""
    if isinstance(expected, (tuple, list)):
        assert isinstance(actual, (tuple, list)), f"{where}: expected a {type(expected).__name__}, got {actual!r}"
        assert len(actual) == len(expected), f"{where}: {len(actual)} results, expected {len(expected)}"
        for i, (a, e) in enumerate(zip(actual, expected)):
            check(a, e, f"{where}[{i}]", error_scale, input_dtype, uses_tf32)
        return
    if not isinstance(expected, torch.Tensor):
        assert actual == expected, f"{where}: {actual!r}, expected {expected!r}"
        return
    assert isinstance(actual, torch.Tensor), f"{where}: expected a tensor, got {actual!r}"
    assert actual.shape == expected.shape, f"{where}: shape {list(actual.shape)}, expected {list(expected.shape)}"
    allowed = tolerance(actual.dtype, error_scale, uses_tf32)
    if input_dtype is not None and actual.is_floating_point():
        allowed = max(allowed, tolerance(input_dtype, error_scale))
    torch.testing.assert_close(
        actual.cpu().to(expected.dtype),
        expected.cpu(),
        atol=allowed,
        rtol=allowed,
        equal_nan=True,
        msg=lambda m: f"{where}: {m}",
    )


# -- running
# -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Way:
    """One way to run a kernel: its name for messages, a function of the arguments, and whether products may use
    tf32.
    """

    name: str
    run: Callable[..., Any]
    uses_tf32: bool = False


def partial_blocks(bound: helion.BoundKernel) -> dict[str, Any]:
    """A config whose tiles are small enough that loops go round several times, with a partial tile at the end."""
    blocks = bound.config_spec.fields.get("block_sizes")
    if blocks is None:
        return {}
    return {"block_sizes": [max(min(item.high // 4, 64), item.low) for item in blocks.items]}


def ways(kernel: helion.Kernel, args: tuple[Any, ...], configs: Configs, capabilities: Sequence[int]) -> Iterator[Way]:
    """Every way to run a kernel here."""
    bound = kernel.bind(args)
    given = list(configs) or [partial_blocks(bound)]
    yield Way("tile executor", bound)
    for config in given:
        yield Way(f"tile executor, {dict(config)}", bound.compile_config(config))
    yield Way("ref mode", bound.run_ref)
    if quick.leave_out("a run of generated code, of which there is only the source"):
        for config in given:
            bound.to_code(config)
        return
    if torch.cuda.is_available():
        for config in given:
            yield Way(f"GPU, {dict(config)}", _on_gpu(kernel, config), uses_tf32=True)
        return
    for i, config in enumerate(given):
        # One config runs for every capability; more of them take turns, as compiling is what costs time.
        for capability in capabilities if len(given) == 1 else [capabilities[i % len(capabilities)]]:
            yield Way(
                f"software GPU sm_{capability}, {dict(config)}",
                _on_software_gpu(kernel, config, capability),
                uses_tf32=True,
            )


def fresh(kernel: helion.Kernel) -> helion.Kernel:
    """The same kernel with nothing bound yet: what was bound for one device must not be used on another."""
    return helion.Kernel(kernel.fn, configs=kernel.configs, settings=kernel.settings)


def _on_gpu(kernel: helion.Kernel, config: Mapping[str, Any] | helion.Config) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        on_device = on_gpu(args)
        result = kernel.bind(on_device).compile_config(config)(*on_device)
        for given, used in zip(_tensors(args), _tensors(on_device)):
            _whole(given).copy_(_whole(used))  # what the kernel wrote into an argument
        return walk(result, torch.Tensor.cpu)

    return run


def _on_software_gpu(
    kernel: helion.Kernel,
    config: Mapping[str, Any] | helion.Config,
    capability: int,
    traced: bool = False,
    threads: int = 0,
) -> Callable[..., Any]:
    """A run on the software GPU in which kernels may touch nothing but the tensors they are launched with.

    With `traced` it takes what the kernel was bound to for CPU tensors, and generates code for the GPU of that: one
    trace for all capabilities.
    """
    import triton

    from helion.runtime import default_launcher
    from tests import softgpu

    scratch = torch.empty(1 << 20, dtype=torch.uint8)

    def allocate(size: int, alignment: int, stream: int | None) -> torch.Tensor:
        assert size <= scratch.numel() - 1024
        return scratch[-scratch.data_ptr() % 1024 :][:size]

    def launch(triton_kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
        # Tensor descriptors that a kernel makes lie in scratch memory, which must be memory it may touch.
        triton.set_allocator(allocate)
        with softgpu.only(scratch, *(a for a in args if isinstance(a, torch.Tensor))):
            default_launcher(triton_kernel, grid, *args, **options)

    def _generated(bound: helion.BoundKernel, config: Mapping[str, Any] | helion.Config) -> Callable[..., Any]:
        source = bound.generated_source(config, Target("nvidia", capability))
        module = load_module(source.text, source.function, source.injected or None)
        return clone_host_function(getattr(module, source.function))

    def run(*args: Any) -> Any:
        new = kernel if traced else fresh(kernel)
        bound = new.variant(new.normalize_args(*args)) if traced else None
        softgpu.install(capability, ptxas=False, threads=threads)
        try:
            args = new.normalize_args(*args)  # with what it reads from outside itself
            run_once = new.variant(args).host_function(config) if bound is None else _generated(bound, config)
            # A context of its own keeps the allocator from the tests that follow.
            result = contextvars.copy_context().run(run_once, *args, _launcher=launch)
            assert not softgpu.faults(), softgpu.faults()
            return result
        finally:
            softgpu.uninstall()

    return run


def run_everywhere(
    kernel: helion.Kernel | Callable[..., Any],
    args: tuple[Any, ...],
    reference: Callable[..., Any],
    *,
    configs: Configs = (),
    error_scale: float = 1.0,
    input_dtype: torch.dtype | None = None,
    reference_args: tuple[Any, ...] | None = None,
    uses_dot: bool = False,
    capabilities: Sequence[int] = CAPABILITIES,
    **settings: Any,
) -> None:
    """Run a kernel every way there is and compare each result with the reference in float64.

    Args:
        kernel: a kernel, or a function to make one of.
        args: arguments on the CPU; they are copied for each run and must come back unchanged in shape only.
        reference: the same in PyTorch, called with float64 arguments.
        configs: schedules to run; default one with small, partial tiles.
        error_scale: how many times the rounding error of one operation the results may be off.
        input_dtype: results may be as inexact as this dtype, though their own is more precise.
        reference_args: arguments of the reference, if not `args` in float64.
        uses_dot: the kernel multiplies float32 matrices, on a GPU in tf32.
        capabilities: compute capabilities to run on the software GPU.
        settings: settings of the kernel, if it is made here.
    """
    if not isinstance(kernel, helion.Kernel):
        kernel = helion.kernel(kernel, **settings)
    expected = reference(*(walk(args, to_double) if reference_args is None else reference_args))
    for way in ways(kernel, args, configs, capabilities):
        check(way.run(*walk(args, copy_of)), expected, way.name, error_scale, input_dtype, uses_dot and way.uses_tf32)


def compile_for(
    kernel: helion.Kernel | helion.BoundKernel,
    args: tuple[Any, ...],
    config: Mapping[str, Any] | helion.Config | None = None,
    capabilities: Sequence[int] = CAPABILITIES,
) -> list[list[Mapping[str, Any]]]:
    """Compile the generated kernels for each capability; a list of the stages of each launch per capability."""
    bound = kernel.bind(args) if isinstance(kernel, helion.Kernel) else kernel
    compiled = [cross_compile(bound, args, config, capability) for capability in capabilities]
    for launches in compiled:
        assert launches, "the host function launched nothing"
        for stages in launches:
            assert stages["cubin"]
    return compiled
