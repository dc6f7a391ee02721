"""`from_cache`: Configs that tuning has found earlier: the one for a call, or several to choose from."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import overload

from . import exc
from .autotuner.api import lookup
from .autotuner.bound import BoundTarget
from .config import Config
from .kernel import Kernel


@overload
def from_cache(kernel: Kernel, args: Sequence[Any], *, cache: Any = None) -> Config: ...


@overload
def from_cache(
    *, max_configs: int | None = None, configs: Sequence[Config | Mapping[str, Any]] = ()
) -> Callable[..., Any]: ...


def from_cache(
    kernel: Kernel | None = None,
    args: Sequence[Any] | None = None,
    *,
    cache: Any = None,
    max_configs: int | None = None,
    configs: Sequence[Config | Mapping[str, Any]] = (),
) -> Any:
    """The tuned Config of a kernel for the arguments of a call; or, without a kernel, an `autotuner_fn` that measures
    the tuned Configs of like kernels and nothing else.

    Args:
        kernel: what `helion.kernel` returned.
        args: arguments of the call, by position; their shapes, strides, dtypes and device count.
        cache: an autotune cache by name (`"LocalAutotuneCache"`, `"AOTAutotuneCache"`, ...) or as an object; default:
            the kernel's setting `autotune_cache`.
        max_configs: without a kernel: most tuned Configs to measure; default: the setting
            `autotune_best_available_max_configs`.
        configs: without a kernel: Configs to measure besides.

    Returns:
        The Config, for `kernel.bind(args).set_config(config)`, `helion.kernel(config=...)` or to look at; without a
        kernel, a function for `@helion.kernel(autotuner_fn=...)`.

    Raises:
        exc.NoConfigFound: the cache has none that fits, or HELION_SKIP_CACHE=1 is set.
        exc.NotEnoughConfigs: from the function, when it is used: fewer than two Configs fit the kernel.
        exc.InvalidAPIUsage: `kernel` is no kernel, or there is no such cache.
    """
    if kernel is None:
        given = [c if isinstance(c, Config) else Config.from_dict(c) for c in configs]
        # Loaded when it is asked for: a program with tuned kernels loads no search.
        found: Any = importlib.import_module("helion.autotuner.searches").among(max_configs, given)
        return found
    if not isinstance(kernel, Kernel) or args is None:
        raise exc.InvalidAPIUsage(
            f"helion.from_cache needs a kernel and its arguments, got {type(kernel).__name__}",
            fix="pass the function decorated with @helion.kernel, and a tuple of arguments.",
        )
    arguments = kernel.normalize_args(*args)
    config = lookup(BoundTarget(kernel.variant(arguments)), arguments, cache)
    if config is None:
        raise exc.NoConfigFound(
            kernel=kernel.name,
            reason="the autotune cache has none for these arguments",
            fix="tune it: `kernel.autotune(args)`.",
        )
    return config
