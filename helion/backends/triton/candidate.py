"""Compiling generated Triton modules away from the call: as candidates of a tuner, and for GPUs that are not there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch

from ... import _compat_triton
from ... import _compat_triton_abi as _abi
from ... import exc
from ...runtime.code_cache import load_module
from ...runtime.host_function import clone_host_function
from ...runtime.host_function import set_launcher
from ...runtime.launch.launcher import FastLauncher
from ...runtime.launch.spec import binary_of_triton
from ...runtime.native.binary import Binary
from ...target import Target
from ..base import Launch
from .targets import features_of


@dataclasses.dataclass(frozen=True)
class TritonRecipe:
    """A candidate as generated Triton source; a `Recipe`.

    Attributes:
        text: the module.
        function: its host function.
        kernel_name: for messages.
    """

    text: str
    function: str
    kernel_name: str

    def build(self, args: Sequence[Any]) -> Callable[..., Any]:
        host = clone_host_function(getattr(load_module(self.text, self.function), self.function))
        tensors = (leaf for leaf in torch.utils._pytree.tree_leaves(list(args)) if isinstance(leaf, torch.Tensor))
        index = next((t.device.index for t in tensors if t.device.type == "cuda"), None)
        set_launcher(host, FastLauncher(self.kernel_name, device=index, host_function=host))
        return host

    def precompile(self, fn: Callable[..., Any], args: Sequence[Any]) -> None:
        fn(*args, _launcher=_compile_only)


def _compile_only(
    triton_kernel: Any, grid: tuple[int, ...], *args: Any, num_warps: int, num_stages: int, **options: Any
) -> None:
    """A launcher that compiles what it is asked to launch, into Triton's cache on disk, and launches nothing."""
    _compat_triton.import_rest()
    triton_kernel.warmup(*args, grid=grid, num_warps=num_warps, num_stages=num_stages, **options)


def compiled_stages(launch: Launch, target: Target) -> Mapping[str, Any]:
    """The stages of a kernel for a GPU that need not be there: "ttir", "ttgir", "llir", "ptx" (text), "cubin" (bytes).

    Raises:
        exc.BackendUnsupported: Triton compiles nothing for the target.
        Exception: what Triton raises where it, or ptxas, refuses the kernel.
    """
    stages: Mapping[str, Any] = _compiled(launch, target).asm
    return stages


def _compiled(launch: Launch, target: Target) -> Any:
    platform = features_of(target).platform
    if platform is None:
        raise exc.BackendUnsupported(
            backend="triton", reason=f"it compiles nothing for {target}", fix="name a GPU to compile for."
        )
    return _compat_triton.compile_without_device(launch.kernel, launch.args, launch.options, platform)


def compiled_binary(launch: Launch, target: Target) -> Binary:
    """A kernel as a binary that is launched without Triton.

    Raises:
        exc.BackendUnsupported: a launch of it needs what only Triton's launcher does.
        Exception: what Triton raises where it, or ptxas, refuses the kernel.
    """
    compiled = _compiled(launch, target)
    if extras := [extra for extra in _abi.launch_extras(compiled) if extra != _abi.GLOBAL_SCRATCH]:
        raise exc.BackendUnsupported(
            backend="triton",
            reason=f"a launch of {launch.kernel.__name__} needs {', '.join(extras)}, which only Triton's launcher does",
            fix="use a Config without it (indexing, num_ctas), or leave this kernel out of the bundle.",
        )
    parameters = [(i, kind) for i, (_, kind) in enumerate(_abi.parameters(compiled)) if kind != "constexpr"]
    if any(not isinstance(kind, str) or i >= len(launch.args) for i, kind in parameters):
        raise exc.BackendUnsupported(
            backend="triton",
            reason=f"{launch.kernel.__name__} has a parameter that is a tuple, or passed by name",
            fix="leave this kernel out of the bundle.",
        )
    return binary_of_triton(compiled, launch.kernel.__name__)
