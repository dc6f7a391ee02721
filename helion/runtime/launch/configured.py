"""``Configured``: one specialization of a kernel under one Config, as a function.

What ``BoundKernel.compile_config`` gives. Its calls take the path of the kernel's own, with plans of their own.

Not here: making the host function.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Sequence
from typing import Any

from ... import exc
from ..stats import KernelStats
from .bases import Dispatcher
from .specialization import Specializer

__all__ = ["Configured"]


def other_specialization(kernel: str) -> exc.BaseError:
    """What is wrong with a call whose arguments, or whose numbers of the module, the code is not for."""
    return exc.InvalidAPIUsage(
        f"kernel {kernel!r}, compiled under a Config, was called with arguments of "
        "another specialization: other dtypes, shapes, strides, or numbers that were compiled in",
        fix="bind these arguments (`kernel.bind(args).compile_config(config)`), or call the kernel.",
    )


def checking_outside(kernel: Dispatcher, host: Callable[..., Any]) -> Callable[..., Any]:
    """A host function that is no launch, and gets what its kernel function reads from outside itself; an error if the
    constants there have changed."""
    specializer = kernel.specializer
    if not specializer.filled and not specializer.watched:
        return host
    compiled_for = specializer.outside()

    def run(*args: Any, **keywords: Any) -> Any:
        launcher = {name: keywords.pop(name) for name in ("_launcher",) if name in keywords}
        given = kernel.normalize_args(*args, **keywords)
        if specializer.outside() != compiled_for:
            raise other_specialization(specializer.kernel_name)
        return host(*given, **launcher)

    return run


class Configured(Dispatcher):
    """Runs one host function for the arguments that it was generated for.

    Args:
        host: the host function, with its launcher.
        traced: the same as it was imported, for torch.compile and the like.
        key: specialization key of the calls that it may run.
        accepts: further guards on the arguments; None for none.
        specializer: the kernel's.
        stats: the kernel's.
    """

    keeps_plans = False  # they are of a Config that the kernel does not use

    def __init__(
        self,
        host: types.FunctionType,
        traced: Callable[..., Any],
        key: Hashable,
        accepts: Callable[..., bool] | None,
        specializer: Specializer,
        stats: KernelStats,
    ) -> None:
        super().__init__(specializer, stats, max_entries=specializer.settings.max_specializations)
        self._look_outside()  # the kernel has looked
        self._host = host
        self._traced = traced
        self._key = key
        self._accepts = accepts
        functools.update_wrapper(self, host)

    def __repr__(self) -> str:
        return f"<helion kernel {self.specializer.kernel_name} under a Config>"

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self!r} cannot be pickled: pickle the kernel and the Config, and compile there "
            "(`kernel.bind(args).compile_config(config)`)"
        )

    def _call_python(self, *args: Any, **kwargs: Any) -> Any:
        # An explicit launcher, which no plan knows, goes to the host function.
        if "_launcher" in kwargs:
            return self._host(*args, **kwargs)
        return super()._call_python(*args, **kwargs)

    __call__ = _call_python

    def _is_bound(self, args: tuple[Any, ...]) -> bool:
        return True  # no bundle's plan is asked for: it would be one of another Config

    def _check(self, args: tuple[Any, ...]) -> None:
        """Refuse arguments of another specialization, for which the code would be wrong."""
        if self.specializer.key(args) != self._key or not (self._accepts is None or self._accepts(*args)):
            raise other_specialization(self.specializer.kernel_name)

    def _run_guarded(self, *args: Any) -> Any:
        self._check(args)
        return self._host(*args)

    def _runner(self, args: Sequence[Any]) -> Callable[..., Any]:
        self._check(tuple(args))
        return self._host if self._accepts is None else self._run_guarded

    def _unguarded(self, args: Sequence[Any]) -> Callable[..., Any] | None:
        self._check(tuple(args))
        return self._host

    def _traced_host_function(self, args: Sequence[Any]) -> Callable[..., Any] | None:
        return self._traced
