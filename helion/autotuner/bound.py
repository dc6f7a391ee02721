"""BoundTarget: a BoundKernel as the autotuner sees one.

On a GPU a candidate travels to the workers as its generated source, which needs nothing of the user's program; on
CPU tensors, or where the source refers to objects of the user's, the kernel itself travels and is traced there.
"""

from __future__ import annotations

import dataclasses
import inspect
import pickle
from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from .._locks import cached_property
from ..backends.base import Recipe
from ..config import Config
from ..config_spec import ConfigSpec
from ..settings import Settings
from .api import depends_on
from .cache_key import CacheKey
from .cache_key import device_name
from .travel import CannotTravel
from .travel import pack_kernel
from .travel import unpack_kernel

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

    @cached_property
    def config_spec(self) -> ConfigSpec:
        return self._bound.config_spec

    @property
    def settings(self) -> Settings:
        return self._bound.settings

    @cached_property
    def _compiles_source(self) -> bool:
        """Whether candidates are generated modules that stand by themselves."""
        return self._bound.recipe(self.config_spec.default_config()) is not None

    @property
    def subject(self) -> Any:
        return self._bound

    def recipe(self, config: Config) -> Recipe:
        if self._compiles_source:
            made = self._bound.recipe(config)
            assert made is not None
            return made
        packed = self._packed
        if isinstance(packed, bytes):
            return KernelRecipe(packed, config)
        return _HereRecipe(self._bound, config)

    def isolation_problem(self) -> str | None:
        if self._compiles_source or isinstance(self._packed, bytes):
            return None
        return self._packed.message

    @cached_property
    def _packed(self) -> bytes | CannotTravel:
        """The kernel as it travels to workers, or why it cannot."""
        try:
            return pack_kernel(self._bound.kernel)
        except CannotTravel as error:
            return error

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
class KernelRecipe:
    """A candidate that is traced and compiled where it runs.

    Attributes:
        kernel: from `travel.pack_kernel`.
        config: what to compile.
    """

    kernel: bytes
    config: Config

    def build(self, args: Sequence[Any]) -> Callable[..., Any]:
        kernel = unpack_kernel(self.kernel)
        return kernel.variant(kernel.normalize_args(*args)).host_function(self.config)

    def precompile(self, fn: Callable[..., Any], args: Sequence[Any]) -> None:
        pass  # `build` compiled everything


@dataclasses.dataclass(frozen=True)
class _HereRecipe:
    """A candidate that only this process can build."""

    bound: Any
    config: Config

    def build(self, args: Sequence[Any]) -> Callable[..., Any]:
        compiled: Callable[..., Any] = self.bound.host_function(self.config)
        return compiled

    def precompile(self, fn: Callable[..., Any], args: Sequence[Any]) -> None:
        pass

    def __reduce__(self) -> Any:
        raise pickle.PicklingError("this candidate belongs to one process")


def config_depends_on(bound: BoundKernel, args: Sequence[Any]) -> str | None:
    """As `api.depends_on`, for the Config that a BoundKernel runs with; None where another variant may have been asked
    first."""
    if bound.family is not None and len(bound.family.members) > 1:
        return None
    return depends_on(BoundTarget(bound), args, bound.config_source)
