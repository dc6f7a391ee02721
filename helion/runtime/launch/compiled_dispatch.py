"""``CompiledDispatcher``: calls that are known run as a ``LaunchPlan`` in C, all others through ``PythonPath``.

``helion._C.Dispatcher`` decides which: it calls ``_call_python`` for what it does not know, and ``_record_call`` the
second time it meets a signature, so that shapes which never come again cost no recording.

Not here: how a host function becomes a plan (``plan.py``); the table and the guards (``csrc/dispatcher.cpp``).
"""

from __future__ import annotations

import contextlib
import logging
import types
import weakref
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING
from typing import Any

import torch

from ... import _extension
from ..._environment import is_set
from .. import device
from .. import events
from .. import output_pool
from ..stats import KernelStats
from . import bundled
from . import tracing
from .dispatch import OutsideChanged
from .dispatch import PythonPath
from .dispatch import Runner
from .dispatch import _Entry
from .dispatch import _no_function
from .specialization import Specializer
from .tensor_kinds import refuse_unreadable

__all__ = ["CompiledDispatcher"]

log = logging.getLogger(__name__)

output_pool.configure_from_environment()

if TYPE_CHECKING:
    from ..._C import Dispatcher as _Base
else:
    # Without the extension nobody imports this module but tools that import everything.
    _Base = _extension.C.Dispatcher if _extension.C is not None else object


#: As `kMostParameters` in csrc/dispatcher.cpp.
_MOST_PARAMETERS = 64


class CompiledDispatcher(_Base, PythonPath):
    """Base of ``Kernel`` where the extension is used. Same constructor and methods as ``PythonPath``.

    A subclass also implements ``_unguarded``.
    """

    #: Whether other processes may run its plans for the kernel's calls.
    keeps_plans = True

    def __init__(self, specializer: Specializer, stats: KernelStats, **options: Any) -> None:
        PythonPath.__init__(self, specializer, stats, **options)
        self._configure()
        me = weakref.ref(self)
        self._plan_source = stats.add_source("plan", lambda: 0 if (alive := me()) is None else alive.plan_launches)
        if is_set("HELION_SKIP_FAST_LAUNCHER"):
            self.dispatch_enabled = False  # every launch is to be Triton's

    def _read_parameters(self, specializer: Specializer) -> None:
        PythonPath._read_parameters(self, specializer)
        parameters = specializer.given.parameters.values()
        self._defaults = tuple(p.default for p in parameters if p.default is not p.empty)
        #: Per parameter, whether numbers count by value, as C was told. Only ever goes from False to True.
        self._value_keyed = [i in specializer.constexpr for i in range(len(parameters))]
        self._value_keyed += [True] * len(specializer.filled)

    def __del__(self) -> None:
        if (source := getattr(self, "_plan_source", None)) is not None:
            self.stats.retire("plan", source, self.plan_launches)

    def _configure(self, generation: int | None = None, value_keyed: Sequence[bool] | None = None) -> int | None:
        """Tell C how calls are read, which drops all plans; nothing if they are not of ``generation`` any more.

        Args:
            generation: of the plans, or None for whatever plans there are.
            value_keyed: per parameter, whether numbers count by value from now on; None: as before.

        Returns:
            The generation from here on; None if nothing was done.
        """
        with self._configuring:
            keyed = list(self._value_keyed if value_keyed is None else value_keyed)
            configured = self.configure_dispatch(
                tuple(self.specializer.signature.parameters),
                self._defaults,
                tuple(keyed),
                self.specializer.key_fn,
                self._max_entries,
                generation,
                tuple(sorted(self.specializer.assumed_apart)),
                tuple([(place.holder, place.key, False) for place in self.specializer.filled]),
                tuple([(place.holder, place.key, place.called) for place in self.specializer.watched]),
                None if self._function is _no_function else self._function,
            )
            if configured is not None:
                self._value_keyed = keyed
            return configured

    # What inspection and Dynamo see. A call does not get here: the type's call slot stays in C
    # (Dispatcher.__init_subclass__), and comes to _call_python if need be.
    __call__ = PythonPath._call_python

    def has_plan(self, args: tuple[Any, ...]) -> bool:
        return self.find_plan(args) is not None

    def _assume_apart(self, pairs: frozenset[tuple[int, int]]) -> None:
        with self._configuring:
            before = self.specializer.assumed_apart
            PythonPath._assume_apart(self, pairs)
            if self.specializer.assumed_apart is not before:
                self._configure()

    def _count_outside(self) -> None:
        PythonPath._invalidate(self)
        with self._configuring:
            given = self._value_keyed[: self._arity]
            self._configure(value_keyed=[*given, *[True] * len(self.specializer.filled)])

    def _find(self, args: tuple[Any, ...]) -> Runner:
        for recorder in bundled.recorders:
            recorder(self, args)
        return PythonPath._find(self, args)

    def _remember(self, entry: _Entry, args: tuple[Any, ...]) -> None:
        # Numbers that a bundle tells calls apart by are none of the front's business: a recorder is told of each call.
        if not bundled.recorders:
            PythonPath._remember(self, entry, args)

    def _miss(self, key: Hashable, args: tuple[Any, ...]) -> _Entry:
        # With a plan already, C has declined to run it (autocast, another default dtype): that takes a host function.
        if self.dispatch_enabled and self._look_outside():  # a plan of the disk would be for what counted before
            raise OutsideChanged
        on_disk = self.dispatch_enabled and not self.specializer.filled
        if on_disk and not self._is_bound(args) and not self.has_plan(args):
            for tensor in tracing.tensors_in(args):
                refuse_unreadable(self.specializer.kernel_name, tensor)
            if bundled.ask(self, args):
                # The plan is for this signature, and the key is of more: not for the table.
                return _Entry(self._run_plan, -1)
        entry = PythonPath._miss(self, key, args)
        if self.dispatch_enabled and (reason := self._unreadable(args)) is not None:
            self.stats.note(f"no plan: {reason}")
        return entry

    def _unreadable(self, args: tuple[Any, ...]) -> str | None:
        """Why C never asks for a plan for a call; None if it does."""
        if len(args) > _MOST_PARAMETERS:
            return f"it has more than {_MOST_PARAMETERS} parameters"
        if self.leaves_of(args) is not None:
            return None
        for name, arg in zip(self.specializer.signature.parameters, args):
            if not isinstance(arg, torch.Tensor) and self.leaves_of((arg,)) is None:
                return f"argument {name} is a {type(arg).__name__}, or holds what only the Python path takes"
        return None  # a kind of tensor

    def _run_plan(self, *args: Any) -> Any:
        return self(*args)

    def count_by_value(self, positions: Iterable[int], generation: int | None = None) -> int | None:
        """Make numbers at these parameters count by value from now on, which drops all plans if they did not.

        Returns:
            The plan generation from here on; None if it was no longer ``generation``.
        """
        with self._configuring:
            new = {i for i in positions if not self._value_keyed[i]}
            if new:
                # In one step with the check: a Config that another thread sets in between must not be swallowed.
                return self._configure(generation, [keyed or i in new for i, keyed in enumerate(self._value_keyed)])
            now = self.plan_generation
            return now if generation in (None, now) else None

    def _invalidate(self) -> None:
        PythonPath._invalidate(self)
        self.clear_plans()

    def _unguarded(self, args: Sequence[Any]) -> Runner | None:
        """The function that runs this very call where ``_runner`` gives one that decides by guards on values."""
        return None

    def _record_call(self, *args: Any, **kwargs: Any) -> Any:
        """A call whose signature came before, and for which there is no plan yet: run it, and make one if possible."""
        with self._configuring:
            generation = self.plan_generation
        args = self.normalize_args(*args, **kwargs)
        # The Python path finds the function, or makes it, or raises what there is to raise.
        outside = self.specializer.outside()
        run: Runner | None
        try:
            run = self._find(args)
        except OutsideChanged:
            return self._call_python(*args[: self._arity])
        reads_values = False
        if run == self._run_plan:  # from a bundle, installed meanwhile
            return run(*args)
        if not _is_host_function(run):
            run, reads_values = self._unguarded(args), True
            if not _is_host_function(run):
                return self._call_python(*args[: self._arity])  # tile executor, ref mode
        if self.specializer.outside() != outside:
            # Another thread has changed a constant: a plan would be installed for the new one.
            return self._call_python(*args[: self._arity])
        assert isinstance(run, types.FunctionType)
        from . import plan  # loads what analyses host code and binaries, which a process with a bundle never needs

        with _on_device_of(self.leaves_of(args)):
            recording = plan.record(run, args, self.leaves_of)
        if recording.plan is None:
            self.stats.note(f"no plan: {recording.reason}")
            log.debug("%s: calls stay with the host function: %s", self.specializer.kernel_name, recording.reason)
            return recording.result
        by_value = set(range(len(args))) if reads_values else recording.by_value
        if any(not self._value_keyed[i] for i in by_value):
            configured = self.count_by_value(by_value, generation)
            if configured is None:
                return recording.result
            generation = configured
        if self.specializer.outside() != outside:
            return recording.result
        if self.install_plan(args, recording.plan, generation, self._bound_of(args)):
            events.emit("plan", self.stats.name)
            if self.specializer.filled:
                return recording.result
            if bundled.cache is not None and self.keeps_plans and recording.description is not None:
                bundled.cache.keep(self, args, recording.description)
        return recording.result


def _on_device_of(leaves: Sequence[Any] | None) -> AbstractContextManager[object]:
    """Makes the device of a call's tensors the current one, as the launcher does for each launch and a plan for the
    call.
    """
    devices = {device.device_index_of(leaf) for leaf in leaves or () if isinstance(leaf, torch.Tensor)}
    if len(devices) != 1 or devices == {device.current_device()}:
        return contextlib.nullcontext()
    return device.provider.guard(devices.pop())


def _is_host_function(run: Any) -> bool:
    return isinstance(run, types.FunctionType) and "_launcher" in (run.__kwdefaults__ or {})
