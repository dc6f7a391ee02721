"""The tile executor: runs the device IR tile by tile with PyTorch's own ops, on any device.

This is what CPU tensors run through.  Each graph is compiled once to a list of steps (`tile_program`); a
launch iterates over the tiles of the top-level loops and runs the steps.  Tiles are clipped at the end of
their range, so there are no masks: a dimension has `end - begin` elements where a GPU has a padded block.
Block sizes therefore have two values, nominal in arithmetic and clipped in shapes (`tile_program.State`).

Not here: the host statements around the launch, which the generated host function runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy
import torch

from ...ir.block_sizes import SizedIR
from ...ir.symbols import OriginKind
from ...language.op import handler
from .handler import EagerHandler
from .tile_program import Program
from .tile_program import State


class TileExecutor:
    """Runs one kernel's device code under one choice of block sizes.

    Args:
        sized: device IR and block sizes.
    """

    def __init__(self, sized: SizedIR) -> None:
        self.ir = sized.ir
        self.constants = dict(sized.constants)
        self.index_dtype = sized.ir.space.index_dtype
        self._program = Program(sized.ir)

    def launch(self, tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, Any]) -> None:
        """Run all top-level loops.

        Args:
            tensors: a tensor for each entry of `ir.host_tensors`, by name.
            scalars: a number for each host symbol of `ir.space.origins`, by the origin's name.

        Raises:
            exc.IndexOutOfRange: an index tensor points outside its tensor.
            exc.BackendUnsupported: PyTorch has no kernel for an op on this device.
        """
        device = next(iter(tensors.values())).device if tensors else torch.device("cpu")
        numbers: dict[sympy.Symbol, Any] = dict(self.constants)
        for symbol, origin in self.ir.space.origins.items():
            if origin.kind is OriginKind.HOST and origin.name in scalars:
                numbers[symbol] = scalars[origin.name]
        frame = State(self._program, dict(tensors), numbers)
        with torch.no_grad(), handler(EagerHandler(device, self.index_dtype)):
            for root in self.ir.roots:
                self._program.run_tiles(self.ir.graphs[root.graph_id], frame, ())


def launch(device_code: SizedIR, tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, Any]) -> None:
    """The launcher of host functions that run on the tile executor.

    Args:
        device_code: device IR and block sizes; keeps its compiled form between calls.
        tensors, scalars: as `TileExecutor.launch`.
    """
    if device_code.executor is None:
        device_code.executor = TileExecutor(device_code)
    device_code.executor.launch(tensors, scalars)
