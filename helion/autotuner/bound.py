"""BoundTarget: a BoundKernel as the autotuner sees one.

On a GPU a candidate travels to the workers as its generated source, which needs nothing of the user's program; on
CPU tensors, or where the source refers to objects of the user's, the worker imports the user's file and compiles there.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import pickle
from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from ..backends.base import Recipe
from ..config import Config
from ..config_spec import ConfigSpec
from ..settings import Settings
from .cache_key import CacheKey
from .cache_key import device_name
from .target import SourceRecipe

if TYPE_CHECKING:
    from ..bound_kernel import BoundKernel

# The settings that change generated code.
_CODE_SETTINGS = (
    "index_dtype",
    "dot_precision",
    "fast_math",
    "static_shapes",
    "persistent_reserved_sms",
    "allow_warp_specialize",
)


class BoundTarget:
    """A TuningTarget over a BoundKernel.

    Args:
        bound: the specialization to tune.
    """

    def __init__(self, bound: BoundKernel) -> None:
        self._bound = bound

    @property
    def kernel_name(self) -> str:
        return self._bound.kernel.name

    @functools.cached_property
    def config_spec(self) -> ConfigSpec:
        return self._bound.config_spec

    @property
    def settings(self) -> Settings:
        return self._bound.settings

    @functools.cached_property
    def _compiles_source(self) -> bool:
        """Whether candidates are generated modules that stand by themselves."""
        return self._bound.recipe(self.config_spec.default_config()) is not None

    def recipe(self, config: Config) -> Recipe:
        if self._compiles_source:
            made = self._bound.recipe(config)
            assert made is not None
            return made
        if self._unreachable is None:
            fn = self._bound.kernel.fn
            return SourceRecipe(inspect.getsourcefile(fn) or fn.__code__.co_filename, fn.__qualname__, config)
        return _HereRecipe(self._bound, config)

    def isolation_problem(self) -> str | None:
        return None if self._compiles_source else self._unreachable

    @functools.cached_property
    def _unreachable(self) -> str | None:
        """Why a worker cannot import the kernel from its file; None if it can."""
        fn = self._bound.kernel.fn
        if "<locals>" in fn.__qualname__:
            return f"{fn.__qualname__} is defined inside a function, where a worker process cannot find it"
        owner = inspect.getmodule(fn)
        found: Any = owner
        for part in fn.__qualname__.split("."):
            found = getattr(found, part, None)
        if found is not self._bound.kernel:
            return f"{fn.__qualname__} of {getattr(owner, '__name__', 'an unknown module')} is not the kernel itself"
        if owner is None or not getattr(owner, "__file__", None):
            return f"{fn.__qualname__} is not defined in a file"
        return None

    def cache_key(self, args: Sequence[Any]) -> CacheKey:
        bound = self._bound
        device = device_name(bound.device)
        if bound.on_gpu and bound.device.type != "cuda":
            device = f"software GPU {device}"
        return CacheKey(
            kernel_name=self.kernel_name,
            source=bound.kernel.kernel_source(),
            traced=bound.ir.device.format(),
            source_file=inspect.getsourcefile(bound.kernel.fn) or "",
            specialization=bound.kernel.specialization_key(args),
            device=device,
            backend=self.settings.backend,
            settings={name: getattr(self.settings, name) for name in _CODE_SETTINGS},
        )


@dataclasses.dataclass(frozen=True)
class _HereRecipe:
    """A candidate that only this process can build."""

    bound: Any
    config: Config

    def build(self, args: Sequence[Any]) -> Callable[..., Any]:
        compiled: Callable[..., Any] = self.bound.compile_config(self.config)
        return compiled

    def precompile(self, fn: Callable[..., Any], args: Sequence[Any]) -> None:
        pass

    def __reduce__(self) -> Any:
        raise pickle.PicklingError("this candidate belongs to one process")
