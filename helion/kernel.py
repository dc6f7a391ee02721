"""`Kernel`, what the decorator `helion.kernel` makes of a function: it finds or makes the `BoundKernel` of a call."""

from __future__ import annotations

import functools
import logging
import sys
import types
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from . import autotuner
from . import exc
from ._annotations import annotations_of
from ._annotations import signature_of
from ._locks import cached_property
from ._locks import new_rlock
from .config import Config
from .families import Families
from .frontend.source import definition
from .frontend.source import remember_file
from .frontend.source import source_of
from .runtime import compile_guard
from .runtime.launch.bases import Dispatcher
from .runtime.launch.dispatch import OutsideChanged
from .runtime.launch.outside import are_same
from .runtime.launch.outside import restored
from .runtime.launch.sizes import SizeCounter
from .runtime.launch.specialization import Specializer
from .runtime.reads import OtherDecision
from .runtime.stats import KernelStats
from .settings import RefMode
from .settings import Settings

log = logging.getLogger(__name__)

#: In how many ways the host code of one specialization may decide: each is traced, and calls look through them.
_MOST_DECISIONS = 128

if TYPE_CHECKING:
    from .autotuner.aot.options import AOTOptions
    from .bound_kernel import BoundKernel


class Kernel(Dispatcher):
    """A kernel function with its settings and configs; call it like the function.

    Args:
        fn: the kernel function.
        configs: schedules to use: one is used as it is, several are tried at the first call of a specialization.
        settings: see `helion.Settings`.
        key: function of the arguments whose (hashable) result tells specializations apart.

    Attributes:
        name: the function's name.
        fn: the Python function.
        signature: its signature.
        settings: its settings.
        configs: its configs.
        aot: what `helion.aot_kernel` was told.
        warned: kinds of operations in host code that it has warned of.
        normalize_args: function of a call's arguments that returns them by position, keywords placed and defaults
            filled in; raises TypeError where they do not fit.
    """

    def __init__(
        self,
        fn: types.FunctionType,
        *,
        configs: Sequence[Config] = (),
        settings: Settings | None = None,
        key: Callable[..., Hashable] | None = None,
    ) -> None:
        self.name = fn.__name__
        self._fn = fn
        self.settings = settings or Settings()
        self.configs = list(configs)
        self.aot: AOTOptions | None = None
        self.warned: set[type[exc.BaseWarning]] = set()
        stats = KernelStats(f"{fn.__module__}.{fn.__qualname__}")
        specializer = self._specializer(key)
        super().__init__(specializer, stats, max_entries=self.settings.max_specializations, function=fn)
        self._bound: dict[Hashable, list[BoundKernel]] = {}
        self._sizes = SizeCounter(tuple(self.signature.parameters))
        #: Somebody wants it traced and compiled again, so that no bundle is asked any more.
        self._was_reset = False
        self._families = Families(self)
        self._lock = new_rlock()
        functools.update_wrapper(self, fn)
        self.__globals__ = fn.__globals__  # annotations of a kernel are resolved there: torch.library.custom_op

    @property
    def fn(self) -> Any:  # a FunctionType, which mypy takes for a method here
        """The kernel function. It cannot be replaced: its signature, plans and caches are this kernel's."""
        return self._fn

    @fn.setter
    def fn(self, fn: object) -> None:
        raise exc.InvalidAPIUsage(
            f"the function of kernel {self.name!r} cannot be replaced",
            fix="make another kernel of it, `helion.kernel(function, config=...)`; assigning `kernel.fn.__code__` and "
            "`kernel.fn.__defaults__` is possible, as programs that reload modules do.",
        )

    def _specializer(self, key: Callable[..., Hashable] | None) -> Specializer:
        """Of the function as it is now, whose signature this reads."""
        remember_file(self.fn)
        self.signature = signature_of(self.fn)
        for parameter in self.signature.parameters.values():
            if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                kind = {"VAR_POSITIONAL": "*args", "VAR_KEYWORD": "**kwargs"}.get(parameter.kind.name, "keyword-only")
                raise exc.UnsupportedKernelSignature(
                    kernel=self.name, parameter=parameter.name, kind=kind, location=definition(self.fn)
                )
        return Specializer(
            self.signature,
            annotations_of(self.fn),
            self.settings,
            key,
            kernel_name=self.name,
            on_requires_grad=self._on_requires_grad,
        )

    def _change_function(self) -> None:
        with self._lock:
            now = (self.fn.__code__, self.fn.__defaults__)
            if all(one is other for one, other in zip(self._function_now, now)):
                return  # another thread has
            log.info("%s: the function has other code, or other defaults", self.name)
            with self._configuring:
                self._read_parameters(self._specializer(self.specializer.key_fn))
                self._function_now = now
                self._sizes = SizeCounter(tuple(self.signature.parameters))
                vars(self).pop("traceable", None)
                self.reset()
                self._count_outside()

    def __repr__(self) -> str:
        return f"<helion.Kernel {self.name}>"

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __reduce__(self) -> Any:
        # By its name where it has one, as functions are pickled: the same kernel, with what it has compiled.
        found: Any = sys.modules.get(self.fn.__module__)
        for part in self.fn.__qualname__.split("."):
            found = getattr(found, part, None)
        return self.fn.__qualname__ if found is self else self.by_value()

    def by_value(self, settings: Settings | None = None) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """How pickle rebuilds the kernel where its module cannot be imported: a function and its arguments.

        Args:
            settings: of the kernel that is rebuilt; default: its own.
        """
        return _rebuild, (self.fn, self.configs, settings or self.settings, self.specializer.key_fn, self.aot)

    # -- calling ---------------------------------------------------------------------------------------------------

    def bind(self, args: Sequence[Any]) -> BoundKernel:
        """The specialization for these arguments, traced if it is new.

        Args:
            args: positional arguments; trailing ones with defaults may be left out.

        Raises:
            exc.BaseError: the kernel function or the arguments are not acceptable.
        """
        found: BoundKernel | None = self.find_bound(args)
        return found or self.variant(self.normalize_args(*args)).head

    def variant(self, args: tuple[Any, ...]) -> BoundKernel:
        """What runs calls with these arguments, all of them by position: under dynamic shapes one of several that are
        one BoundKernel to users."""
        try:
            return self._lookup(args)
        except OutsideChanged:
            return self._lookup(self.normalize_args(*args[: self._arity]))

    def _lookup(self, args: tuple[Any, ...]) -> BoundKernel:
        asked = self.specializer.assumed_apart
        bound = self._fitting(self.specializer.key(args), args)
        # Another thread may have bound it after the key was made, and found that the key was to say more.
        if bound is not None and self.specializer.assumed_apart is asked:
            return bound
        return self._bind_new(args)

    def _fitting(self, base: Hashable, args: tuple[Any, ...]) -> BoundKernel | None:
        outcomes = None
        for bound in self._bound.get(base, ()):
            if not bound.holds(args):
                continue
            if bound.decisions:
                outcomes = outcomes or bound.outcomes(args)
                if not outcomes.begin_with(bound.decisions):
                    continue
            return bound
        return None

    def _is_bound(self, args: tuple[Any, ...]) -> bool:
        return self._was_reset or any(bound.holds(args) for bound in self._bound.get(self.specializer.key(args), ()))

    def _runner(self, args: Sequence[Any]) -> Callable[..., Any]:
        if not self._bound:
            autotuner.announce_first_call(self.name, self.settings, self.configs, args)
        bound = self._lookup(tuple(args))
        # With guards, another call with the same key may belong to another BoundKernel.
        return bound.runner(tuple(args)) if bound.unconditional else self._call_guarded

    def _call_guarded(self, *args: Any) -> Any:
        likely = next((b for b in self._bound.get(self.specializer.key(args), ()) if b.holds(args)), None)
        if likely is not None and likely.decisions:
            # The one that ran last; it finds out by itself whether host code decides as it was traced.
            try:
                return likely.runner(args)(*args)
            except OtherDecision:
                pass
        bound = self._lookup(args)
        if not bound.decisions:
            return bound.runner(args)(*args)
        self._prefer(bound)
        try:
            return bound.runner(args)(*args)
        except OtherDecision:
            raise exc.HostTensorRead(
                f"host code of kernel {self.name!r} has decided one way, and then another in the same call: something "
                "changes a tensor meanwhile, or it follows from a number of the Config's or from Python's own state",
                fix="decide outside of the kernel function, and pass what was decided as an argument.",
            ) from None

    def _prefer(self, bound: BoundKernel) -> None:
        """Let calls try this variant first, among those that differ in what host code decides."""
        with self._lock:
            others = self._bound.get(bound.key, [])
            if bound in others and others[0] is not bound:
                self._bound[bound.key] = [bound, *(other for other in others if other is not bound)]

    def _bound_of(self, args: Sequence[Any]) -> BoundKernel:
        return self._lookup(tuple(args)).head

    def _unguarded(self, args: Sequence[Any]) -> Callable[..., Any] | None:
        bound = self._lookup(tuple(args))
        if bound.decisions:
            self.stats.note("no plan: host code decides on what a tensor holds")
            return None
        return bound.runner(tuple(args))

    def _traced_host_function(self, args: Sequence[Any]) -> Callable[..., Any] | None:
        return self.traceable._lookup(tuple(args)).traced_host_function()

    def _guard_text(self, args: Sequence[Any]) -> str | None:
        return " and ".join(f"({text})" for text in self.traceable._lookup(tuple(args)).guards) or None

    def _host_asks_config(self, args: Sequence[Any]) -> bool:
        rewrites = self.traceable._lookup(tuple(args)).ir.host.rewrites.values()
        return any(kind == "number" for kind, _ in rewrites)

    @cached_property
    def traceable(self) -> Kernel:
        """This kernel, or one like it that is compiled where this one runs in ref mode: a graph holds launches."""
        if self.settings.ref_mode is not RefMode.EAGER:
            return self
        settings = Settings(**{**dict(self.settings.items()), "ref_mode": RefMode.OFF})
        made = Kernel(self.fn, configs=self.configs, settings=settings, key=self.specializer.key_fn)
        made._look_outside()
        return made

    def _look_outside(self) -> bool:
        with self._lock:
            self._code = self._function_now[0]
            filled = self.specializer.filled
            if not self.specializer.look_outside(self.fn):
                return False
            # What was bound so far does not know what it depends on.
            self._bound = {}
            self._families.clear()
            self._count_outside()
            return not are_same(filled, self.specializer.filled)

    def _bind_new(self, args: tuple[Any, ...], attempts: int = 3) -> BoundKernel:
        with self._lock:
            if self._look_outside():
                raise OutsideChanged
            base = self.specializer.key(args)
            found = self._fitting(base, args)
            if found is not None:
                return found
            if sum(bool(bound.decisions) for bound in self._bound.get(base, ())) >= _MOST_DECISIONS:
                raise exc.HostTensorRead(
                    f"host code of kernel {self.name!r} has decided in {_MOST_DECISIONS} different ways on what "
                    "tensors hold, for arguments of one kind; each is a kernel of its own, and calls look through them",
                    fix="a `while` that counts makes one for every count: read the number, `n = int(counts[0])`, which "
                    "one kernel serves for all values, and loop in device code, `for i in hl.grid(n)`; or pass as an "
                    "argument what is decided.",
                )
            compile_guard.check(self.name, "compile a specialization", base)
            if self.settings.static_shapes == "auto" and (opened := self._becomes_dynamic(args)):
                return self._bind_dynamic(args, opened)
            from .bound_kernel import BoundKernel  # with the compiler: who only imports kernels need not wait for it

            outside = self.specializer.outside()
            try:
                with restored([*self.specializer.filled, *self.specializer.watched]) as changed:
                    bound = BoundKernel(self, args, base)
            except exc.BaseError as error:
                if log.isEnabledFor(logging.DEBUG):
                    raise
                # The message has the user's line and a caret; the interpreter's own frames would bury it.
                raise error.with_traceback(None) from error.__cause__
            now = self.specializer.outside()
            if changed or now != outside:
                # Another thread may have changed it, but not time and again.
                if not changed and attempts > 1:
                    return self._bind_new(args, attempts - 1)
                changed += [str(one[1]) for one, other in zip(now, outside) if one != other]
                raise exc.HostSideEffect(name=self.name, changed=" and ".join(map(repr, changed)))
            log.info("%s: new specialization %s", self.name, base)
            self._assume_apart(bound.assumed_apart)
            self._bound[base] = [*self._bound.get(base, ()), bound]
            if self.settings.static_shapes is True and bound.on_gpu:
                self._sizes.add(self.name, args, self.settings.ignore_warnings)
            bound.belong(True)
            if not self.settings.static_shapes:
                self._families.join(bound, args)
            # Traced as if all arguments were apart: if these are not, it is for others.
            return bound if self.specializer.key(args) == base else self._bind_new(args)

    def _bind_dynamic(self, args: tuple[Any, ...], opened: Mapping[int, frozenset[int]]) -> BoundKernel:
        """Bind with dimensions that have just become dynamic, or, where that does not compile, with sizes as before: a
        kernel may need a constant one (`torch.sort(x[t, :])`), and has served seven of them.
        """
        try:
            return self._bind_new(args)
        except exc.BaseError as error:
            self.specializer.make_constant(opened)
            self._bound = {}
            self._invalidate()
            bound = self._bind_new(args)  # what is wrong with the kernel itself is raised here
            log.warning("%s: its sizes stay constants, each compiled for: %s", self.name, str(error).partition("\n")[0])
            return bound

    def _becomes_dynamic(self, args: tuple[Any, ...]) -> Mapping[int, frozenset[int]]:
        """Argument -> its dimensions that are dynamic from this call on, as they have their eighth size."""
        chosen = (bound.config_source for bounds in self._bound.values() for bound in bounds)
        if any(source in ("set_config()", "autotune()") for source in chosen):
            # One that somebody gave a Config for its sizes is not to be replaced by one that has none.
            self._sizes.add(self.name, args, self.settings.ignore_warnings)
            return {}
        reached = self._sizes.reached(args)
        if not reached:
            return {}
        log.info("%s: dimensions %s are dynamic from now on", self.name, {i: sorted(d) for i, d in reached.items()})
        self.specializer.make_dynamic(reached)
        # Those of before stay the kernel's own: who has one, and calls it with another size, calls the kernel.
        self._bound = {}
        self._invalidate()
        return reached

    def specialization_key(self, args: Sequence[Any]) -> Hashable:
        """What distinguishes the specialization these arguments use."""
        args = self.normalize_args(*args)
        return self.specializer.key(args) if self.settings.static_shapes else self._families.key(args)

    def reset(self) -> None:
        """Forget every specialization; the next call traces and compiles again.  Calls that are running finish."""
        with self._lock:
            forgotten, self._bound = self._bound, {}
            self._families.clear()
            self._was_reset = True
            for bounds in forgotten.values():
                for bound in bounds:
                    bound.belong(False)
        self._invalidate()

    # -- tuning and reading ------------------------------------------------------------------------------------------

    def autotune(self, args: Sequence[Any], *, force: bool = True, **options: Any) -> Config:
        """Find the fastest Config for these arguments and use it from now on.

        Args:
            args: arguments of a representative call.
            force: search even when the cache has an answer.
            options: settings of the search, as `autotune_*` without the prefix, and `configs`, `evaluations` and
                `isolate`; see `helion.autotuner.api.autotune`.

        Returns:
            The Config found.

        Raises:
            exc.NoConfigFound: every Config failed.
            exc.AutotuningDisallowedInEnvironment: tuning cannot happen here.
        """
        if force:
            autotuner.announce(self.settings, options)
        return self.variant(self.normalize_args(*args)).autotune(args, force=force, **options)

    def autotune_multi(
        self,
        arg_sets: Sequence[Sequence[Any]],
        *,
        aggregation: str = "geomean",
        relative_to: str | None = None,
        cache_tag: str | None = None,
        force: bool = True,
        **options: Any,
    ) -> Config:
        """Find one Config for several calls, and use it for each of them from now on.

        Each call is searched for by itself; the winners are then measured on all of them.

        Args:
            arg_sets: arguments of each call.
            aggregation: what is smallest: the geometric mean of the calls' times ("geomean") or the longest ("max").
            relative_to: times are divided by those of each call's default Config ("default") or of
                `autotune_baseline_fn` ("baseline"); None: they are milliseconds.
            cache_tag: keeps the result in the cache apart from those of other tags.
            force: search even when the cache has an answer.
            options: settings of the search, as for `autotune`.

        Returns:
            The Config found.

        Raises:
            exc.InvalidAPIUsage: a bad option, before anything is bound.
            exc.NoConfigFound: no Config works for all calls.
            exc.AutotuningDisallowedInEnvironment: tuning cannot happen here.
        """
        return autotuner.autotune_multi(
            self,
            arg_sets,
            options,
            force=force,
            aggregation=aggregation,
            relative_to=relative_to,
            cache_tag=cache_tag,
        )

    def kernel_source(self) -> str:
        """The source text of the kernel function, decorators included."""
        return source_of(self.fn).text


def _rebuild(fn: Any, configs: Any, settings: Any, key: Any, aot: Any) -> Kernel:
    made = Kernel(fn, configs=configs, settings=settings, key=key)
    made.aot = aot
    return made


def kernel(
    fn: Callable[..., Any] | None = None,
    *,
    config: Config | Mapping[str, Any] | None = None,
    configs: Sequence[Config | Mapping[str, Any]] | None = None,
    key: Callable[..., Hashable] | None = None,
    settings: Settings | None = None,
    **setting_values: Any,
) -> Any:
    """Make a kernel of a function: `@helion.kernel`, `@helion.kernel()`, or with arguments.

    Args:
        fn: the function, when used without parentheses.
        config: its schedule.
        configs: several schedules to choose from.
        key: function of the arguments; calls with different results get different specializations.
        settings: a `helion.Settings`; or give its settings as keywords.
        **setting_values: settings by name.

    Returns:
        A `Kernel`, or a decorator that makes one.

    Raises:
        exc.InvalidAPIUsage: config together with configs, settings together with keywords, or an unknown setting.
    """
    if config is not None and configs is not None:
        raise exc.InvalidAPIUsage("both config= and configs= were given", fix="give one of them.")
    if settings is not None and setting_values:
        raise exc.InvalidAPIUsage("both settings= and setting keywords were given", fix="give one or the other.")
    given = [config] if config is not None else list(configs or ())
    normalized = [c if isinstance(c, Config) else Config(**c) for c in given]

    def decorate(function: Callable[..., Any]) -> Kernel:
        if not isinstance(function, types.FunctionType):
            raise exc.InvalidAPIUsage(
                f"@helion.kernel needs a Python function, got {type(function).__name__}",
                fix="decorate a plain function.",
            )
        return Kernel(function, configs=normalized, settings=settings or Settings(**setting_values), key=key)

    return decorate if fn is None else decorate(fn)


jit = kernel
