"""`BoundKernel`: one specialization of a kernel, from the traced function to the functions that calls run.

Which calls belong to it is decided in `kernel`; what a call does on the way to it, in `runtime`.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import functools
import logging
import os
import sys
import time
import types
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch

from . import _compat_torch
from . import _compat_triton_abi as _compat_triton
from . import exc
from ._locks import new_rlock
from ._parsing import parse_expression
from .arguments import check_graph_modules
from .arguments import common_device
from .arguments import tensors_of
from .autotuner.api import TUNED_NOW
from .autotuner.api import autotune
from .autotuner.api import choose
from .autotuner.bound import BoundTarget
from .autotuner.bound import config_depends_on
from .backends import registry
from .config import Config
from .families import guard_function
from .families import specialized_texts
from .frontend.source import check_decorators
from .ir.effects import written_storages
from .outcomes import outcomes_of
from .outcomes import trace_call
from .ref_calls import run_bound
from .repro import caller_script
from .repro import describe_argument
from .repro import needed_by
from .repro import repro_script
from .runtime import compile_guard
from .runtime import device as device_seam
from .runtime import events
from .runtime.code_cache import load_module
from .runtime.code_cache import path_for
from .runtime.host_function import clone_host_function
from .runtime.host_function import note_written
from .runtime.host_function import set_launcher
from .runtime.host_function import triton_kernels
from .runtime.launch.bases import Forwarder
from .runtime.launch.configured import Configured
from .runtime.launch.configured import checking_outside
from .runtime.measure import measure
from .runtime.stats import counted
from .settings import RefMode
from .target import CPU
from .target import Target

if TYPE_CHECKING:
    from .backends.base import Backend
    from .backends.base import GeneratedSource
    from .backends.base import Recipe
    from .config_spec import ConfigSpec
    from .families import Family
    from .frontend.host_decisions import Outcomes
    from .ir.device_ir import KernelIR
    from .kernel import Kernel
    from .settings import Settings


@dataclasses.dataclass(frozen=True)
class BoundEnvironment:
    """What a specialization was bound with: the schedules it can have, its kernel's settings, the device."""

    config_spec: ConfigSpec
    settings: Settings
    device: torch.device
    kernel: Kernel


class BoundKernel(Forwarder):
    """One specialization of a kernel: dtypes, shapes, strides and device fixed.

    Args:
        kernel: the kernel.
        args: arguments of the first call, by position.
        key: their specialization key.

    Attributes:
        config_spec: the schedules it can have.
        ir: the traced kernel.
    """

    config_depends_on = config_depends_on

    def __init__(self, kernel: Kernel, args: tuple[Any, ...], key: Hashable) -> None:
        self.kernel = kernel
        self.settings = kernel.settings
        names = list(kernel.specializer.signature.parameters)
        self.device = common_device(kernel, args)
        self._on_gpu = any(device_seam.owns(t) for t in tensors_of(args)) or (
            self.device.type == "cuda" and not tensors_of(args)
        )
        self._arguments = dict(zip(names, args))
        check_graph_modules(self._arguments)
        self._lock = new_rlock()
        #: Specialization key of its calls.
        self.key = key
        #: The variants that are one BoundKernel with this one, under dynamic shapes.
        self.family: Family | None = None
        #: The sizes that `hl.specialize` made constant, as expressions of the parameters.
        self.specialized: tuple[str, ...] = ()
        #: Whether the kernel's own calls come here.
        self.is_kernels_own = False
        self.forward_to: Callable[..., Any] | None = None
        self._run: Callable[..., Any] | None = None
        self._config: Config | None = None
        #: What must hold of the arguments beyond their key, as expressions of the parameters.
        self.guards: tuple[str, ...] = ()
        #: What host code has decided where only a call can tell.
        self.decisions: tuple[tuple[int, bool], ...] = ()
        #: Where the Config in use comes from, in words; "" before there is one.
        self.config_source = ""
        self._compiled: dict[Config, Callable[..., Any]] = {}
        self._given: set[Config] = set()
        self._configured: dict[Config, Configured] = {}
        self._modules_functions: dict[Config, Callable[..., Any]] = {}
        if self.settings.ref_mode is RefMode.EAGER:
            if self.settings.print_output_code:
                raise exc.RefEagerModeCodePrintError(kernel=kernel.name)
            if os.environ.get("TRITON_INTERPRET", "") == "1":
                raise exc.IncompatibleInterpretModes()
            self._run = counted(self.run_ref, kernel.stats.counter("ref_mode"))
            self._guard: Callable[..., bool] | None = None
            return
        self._example = {name: describe_argument(value) for name, value in self._arguments.items()}
        self._example_needs = [needed for value in self._arguments.values() for needed in needed_by(value)]
        check_decorators(kernel.fn)
        try:
            with measure("BoundKernel.trace"), events.timed("trace", kernel.stats.name):
                self.ir: KernelIR = trace_call(kernel, args)
            self._backend = registry.make(self.settings.backend, self.ir, self.settings, self._target())
        except exc.BaseError:
            self._log_repro(kernel.configs[0] if kernel.configs else Config())
            raise
        #: Whose host functions calls run; they read what the other prints.
        self._runs = registry.runner(self._backend)
        #: Calls run host code and launch nothing: it returned before the first device loop, or none has an effect.
        self._host_only = not self.ir.device.roots
        guards = [*self.ir.guards, *self._runs.guards()]
        self._guard, self.guards = guard_function(self.ir, guards, names)
        self.decisions = self.ir.host.decisions
        self.specialized = specialized_texts(self.ir)
        self._arguments = {}  # the example call's tensors are not kept alive

    def __repr__(self) -> str:
        return f"<helion.BoundKernel {self.kernel.name} on {self.device}>"

    def __getattr__(self, name: str) -> Any:
        """Only asked for what is not there: in ref mode nothing is traced."""
        if name in ("ir", "_backend", "_runs", "_host_only") and self.settings.ref_mode is RefMode.EAGER:
            raise exc.InvalidAPIUsage(
                f"kernel {self.kernel.name!r} is in ref mode, in which no code is generated",
                fix="unset HELION_INTERPRET, and leave out `ref_mode`.",
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    @property
    def config(self) -> Config | None:
        """The Config in use; None before the first call chooses one."""
        return self._config

    @property
    def running_backend(self) -> str:
        """The name of the backend whose host functions calls run; "" in ref mode."""
        return "" if self.settings.ref_mode is RefMode.EAGER else self._runs.name

    @property
    def target(self) -> Target:
        """What the code of calls is for."""
        return self._target()

    def _target(self) -> Target:
        return device_seam.target_of(self.device if self.device.type == "cuda" else None) if self._on_gpu else CPU

    def backend(self, target: Target | None = None) -> Backend:
        """The code generator of this specialization.

        Args:
            target: what its code shall be for; None for the device of the arguments.
        """
        if target is None or target == self._backend.target:
            return self._backend
        return registry.make(self.settings.backend, self.ir, self.settings, target)

    @property
    def on_gpu(self) -> bool:
        """Whether calls are launches (of a real or the software GPU), and not the tile executor's."""
        return self._on_gpu

    @property
    def assumed_apart(self) -> frozenset[tuple[int, int]]:
        """Positions of arguments that must not overlap, in pairs; those that do are another specialization."""
        return frozenset() if self.settings.ref_mode is RefMode.EAGER else self.ir.assumed_apart

    @property
    def config_spec(self) -> ConfigSpec:
        """The schedules this specialization can have."""
        return self._backend.spec

    def accepts(self, args: tuple[Any, ...]) -> bool:
        """Whether this trace is for a call with the same base key: its guards hold, and host code decides alike."""
        return self.holds(args) and (not self.decisions or self.outcomes(args).begin_with(self.decisions))

    def holds(self, args: tuple[Any, ...]) -> bool:
        """Whether the guards of this trace hold for a call with the same base key."""
        return self._guard is None or self._guard(*args)

    def outcomes(self, args: tuple[Any, ...]) -> Outcomes:
        """What host code decides in a call: runs what comes before its device loops."""
        return outcomes_of(self.kernel, args)

    # -- running -----------------------------------------------------------------------------------------------------

    def _call_python(self, *args: Any, **keywords: Any) -> Any:
        """Run with arguments of this specialization; the same as calling the kernel with them.

        A specialization that `Kernel.reset` has forgotten still runs with its own Config; arguments are not checked
        again then.
        """
        # The kernel's call is the fast one: it has plans.
        if self.is_kernels_own:
            return self.kernel(*args, **keywords)
        args = self.kernel.normalize_args(*args, **keywords)
        return self.variant_for(args).runner(args)(*args)

    # With the extension a call goes to `forward_to` in C; this is what inspection and Dynamo see.
    __call__ = _call_python

    def belong(self, own: bool) -> None:
        """Whether the kernel's own calls come here, and so whether calls of this are the kernel's."""
        self.is_kernels_own = own
        self.forward_to = self.kernel if own else None

    @property
    def head(self) -> BoundKernel:
        """What users have for this variant: itself, or the first of its family under dynamic shapes."""
        return self if self.family is None else self.family.members[0]

    def variant_for(self, args: tuple[Any, ...]) -> BoundKernel:
        """The variant for these arguments; trailing ones with defaults may be left out."""
        args = self.kernel.normalize_args(*args)
        if self.is_kernels_own:
            return self.kernel.variant(args)
        members = [self] if self.family is None else self.family.members
        key = self.kernel.specializer.key(args)
        for member in members:
            if member.key == key and member.accepts(args):
                return member
        return self if self.family is None else self._new_member(args)

    def _new_member(self, args: tuple[Any, ...]) -> BoundKernel:
        assert self.family is not None
        made = BoundKernel(self.kernel, args, self.kernel.specializer.key(args))
        made.family = self.family
        self.family.members.append(made)
        return made

    def _share_config(self) -> None:
        """Let the others of the family use the Config that was chosen for this one."""
        if self.family is not None and self._config is not None:
            self.family.use(self._config, self)

    @property
    def unconditional(self) -> bool:
        """Whether every call with its key is accepted."""
        return self._guard is None and not self.decisions

    def runner(self, args: tuple[Any, ...]) -> Callable[..., Any]:
        """The function that a call runs now; chooses a Config if none has been."""
        return self._run or self._first_run(args)

    def traced_host_function(self) -> Callable[..., Any] | None:
        """The generated host function as it was imported, for torch.compile and the like; None in ref mode.  Tunes
        nothing: without a Config so far it is that of the given or the default one."""
        if self.settings.ref_mode is RefMode.EAGER:
            return None
        config = self._normalize(None)
        self.host_function(config)
        return self._modules_functions[config]

    def _first_run(self, args: tuple[Any, ...]) -> Callable[..., Any]:
        with self._lock:
            if self._run is None:
                self._run_under(self._choose_config(args))
            assert self._run is not None
            return self._run

    def _choose_config(self, args: tuple[Any, ...]) -> Config:
        """The Config of a kernel's first call: the given one, the best of several, or what the settings say."""
        if self._host_only:
            self.config_source = (
                "none is needed: host code returns before the first device loop, or no loop has anything to store"
            )
            return self._normalize(None)
        if self.family is not None and self.family.config is not None:
            try:
                config = self._normalize(self.family.config)
                self.config_source = self.head.config_source
                return config
            except exc.InvalidConfig:
                pass  # one for other sizes, which this variant cannot have
        started = time.time_ns()
        found, self.config_source = choose(BoundTarget(self), args, self.kernel.configs)
        if self.config_source == TUNED_NOW:
            events.emit("tune", self.kernel.stats.name, started, config=found)
            if self.family is not None and found is not None:
                self.family.config = found
        if found is None:
            self._hint_default()
            found = self.config_spec.default_config()
        return found

    def _hint_default(self) -> None:
        if self.kernel.name not in _HINTED:
            _HINTED.add(self.kernel.name)
            exc.warn(exc.NoConfigGiven(kernel=self.kernel.name), self.settings.ignore_warnings, stacklevel=5)

    def set_config(self, config: Config | Mapping[str, Any]) -> None:
        """Use a Config from the next call on; a call that is running keeps the old one to its end."""
        if self.settings.ref_mode is RefMode.EAGER:
            self._config = Config(**config)
            return
        self.use_config(self._give(config))
        self.config_source = "set_config()"
        self._share_config()

    def use_config(self, config: Config | Mapping[str, Any]) -> None:
        """Use a Config, in this variant alone."""
        self._run_under(config)
        self.kernel._invalidate()  # plans of another Config, also those that a bundle brought before any first call

    def _run_under(self, config: Config | Mapping[str, Any]) -> None:
        config = self._normalize(config)
        run = self.host_function(config)
        if not self._on_gpu or self._host_only:  # others are counted by their launchers
            run = counted(run, self.kernel.stats.counter(self._runs.layer))
        with self._lock:
            self._config = config
            self._run = run

    def compile_config(self, config: Config | Mapping[str, Any] | None = None) -> Callable[..., Any]:
        """A function that runs this BoundKernel under a Config; compiled when it is first called.

        It is called like the kernel and as fast, with arguments of this specialization; others are an error. Under
        dynamic shapes each call finds its variant.

        Args:
            config: any subset of the keys of `config_spec`; None for the one in use, or the default.

        Raises:
            exc.InvalidConfig: it does not fit.
        """
        if self.settings.ref_mode is RefMode.EAGER:
            return functools.partial(self._run_ref, None if config is None else Config(**config))
        own = self._configured_variant(config)
        if self.family is None and not self.decisions:
            return own

        def run(*args: Any, **keywords: Any) -> Any:
            member = self.variant_for(self.kernel.normalize_args(*args, **keywords))
            return (own if member is self else member._configured_variant(config))(*args, **keywords)

        return run

    def _configured_variant(self, config: Config | Mapping[str, Any] | None) -> Callable[..., Any]:
        """As `compile_config`, for the sizes and strides of this variant alone."""
        config = self._normalize(config) if config is None else self._give(config)
        host = self.host_function(config)
        if not self._on_gpu or self._host_only or not isinstance(host, types.FunctionType):
            return checking_outside(self.kernel, host)
        with self._lock:
            if config not in self._configured:
                kernel = self.kernel
                self._configured[config] = Configured(
                    host, self._modules_functions[config], self.key, self._guard, kernel.specializer, kernel.stats
                )
            return self._configured[config]

    def host_function(self, config: Config | Mapping[str, Any] | None = None) -> Callable[..., Any]:
        """The generated host function for a Config, with a launcher of its own; its arguments are not checked."""
        config = self._normalize(config)
        with self._lock:
            found = self._compiled.get(config)
            if found is None:
                compile_guard.check(self.kernel.name, "generate code for a config", config)
                found = self._compiled[config] = self._make_host_function(config)
            return found

    def _give(self, config: Config | Mapping[str, Any]) -> Config:
        """Note that somebody chose it, though it may be the one that a kernel without any has."""
        config = self._normalize(config)
        with self._lock:
            if config not in self._given and config == self.config_spec.default_config():
                self._compiled.pop(config, None)
            self._given.add(config)
        return config

    def _normalize(self, config: Config | Mapping[str, Any] | None) -> Config:
        if config is None and self._config is not None:
            return self._config
        return self._complete(config, self.config_spec)

    def _complete(self, config: Config | Mapping[str, Any] | None, spec: ConfigSpec) -> Config:
        """A Config with every key; None is the kernel's own, or the one computed for a kernel without."""
        if config is None:
            if not self.kernel.configs:
                return spec.default_config()
            config = self.kernel.configs[0]
        return spec.normalize(config if isinstance(config, Config) else Config(**config))

    def _make_host_function(self, config: Config) -> Callable[..., Any]:
        """The host function that calls run, a copy of this BoundKernel's own with a launcher of its own."""
        self._log_repro(config)
        if self.settings.print_output_code:
            print(self._generate(config).text, file=sys.stderr)
        # A schedule that nobody chose is one for the targets of `_backend`; whoever runs instead has a better default.
        chosen = self.kernel.configs or config in self._given or config != self.config_spec.default_config()
        source = self._generate(config if chosen or self._runs is self._backend else Config(), self._runs)
        try:
            module = load_module(source.text, source.function, source.injected or None)
        except SyntaxError as error:
            raise exc.InternalError(reason=f"generated source does not parse: {error}") from error
        function: types.FunctionType = getattr(module, source.function)
        self._modules_functions[config] = function
        note_written(function, self._written_texts())
        host = clone_host_function(function)
        index = self.device.index if self.device.type == "cuda" else None
        launcher = self._runs.launcher(host, self.kernel.name, index, self.kernel.stats)
        if launcher is not None:
            set_launcher(host, launcher)
        return host

    def _written_texts(self) -> frozenset[str]:
        """Host expressions of the tensors that launches write, and of those that share memory with one."""
        storages = written_storages(self.ir.device)
        return frozenset(
            ast.unparse(parse_expression(tensor.text))
            for tensor in self.ir.device.host_tensors.values()
            if _compat_torch.storage_identity(tensor.fake) in storages
        )

    # -- source --------------------------------------------------------------------------------------------------------

    def _generate(self, config: Config, backend: Backend | None = None) -> GeneratedSource:
        with measure("BoundKernel.generate"), events.timed("generate", self.kernel.stats.name, config=config):
            return (backend or self._backend).generate(config)

    def _log_repro(self, config: Config) -> None:
        """With the setting `print_repro`: what is about to be compiled, or could not be, as a script."""
        if self.settings.print_repro:
            script = repro_script(self.kernel.fn, self._example, config, self.settings, self._example_needs)
            _LOG.warning("%s", script)

    def generated_source(
        self, config: Config | Mapping[str, Any] | None = None, target: Target | None = None
    ) -> GeneratedSource:
        """The module the backend prints for a Config, with what it needs to run.

        Args:
            config: None for the one in use, or the default.
            target: a GPU that need not be there; None for the one at hand. A Config that is valid on one GPU may not be
                on another.
        """
        backend = self.backend(target)
        if backend is self._backend:
            return self._generate(self._normalize(config))
        return backend.generate(self._complete(config, backend.spec))

    def recipe(self, config: Config) -> Recipe | None:
        """A candidate that a worker of the tuner builds from the generated source alone; None if that does not do."""
        return self._runs.recipe(self._generate(self._normalize(config), self._runs), self.kernel.name)

    def to_code(
        self,
        config: Config | Mapping[str, Any] | None = None,
        *,
        emit_repro_caller: bool = False,
        output_origin_lines: bool | None = None,
    ) -> str:
        """The backend's source for a Config.

        Args:
            config: None for the one in use, or the default.
            emit_repro_caller: make it a script that calls the host function with arguments like those of the first
                call.
            output_origin_lines: whether comments name the kernel function's lines; None for the setting.
        """
        backend = self._backend
        if output_origin_lines is not None and output_origin_lines != self.settings.output_origin_lines:
            settings = copy.copy(self.settings)
            settings.output_origin_lines = output_origin_lines
            backend = registry.make(self.settings.backend, self.ir, settings, self._target())
        source = self._generate(self._normalize(config), backend)
        if not emit_repro_caller:
            return source.text
        return caller_script(source.text, source.function, self._example, self._example_needs)

    def to_triton_code(self, config: Config | Mapping[str, Any] | None = None, **options: Any) -> str:
        """The Triton source for a Config; keywords as for `to_code`.

        Raises:
            exc.InvalidAPIUsage: the kernel uses another backend.
        """
        if self._backend.language != "Triton":
            raise exc.InvalidAPIUsage(
                f"kernel {self.kernel.name!r} uses the {self._backend.name} backend", fix="use to_code()."
            )
        return self.to_code(config, **options)

    def format_kernel_decorator(self, config: Config, settings: Settings | None = None) -> str:
        """The decorator that gives a kernel a Config and the settings that are not default ones."""
        return f"@helion.kernel({', '.join([f'config={config!r}', *(settings or self.settings).keywords()])})"

    def backend_cache_key(self, config: Config | Mapping[str, Any] | None = None) -> str | None:
        """The name under which Triton's cache holds the binary of a Config.

        Returns:
            The folder's name in TRITON_CACHE_DIR; None before a call has compiled the Config, or where nothing is
            compiled.
        """
        function = self._modules_functions.get(self._normalize(config))
        if function is None or not self._on_gpu:
            return None
        keys = [_compat_triton.cache_keys(kernel) for kernel in triton_kernels(function)]
        return next((key for found in keys for key in found), None)

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a BoundKernel of {self.kernel.name!r} cannot be pickled: pickle the kernel, and bind the arguments there "
            "(`kernel.bind(args)`)"
        )

    @property
    def env(self) -> BoundEnvironment:
        """What the specialization was bound with."""
        return BoundEnvironment(self.config_spec, self.settings, self.device, self.kernel)

    def get_cached_path(self, config: Config | Mapping[str, Any] | None = None) -> str:
        """Path of the file that holds the source of a Config once it has been compiled."""
        source = self.generated_source(config)
        return str(path_for(source.text, source.function))

    def run_ref(self, *args: Any, **keywords: Any) -> Any:
        """Run the user's own function on eager tiles (ref mode), whatever the settings say."""
        return self._run_ref(None, *args, **keywords)

    def _run_ref(self, config: Config | None, /, *args: Any, **keywords: Any) -> Any:
        return run_bound(self, config, self.kernel.signature.bind(*args, **keywords).args if keywords else args)

    # -- tuning --------------------------------------------------------------------------------------------------------

    def autotune(self, args: Sequence[Any], *, force: bool = True, **options: Any) -> Config:
        """Find the fastest Config for these arguments and use it from now on; see `Kernel.autotune`."""
        if self._host_only:
            return self._normalize(None)  # no Config changes what its calls do
        given = self.kernel.normalize_args(*args)
        member = self.variant_for(given)
        if member is not self:
            return member.autotune(args, force=force, **options)
        with events.timed("tune", self.kernel.stats.name):
            config = autotune(BoundTarget(self), given, force=force, **options)
        self.use_config(config)
        self.config_source = "autotune()"
        self._share_config()
        return config


_HINTED: set[str] = set()
_LOG = logging.getLogger("helion")
