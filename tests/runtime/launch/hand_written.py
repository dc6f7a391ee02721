"""Host functions and kernels without a front end: written by hand, everything after them the real launch path."""

from __future__ import annotations

import inspect
import threading

import torch

from helion.runtime import code_cache
from helion.runtime.host_function import clone_host_function
from helion.runtime.launch.dispatch import PythonDispatcher
from helion.runtime.launch.launcher import FastLauncher
from helion.runtime.launch.specialization import Specializer
from helion.runtime.stats import KernelStats
from helion.settings import Settings

HOST = """\
import torch
import triton
import triton.language as tl

from helion.runtime import default_launcher as _default_launcher

{prelude}
@triton.jit
def _add_kernel(x, y, out, {scalar}BLOCK_0: tl.constexpr = 128):
    i = tl.program_id(0) * BLOCK_0 + tl.arange(0, BLOCK_0)
    tl.store(out + i, tl.load(x + i) + tl.load(y + i){extra})


def add(x, y, {scalar}{parameters}*, out=None, _launcher=_default_launcher):
    if out is None:
        out = torch.empty_like(x)
    _launcher(_add_kernel, ({grid},), x, y, out, {scalar}num_warps={num_warps}, num_stages=1{options})
    return out
"""


def host_source(*, scalar=False, parameters=(), prelude="", extra="", grid="x.numel() // 128", num_warps=4, options=""):
    """A module that adds two tensors of a multiple of 128 elements.

    Args:
        scalar: an argument ``n`` is added too.
        parameters: names of more parameters of the host function, which do nothing.
        prelude: statements of the module in front of the kernel.
        extra: end of the expression that the kernel stores.
        grid: number of programs.
        num_warps: as in a Config.
        options: more keywords of the launch.
    """
    return HOST.format(
        scalar="n, " if scalar else "",
        parameters="".join(f"{name}, " for name in parameters),
        prelude=prelude,
        extra=extra + (" + n" if scalar else ""),
        grid=grid,
        num_warps=num_warps,
        options=options,
    )


class HandWrittenHost:
    """What a BoundKernel has: a host function of its own (see ``host_source``) and a launcher, primed by its first
    call.
    """

    def __init__(self, device=0, stats=None, **source):
        self.module = code_cache.load_module(host_source(**source), "add")
        self.kernel = self.module._add_kernel
        self.host = clone_host_function(self.module.add)
        self.launcher = FastLauncher("add", device=device, stats=stats, host_function=self.host)
        self.host.__kwdefaults__["_launcher"] = self.launcher

    def __call__(self, *args, **kwargs):
        return self.host(*args, **kwargs)

    def layers(self):
        return self.launcher.stats.snapshot().layers

    def reasons(self):
        return self.launcher.stats.snapshot().reasons


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
        super().__init__(specializer, KernelStats("add"), function=fn)
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
                self.bound[key] = HandWrittenHost(
                    stats=self.stats,
                    parameters=names,
                    grid=args[0].numel() // 128 if static else "x.numel() // 128",
                    num_warps=self.warps,
                )
            return self.bound[key]

    def _runner(self, args):
        return self._bind(args).host

    def _traced_host_function(self, args):
        return self._bind(args).module.add

    def set_warps(self, warps):
        """What ``set_config`` does: the next calls run the new binary."""
        with self._lock:
            self.warps = warps
            self.bound = {}
        self._invalidate()


def pair(n=1024, **options):
    return torch.ones(n, **options), torch.ones(n, **options)


def misaligned(n=1024):
    x = torch.ones(n + 1)[1:]
    assert x.data_ptr() % 16 == 4
    return x
