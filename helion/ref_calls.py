"""Calls of kernels in ref mode: what a Config means for them, and what is known of the kernel.

A Config is taken, or refused, as the compiled kernel would.  Not here: how a function is run (`runtime.eager`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from . import exc
from .config import Config
from .config_keys import TABLE
from .config_keys import plural_items
from .config_spec import ConfigSpec
from .frontend.carried import carried_names
from .ir.block_sizes import tunable_blocks
from .runtime.eager.block_sizes import Site
from .runtime.eager.ref_mode import run_ref
from .settings import RefMode

if TYPE_CHECKING:
    from .bound_kernel import BoundKernel
    from .kernel import Kernel


def run_bound(bound: BoundKernel, config: Config | None, args: tuple[Any, ...]) -> Any:
    """Run the function of a kernel on eager tiles.

    Args:
        bound: a specialization; traced, or of a kernel that is in ref mode.
        config: None for the one in use, or the kernel's own.
        args: of the call.

    Raises:
        exc.InvalidConfig: the Config does not fit.
    """
    kernel, settings = bound.kernel, bound.settings
    config = config or bound.config or (kernel.configs[0] if kernel.configs else None)
    if settings.ref_mode is RefMode.EAGER:
        config, sites, floors = checked(config, kernel, args)
        index_dtype = None if settings.index_dtype == "auto" else settings.index_dtype
        return run_ref(
            kernel.fn,
            args,
            config=config,
            index_dtype=index_dtype,
            smallest=floors or (),
            carried_by=carried_names,
            sites=sites,
            stores_checked=floors is not None,
        )
    return run_ref(
        kernel.fn,
        args,
        config=config,
        index_dtype=bound.ir.device.space.index_dtype,
        draws=bound.ir.host.seeds.count if bound.ir.host.seeds else None,
        smallest=_floors(bound),
        carried_by=carried_names,
        sites=[block.site for block in tunable_blocks(bound.ir.device)],
        stores_checked=True,
    )


def _floors(bound: BoundKernel) -> list[int]:
    return [getattr(block, "floor", 1) for block in bound.config_spec.block_sizes]


#: What is wrong in every mode, though ref mode could run the function: found when it is traced.
_WRONG = (
    exc.ControlFlowTensorMismatch,
    exc.HostSideEffect,
    exc.InternalError,
    exc.InvalidConfig,
    exc.InvalidTileRange,
    exc.LoopDependencyError,
    exc.NestedGridLoop,
)


def checked(
    config: Config | None, kernel: Kernel, args: tuple[Any, ...]
) -> tuple[Config | None, Sequence[Site | None], Sequence[int] | None]:
    """What calls of the compiled kernel would run with: a Config with their block sizes, the loops that these are for,
    and the smallest that they may be; None where the kernel does not compile.

    A kernel is debugged under the Config with which it went wrong; ref mode used to take one that does not fit without
    a word, and stores that tiles make to each other's places.

    Args:
        config: the given one.
        kernel: in ref mode.
        args: of the call.

    Raises:
        exc.InvalidConfig: it does not fit.
        exc.ControlFlowTensorMismatch, exc.HostSideEffect, exc.InvalidTileRange, exc.LoopDependencyError,
            exc.NestedGridLoop: the kernel is wrong. A variable that changes its dtype in a loop would have another one
            compiled.
        exc.InternalError: and whatever else the compiler does not raise on purpose: only its refusals say that a kernel
            does not compile. Any exception used to be taken so, which hid faults of the compiler in ref mode.
    """
    given = config or Config()
    items = list(plural_items(dict(given)))
    try:
        compiled = kernel.traceable.bind(args[: len(kernel.specializer.given.parameters)])
        full = compiled.config_spec.normalize(given)
        sites = [block.site for block in tunable_blocks(compiled.ir.device)]
        floors = _floors(compiled)
    except _WRONG:
        raise
    except exc.BaseError:  # it does not compile, which may be why it is in ref mode: values are checked by themselves
        ConfigSpec(kernel.name).normalize({name: value for name, key, value in items if key in TABLE})
        return config, (), None
    if not given.block_sizes or "block_sizes" not in full:  # a call that returns before any loop has none
        return config, sites, floors
    kept = {name: value for name, key, value in items if key != "block_sizes"}
    return Config(**kept, block_sizes=full["block_sizes"]), sites, floors
