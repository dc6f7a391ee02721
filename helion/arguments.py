"""The tensors among a call's arguments, and the device that they are on; graphs among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

import torch
import torch.fx

from . import exc
from .frontend.source import definition
from .language.containers import walk_values

if TYPE_CHECKING:
    from .kernel import Kernel

__all__ = ["check_graph_modules", "common_device", "tensors_of"]


def _parts(value: Any) -> list[Any]:
    return [part for _, part in walk_values(value, "args")]


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Those in tuples, lists, dicts and dataclasses too."""
    return [part for part in _parts(value) if isinstance(part, torch.Tensor)]


def common_device(kernel: Kernel, args: tuple[Any, ...]) -> torch.device:
    """The device of the tensor arguments; without any, the first `torch.device` among the arguments.

    Args:
        kernel: the kernel.
        args: what callers give, then tensors from outside the kernel function, which count where callers give none.

    Raises:
        exc.NoTensorArgs: there is neither.
        exc.DeviceMismatch: they are on several.
    """
    given = len(kernel.specializer.given.parameters)
    args, filled = args[:given], args[given:]
    tensors = tensors_of(args)
    if not tensors:
        named = [part for part in _parts(args) if isinstance(part, torch.device)]
        if named:
            return named[0]
        tensors = tensors_of(filled)
    if any(isinstance(part, torch.fx.Proxy) for part in _parts(args)):
        raise exc.InvalidAPIUsage(
            f"kernel {kernel.name!r} was called inside torch.fx.symbolic_trace, which cannot see into a kernel",
            fix="call it in a function of your own, and name that one to torch.fx.wrap; or use torch.export.",
        )
    if not tensors:
        raise exc.NoTensorArgs(kernel=kernel.name, location=definition(kernel.fn))
    devices = {t.device for t in tensors}
    if len(devices) > 1:
        raise exc.DeviceMismatch(
            kernel=kernel.name, devices=", ".join(sorted(map(str, devices))), location=definition(kernel.fn)
        )
    return tensors[0].device


def check_graph_modules(arguments: Mapping[str, Any]) -> None:
    """Check that graphs among the arguments call functions only, as device code does.

    Args:
        arguments: of a kernel, by name.

    Raises:
        exc.GraphModuleUnsupportedOps: one calls modules, or reads attributes, whose tensors are no arguments.
    """
    for name, value in arguments.items():
        if isinstance(value, torch.nn.Module) and isinstance(graph := getattr(value, "graph", None), torch.fx.Graph):
            nodes = [str(node) for node in graph.nodes if node.op in ("call_module", "get_attr")]
            if nodes:
                raise exc.GraphModuleUnsupportedOps(name=repr(name), nodes=", ".join(nodes))
