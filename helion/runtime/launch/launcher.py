"""``FastLauncher``: launches a compiled Triton kernel through guards and Triton's C function, without
``JITFunction.run``.

A host function calls ``_launcher(kernel, grid, *args, num_warps=, num_stages=, ...)``. The first call of a *launch
site* goes to Triton and primes it: the compiled kernel's handles are kept, and a small function is generated that
checks the guards for exactly these kinds of arguments and launches. That function then is the host function's
``_launcher``. A call that a guard turns away takes the slow path here, which finds another site, primes one, or leaves
the call to Triton.

Vocabulary
    site       kernel, device, launch options, knobs, and the types of the arguments; one generated function
    variant    a compiled binary of a site: what Triton specializes on by value, which is pointer alignment and the
               buckets of ints (1, multiples of 16, width)
    guard      a condition under which the fast path would be wrong; one row of a table in ``launch_source.py``

What changes the binary is part of the site or the variant, so flipping it back finds the old one. What only concerns
Triton's own bookkeeping (hooks before a run, mutated globals) sends the call to Triton.

Where ``helion._C`` is there, its ``CompiledLauncher`` does the same in C and becomes the host function's ``_launcher``;
it comes back here for whatever it was not primed for.

Not here: which BoundKernel a call belongs to (``dispatch.py``); the launcher in C (``csrc/launcher.cpp``).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch.nn import Parameter

from ... import _compat_triton
from ... import _extension
from ... import exc
from .. import compile_guard
from .. import device as _device
from ..stats import KernelStats
from .default_launcher import default_launcher
from .source import KINDS
from .source import compile_launch
from .source import launch_source
from .source import variant_of

if TYPE_CHECKING:
    import types

    from ..._C import CompiledLauncher

__all__ = ["FastLauncher"]

log = logging.getLogger(__name__)


def _binary_knobs() -> tuple[Any, ...]:
    """The knobs that ``JITFunction.run`` reads on every call because they change the binary."""
    return (_compat_triton.knobs.runtime.debug, _compat_triton.knobs.compilation.instrumentation_mode)


def _knobs_changed(then: tuple[Any, ...]) -> bool:
    return _binary_knobs() != then or _compat_triton.knobs.runtime.add_stages_inspection_hook is not None


def _globals_changed(used: tuple[tuple[str, object, dict[str, Any]], ...]) -> bool:
    missing = object()
    return any(namespace.get(name, missing) != value for name, value, namespace in used)


def _driver_error(kernel: Any, error: RuntimeError) -> RuntimeError:
    """A driver's error with the kernel's name, worded as ``csrc/driver.cpp`` does."""
    hint = _TOO_MANY_PROGRAMS[1] if _TOO_MANY_PROGRAMS[0] in str(error) else ""
    return RuntimeError(f"{error} (launching kernel {kernel.__name__}){hint}")


#: What the driver says of a cooperative launch whose programs do not fit on the GPU together, and what to do then.
_TOO_MANY_PROGRAMS = (
    "too many blocks in cooperative launch",
    (
        ": the programs of a kernel with hl.barrier() run at the same time; lower num_sm_multiplier "
        "or num_warps in its Config"
    ),
)


def _is_driver_error(error: BaseException) -> bool:
    """Whether ``error`` comes from the driver; a launch hook may have raised something of its own."""
    return type(error) is RuntimeError and str(error).startswith(_compat_triton.DRIVER_ERROR)


@dataclasses.dataclass
class _Site:
    """See the module's vocabulary.

    Attributes:
        kernel: the JITFunction.
        launch: the generated function; same call signature as ``default_launcher``.
        variants: variant -> handles, filled as they come.
        source: text of ``launch``.
    """

    kernel: Any
    launch: Callable[..., Any]
    variants: dict[Any, Any]
    source: str


class FastLauncher:
    """A launcher with the call signature of ``default_launcher``, for one BoundKernel and Config.

    Args:
        name: for messages.
        device: index of the device to launch on; None for whichever is current.
        stats: where launches are counted; its own by default.
        host_function: its ``_launcher`` keyword default is replaced by the generated launch function once there is one.
            A function of this BoundKernel's own (``clone_host_function``): others may share the generated module.

    ``HELION_SKIP_FAST_LAUNCHER=1`` leaves every launch to Triton.
    """

    def __init__(
        self,
        name: str,
        *,
        device: int | None = None,
        stats: KernelStats | None = None,
        host_function: types.FunctionType | None = None,
    ) -> None:
        #: The launcher in C, once it has a variant; None where the extension is not used or cannot launch these
        #: kernels.
        self._c_launcher: CompiledLauncher | None = None
        self._c_source = 0
        self.name = name
        self.device = device
        self.stats = stats if stats is not None else KernelStats(name)
        self._host_function = weakref.ref(host_function) if host_function is not None else lambda: None
        self._sites: dict[Any, _Site] = {}
        #: id(kernel) -> its most recent site. The site keeps the kernel alive, so the id stays its own.
        self._recent: dict[int, _Site] = {}
        #: id(kernel) -> (kernel, why its launches stay with Triton).
        self._unprimable: dict[int, tuple[Any, str]] = {}
        #: Why this launcher leaves everything to Triton for good; None while it does not.
        self.given_up: str | None = None
        if os.environ.get("HELION_SKIP_FAST_LAUNCHER", "0").lower() not in ("", "0", "false", "off", "no"):
            self.given_up = "HELION_SKIP_FAST_LAUNCHER is set"

    def __call__(
        self, triton_kernel: Any, grid: tuple[int, ...], *args: Any, num_warps: int, num_stages: int, **options: Any
    ) -> Any:
        return self._slow(None, triton_kernel, grid, args, num_warps, num_stages, options)

    # -- slow path
    # ------------------------------------------------------------------------------------------------------

    def _slow(
        self,
        caller: _Site | None,
        kernel: Any,
        grid: tuple[int, ...],
        args: tuple[Any, ...],
        num_warps: int,
        num_stages: int,
        options: dict[str, Any],
    ) -> Any:
        """A call that ``caller``'s guards turned away, or that comes from nowhere (None)."""
        if self.device is not None and _device.provider.current_device() != self.device:
            # The arguments live on this BoundKernel's device, whichever is current in the caller's thread.
            with _device.provider.guard(self.device):
                return self._slow(None, kernel, grid, args, num_warps, num_stages, options)
        recent = self._recent.get(id(kernel))
        if recent is not None and recent is not caller:
            return recent.launch(kernel, grid, *args, num_warps=num_warps, num_stages=num_stages, **options)
        reason = self._reason_for_triton(kernel, args)
        if reason is not None:
            return self._default(reason, kernel, grid, args, num_warps, num_stages, options)
        key = self._site_key(kernel, grid, args, num_warps, num_stages, options)
        site = self._sites.get(key)
        if site is None:
            return self._prime(key, None, kernel, grid, args, num_warps, num_stages, options)
        if site is caller:
            # The guards see something that the key does not; Triton sees everything.
            return self._default("guard", kernel, grid, args, num_warps, num_stages, options)
        self._use(site)
        return site.launch(kernel, grid, *args, num_warps=num_warps, num_stages=num_stages, **options)

    def _reason_for_triton(self, kernel: Any, args: tuple[Any, ...]) -> str | None:
        """Why this call is Triton's, or None."""
        if self.given_up is not None:
            return self.given_up
        unprimable = self._unprimable.get(id(kernel))
        if unprimable is not None:
            return unprimable[1]
        if not _compat_triton.is_jit_function(kernel):
            return f"{type(kernel).__name__} is not a @triton.jit function"
        if kernel.pre_run_hooks:
            return "pre_run_hooks"
        if _compat_triton.knobs.runtime.add_stages_inspection_hook is not None:
            return "add_stages_inspection_hook"
        if _globals_changed(_used_globals(kernel)):
            return "a global that the kernel uses has changed"
        for arg in args:
            if type(arg) not in KINDS:
                return f"argument of type {type(arg).__name__}"
        return None

    @staticmethod
    def _site_key(
        kernel: Any,
        grid: tuple[int, ...],
        args: tuple[Any, ...],
        num_warps: int,
        num_stages: int,
        options: dict[str, Any],
    ) -> tuple[Any, ...]:
        provider = _device.provider
        return (
            id(kernel),
            len(grid),
            provider.current_device(),
            tuple([("tensor", provider.device_tag(a)) if isinstance(a, torch.Tensor) else type(a) for a in args]),
            num_warps,
            num_stages,
            # repr, as an option may be a list or dict.
            repr(sorted(options.items())),
            _binary_knobs(),
        )

    def _default(
        self,
        reason: str,
        kernel: Any,
        grid: tuple[int, ...],
        args: tuple[Any, ...],
        num_warps: int,
        num_stages: int,
        options: dict[str, Any],
    ) -> Any:
        """Leave the launch to Triton."""
        all_options = {"num_warps": num_warps, "num_stages": num_stages, **options}
        if compile_guard.active() and _compat_triton.is_jit_function(kernel):
            if _compat_triton.find_compiled(kernel, args, all_options) is None:
                compile_guard.check(self.name, f"compile {kernel.__name__}", self._describe(args))
        self.stats.counter("default_launcher").hit()
        self.stats.note(reason)
        try:
            return default_launcher(kernel, grid, *args, **all_options)
        except RuntimeError as error:
            if _is_driver_error(error):
                raise _driver_error(kernel, error) from error
            raise

    @staticmethod
    def _describe(args: tuple[Any, ...]) -> str:
        """Arguments as Triton tells them apart, for messages."""
        return ", ".join(
            f"{a.dtype}{'' if a.data_ptr() % 16 == 0 else ' (not 16-byte aligned)'}"
            if isinstance(a, torch.Tensor)
            else f"{type(a).__name__} {a!r}"
            for a in args
        )

    # -- priming
    # ----------------------------------------------------------------------------------------------------------

    def _new_variant(
        self,
        site: _Site,
        variant: Any,
        kernel: Any,
        grid: tuple[int, ...],
        args: tuple[Any, ...],
        num_warps: int,
        num_stages: int,
        options: dict[str, Any],
    ) -> Any:
        """A call that passed the guards of ``site`` and needs a binary it does not have yet."""
        return self._prime(None, (site, variant), kernel, grid, args, num_warps, num_stages, options)

    def _prime(
        self,
        key: Any,
        missing: tuple[_Site, Any] | None,
        kernel: Any,
        grid: tuple[int, ...],
        args: tuple[Any, ...],
        num_warps: int,
        num_stages: int,
        options: dict[str, Any],
    ) -> Any:
        """Launch through Triton, and keep what it launched: for a new site under ``key``, or a missing variant."""
        if self.given_up is not None:
            return self._default(self.given_up, kernel, grid, args, num_warps, num_stages, options)
        try:
            reason = "first call" if missing is None else "first call of a variant"
            compiled = self._default(reason, kernel, grid, args, num_warps, num_stages, options)
        except Exception as error:
            # Any failing compile. The driver's errors come and go, and no_compile() blocks end; those are not failures
            # of the kernel.
            if not _is_driver_error(error) and not _is_forbidden(error):
                self._give_up(f"Triton failed: {type(error).__name__}: {error}")
            raise
        if not _compat_triton.is_compiled_kernel(compiled):
            return compiled  # a cache hook declined, or it compiles in the background: the next call asks again
        try:
            handles = _compat_triton.launch_handles(compiled)
            if missing is not None:
                site, variant = missing
            else:
                site = self._new_site(kernel, grid, args, num_warps, num_stages, options, handles)
                variant = variant_of(args)
            site.variants[variant] = _variant_entry(handles)
            self._install_c_launcher(
                kernel, args, {"num_warps": num_warps, "num_stages": num_stages, **options}, compiled
            )
        except _compat_triton.NotPrimable as why:
            self._unprimable[id(kernel)] = (kernel, str(why))
            log.info("%s: launches of %s stay with Triton: %s", self.name, kernel.__name__, why)
            return compiled
        except Exception as error:
            # Private parts of Triton may have changed in any way; the launch itself has already happened.
            self._give_up(f"priming failed: {type(error).__name__}: {error}")
            return compiled
        if missing is None:
            self._sites[key] = site
            self._use(site)
        return compiled

    def _give_up(self, reason: str) -> None:
        """Leave everything to Triton from now on."""
        if self.given_up is None:
            self.given_up = reason
            log.warning("%s: launches go through Triton's own path from now on: %s", self.name, reason)
            self._recent.clear()
            self._sites.clear()
            self._retire_c_launcher()
            self._install(self)

    def _retire_c_launcher(self) -> None:
        launcher, self._c_launcher = self._c_launcher, None
        if launcher is not None:
            self.stats.retire("c_launcher", self._c_source, launcher.launches)

    def __del__(self) -> None:
        # The tuner makes and drops one of these for every Config it tries; the statistics must not keep them.
        self._retire_c_launcher()

    def _use(self, site: _Site) -> None:
        self._recent[id(site.kernel)] = site
        if self._c_launcher is None:
            self._install(site.launch)

    def _install_c_launcher(self, kernel: Any, args: tuple[Any, ...], keywords: dict[str, Any], compiled: Any) -> None:
        """Give the binary that was just primed to the launcher in C, and make that the host function's ``_launcher``.

        A binary that the extension cannot launch itself stays with the function generated here.
        """
        if _extension.C is None:
            return
        from .. import launch_spec

        if launch_spec.unsupported_reason(compiled, len(args), keywords) is not None:
            return
        launcher = self._c_launcher
        if launcher is None:
            launcher = _extension.C.CompiledLauncher()
            launcher.fallback = self
        try:
            known = launcher.add_variant(kernel, args, keywords, launch_spec.describe(kernel, compiled))
        except RuntimeError as error:  # no driver library in this process
            log.debug("%s: launches stay in Python: %s", self.name, error)
            return
        if known and self._c_launcher is None:
            self._c_launcher = launcher
            self._c_source = self.stats.add_source("c_launcher", _count_of(weakref.ref(self)))
            self._install(launcher)

    def _install(self, launcher: Callable[..., Any]) -> None:
        """Make ``launcher`` the host function's ``_launcher`` default."""
        host_function = self._host_function()
        if host_function is not None and host_function.__kwdefaults__:
            # One dict store, so a call in another thread sees the old or the new launcher.
            host_function.__kwdefaults__["_launcher"] = launcher

    def _new_site(
        self,
        kernel: Any,
        grid: tuple[int, ...],
        args: tuple[Any, ...],
        num_warps: int,
        num_stages: int,
        options: dict[str, Any],
        handles: _compat_triton.LaunchHandles,
    ) -> _Site:
        knobs = _compat_triton.knobs
        provider = _device.provider
        site = _Site(kernel, default_launcher, {}, "")
        namespace: dict[str, Any] = {
            "KERNEL": kernel,
            "NUM_WARPS": num_warps,
            "NUM_STAGES": num_stages,
            "OPTIONS": dict(options),
            "COUNT": len(args),
            "RANK": len(grid),
            "KNOBS": _binary_knobs(),
            "RUNTIME_KNOBS": vars(knobs.runtime),
            "RUNTIME_THEN": dict(vars(knobs.runtime)),
            "COMPILE_KNOBS": vars(knobs.compilation),
            "COMPILE_THEN": dict(vars(knobs.compilation)),
            "USED_GLOBALS": _used_globals(kernel),
            "DEVICE": provider.current_device(),
            "CONSTANTS": _compat_triton.default_values(kernel, len(args)),
            "ENTER": knobs.runtime.launch_enter_hook,
            "EXIT": knobs.runtime.launch_exit_hook,
            "SITE": site,
            "Parameter": Parameter,
            "Tensor": torch.Tensor,
            "device": _device,
            "driver_error": _driver_error,
            "is_driver_error": _is_driver_error,
            "globals_changed": _globals_changed,
            "has_hooks": _has_hooks,
            "knobs_changed": _knobs_changed,
            "hit": self.stats.counter("fast_launcher").hit,
            "new_variant": self._new_variant,
            "runtime": knobs.runtime,
            "slow": self._slow,
            "variants": site.variants,
        }
        for i, arg in enumerate(args):
            if isinstance(arg, torch.Tensor):
                namespace[f"TAG{i}"] = provider.device_tag(arg)
        if handles.direct is not None:
            namespace["LAUNCH"] = handles.direct.launch
            namespace["COOPERATIVE"] = handles.direct.cooperative
            namespace["PDL"] = handles.direct.pdl
        site.source = launch_source([type(arg) for arg in args], len(grid), bool(options), handles.direct is not None)
        site.launch = compile_launch(site.source, f"helion launch of {kernel.__name__}", namespace)
        return site


def _count_of(reference: weakref.ref[FastLauncher]) -> Callable[[], int]:
    """Reads how many launches the C launcher of a FastLauncher made, while there is one."""

    def read() -> int:
        launcher = reference()
        return launcher._c_launcher.launches if launcher is not None and launcher._c_launcher is not None else 0

    return read


def _is_forbidden(error: BaseException) -> bool:
    return isinstance(error, exc.CompilationForbidden)


def _used_globals(kernel: Any) -> tuple[tuple[str, object, dict[str, Any]], ...]:
    return tuple((name, value, namespace) for (name, _), (value, namespace) in kernel.used_global_vals.items())


def _has_hooks(hook: Any) -> bool:
    """Whether a launch hook would do anything: Triton's default is a chain with nothing in it."""
    return hook is not None and bool(getattr(hook, "calls", True))


def _variant_entry(handles: _compat_triton.LaunchHandles) -> tuple[Any, ...]:
    direct = handles.direct
    if direct is None:
        return (handles.compiled, handles.function, handles.packed_metadata)
    return (handles.compiled, handles.function, handles.packed_metadata, direct.annotations, direct.signature)
