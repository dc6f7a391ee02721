"""The Triton backend: one module of source per Config."""

from __future__ import annotations

import dataclasses
import re
import threading
from typing import Any

import sympy
import torch

from ... import exc
from ...config import Config
from ...config_spec import ConfigSpec
from ...ir.axes import assign_axes
from ...ir.device_ir import AxisKind
from ...ir.device_ir import GraphInfo
from ...ir.device_ir import KernelIR
from ...ir.device_ir import host_tensor
from ...ir.masking import assign_padding
from ...ir.reductions import roll
from ...runtime import output_pool
from ...settings import Settings
from ..base import Backend
from ..base import GeneratedSource
from ..host import HostPrinter
from ..host import runtime_imports
from .emitter import KernelEmitter
from .emitter import SharedFunctions
from .emitter import next_power_of_2
from .program_ids import emit_program_ids
from .schedule import Schedule
from .schedule import resolve
from .spec import build_config_spec
from .spec import dot_extents
from .spec import rollable_reductions
from .targets import check_target


class TritonBackend(Backend):
    """Device IR -> Triton source."""

    name = "triton"

    def __init__(self, ir: KernelIR, settings: Settings, target: int | None) -> None:
        super().__init__(ir, settings, target)
        assign_axes(ir.device)
        assign_padding(ir.device)
        self._reductions = rollable_reductions(ir)
        self._spec = build_config_spec(ir, settings, target, self._reductions)
        # Two threads that print at once would see each other's notes on the shared graphs.
        self._lock = threading.Lock()

    def config_spec(self) -> ConfigSpec:
        return self._spec

    def guards(self) -> list[sympy.Basic]:
        """A whole dimension of dynamic size has a power-of-two extent, so the size must stay in its bucket."""
        found: dict[sympy.Basic, None] = {}
        for _, node in self.ir.device.nodes():
            value = node.meta.get("val")
            if not isinstance(value, torch.Tensor) or node.op != "call_function" or node.target is host_tensor:
                continue
            for size in value.shape:
                if isinstance(size, torch.SymInt) and self.ir.env.is_host_value(size):
                    extent = next_power_of_2(size.node.hint)
                    found[sympy.Le(size.node.expr, extent)] = None
                    found[sympy.Gt(size.node.expr, extent // 2)] = None
        return [guard for guard in found if guard not in (sympy.true, sympy.false)]

    def generate(self, config: Config) -> GeneratedSource:
        check_target(self.ir.device, self.target)
        with self._lock:
            return self._generate(config)

    def _generate(self, config: Config) -> GeneratedSource:
        ir = self._rolled(config)
        schedule = resolve(ir, self.ir, config)
        for reduction, chunk in zip(self._reductions, config.get("reduction_loops", [])):
            if chunk is not None:
                schedule.constants[reduction.axis.block.symbol] = chunk
        _check_block_sizes(ir, schedule)
        host = HostPrinter(self.ir, schedule.constants, self.settings.output_origin_lines, pool=output_pool.enabled())
        minimum = dot_extents(ir.device)
        kernels: list[list[str]] = []
        launch: list[str] = []
        constants: dict[str, int] = {}
        shared = SharedFunctions()
        for number, root in enumerate(ir.device.roots):
            name = f"_{self.ir.name}_kernel" + (f"_{number}" if len(self.ir.device.roots) > 1 else "")
            lines, statements, blocks = self._kernel(name, ir, ir.device.graphs[root.graph_id], schedule, host, minimum, shared)
            # Kernels of one module share block-size constants by name; a clash gets the kernel's number.
            for block, value in blocks.items():
                if constants.setdefault(block, value) != value:
                    renamed = f"{block}_{number}"
                    lines = [_rename(line, block, renamed) for line in lines]
                    statements = [_rename(line, block, renamed) for line in statements]
                    constants[renamed] = value
            kernels.append(lines)
            launch.extend(statements)
        imports, injected = host.imports_and_globals()
        body = host.function([*launch, *host.after_launch()], "_default_launcher")
        kernels = [*shared.sources.values(), *kernels]
        return GeneratedSource(
            self._module(kernels, body, constants, imports), self.ir.name, {**injected, **shared.injected}
        )

    def _rolled(self, config: Config) -> KernelIR:
        """The IR with the reductions looped that the Config wants looped."""
        chosen = [r for r, chunk in zip(self._reductions, config.get("reduction_loops", [])) if chunk is not None]
        if not chosen:
            if self._reductions:  # an earlier Config's loops left their notes on shared nodes
                assign_axes(self.ir.device)
                assign_padding(self.ir.device)
            return self.ir
        device = roll(self.ir.device, chosen)
        assign_axes(device)
        assign_padding(device)
        return dataclasses.replace(self.ir, device=device)

    def _kernel(
        self,
        name: str,
        ir: KernelIR,
        root: GraphInfo,
        schedule: Schedule,
        host: HostPrinter,
        minimum: dict[Any, int],
        shared: SharedFunctions,
    ) -> tuple[list[str], list[str], dict[str, int]]:
        """Lines of one kernel, the host statements that launch it, and its block sizes."""
        k = KernelEmitter(ir, root, schedule, self.settings, minimum, shared)
        program, inner = emit_program_ids(k, host)
        k.scope = inner
        k.graph(root)
        if inner is not k.kernel_scope:
            k.kernel_scope.nest(k.persistent_header, inner)
        parameters = [
            *k.tensor_args,
            *k.scalar_args.values(),
            # Numbers, not the module's names for them: Inductor copies a kernel's source without the module.
            *(f"{block}: tl.constexpr = {size}" for block, size in k.constexprs.items()),
        ]
        location = root.location
        comment = []
        if location is not None and self.settings.output_origin_lines:
            comment = [f"    # {location.short()}: {location.text.strip()}"]
        lines = [
            "@triton.jit",
            f"def {name}({', '.join(parameters)}):",
            *comment,
            *(f"    {line}" for line in k.kernel_scope.lines()),
        ]
        tensors = [self.ir.device.host_tensors[t].text for t in k.tensor_args]
        scalars = [host.symbol(symbol) for symbol in k.scalar_args]
        options = [f"num_warps={schedule.config['num_warps']}", f"num_stages={schedule.config['num_stages']}"]
        if schedule.config.get("maxnreg") is not None:
            options.append(f"maxnreg={schedule.config['maxnreg']}")
        grid = f"({', '.join(program.grid)},)"
        call = f"_launcher({name}, {grid}, {', '.join([*tensors, *scalars, *options])})"
        return lines, [*program.setup, call], k.constexprs

    def _module(
        self, kernels: list[list[str]], host: list[str], constants: dict[str, int], imports: list[str]
    ) -> str:
        text = "\n".join("\n".join(lines) for lines in [*kernels, host])
        head = ["from __future__ import annotations", "", "import torch", "import triton", "import triton.language as tl"]
        head += [line for line in imports if line not in head and line.startswith("import ")]
        if "libdevice." in text:
            head.append("from triton.language.extra import libdevice")
        head.append("from helion.runtime import default_launcher as _default_launcher")
        head += runtime_imports(text)
        head += [f"from helion.runtime.triton_helpers import {name}" for name in sorted(set(_HELPER.findall(text)))]
        if "make_tensor_descriptor" in text:
            head += ["from helion.runtime import set_triton_allocator as _set_triton_allocator", "", "_set_triton_allocator()"]
        head += ["", *(line for line in imports if not line.startswith("import "))]
        head += [f"{name} = {value}" for name, value in constants.items() if any(re.search(rf"\b{name}\b", line) for line in host)]
        blocks = ["\n".join(head).rstrip(), *("\n".join(lines) for lines in kernels), "\n".join(host)]
        return "\n\n\n".join(blocks) + "\n"


#: A function of `helion.runtime.triton_helpers`, imported by its own name: Inductor copies what a kernel calls by name.
_HELPER = re.compile(r"\bhlt_\w+(?=[(,)])")


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


def _rename(line: str, old: str, new: str) -> str:
    return re.sub(rf"\b{re.escape(old)}\b", new, line)


