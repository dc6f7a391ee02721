"""`from_cache`: the Config that tuning has found earlier, without tuning and without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import exc
from .autotuner.api import lookup
from .autotuner.bound import BoundTarget
from .config import Config
from .kernel import Kernel


def from_cache(kernel: Kernel, args: Sequence[Any], *, cache: Any = None) -> Config:
    """The tuned Config of a kernel for the arguments of a call.

    Args:
        kernel: what `helion.kernel` returned.
        args: arguments of the call, by position; their shapes, strides, dtypes and device count.
        cache: an autotune cache by name (`"LocalAutotuneCache"`, `"AOTAutotuneCache"`, ...) or as an object; default:
            the kernel's setting `autotune_cache`.

    Returns:
        The Config, for `kernel.bind(args).set_config(config)`, `helion.kernel(config=...)` or to look at.

    Raises:
        exc.NoConfigFound: the cache has none that fits, or HELION_SKIP_CACHE=1 is set.
        exc.InvalidAPIUsage: `kernel` is no kernel, or there is no such cache.
    """
    if not isinstance(kernel, Kernel):
        raise exc.InvalidAPIUsage(
            f"helion.from_cache needs a kernel, got {type(kernel).__name__}",
            fix="pass the function decorated with @helion.kernel.",
        )
    arguments = kernel.normalize_args(*args)
    config = lookup(BoundTarget(kernel.bind(arguments)), arguments, cache)
    if config is None:
        raise exc.NoConfigFound(
            kernel=kernel.name,
            reason="the autotune cache has none for these arguments",
            fix="tune it: `kernel.autotune(args)`.",
        )
    return config
