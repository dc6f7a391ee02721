"""`aot_kernel`: a kernel whose Configs ship in a file beside it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from . import exc
from .autotuner.aot.options import AOTOptions
from .autotuner.aot.options import Batched
from .config import Config
from .kernel import Kernel
from .kernel import kernel


def aot_kernel(
    fn: Callable[..., Any] | None = None,
    *,
    config: Config | Mapping[str, Any] | None = None,
    configs: Sequence[Config | Mapping[str, Any]] | None = None,
    batched: Batched = None,
    collect_fn: Callable[[], Iterable[Sequence[Any]]] | None = None,
    measure_fn: Callable[[], Iterable[Sequence[Any]]] | None = None,
    **settings: Any,
) -> Any:
    """Like `helion.kernel`, with Configs chosen from `<file>.helion.json` beside the source file by the shapes of the
    call.

    The file is made by `python -m helion collect|measure|evaluate|write file.py:kernel`, see
    docs/autotuning.md.  Calls it does not cover are treated like those of any kernel.

    Args:
        fn: the function, when used without parentheses.
        config: as for `helion.kernel`; it then takes the place of the file.
        configs: as for `helion.kernel`.
        batched: for each argument the batch dimension(s), an int, several or None.  The choice never depends on them,
            so a row's result does not change with the size of the batch it is in.
        collect_fn: returns the argument tuples to tune for.
        measure_fn: returns the argument tuples on which the Configs are compared; default: those of `collect_fn`.
        **settings: settings by name.

    Returns:
        A `Kernel`, or a decorator that makes one.

    Raises:
        exc.InvalidAPIUsage: `batched` has more entries than the function has parameters, or as for `helion.kernel`.
    """

    def decorate(function: Callable[..., Any]) -> Kernel:
        made: Kernel = kernel(config=config, configs=configs, **{"autotune_cache": "AOTAutotuneCache", **settings})(
            function
        )
        if batched is not None and len(batched) > len(made.signature.parameters):
            raise exc.InvalidAPIUsage(
                f"batched has {len(batched)} entries, {made.name} has {len(made.signature.parameters)} parameters",
                fix="give one entry for each parameter: an int, several, or None.",
            )
        made.aot = AOTOptions(batched, collect_fn, measure_fn)
        return made

    return decorate if fn is None else decorate(fn)
