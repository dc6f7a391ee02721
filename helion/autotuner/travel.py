"""Objects on their way to worker processes: kernels, arguments, functions of the user's program.

A worker never runs the user's script again: the script's own work would be done a second time, and an unguarded call
in it would start tuning in turn. So what the script itself defines travels by value (cloudpickle), lambdas and closures
too; what a module defines that a worker can import travels by name, as it does for pickle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import linecache
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from types import ModuleType
from typing import IO
from typing import Any
from typing import Protocol
from typing import runtime_checkable

import cloudpickle
import torch

from .. import exc
from ..settings import Settings


@runtime_checkable
class ByValue(Protocol):
    """A kernel: pickled by its name where it has one, and able to say how it is rebuilt where it has none."""

    name: str
    fn: Any
    settings: Settings

    def by_value(self, settings: Settings | None = None) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """A function and its arguments, which make such a kernel (with other settings, if they are given)."""


class CannotTravel(exc.AutotuneError):
    """Something that workers need cannot be sent to them, or not be read there: tune in this process instead."""


def is_of_the_script(module: str) -> bool:
    """Whether importing a module elsewhere would run the user's script, or fail.

    Args:
        module: a name; of the script itself, of one that `multiprocessing` imported in a child, of a module whose
            import is still going on (it is what calls us), or of one that no worker would find.
    """
    if module in ("__main__", "__mp_main__"):
        return True
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return spec is None or spec.loader is None or bool(getattr(spec, "_initializing", False))


def _modules_by_value() -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        if name != "__main__" and isinstance(module, ModuleType) and module.__name__ == name:
            spec = getattr(module, "__spec__", None)
            if name == "__mp_main__" or bool(getattr(spec, "_initializing", False)):
                yield module


class _Pickler(cloudpickle.Pickler):  # cloudpickle has no types
    def reducer_override(self, obj: Any) -> Any:
        # Asked of the class first: looking for attributes of anything at all may run code.
        if hasattr(type(obj), "by_value") and isinstance(obj, ByValue) and is_of_the_script(obj.fn.__module__):
            return obj.by_value()
        return super().reducer_override(obj)


class PickleModule:
    """What torch.save wants of a `pickle_module`."""

    __name__ = "helion.autotuner.travel"
    Pickler = _Pickler


@contextlib.contextmanager
def _by_value() -> Iterator[None]:
    modules = list(_modules_by_value())
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def while_others_import(pickle: Callable[[], None]) -> None:
    """Pickle, again where another thread's import changed `sys.modules` while pickling looked for a module in it."""
    for _ in range(100):
        try:
            return pickle()
        except RuntimeError as error:
            if "changed size during iteration" not in str(error):
                raise
        time.sleep(0.05)
    return pickle()


def pack(value: Any, what: str) -> bytes:
    """An object as bytes for a worker.

    Args:
        value: the object.
        what: for the message: `the kernel`, `autotune_benchmark_fn`.

    Raises:
        CannotTravel: it cannot be pickled.
    """
    file = io.BytesIO()

    def pickle() -> None:
        file.seek(0)
        file.truncate()
        with _by_value():
            _Pickler(file).dump(value)

    try:
        while_others_import(pickle)
    except Exception as error:  # pickling runs the user's code, which raises anything
        raise CannotTravel(f"{what} cannot be sent to a worker process: {type(error).__name__}: {error}") from error
    return file.getvalue()


def unpack(data: bytes, what: str) -> Any:
    """What `pack` packed.

    Raises:
        CannotTravel: it cannot be rebuilt in this process.
    """
    try:
        return cloudpickle.loads(data)
    except Exception as error:  # as in `pack`
        raise CannotTravel(f"{what} cannot be rebuilt in a worker: {type(error).__name__}: {error}") from error


def save(value: Any, file: IO[bytes]) -> None:
    """Write arguments or results with torch.save.

    Raises:
        OSError: the file cannot be written; the system's disk or quota is full, say.
        CannotTravel: they cannot be pickled.
    """
    begin = file.tell()

    def pickle() -> None:
        file.seek(begin)
        file.truncate()
        with _by_value():
            torch.save(value, file, pickle_module=PickleModule)

    try:
        while_others_import(pickle)
        file.flush()
    except OSError:
        raise
    except Exception as error:  # as in `pack`
        cause: BaseException | None = error
        while cause is not None:  # torch's writer turns an error of the file into one of its own
            if isinstance(cause, OSError):
                raise cause from None
            cause = cause.__context__
        raise CannotTravel(
            f"the arguments cannot be sent to a worker process: {type(error).__name__}: {error}"
        ) from error


def pack_kernel(kernel: ByValue) -> bytes:
    """A kernel as bytes, with its source, which only this process may be able to read (a notebook's cell).

    Raises:
        CannotTravel: its closure or globals hold something that cannot be pickled.
    """
    what = f"kernel {kernel.name!r}"
    if isinstance(kernel.__reduce__(), str) and not is_of_the_script(kernel.fn.__module__):
        return pack(kernel, what)
    # What is about tuning stays here: filters and benchmarks are functions that may hold anything.
    settings = {n: v for n, v in kernel.settings.non_default().items() if not n.startswith("autotune_")}
    rebuild, arguments = kernel.by_value(Settings(**settings))
    file = kernel.fn.__code__.co_filename
    # The text that this process compiled, whatever became of the file since.
    return pack(_WithSource(rebuild, arguments, file, linecache.getlines(file)), what)


@dataclasses.dataclass(frozen=True)
class _WithSource:
    """How to rebuild a kernel that workers cannot import, and the lines of its file."""

    rebuild: Callable[..., Any]
    arguments: tuple[Any, ...]
    file: str
    lines: list[str]

    def kernel(self) -> Any:
        if self.lines:
            linecache.cache[self.file] = (sum(map(len, self.lines)), None, self.lines, self.file)
        return self.rebuild(*self.arguments)


@functools.lru_cache(maxsize=8)
def unpack_kernel(data: bytes) -> Any:
    """The kernel that `pack_kernel` packed; one object for equal bytes."""
    found = unpack(data, "the kernel")
    return found.kernel() if isinstance(found, _WithSource) else found
