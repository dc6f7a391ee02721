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

from ..config import Config
from ..config_spec import ConfigSpec
from ..runtime.code_cache import load_module
from ..runtime.host_function import clone_host_function
from ..runtime.host_function import set_launcher
from ..runtime.launch.launcher import FastLauncher
from ..settings import Settings
from .cache_key import CacheKey
from .cache_key import device_name
from .measure import device_of
from .target import Recipe
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


def _compile_only(
    triton_kernel: Any, grid: tuple[int, ...], *args: Any, num_warps: int, num_stages: int, **options: Any
) -> None:
    """A launcher that compiles what it is asked to launch, into Triton's cache on disk, and launches nothing."""
    triton_kernel.warmup(*args, grid=grid, num_warps=num_warps, num_stages=num_stages, **options)


@dataclasses.dataclass(frozen=True)
class GeneratedRecipe:
    """A candidate as generated Triton source.

    Attributes:
        text: the module.
        function: its host function.
        kernel_name: for messages.
    """

    text: str
    function: str
    kernel_name: str

    def build(self, args: Sequence[Any]) -> Callable[..., Any]:
        host = clone_host_function(getattr(load_module(self.text, self.function), self.function))
        device = device_of(args)
        index = device.index if device.type == "cuda" else None
        set_launcher(host, FastLauncher(self.kernel_name, device=index, host_function=host))
        return host

    def precompile(self, fn: Callable[..., Any], args: Sequence[Any]) -> None:
        fn(*args, _launcher=_compile_only)


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
        """Whether candidates are Triton modules that stand by themselves."""
        if not self._bound.on_gpu or self.settings.backend != "triton":
            return False
        return not self._bound.generated_source(self.config_spec.default_config()).injected

    def recipe(self, config: Config) -> Recipe:
        if self._compiles_source:
            source = self._bound.generated_source(config)
            return GeneratedRecipe(source.text, source.function, self.kernel_name)
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
