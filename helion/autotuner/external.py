"""`autotune` for functions that are no kernels: anything that a dict of tunables makes faster or slower.

The search, the workers, the accuracy check and the choice of the winner are those of kernels.  Nothing is kept in a
cache: nobody knows what the function's speed depends on.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch

from .. import exc
from .._locks import cached_property
from ..backends.base import Recipe
from ..config import Config
from ..config_spec import ConfigSpec
from ..fragments import Fragment
from ..settings import TABLE
from ..settings import Settings
from .cache_key import CacheKey
from .cache_key import device_name
from .measure import device_of
from .searches import search_algorithms
from .travel import CannotTravel
from .travel import pack
from .travel import unpack

CompileFunction = Callable[[Config], Callable[..., Any]]


@dataclasses.dataclass(frozen=True)
class FunctionRecipe:
    """A candidate of a function: `compile_fn(config)`.

    Attributes:
        compile_fn: from `travel.pack`.
        config: what to compile.
    """

    compile_fn: bytes
    config: Config

    def build(self, args: Sequence[Any]) -> Callable[..., Any]:
        return _unpacked(self.compile_fn)(self.config)

    def precompile(self, fn: Callable[..., Any], args: Sequence[Any]) -> None:
        pass  # `build` compiled everything


@functools.lru_cache(maxsize=8)
def _unpacked(data: bytes) -> CompileFunction:
    found: CompileFunction = unpack(data, "compile_fn")
    return found


@dataclasses.dataclass(frozen=True)
class _HereRecipe:
    """A candidate that only this process can build."""

    compile_fn: CompileFunction
    config: Config

    def build(self, args: Sequence[Any]) -> Callable[..., Any]:
        return self.compile_fn(self.config)

    def precompile(self, fn: Callable[..., Any], args: Sequence[Any]) -> None:
        pass


class FunctionTarget:
    """A TuningTarget over a function of a Config.

    Args:
        tunables: name -> fragment.
        compile_fn: Config -> what is called with the arguments.
        settings: `autotune_*`.
        device: on which it runs, where its arguments do not say.
    """

    def __init__(
        self, tunables: Mapping[str, Fragment], compile_fn: CompileFunction, settings: Settings, device: Any = None
    ) -> None:
        self.kernel_name: str = getattr(compile_fn, "__name__", type(compile_fn).__name__)
        self.config_spec = ConfigSpec(self.kernel_name, dict(tunables))
        self.settings = settings
        self._compile_fn = compile_fn
        self._device = None if device is None else torch.device(device)

    @property
    def subject(self) -> Any:
        return self

    @cached_property
    def _packed(self) -> bytes | CannotTravel:
        try:
            return pack(self._compile_fn, "compile_fn")
        except CannotTravel as error:
            return error

    def recipe(self, config: Config) -> Recipe:
        packed = self._packed
        return FunctionRecipe(packed, config) if isinstance(packed, bytes) else _HereRecipe(self._compile_fn, config)

    def isolation_problem(self) -> str | None:
        return None if isinstance(self._packed, bytes) else self._packed.message

    def cache_key(self, args: Sequence[Any]) -> CacheKey:
        source = inspect.getsource(self._compile_fn) if inspect.isfunction(self._compile_fn) else self.kernel_name
        shapes = tuple((tuple(a.shape), str(a.dtype)) for a in args if isinstance(a, torch.Tensor))
        return CacheKey(self.kernel_name, source, shapes, device_name(self._device or device_of(args)))


def autotune(
    tunables: Mapping[str, Fragment],
    compile_fn: CompileFunction,
    args: Sequence[Any],
    *,
    baseline_fn: Callable[..., Any] | None = None,
    algorithm: str = "PatternSearch",
    device: Any = None,
    **kwargs: Any,
) -> Config:
    """Find the values of some tunables with which a function is fastest.

    Args:
        tunables: name -> fragment (`IntegerFragment`, `PowerOfTwoFragment`, `EnumFragment`, `BooleanFragment`).
        compile_fn: Config -> a function that is called with `args`.
        args: arguments; they are not changed.
        baseline_fn: gives the expected result of a call; default: what the tunables' defaults give.
        algorithm: name of a search in `search_algorithms`.
        device: where the function runs; default: where its arguments are.
        **kwargs: settings (`autotune_effort="quick"`) and parameters of the search (`max_generations=5`).

    Returns:
        The fastest Config: the tunables and nothing else.

    Raises:
        exc.InvalidAPIUsage: an unknown argument or algorithm (it is a ValueError too).
        exc.NoConfigFound: every Config failed.

    >>> from helion.autotuner import PowerOfTwoFragment, autotune
    >>> def compile_fn(config):
    ...     return lambda x: sum(part.sum() for part in x.split(config["chunk"]))
    >>> config = autotune({"chunk": PowerOfTwoFragment(1, 64)}, compile_fn, (x,))  # doctest: +SKIP
    """
    if algorithm not in search_algorithms:
        raise exc.InvalidAPIUsage(
            f"algorithm={algorithm!r}: there is no such search", fix=f"valid are {', '.join(search_algorithms)}."
        )
    cls = search_algorithms[algorithm]
    names = {row.name for row in TABLE if row.name.startswith("autotune_")}
    settings = {name: value for name, value in kwargs.items() if name in names}
    rest = {name: value for name, value in kwargs.items() if name not in names}
    own = _parameters(cls)
    unknown = [name for name in rest if name not in own]
    if unknown:
        raise exc.InvalidAPIUsage(
            f"unknown argument {unknown[0]!r} of autotune",
            fix=f"{algorithm} takes {', '.join(own) or 'none'}; settings are {', '.join(sorted(names))}.",
        )
    if baseline_fn is not None:
        settings["autotune_baseline_fn"] = baseline_fn
    target = FunctionTarget(tunables, compile_fn, Settings(**settings), device)
    return cls(target, args, **rest).autotune()


def _parameters(cls: type[Any]) -> list[str]:
    """The parameters of a search class, by name, and of `run_search`."""
    found = ["evaluations", "isolate"]
    for base in cls.__mro__:
        if "__init__" in vars(base):
            kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            found += [p.name for p in parameters if p.kind in kinds and p.name not in ("self", "kernel", "args")]
    return list(dict.fromkeys(found))
