"""Kernels without a front end for tests of the compiled launch path: host functions written by hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from helion.runtime import code_cache
from helion.runtime.host_function import clone_host_function
from helion.runtime.launch.launcher import FastLauncher
from helion.runtime.launch.specialization import Specializer
from helion.runtime.stats import KernelStats
from helion.settings import Settings

HEADER = """\
import torch
import triton
import triton.language as tl

from helion.runtime import default_launcher as _default_launcher
from helion.runtime import empty_like as _empty_like

BLOCK_0 = 128


@triton.jit
def _add_kernel(x, y, out, BLOCK_0: tl.constexpr = BLOCK_0):
    i = tl.program_id(0) * BLOCK_0 + tl.arange(0, BLOCK_0)
    tl.store(out + i, tl.load(x + i) + tl.load(y + i))


@triton.jit
def _scale_kernel(x, out, n, BLOCK_0: tl.constexpr = BLOCK_0):
    i = tl.program_id(0) * BLOCK_0 + tl.arange(0, BLOCK_0)
    tl.store(out + i, tl.load(x + i) * n)


"""

ADD = """\
def host(x, y, *, _launcher=_default_launcher):
    out = torch.empty_like(x)
    _launcher(_add_kernel, (x.numel() // BLOCK_0,), x, y, out, num_warps=4, num_stages=1)
    return out
"""

SCALE = """\
def host(x, n=2.0, *, _launcher=_default_launcher):
    _launcher(_scale_kernel, (x.numel() // BLOCK_0,), x, x, n, num_warps=4, num_stages=1)
    return x
"""


def kernel_class() -> type:
    """``HostKernel``, made late: without the extension its base is not there."""
    from helion.runtime.launch.compiled_dispatch import CompiledDispatcher

    class HostKernel(CompiledDispatcher):
        """Runs one hand-written host function.

        Args:
            source: text of a function ``host``, after ``HEADER``.
            key: as for ``helion.kernel``.
            constexpr: names of parameters that are ``hl.constexpr``.
        """

        def __init__(
            self,
            source: str = ADD,
            key: Callable[..., Any] | None = None,
            constexpr: tuple[str, ...] = (),
            max_entries: int = 1024,
        ) -> None:
            self.module = code_cache.load_module(HEADER + source, "host")
            parameters = [
                p for name, p in inspect.signature(self.module.host).parameters.items() if name != "_launcher"
            ]
            specializer = Specializer(
                inspect.Signature(parameters),
                dict.fromkeys(constexpr, "hl.constexpr"),
                Settings(),
                key,
                kernel_name="host",
                on_requires_grad=lambda: self._on_requires_grad(),
            )
            self.runners = 0
            super().__init__(specializer, KernelStats("host"), max_entries=max_entries)

        def _runner(self, args):
            self.runners += 1
            host = clone_host_function(self.module.host)
            host.__kwdefaults__["_launcher"] = FastLauncher("host", device=0, stats=self.stats, host_function=host)
            return host

        def python(self, *args, **kwargs):
            """The same call through the Python path."""
            return self._call_python(*args, **kwargs)

        def warm(self, *args, **kwargs):
            """Call until there is a plan, or it is clear that there will be none."""
            for _ in range(3):
                result = self(*args, **kwargs)
            return result

        @property
        def reasons(self):
            return [r.removeprefix("no plan: ") for r in self.stats.snapshot().reasons if r.startswith("no plan")]

    return HostKernel


def pair(n: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tensors of n random numbers."""
    return torch.randn(n), torch.randn(n)
