"""Host functions for the tile executor: the user's host statements around a launch of device IR.

There is no kernel source: the launch statement passes the device IR itself, with the tensors and numbers it
needs.  The schedule is only the block sizes; everything else a Config says is about GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy
import torch

from ..ir.block_sizes import SizedIR
from ..ir.block_sizes import resolve_constants
from ..ir.device_ir import KernelIR
from ..ir.device_ir import TracedTile
from ..ir.symbols import OriginKind
from ..ir.symbols import symbols_of
from .base import GeneratedSource
from .host import HostPrinter

_DEVICE_CODE = "_device_code"


def generate(
    ir: KernelIR, config: Mapping[str, Any] | None, index_dtype: torch.dtype = torch.int32, *, origin_lines: bool = True
) -> GeneratedSource:
    """The module of a host function that runs `ir` on the tile executor.

    Args:
        ir: the specialization.
        config: its `block_sizes` and user tunables are honoured; None for large tiles.
        index_dtype: dtype of tile indices the IR was traced with.
        origin_lines: comment statements with the user's file and line.
    """
    device = ir.device
    tunables = {key: fragment.default() for key, fragment in ir.tunables.items()}
    tunables.update((key, config[key]) for key in tunables if config is not None and key in config)
    constants = resolve_constants(device, None if config is None else config.get("block_sizes", []), tunables)
    printer = HostPrinter(ir, constants, origin_lines)
    tensors = ", ".join(f"{name!r}: {tensor.text}" for name, tensor in device.host_tensors.items())
    used = _device_symbols(ir)
    scalars = ", ".join(
        f"{origin.name!r}: {printer.expression(symbol)}"
        for symbol, origin in device.origins.items()
        if origin.kind is OriginKind.HOST and symbol in used
    )
    launch = f"_launcher({_DEVICE_CODE}, {{{tensors}}}, {{{scalars}}})"
    imports, injected = printer.imports_and_globals()
    host = printer.function([launch], "_tile_launcher")
    lines = [
        f'"""{ir.name}, run tile by tile with PyTorch\'s own ops."""',
        "",
        "import torch",
        "from helion.runtime.eager.tile_executor import launch as _tile_launcher",
        *dict.fromkeys([*imports, *printer.runtime_imports()]),
        "",
        *host,
        "",
    ]
    return GeneratedSource(
        "\n".join(lines), ir.name, {**injected, _DEVICE_CODE: SizedIR(device, constants, index_dtype)}
    )


def _device_symbols(ir: KernelIR) -> set[sympy.Symbol]:
    """The symbols that device code mentions."""
    found: set[sympy.Symbol] = set()
    for axis in ir.device.axes:
        found |= _symbols((axis.begin, axis.end, axis.block.fixed))
    for _, node in ir.device.nodes():
        found |= _symbols((node.args, node.kwargs))
    return found


def _symbols(value: Any) -> set[sympy.Symbol]:
    if isinstance(value, TracedTile):
        return _symbols(value.offset)
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        return set().union(*map(_symbols, value))
    return symbols_of(value)
