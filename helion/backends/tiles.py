"""The tile executor as a backend: the user's host statements around a launch of device IR.

There is no kernel source: the launch statement passes the device IR itself, with the tensors and numbers it
needs.  The schedule is only the block sizes; everything else a Config says is about GPUs.
"""

from __future__ import annotations

from typing import Any

import sympy

from .._locks import cached_property
from ..config import Config
from ..config_spec import ConfigSpec
from ..fragments import BlockSizeFragment
from ..fragments import Fragment
from ..fragments import ListOf
from ..ir.block_sizes import SizedIR
from ..ir.block_sizes import large_tiles
from ..ir.block_sizes import resolve_constants
from ..ir.block_sizes import tunable_blocks
from ..ir.device_ir import DeviceIR
from ..ir.device_ir import KernelIR
from ..ir.device_ir import TracedTile
from ..ir.symbols import OriginKind
from ..ir.symbols import symbols_of
from ..numbers import next_power_of_2
from .base import Backend
from .base import GeneratedSource
from .host import HostPrinter

_DEVICE_CODE = "_device_code"
_MAX_BLOCK = 1 << 30


def block_size_fields(device: DeviceIR) -> dict[str, Fragment]:
    """`block_sizes` of a ConfigSpec, where there are any: by default as large as memory and caches like them."""
    blocks = tunable_blocks(device)
    fragments = []
    for block, size in zip(blocks, large_tiles(device, blocks)):
        low, high = next_power_of_2(block.low), next_power_of_2(block.high or _MAX_BLOCK)
        default = min(max(next_power_of_2(size), low), high)
        fragments.append(BlockSizeFragment(low, default, default, _MAX_BLOCK, low, high))
    return {"block_sizes": ListOf(fragments, labels=[block.label for block in blocks])} if blocks else {}


class TileBackend(Backend):
    """Device IR -> a host function that runs it with PyTorch's own ops, on CPU tensors."""

    name = "tiles"
    vendors = frozenset({"cpu"})
    language = "Python"
    layer = "tile_executor"

    @cached_property
    def spec(self) -> ConfigSpec:
        """Block sizes and the user's tunables; the default is tiles as large as memory and caches like them."""
        spec = ConfigSpec(kernel_name=self.ir.name, location=self.ir.location)
        spec.fields.update(block_size_fields(self.ir.device))
        spec.fields.update(self.ir.tunables)
        return spec

    def generate(self, config: Config) -> GeneratedSource:
        """The module of a host function that runs the specialization.

        Args:
            config: its `block_sizes` and user tunables are honoured, other keys ignored; without block sizes tiles
                are large.
        """
        ir, device = self.ir, self.ir.device
        tunables = {key: fragment.default() for key, fragment in ir.tunables.items()}
        tunables.update((key, config[key]) for key in tunables if key in config)
        constants = resolve_constants(device, config.get("block_sizes"), tunables)
        printer = HostPrinter(ir, constants)
        tensors = ", ".join(f"{name!r}: {tensor.text}" for name, tensor in device.host_tensors.items())
        used = _device_symbols(ir)
        scalars = ", ".join(
            f"{origin.name!r}: {printer.expression(symbol)}"
            for symbol, origin in device.space.origins.items()
            if origin.kind is OriginKind.HOST and symbol in used
        )
        launch = f"_launcher({_DEVICE_CODE}, {{{tensors}}}, {{{scalars}}})"
        host = printer.function([launch], "_tile_launcher")
        imports, injected = printer.imports_and_globals()
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
            "\n".join(lines),
            ir.name,
            {**injected, _DEVICE_CODE: SizedIR(device, constants)},
        )


def _device_symbols(ir: KernelIR) -> set[sympy.Symbol]:
    """The symbols that device code mentions."""
    found: set[sympy.Symbol] = set()
    for axis in ir.device.space.axes:
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
