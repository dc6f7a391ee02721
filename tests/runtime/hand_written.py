"""A kernel without a front end: host functions written by hand, everything after them the real launch path."""

from __future__ import annotations

import inspect
import threading

import torch

from helion.runtime import code_cache
from helion.runtime.dispatch import PythonDispatcher
from helion.runtime.host_function import clone_host_function
from helion.runtime.launcher import FastLauncher
from helion.runtime.specialization import Specializer
from helion.runtime.stats import KernelStats
from helion.settings import Settings

SOURCE = '''\
import torch
import triton
import triton.language as tl

from helion.runtime import default_launcher as _default_launcher


@triton.jit
def _add_kernel(x, y, out, BLOCK_0: tl.constexpr = 128):
    i = tl.program_id(0) * BLOCK_0 + tl.arange(0, BLOCK_0)
    tl.store(out + i, tl.load(x + i) + tl.load(y + i))


def add(x, y{parameters}, *, _launcher=_default_launcher):
    out = torch.empty_like(x)
    _launcher(_add_kernel, ({grid},), x, y, out, num_warps={warps}, num_stages=1)
    return out
'''


class HandWrittenKernel(PythonDispatcher):
    """Adds two tensors of a multiple of 128 elements. Every specialization is one host function and one launcher.

    Args:
        fn: gives the signature; parameters after the first two only take part in the key.
        settings: as for ``helion.kernel``.
    """

    def __init__(self, fn=lambda x, y: None, key=None, **settings):
        specializer = Specializer(
            inspect.signature(fn),
            fn.__annotations__,
            Settings(**settings),
            key,
            kernel_name="add",
            on_requires_grad=self._on_requires_grad,
        )
        super().__init__(specializer, KernelStats("add"))
        self.bound = {}
        self.bound_count = 0
        self.warps = 4
        self._lock = threading.Lock()

    def _bind(self, args):
        with self._lock:
            key = self.specializer.key(args)
            if key not in self.bound:
                self.bound_count += 1
                static = self.specializer.settings.static_shapes
                names = list(self.specializer.signature.parameters)[2:]
                source = SOURCE.format(
                    grid=args[0].numel() // 128 if static else "x.numel() // 128",
                    parameters="".join(f", {name}" for name in names),
                    warps=self.warps,
                )
                module = code_cache.load_module(source, "add")
                host = clone_host_function(module.add)
                launcher = FastLauncher("add", device=0, stats=self.stats, host_function=host)
                host.__kwdefaults__["_launcher"] = launcher
                self.bound[key] = (module.add, host, launcher)
            return self.bound[key]

    def _runner(self, args):
        return self._bind(args)[1]

    def _traced_host_function(self, args):
        return self._bind(args)[0]

    def set_warps(self, warps):
        """What ``set_config`` does: the next calls run the new binary."""
        with self._lock:
            self.warps = warps
            self.bound = {}
        self._invalidate()


def pair(n=1024, **options):
    return torch.ones(n, **options), torch.ones(n, **options)
