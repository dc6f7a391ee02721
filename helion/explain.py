"""`explain`: what a call of a kernel does, and why."""

from __future__ import annotations

import dataclasses
from typing import Any

from . import _extension
from .kernel import Kernel
from .runtime.events import Event
from .runtime.events import events_of
from .runtime.stats import LAYERS

__all__ = ["Explanation", "explain"]


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What `explain` found; `str` of it is for people.

    Attributes:
        kernel: module and qualified name.
        backend: whose host function calls run, "triton", "cute", "tiles" (CPU tensors), ...; "" in ref mode.
        target: what its code is for, "sm_90" or "cpu".
        config: the Config in use, as its repr; None before the first call.
        config_source: where it comes from, in words.
        plan: whether a call with these arguments runs as a plan in C.
        why_no_plan: if not, why; "" if it does.
        guards: what must hold of the arguments beyond their dtypes and shapes, as expressions of the parameters.
        layers: launches of this kernel so far, by layer.
        events: what was traced, compiled and tuned for this kernel so far, and how long it took.
    """

    kernel: str
    backend: str
    target: str
    config: str | None
    config_source: str
    plan: bool
    why_no_plan: str
    guards: tuple[str, ...]
    layers: dict[str, int]
    events: tuple[Event, ...]

    def __str__(self) -> str:
        lines = [
            f"kernel   {self.kernel}",
            f"backend  {self.backend or 'none: ref mode'}, for {self.target}",
            f"config   {self.config or 'none yet: the first call chooses one'}",
        ]
        if self.config_source:
            lines.append(f"  from   {self.config_source}")
        lines.append(f"plan     {'yes: the whole call runs in C' if self.plan else 'no: ' + self.why_no_plan}")
        lines += [f"guard    {guard}" for guard in self.guards] or ["guards   none beyond dtypes, sizes and strides"]
        lines += [f"ran      {count} x {layer}: {LAYERS[layer]}" for layer, count in self.layers.items()]
        for event in self.events:
            said = ", ".join(f"{key} {value}" for key, value in event.attributes.items() if key != "kernel")
            lines.append(f"{event.name:8} {event.seconds * 1e3:.1f} ms{f'  ({said})' if said else ''}")
        return "\n".join(lines)


def explain(kernel: Kernel, *args: Any, **kwargs: Any) -> Explanation:
    """Say what a call of a kernel with these arguments does, and why; nothing runs and nothing is tuned.

    A specialization that has not been called yet is traced for it. What is compiled, a first call says.

    Args:
        kernel: what `helion.kernel` returned.
        *args, **kwargs: as for a call.

    Returns:
        An `Explanation`; print it.

    Raises:
        exc.BaseError: the kernel function or the arguments are not acceptable.
        TypeError: the arguments do not fit the parameters.

    Example:
        >>> print(helion.explain(add, x, y))  # doctest: +SKIP
    """
    arguments = kernel.normalize_args(*args, **kwargs)
    bound = kernel.variant(arguments)
    stats = kernel.stats.snapshot()
    plan = kernel.has_plan(arguments)
    return Explanation(
        kernel=kernel.stats.name,
        backend=bound.running_backend,
        target=str(bound.target),
        config=None if bound.config is None else repr(bound.config),
        config_source=bound.config_source,
        plan=plan,
        why_no_plan="" if plan else _why_no_plan(bound, stats.reasons),
        guards=bound.guards,
        layers=stats.layers,
        events=tuple(events_of(kernel.stats.name)),
    )


def _why_no_plan(bound: Any, reasons: dict[str, int]) -> str:
    if _extension.C is None:
        return f"the extension is not in use: {_extension.why_not}"
    if not bound.on_gpu:
        return "the tensors are in host memory, where nothing is launched"
    found = [reason.removeprefix("no plan: ") for reason in reasons if reason.startswith("no plan: ")]
    if found:
        return "; ".join(found)
    other = [reason for reason in reasons if not reason.startswith("first call")]
    return "; ".join(other) or "one is recorded at the second call with the same signature"
