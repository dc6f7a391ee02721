"""From a call's arguments to the function that runs it, in Python.

``PythonPath`` is the complete path, which the C dispatcher falls back to; ``PythonDispatcher`` makes it the call itself
where ``helion._C`` is not used. Three lookups, each tried only if the one before did not answer:

1. the *front*, a few pairs of (check, function): one C call compares all tensors of the call with those of an earlier
    one;
2. the table: specialization key -> function;
3. ``_runner``, which the Kernel implements: bind, compile or tune, and return the function for these arguments.

A function found here is run as ``function(*args)``: usually a host function with its launcher installed.

Not here: what is in a key (``specialization.py``), how a launch is made (``launcher.py``).
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import operator
import sys
import types
import weakref
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Sequence
from typing import Any

import torch
from torch.compiler import is_dynamo_compiling
from torch.nn import Parameter

from ... import _compat_torch
from ... import exc
from ..._locks import new_lock
from ..._locks import new_rlock
from .. import measure
from ..stats import KernelStats
from . import tracing
from .outside import holds_tensors
from .overlaps import apart_text
from .specialization import Specializer
from .tensor_kinds import refuse_unreadable

__all__ = ["PythonDispatcher", "PythonPath"]

Runner = Callable[..., Any]

#: Pairs in the front: each costs a call that does not find its own first about 0.1 us.
_FRONT_SIZE = 8
#: Once the front is full, one in so many calls found in the table is moved there: with more shapes than pairs, moving
#: each would cost more than it saves.
_PROMOTE_EVERY = 16
#: Checks made for one key: thread state (inference mode, autocast) is part of a check and not of the key.
_CHECKS_PER_KEY = 4


class OutsideChanged(Exception):
    """The kernel function reads other tensors from outside itself than when the arguments were put together."""


class _Entry:
    """What one key leads to.

    Attributes:
        run: the function that runs calls with this key.
        generation: the dispatcher's when it was made.
        checks: checks made so far for this key.
    """

    __slots__ = ("checks", "generation", "run")

    def __init__(self, run: Runner, generation: int) -> None:
        self.run = run
        self.generation = generation
        self.checks: list[Callable[..., bool]] = []


def _no_function() -> None:
    """What a dispatcher that is not a Kernel is the path of."""


#: Live dispatchers by a string: a constant, which functions that Dynamo runs while it traces can be given (`dynamo`).
by_token: weakref.WeakValueDictionary[str, PythonPath] = weakref.WeakValueDictionary()
_numbers = itertools.count()


class PythonPath:
    """Finds the function for a call, and runs it. A subclass implements ``_runner`` and ``_traced_host_function``.

    Args:
        specializer: makes the keys.
        stats: where calls are counted.
        max_entries: most keys in the table; the oldest go first.
        function: the kernel function. A program may assign other code and defaults to it, as those that reload modules
            do: calls are those of its code at the time.
    """

    def __init__(
        self,
        specializer: Specializer,
        stats: KernelStats,
        *,
        max_entries: int = 1024,
        function: types.FunctionType = _no_function,  # type: ignore[assignment]
    ) -> None:
        self.stats = stats
        self.token = f"kernel {next(_numbers)}"
        by_token[self.token] = self
        #: Held while that changes which calls are read by, so that what is seen of it is what C goes by.
        self._configuring = new_rlock()
        self._function = function
        #: Its code and defaults that calls are read by.
        self._function_now = (function.__code__, function.__defaults__)
        #: The code of which it is known what it reads from outside itself; None if of none.
        self._code: types.CodeType | None = None
        self._read_parameters(specializer)
        self._max_entries = max_entries
        self._table: dict[Hashable, _Entry] = {}
        self._front: tuple[tuple[Callable[..., bool], Runner], ...] = ()
        self._dispatch_lock = new_lock()
        #: Counts invalidations, so that a function found before one is not put into the table after it.
        self._generation = 0
        self._warned_requires_grad = False
        self._until_promotion = 0

    def _read_parameters(self, specializer: Specializer) -> None:
        """Take calls as a specializer of the kernel function, says."""
        self.specializer = specializer
        self._arity = len(specializer.given.parameters)
        #: The arguments that a caller gives by position, defaults filled in; TypeError if they do not fit.
        self._given_args = _argument_binder(specializer.given, specializer.kernel_name)

    def _call_python(self, *args: Any, **kwargs: Any) -> Any:
        """Run the kernel; for calls from Python and whatever ``helion._C`` does not do itself."""
        if is_dynamo_compiling():
            from . import dynamo  # loads torch._dynamo, which is here now

            return dynamo.call_in_dynamo(self, args, kwargs)
        if measure.enabled:
            return self._call_measured(args, kwargs)
        if self._function.__code__ is not self._code:
            self._look()
        if kwargs or len(args) != self._arity:
            args = self._bind_given(args, kwargs)
        if self.specializer.filled:
            args = self._fill(args)
        run = None
        try:
            for check, found in self._front:
                if check(*args):
                    run = found
                    break
        except (TypeError, AttributeError):
            pass  # None where a tensor was, or the like: the key knows
        if run is None:
            try:
                run = self._find(args)
            except OutsideChanged:
                return self._call_python(*args[: self._arity])
        return run(*args)

    def normalize_args(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The arguments of a call by position, defaults and what comes from outside filled in; as they are if they are
        all there.

        Raises:
            TypeError: they do not fit.
        """
        if self._function.__code__ is not self._code:
            self._look()
        filled = self.specializer.filled
        if filled and not kwargs and len(args) == self._arity + len(filled):
            return args
        args = self._bind_given(args, kwargs)
        return self._fill(args) if filled else args

    def _bind_given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The arguments that a caller gives, by position, defaults filled in."""
        if self._function.__defaults__ is not self._function_now[1]:
            self._look()
        return self._given_args(*args, **kwargs)

    def _look(self) -> None:
        """Find out what calls are, the first time or where the kernel function has other code or defaults since."""
        code, defaults = self._function_now  # by identity, as C asks: equal ones of a reloaded module are others
        if self._function.__code__ is not code or self._function.__defaults__ is not defaults:
            self._change_function()
        self._look_outside()

    def _change_function(self) -> None:
        """The kernel function has other code or other defaults: forget what was compiled, and read it anew."""

    def _fill(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """A call's arguments with the tensors that the kernel function reads from outside itself."""
        values = [place.read() for place in self.specializer.filled]
        if all(map(holds_tensors, values)):
            return (*args, *values)
        self._look_outside()
        return (*args, *[place.read() for place in self.specializer.filled])

    def _look_outside(self) -> bool:
        """Find out what the kernel function reads from outside itself; whether calls are others than before."""
        self._code = self._function_now[0]
        return False

    def _call_measured(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call under HELION_MEASURE_COMPILE_TIME, which counts every bind, hits included."""
        args = self.normalize_args(*args, **kwargs)
        with measure.measure("Kernel.bind"):
            run = self._find(args)
        return run(*args)

    def _find(self, args: tuple[Any, ...]) -> Runner:
        """The function for a call that the front did not answer."""
        watched = (
            _compat_torch.innermost_transform() is not None
            or _compat_torch.dispatch_mode_depth() > 0
            or tracing.holds_fake_tensors(args)
            or _compat_torch.is_jit_tracing()
        )
        if watched:
            traced = tracing.runner_under_modes(self, args)
            if traced is not None:
                return traced
        asked = self.specializer.assumed_apart
        key = self.specializer.key(args)
        entry = self._table.get(key)
        if entry is None or self.specializer.assumed_apart is not asked:
            # Compiling is none of the business of a mode that watches the call.
            with _compat_torch.without_dispatch_modes() if watched else contextlib.nullcontext():
                entry = self._miss(key, args)
        if not watched:
            # A pair made under one mode would answer under any other.
            self._until_promotion -= 1
            if self._until_promotion < 0 or len(self._front) < _FRONT_SIZE:
                self._until_promotion = _PROMOTE_EVERY
                self._remember(entry, args)
        return entry.run

    def _miss(self, key: Hashable, args: tuple[Any, ...]) -> _Entry:
        for tensor in tracing.tensors_in(args):
            refuse_unreadable(self.specializer.kernel_name, tensor)
        generation = self._generation
        entry = _Entry(self._runner(args), generation)
        # Compiling may have found that arguments which overlap need code of their own: the key says so from then on.
        key = self.specializer.key(args)
        with self._dispatch_lock:
            if generation == self._generation:
                while len(self._table) >= self._max_entries:
                    # The oldest; a BoundKernel outlives its entry, so this costs a lookup and not a compile.
                    self._table.pop(next(iter(self._table)), None)
                self._table[key] = entry
        return entry

    def _remember(self, entry: _Entry, args: tuple[Any, ...]) -> None:
        """Put a pair for calls like this one at the head of the front."""
        if entry.generation != self._generation:
            return  # a plan of a bundle or of the cache, which C finds by itself
        for check in entry.checks:
            if check(*args):
                break
        else:
            if len(entry.checks) >= _CHECKS_PER_KEY:
                return
            new = self._make_check(args)
            if new is None or not new(*args):
                return
            check = new
        with self._dispatch_lock:
            if entry.generation == self._generation:
                if check not in entry.checks:
                    entry.checks.append(check)
                others = [pair for pair in self._front if pair[0] is not check]
                self._front = ((check, entry.run), *others[: _FRONT_SIZE - 1])

    def _make_check(self, args: tuple[Any, ...]) -> Callable[..., bool] | None:
        """True only for arguments with the key of ``args``; None if no such check is faster than the key."""
        positions = [i for i, arg in enumerate(args) if type(arg) is torch.Tensor or type(arg) is Parameter]
        tensors = [args[i] for i in positions]
        if not self._warned_requires_grad and any(tensor.requires_grad for tensor in tensors):
            return None  # it would skip the warning that is due once grad mode is on
        if any(hasattr(tensor, "_dynamo_static_indices") for tensor in tensors):
            return None  # in the key, but nothing that a check compares
        specializer = self.specializer
        # Under static shapes every size is fixed anyway, marked or not.
        marks_count = not specializer.settings.static_shapes
        # Among tensors that are apart now, two numbers each tell whether others of the same shapes are.
        addresses = apart_text(args, {i: f"t{n}" for n, i in enumerate(positions)}, specializer.assumed_apart)
        apart = specializer.assumed_apart if addresses is None else frozenset()
        compare = _compat_torch.tensor_check(tensors, addresses or "True")
        if compare is None:
            return None
        plain = len(tensors) == len(args) and specializer.key_fn is None and not specializer.watched
        if plain and not marks_count and not apart:
            return compare
        pick = operator.itemgetter(*positions) if len(positions) > 1 else lambda args: (args[positions[0]],)
        others = tuple([(i, specializer.element(i, arg)) for i, arg in enumerate(args) if i not in positions])
        user_key = specializer.user_key(args)
        overlapping = specializer.overlaps(args)
        outside = specializer.outside()
        count = len(args)

        def check(*args: Any) -> bool:
            if len(args) != count:
                return False
            picked = pick(args)
            if not compare(*picked):
                return False
            if marks_count and any(hasattr(tensor, "_dynamo_static_indices") for tensor in picked):
                return False
            for i, element in others:
                if specializer.element(i, args[i]) != element:
                    return False
            if apart and specializer.overlaps(args) != overlapping:
                return False
            if outside and specializer.outside() != outside:
                return False
            return user_key is None or specializer.user_key(args) == user_key

        return check

    def _invalidate(self) -> None:
        """Forget every function found so far: the next call of each kind asks ``_runner`` again.

        Calls that are under way finish with the function they have.
        """
        with self._dispatch_lock:
            self._generation += 1
            self._front = ()
            self._table = {}

    def _count_outside(self) -> None:
        """Calls are read in another way from now on: what the kernel function reads from outside itself has changed."""
        self._invalidate()

    def _is_bound(self, args: tuple[Any, ...]) -> bool:
        """Whether a specialization for these arguments exists already in this process."""
        return False

    def has_plan(self, args: tuple[Any, ...]) -> bool:
        """Whether a call with these arguments (by position, defaults filled in) runs as a plan in C."""
        return False

    def find_bound(self, args: Sequence[Any]) -> Any:
        """The BoundKernel of a call that runs as a plan in C, found as the plan is; None for others."""
        return None

    def _bound_of(self, args: Sequence[Any]) -> Any:
        """What `find_bound` is to give for calls like this one."""
        return None

    def _assume_apart(self, pairs: frozenset[tuple[int, int]]) -> None:
        """Code that is about to be found takes these arguments to be apart: from now on every call is asked."""
        specializer = self.specializer
        if not pairs <= specializer.assumed_apart:
            specializer.assumed_apart = specializer.assumed_apart | pairs

    def _on_requires_grad(self) -> None:
        """An argument requires grad, and grad mode is on: the result will have no gradient."""
        if not self._warned_requires_grad:
            self._warned_requires_grad = True
            warning = exc.RequiresGradWarning(kernel=self.specializer.kernel_name)
            exc.warn(warning, self.specializer.settings.ignore_warnings, stacklevel=_level_of_user_code())

    # -- what a Kernel implements
    # ---------------------------------------------------------------------------------------

    def _runner(self, args: Sequence[Any]) -> Runner:
        """The function that runs calls with the key of these arguments, found or made.

        It is kept and called as ``function(*args)`` for every call with that key until ``_invalidate``. Where more than
        the key decides (guards on values), it is a function that decides.
        """
        raise NotImplementedError

    def _traced_host_function(self, args: Sequence[Any]) -> Runner | None:
        """The generated host function for these arguments as it was imported; None if there is none. Must not run or
        tune anything: tensors may be fake."""
        raise NotImplementedError

    def _guard_text(self, args: Sequence[Any]) -> str | None:
        """What else than the key of these arguments makes their host function right, as an expression of the
        parameters."""
        return None

    def _host_asks_config(self, args: Sequence[Any]) -> bool:
        """Whether the host function for these arguments computes with numbers of a Config that is not chosen yet."""
        return False


def _level_of_user_code() -> int:
    """``stacklevel`` for a warning that is to point at the call of the kernel: the first frame that is not helion's."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "helion":
        level, frame = level + 1, frame.f_back
    return level


def _argument_binder(signature: inspect.Signature, name: str) -> Callable[..., tuple[Any, ...]]:
    """A function with the parameters of ``signature`` that returns its arguments as a tuple.

    The interpreter then does what ``Signature.bind`` does in Python, at a tenth of the time and with its own messages.
    """
    parameters, defaults = [], {}
    for parameter in signature.parameters.values():
        if parameter.default is parameter.empty:
            parameters.append(parameter.name)
        else:
            parameters.append(f"{parameter.name}=_default_{parameter.name}")
            defaults[f"_default_{parameter.name}"] = parameter.default
    names = "".join(f"{parameter}, " for parameter in signature.parameters)
    count = sum(parameter.kind is parameter.POSITIONAL_ONLY for parameter in signature.parameters.values())
    if count:
        parameters.insert(count, "/")
    binder: Callable[..., tuple[Any, ...]] = eval(f"lambda {', '.join(parameters)}: ({names})", defaults)
    binder.__name__ = binder.__qualname__ = name
    return binder


class PythonDispatcher(PythonPath):
    """The base of ``Kernel`` where the extension is not used."""

    __call__ = PythonPath._call_python
