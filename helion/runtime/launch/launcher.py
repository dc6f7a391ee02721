"""``FastLauncher``: launches a compiled Triton kernel through guards and Triton's C function, without
``JITFunction.run``.

A host function calls ``_launcher(kernel, grid, *args, num_warps=, num_stages=, ...)``. The first call goes to Triton
and primes: the compiled kernel's handles are kept, and a *launch function* is generated that checks the guards for
exactly these kinds of arguments and launches. That function then is the host function's ``_launcher``. A call that a
guard turns away takes the slow path here, which finds another launch function, primes one, or leaves it to Triton.

What changes the binary decides which launch function or variant a call belongs to, so flipping it back finds the old
one. What only concerns Triton's own bookkeeping (hooks before a run, mutated globals) sends the call to Triton.

Where ``helion._C`` is there, its ``CompiledLauncher`` does the same in C and becomes the host function's ``_launcher``;
it comes back here for whatever it was not primed for.

Not here: which BoundKernel a call belongs to (``dispatch.py``); the guards (``guards.py``) and the text of a launch
function (``source.py``); the launcher in C (``csrc/launcher.cpp``). Words as in docs/design.md.
"""

from __future__ import annotations

import dataclasses
import logging
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple

import torch
from torch.nn import Parameter

from ... import _compat_triton
from ... import _extension
from ... import exc
from ..._compat_torch import has_no_memory
from ..._environment import is_set
from .. import compile_guard
from .. import device as _device
from .. import events
from ..stats import KernelStats
from . import slow_compile
from . import spec as launch_spec
from .default_launcher import default_launcher
from .errors import driver_error
from .errors import is_driver_error
from .errors import not_compiled
from .errors import not_written
from .errors import too_few_registers
from .errors import too_large
from .source import KINDS
from .source import compile_launch
from .source import launch_source
from .source import variant_of
from .tensor_kinds import refuse_unreadable

if TYPE_CHECKING:
    import types

    from ..._C import CompiledLauncher

__all__ = ["Call", "FastLauncher"]

log = logging.getLogger(__name__)


class Call(NamedTuple):
    """One call of a launcher."""

    kernel: Any
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    num_warps: int
    num_stages: int
    options: dict[str, Any]

    @property
    def keywords(self) -> dict[str, Any]:
        """Everything that is passed by name."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, **self.options}

    def through(self, launcher: Callable[..., Any]) -> Any:
        """The same call of another launcher."""
        return launcher(self.kernel, self.grid, *self.args, **self.keywords)


def _binary_knobs() -> tuple[Any, ...]:
    """The knobs that ``JITFunction.run`` reads on every call because they change the binary."""
    return (_compat_triton.knobs.runtime.debug, _compat_triton.knobs.compilation.instrumentation_mode)


def _knobs_changed(then: tuple[Any, ...]) -> bool:
    return _binary_knobs() != then or _compat_triton.knobs.runtime.add_stages_inspection_hook is not None


def _globals_changed(used: tuple[tuple[str, object, dict[str, Any]], ...]) -> bool:
    missing = object()
    return any(namespace.get(name, missing) != value for name, value, namespace in used)


@dataclasses.dataclass
class _LaunchFunction:
    """A generated launch function, for one kernel, device, options, knobs and types of arguments.

    Attributes:
        kernel: the JITFunction.
        launch: the function; same call signature as ``default_launcher``.
        variants: variant -> handles, filled as they come.
        source: text of ``launch``.
    """

    kernel: Any
    launch: Callable[..., Any]
    variants: dict[Any, Any]
    source: str


@dataclasses.dataclass
class _Failure:
    """Why the launches of one specialization stay with Triton, until the cause has gone."""

    reason: str
    calls: int = 0

    def due(self) -> bool:
        """Whether this call tries again: the first after the failure, the second, the fourth, and so on."""
        self.calls += 1
        return self.calls & (self.calls - 1) == 0


class FastLauncher:
    """A launcher with the call signature of ``default_launcher``, for one BoundKernel and Config.

    Args:
        name: for messages.
        device: index of the device to launch on; None for whichever is current.
        stats: where launches are counted; its own by default.
        host_function: its ``_launcher`` keyword default is replaced by the launch function once there is one. A
            function of this BoundKernel's own (``clone_host_function``): others may share the generated module.

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
        self._functions: dict[Any, _LaunchFunction] = {}
        #: id(kernel) -> its most recent launch function, which keeps the kernel alive, so the id stays its own.
        self._recent: dict[int, _LaunchFunction] = {}
        #: id(kernel) -> (kernel, why its launches stay with Triton).
        self._unprimable: dict[int, tuple[Any, str]] = {}
        #: Key of a launch function or a variant of one, dtypes of the arguments -> why that stays with Triton for now.
        self._failures: dict[Any, _Failure] = {}
        skipped = is_set("HELION_SKIP_FAST_LAUNCHER")
        #: Why this launcher leaves everything to Triton; None while it does not.
        self.given_up = "HELION_SKIP_FAST_LAUNCHER is set" if skipped else None

    def __call__(
        self, triton_kernel: Any, grid: tuple[int, ...], *args: Any, num_warps: int, num_stages: int, **options: Any
    ) -> Any:
        return self._slow(None, Call(triton_kernel, grid, args, num_warps, num_stages, options))

    # -- slow path
    # ------------------------------------------------------------------------------------------------------

    def _slow(self, caller: _LaunchFunction | None, call: Call) -> Any:
        """A call that ``caller``'s guards turned away, or that comes from nowhere (None)."""
        if self.device is not None and _device.provider.current_device() != self.device:
            # The arguments live on this BoundKernel's device, whichever is current in the caller's thread.
            with _device.provider.guard(self.device):
                return self._slow(None, call)
        recent = self._recent.get(id(call.kernel))
        if recent is not None and recent is not caller:
            return call.through(recent.launch)
        for arg in call.args:
            if isinstance(arg, torch.Tensor):
                refuse_unreadable(self.name, arg)
        reason = self._reason_for_triton(call)
        if reason is not None:
            return self._default(reason, call)
        key = self._key(call)
        function = self._functions.get(key)
        if function is None:
            return self._prime(key, call, None)
        if function is caller:
            # The guards see something that the key does not; Triton sees everything.
            return self._default("guard", call)
        self._use(function)
        return call.through(function.launch)

    def _reason_for_triton(self, call: Call) -> str | None:
        """Why this call is Triton's, or None."""
        kernel = call.kernel
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
        for arg in call.args:
            if type(arg) not in KINDS:
                return f"argument of type {type(arg).__name__}"
        return None

    @staticmethod
    def _key(call: Call) -> tuple[Any, ...]:
        """Which launch function a call belongs to."""
        provider = _device.provider
        return (
            id(call.kernel),
            len(call.grid),
            provider.current_device(),
            tuple([("tensor", provider.device_tag(a)) if isinstance(a, torch.Tensor) else type(a) for a in call.args]),
            # repr, as an option may be a list or dict.
            repr(sorted(call.keywords.items())),
            _binary_knobs(),
        )

    def _default(self, reason: str, call: Call) -> Any:
        """Leave the launch to Triton."""
        _compat_triton.import_rest()
        if compile_guard.active() and _compat_triton.is_jit_function(call.kernel):
            if _compat_triton.find_compiled(call.kernel, call.args, call.keywords) is None:
                compile_guard.check(self.name, f"compile {call.kernel.__name__}", _describe(call.args))
        for arg in call.args:
            # A null pointer to the kernel, which would end the process's use of the GPU.
            if isinstance(arg, torch.Tensor) and has_no_memory(arg):
                raise exc.InvalidAPIUsage(
                    f"host code of kernel {self.name!r} gives a launch a {type(arg).__name__} without memory",
                    fix="look for who keeps a fake or meta tensor, or frees the storage of this one.",
                )
        self.stats.counter("default_launcher").hit()
        self.stats.note(reason)
        try:
            return call.through(default_launcher)
        except _compat_triton.OutOfResources as error:
            raise too_large(call.kernel, error) from error
        except _compat_triton.PTXASError as error:
            refused = too_few_registers(call.kernel, error)
            if refused is None:
                raise
            raise refused from error
        except OSError as error:
            lost = not_written(call.kernel, call.keywords, error)
            if lost is None:
                raise
            raise lost from error
        except RuntimeError as error:
            if is_driver_error(error):
                raise driver_error(call.kernel, error) from error
            failed = not_compiled(call.kernel, call.keywords, error)
            if failed is None:
                raise
            raise failed from error

    # -- priming
    # ----------------------------------------------------------------------------------------------------------

    def _new_variant(self, function: _LaunchFunction, variant: Any, call: Call) -> Any:
        """A call that passed the guards of ``function`` and needs a binary that it does not have yet."""
        return self._prime((id(function), variant), call, function)

    def _prime(self, key: Any, call: Call, function: _LaunchFunction | None) -> Any:
        """Launch through Triton, and keep what it launched: a new launch function under ``key`` (None), or one more
        variant of ``function``.
        """
        if self.given_up is not None:
            return self._default(self.given_up, call)
        # A launch function is for one BoundKernel, whose dtypes are fixed; what failed may have come from elsewhere.
        specialization = (key, *[getattr(arg, "dtype", None) for arg in call.args])
        failure = self._failures.get(specialization)
        if failure is not None and not failure.due():
            return self._default(failure.reason, call)
        try:
            with (
                events.timed("compile", self.stats.name, binary=getattr(call.kernel, "__name__", "?")),
                slow_compile.reported(self.name, call.kernel, call.keywords),
            ):
                compiled = self._default("first call" if function is None else "first call of a variant", call)
        except Exception as error:
            # Any failing compile, or arguments that Triton refuses. The driver's errors come and go, and no_compile()
            # blocks end; those are not failures of the specialization.
            if not is_driver_error(error) and not isinstance(error, exc.CompilationForbidden):
                self._failed(specialization, f"Triton failed: {type(error).__name__}: {error}")
            raise
        if not _compat_triton.is_compiled_kernel(compiled):
            return compiled  # a cache hook declined, or it compiles in the background: the next call asks again
        try:
            spec = _compat_triton.launch_handles(compiled)
            primed = function if function is not None else self._new_function(call, spec)
            primed.variants[variant_of(call.args)] = _variant_entry(spec)
            self._install_c_launcher(call, compiled)
        except _compat_triton.NotPrimable as why:
            self._unprimable[id(call.kernel)] = (call.kernel, str(why))
            log.info("%s: launches of %s stay with Triton: %s", self.name, call.kernel.__name__, why)
            return compiled
        except Exception as error:
            # Private parts of Triton may have changed in any way; the launch itself has already happened.
            self._failed(specialization, f"priming failed: {type(error).__name__}: {error}")
            return compiled
        self._failures.pop(specialization, None)
        if function is None:
            self._functions[key] = primed
            self._use(primed)
        return compiled

    def _failed(self, specialization: Any, reason: str) -> None:
        """Leave launches like this one, and no others, to Triton for now."""
        if specialization not in self._failures:
            log.warning("%s: launches like this one go through Triton's own path: %s", self.name, reason)
            self._failures[specialization] = _Failure(reason)

    def _retire_c_launcher(self) -> None:
        launcher, self._c_launcher = self._c_launcher, None
        if launcher is not None:
            self.stats.retire("c_launcher", self._c_source, launcher.launches)

    def __del__(self) -> None:
        # The tuner makes and drops one of these for every Config it tries; the statistics must not keep them.
        self._retire_c_launcher()

    def _use(self, function: _LaunchFunction) -> None:
        self._recent[id(function.kernel)] = function
        if self._c_launcher is None:
            self._install(function.launch)

    def _install_c_launcher(self, call: Call, compiled: Any) -> None:
        """Give the binary that was just primed to the launcher in C, and make that the host function's ``_launcher``.

        A binary that the extension cannot launch itself stays with the function generated here.
        """
        if _extension.C is None:
            return
        if launch_spec.unsupported_reason(compiled, len(call.args), call.keywords) is not None:
            return
        launcher = self._c_launcher
        if launcher is None:
            launcher = _extension.C.CompiledLauncher()
            launcher.fallback = self
        try:
            spec = launch_spec.describe(call.kernel, compiled)
            known = launcher.add_variant(call.kernel, call.args, call.keywords, spec)
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

    def _new_function(self, call: Call, handles: _compat_triton.LaunchHandles) -> _LaunchFunction:
        knobs = _compat_triton.knobs
        provider = _device.provider
        function = _LaunchFunction(call.kernel, default_launcher, {}, "")
        namespace: dict[str, Any] = {
            "KERNEL": call.kernel,
            "NUM_WARPS": call.num_warps,
            "NUM_STAGES": call.num_stages,
            "OPTIONS": dict(call.options),
            "COUNT": len(call.args),
            "RANK": len(call.grid),
            "KNOBS": _binary_knobs(),
            "RUNTIME_KNOBS": vars(knobs.runtime),
            "RUNTIME_THEN": dict(vars(knobs.runtime)),
            "COMPILE_KNOBS": vars(knobs.compilation),
            "COMPILE_THEN": dict(vars(knobs.compilation)),
            "USED_GLOBALS": _used_globals(call.kernel),
            "DEVICE": provider.current_device(),
            "CONSTANTS": _compat_triton.default_values(call.kernel, len(call.args)),
            "ENTER": knobs.runtime.launch_enter_hook,
            "EXIT": knobs.runtime.launch_exit_hook,
            "FUNCTION": function,
            "Call": Call,
            "Parameter": Parameter,
            "Tensor": torch.Tensor,
            "device": _device,
            "driver_error": driver_error,
            "is_driver_error": is_driver_error,
            "globals_changed": _globals_changed,
            "has_hooks": _has_hooks,
            "knobs_changed": _knobs_changed,
            "hit": self.stats.counter("fast_launcher").hit,
            "new_variant": self._new_variant,
            "runtime": knobs.runtime,
            "slow": self._slow,
            "variants": function.variants,
        }
        for i, arg in enumerate(call.args):
            if isinstance(arg, torch.Tensor):
                namespace[f"TAG{i}"] = provider.device_tag(arg)
        if handles.direct is not None:
            namespace["LAUNCH"] = handles.direct.launch
            namespace["COOPERATIVE"] = handles.direct.cooperative
            namespace["PDL"] = handles.direct.pdl
        kinds = [type(arg) for arg in call.args]
        function.source = launch_source(kinds, len(call.grid), bool(call.options), handles.direct is not None)
        function.launch = compile_launch(function.source, f"helion launch of {call.kernel.__name__}", namespace)
        return function


def _count_of(reference: weakref.ref[FastLauncher]) -> Callable[[], int]:
    """Reads how many launches the C launcher of a FastLauncher made, while there is one."""

    def read() -> int:
        launcher = reference()
        return launcher._c_launcher.launches if launcher is not None and launcher._c_launcher is not None else 0

    return read


def _describe(args: tuple[Any, ...]) -> str:
    """Arguments as Triton tells them apart, for messages."""
    return ", ".join(
        f"{a.dtype}{'' if a.data_ptr() % 16 == 0 else ' (not 16-byte aligned)'}"
        if isinstance(a, torch.Tensor)
        else f"{type(a).__name__} {a!r}"
        for a in args
    )


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
