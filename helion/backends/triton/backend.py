"""The Triton backend: one module of source per Config."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import sympy
import torch

from ... import exc
from ..._locks import cached_property
from ...config import Config
from ...config_spec import ConfigSpec
from ...ir.axes import with_values
from ...ir.block_sizes import held_sizes
from ...ir.block_sizes import resolve_constants
from ...ir.device_ir import AxisKind
from ...ir.device_ir import KernelIR
from ...ir.device_ir import RollableReduction
from ...ir.facts import Facts
from ...ir.nodes import HostTensorNode
from ...ir.nodes import Memory
from ...ir.packed_rows import pack_rows
from ...ir.packed_rows import packable
from ...ir.reductions import roll
from ...ir.squeezing import drop_unit_dims
from ...ir.symbols import evaluated
from ...ir.verify import verify
from ...language.indexing import indexed_shape
from ...numbers import next_power_of_2
from ...runtime import output_pool
from ...runtime.launch.launcher import FastLauncher
from ...runtime.native.binary import Binary
from ...runtime.stats import KernelStats
from ...settings import Settings
from ...target import CPU
from ...target import Target
from ..base import Backend
from ..base import GeneratedSource
from ..base import Launch
from ..base import Recipe
from ..host import HostPrinter
from .candidate import TritonRecipe
from .candidate import compiled_binary
from .candidate import compiled_stages
from .kernels import print_kernel
from .kernels import print_loop
from .limits import TileSizes
from .lowering import Lowering
from .module import Module
from .pipelining import loads_beside_products
from .pipelining import unsafe_to_pipeline
from .schedule import Schedule
from .schedule import resolve
from .spec import build_config_spec
from .spec import dot_extents
from .targets import FEATURES
from .targets import check_target
from .targets import features_of

#: Registers of a multiprocessor and, about, the most of a thread: a row that would take them all as float32
#: stays as it was loaded.  Where they suffice it is slower: 167 us, not 158, in a backward pass of 16384 columns.
_REGISTERS, _REGISTERS_OF_THREAD = 65536, 256


class TritonBackend(Backend):
    """Device IR -> Triton source."""

    name = "triton"
    vendors = frozenset(FEATURES) - {CPU.vendor}
    language = "Triton"

    def __init__(self, ir: KernelIR, settings: Settings, target: Target) -> None:
        super().__init__(ir, settings, target)
        self._facts = Facts(ir.device)
        self._features = features_of(target)
        self._made: dict[Any, tuple[KernelIR, Facts]] = {}
        self._tiles = TileSizes(ir, dot_extents(ir.device))
        self._spec = build_config_spec(ir, self._facts, settings, self._features, self._tiles)

    @property
    def spec(self) -> ConfigSpec:
        return self._spec

    def guards(self) -> list[sympy.Basic]:
        """A whole dimension of dynamic size has a power-of-two extent, so the size must stay in its bucket."""
        found: dict[sympy.Basic, None] = {}
        for _, node in self.ir.device.nodes():
            value = node.meta.get("val")
            if node.op != "call_function" or HostTensorNode.match(node):
                continue
            shape = list(value.shape) if isinstance(value, torch.Tensor) else []
            if memory := Memory.match(node):
                # What is stored may be smaller: `x[t, :] = 1.0` wrote as many elements as the first call's rows had.
                shape += indexed_shape(memory.tensor, with_values(memory.index), memory.op.name)
            for size in shape:
                if not isinstance(size, torch.SymInt):
                    continue
                if self.ir.device.space.is_host_value(size):
                    most = next_power_of_2(size.node.hint)
                    held = {size.node.expr: (most // 2 + 1, most)}
                else:
                    held = held_sizes(self.ir.device.space, size)
                for number, (least, most) in held.items():
                    found[sympy.Le(number, most)] = None
                    found[sympy.Gt(number, least - 1)] = None
        return [guard for guard in found if guard not in (sympy.true, sympy.false)]

    def generate(self, config: Config) -> GeneratedSource:
        check_target(self.ir.device, self.target)
        chunks = dict(zip(self.ir.reductions, config.get("reduction_loops", [])))
        looped = {reduction: chunk for reduction, chunk in chunks.items() if chunk is not None}
        ir, facts = self._prepared(config, list(looped))
        schedule = resolve(ir, self.ir, config)
        schedule.constants.update((reduction.axis.block.symbol, chunk) for reduction, chunk in looped.items())
        if self.target == CPU or int(self.target.arch) >= 90:
            narrow = self.target != CPU and int(self.target.arch) >= 100
            if narrow:
                schedule.with_the_kernels_stages(loads_beside_products(ir.device))
            schedule.without_stages(unsafe_to_pipeline(ir.device, narrow=narrow))
        _check_block_sizes(ir, schedule)
        host = HostPrinter(self.ir, schedule.constants, pool=output_pool.enabled())
        minimum = dot_extents(ir.device)
        module = Module(self._features, host.taken)
        loops = [
            print_loop(
                Lowering(ir, facts, ir.device.graphs[root.graph_id], schedule, self.settings, minimum, module),
                root,
                host,
                alone=len(ir.device.roots) == 1,
            )
            for root in ir.device.roots
        ]
        # A function of the user's may use descriptors too.
        descriptors = self._features.descriptors and (module.descriptors or bool(module.injected))
        kernel = print_kernel(self.ir.name, loops, schedule, self.settings, host, module, descriptors=descriptors)
        body = host.function([kernel.launch, *host.after_launch()], "_default_launcher")
        _, injected = host.imports_and_globals()
        text = module.text([*module.sources.values(), *kernel.functions], body, kernel.constexprs, host)
        return GeneratedSource(text, self.ir.name, {**injected, **module.injected})

    def _prepared(self, config: Config, looped: list[RollableReduction]) -> tuple[KernelIR, Facts]:
        """The IR that a Config's kernel is printed from, and what the analyses say about it.

        Some reductions are loops, and the dimensions that are one are gone.  Configs that agree in both share it.
        """
        ones: frozenset[sympy.Expr] = frozenset()
        squeezes = not any(config.get("flatten_loops", ()))  # values of a flattened loop are told by their shape
        if squeezes:
            tunables = {key: config[key] for key in self.ir.tunables}
            constants = resolve_constants(self.ir.device, config.get("block_sizes", []), tunables)
            ones = frozenset(expr for expr in self._sizes if evaluated(expr, constants) == 1)
        long = self._long(config)
        key = (tuple(looped), squeezes, ones, long)
        if key not in self._made:
            device = roll(self.ir.device, looped) if looped else self.ir.device
            if ones or (squeezes and looped):  # loops over chunks hold other values
                device = drop_unit_dims(device, ones)
            if long:
                device = pack_rows(device, lambda shape: self._is_long(shape, config))
            if device is self.ir.device:
                self._made[key] = self.ir, self._facts
            else:
                if self.settings.verify_ir:
                    verify(device)
                self._made[key] = dataclasses.replace(self.ir, device=device), Facts(device)
        return self._made[key]

    def _long(self, config: Config) -> frozenset[tuple[sympy.Expr, ...]]:
        """Shapes of values that are too much for registers as float32, if any such value is loaded in 16 bits."""
        if not any(self._is_long(shape, config) for shape in self._packable):
            return frozenset()
        return frozenset(shape for shape in self._tiles.shapes if self._is_long(shape, config))

    def _is_long(self, shape: Sequence[sympy.Expr], config: Config) -> bool:
        registers = min(_REGISTERS, _REGISTERS_OF_THREAD * 32 * config.num_warps)
        return self._tiles.elements(shape, config.config) >= registers

    @cached_property
    def _packable(self) -> list[tuple[sympy.Expr, ...]]:
        """Shapes of what is loaded and may be held packed."""
        return packable(self.ir.device)

    @cached_property
    def _sizes(self) -> frozenset[sympy.Expr]:
        """The sizes of values."""
        return frozenset(size for shape in self._tiles.shapes for size in shape)

    def launcher(
        self, host: types.FunctionType, name: str, device: int | None, stats: KernelStats
    ) -> Callable[..., Any]:
        return FastLauncher(name, device=device, stats=stats, host_function=host)

    def recipe(self, source: GeneratedSource, name: str) -> Recipe | None:
        # What a text refers to without defining it, another process cannot find.
        return None if source.injected else TritonRecipe(source.text, source.function, name)

    def stages(self, launch: Launch) -> Mapping[str, Any]:
        return compiled_stages(launch, self.target)

    def binary(self, launch: Launch) -> Binary:
        return compiled_binary(launch, self.target)


def _check_block_sizes(ir: KernelIR, schedule: Schedule) -> None:
    """Triton's tensors have power-of-two extents.

    Raises:
        exc.BackendUnsupported: the kernel fixes another block size.
    """
    for info in ir.device.graphs:
        for axis in info.axes:
            size = schedule.block_size(axis)
            if axis.kind is not AxisKind.GRID and size & (size - 1):
                raise exc.BackendUnsupported(
                    backend="triton",
                    reason=f"the block size of loop {axis.name!r} is {size}, which is not a power of two",
                    fix="give block_size= a power of two, or leave it out.",
                    location=info.location,
                )
