"""Host source for CPU tensors: the user's host statements around a call of the tile executor."""

from __future__ import annotations

from typing import Sequence

import sympy

from ..ir.device_ir import KernelIR
from ..settings import Settings
from .base import GeneratedSource
from .host import HostPrinter

PROGRAM_NAME = "_program"


def generate_tile_host(
    ir: KernelIR, settings: Settings, constants: dict[sympy.Symbol, int], scalars: Sequence[sympy.Symbol]
) -> GeneratedSource:
    """A module whose host function passes tensors and scalars to `_launcher(_program, (), ...)`.

    Args:
        ir: the specialization.
        settings: the kernel's settings.
        constants: block-size and tunable symbols -> value, for host code that uses them.
        scalars: host symbols the program needs, in the order it takes them.
    """
    host = HostPrinter(ir, constants, settings.output_origin_lines)
    tensors = [tensor.text for tensor in ir.device.host_tensors.values()]
    numbers = [host.symbol(symbol) for symbol in scalars]
    launch = f"_launcher({', '.join([PROGRAM_NAME, '()', *tensors, *numbers])})"
    body = host.function([launch], "_default_launcher")
    imports, injected = host.imports_and_globals()
    head = [
        "from __future__ import annotations",
        "",
        "import torch",
        *(line for line in imports if line.startswith("import ") and line != "import torch"),
        "from helion.runtime.tile_executor import run_program as _default_launcher",
        "",
        *(line for line in imports if not line.startswith("import ")),
    ]
    return GeneratedSource("\n".join(head).rstrip() + "\n\n\n" + "\n".join(body) + "\n", ir.name, injected)
