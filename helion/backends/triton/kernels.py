"""One Triton kernel from the top-level loops of a kernel function.

A loop alone is the kernel.  Several loops become a function each, and a kernel that calls them:

* loops of one phase are independent: under a flat `pid_type` a program takes a tile of one of them, the tiles of the
  first loop being the first programs; persistent programs run through the tiles of one loop after the other;
* between phases (`hl.barrier()`) all programs wait for each other.  For that they must be on the GPU at the same time:
  they are persistent, and the launch is cooperative, which the driver refuses if they do not fit.

The body of a loop is the `emitter`'s, the mapping of programs to tiles is `program_ids`'.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import sympy

from ...ir.device_ir import RootLoop
from ...settings import Settings
from ..host import HostPrinter
from ..text import Text
from ..text import call
from ..text import total
from .emitter import KernelEmitter
from .module import Module
from .numbers import has_doubles
from .program_ids import PROGRAM
from .program_ids import Tiles
from .program_ids import emit_program_ids
from .program_ids import persistent_programs
from .scalars import is_float
from .schedule import Schedule


@dataclasses.dataclass(frozen=True)
class PrintedLoop:
    """A top-level loop in Triton.

    Attributes:
        phase: how many barriers stand before it.
        tensors: host tensors it uses.
        scalars: host values it uses, and what they are called.
        constexprs: block sizes it uses.
        body: its lines.
        tiles: how many there are, and the grid of a kernel with this loop alone.
        comment: where the user wrote it.
    """

    phase: int
    tensors: list[str]
    scalars: dict[sympy.Expr, str]
    constexprs: dict[str, int]
    body: list[str]
    tiles: Tiles
    comment: list[str]

    @property
    def arguments(self) -> list[str]:
        """What the loop must be given: the same names inside and outside of its function."""
        return [*self.tensors, *self.scalars.values(), *self.constexprs]


@dataclasses.dataclass(frozen=True)
class PrintedKernel:
    """A kernel and how to launch it.

    Attributes:
        functions: the lines of each function, the kernel's last.
        constexprs: its block sizes.
        launch: the host statement that launches it.
    """

    functions: list[list[str]]
    constexprs: dict[str, int]
    launch: str


def print_loop(k: KernelEmitter, root: RootLoop, host: HostPrinter, *, alone: bool) -> PrintedLoop:
    """Print one top-level loop.

    Args:
        k: a fresh emitter for it.
        root: the loop.
        host: prints what the host knows.
        alone: it is the only loop; else its function is given the number of the program among those that do the loop.
    """
    info = k.root
    if not alone:
        k.names.unique("pid")
    tiles, body = emit_program_ids(k, host, PROGRAM if alone else Text("pid"))
    with body:
        k.graph(info)
    comment = []
    if info.location is not None and k.settings.output_origin_lines:
        comment = [f"# {info.location.short()}: {info.location.text.strip()}"]
    return PrintedLoop(root.phase, k.tensors, k.numbers.scalars, k.numbers.constexprs, k.top.lines(), tiles, comment)


def print_kernel(
    name: str,
    loops: Sequence[PrintedLoop],
    schedule: Schedule,
    settings: Settings,
    host: HostPrinter,
    module: Module,
    *,
    descriptors: bool,
) -> PrintedKernel:
    """The kernel that does these loops in one launch.

    Args:
        name: of the kernel function.
        loops: in order of their phases.
        schedule, settings, host, module: what they were printed with.
        descriptors: the tensor memory accelerator may read or write in one of them.
    """
    tensors = list(dict.fromkeys(t for loop in loops for t in loop.tensors))
    scalars = {number: text for loop in loops for number, text in loop.scalars.items()}
    constexprs = {text: size for loop in loops for text, size in loop.constexprs.items()}
    cooperative = loops[-1].phase > 0
    functions: list[list[str]] = []
    if len(loops) == 1:
        body, grid = [*loops[0].comment, *loops[0].body], ", ".join(map(str, loops[0].tiles.grid))
    else:
        functions = [_function(f"_{name}_loop_{i}", loop) for i, loop in enumerate(loops)]
        barrier = f"{module.helper('hlt_grid_barrier')}({descriptors})" if cooperative else ""
        body, grid = _calls(name, loops, schedule, settings, host, tensors[0], barrier)
    # Numbers, not the module's names for them: Inductor copies a kernel's source without the module.
    sizes = [f"{text}: tl.constexpr = {size}" for text, size in constexprs.items()]
    numbers = [
        f"{text}: tl.float64" if is_float(number) and has_doubles(host.ir.device) else text
        for number, text in scalars.items()
    ]
    head = f"def _{name}_kernel({', '.join([*tensors, *numbers, *sizes])}):"
    body = [*_controls_comment(schedule.config.get("advanced_controls_file")), *body]
    functions.append(["@triton.jit", head, *(f"    {line}" for line in body)])
    options = [f"num_warps={schedule.config['num_warps']}", f"num_stages={schedule.config['num_stages']}"]
    if schedule.config.get("maxnreg") is not None:
        options.append(f"maxnreg={schedule.config['maxnreg']}")
    controls = schedule.config.get("advanced_controls_file")
    if controls:
        options.append(f"ptx_options={f'--apply-controls {controls}'!r}")
    if cooperative:
        options.append("launch_cooperative_grid=True")
    arguments = [host.ir.device.host_tensors[t].text for t in tensors]
    arguments += [host.expression(number) for number in scalars]
    launch = f"_launcher(_{name}_kernel, ({grid},), {', '.join([*arguments, *options])})"
    return PrintedKernel(functions, constexprs, launch)


def _controls_comment(path: str | None) -> list[str]:
    """What ptxas is told in a file, as a line of the kernel: Triton looks for a binary by the kernel's text and the
    file's name, so that without it a changed file would not be seen.
    """
    if not path or not Path(path).is_file():
        return []
    return [f"# {Path(path).name}: sha256 {hashlib.sha256(Path(path).read_bytes()).hexdigest()}"]


def _function(name: str, loop: PrintedLoop) -> list[str]:
    sizes = [f"{text}: tl.constexpr" for text in loop.constexprs]
    head = f"def {name}({', '.join(['pid', *loop.tensors, *loop.scalars.values(), *sizes])}):"
    return ["@triton.jit", head, *(f"    {line}" for line in [*loop.comment, *loop.body])]


def _calls(
    name: str,
    loops: Sequence[PrintedLoop],
    schedule: Schedule,
    settings: Settings,
    host: HostPrinter,
    tensor: str,
    barrier: str,
) -> tuple[list[str], str]:
    """Lines of the kernel that calls the functions of the loops, and its grid."""

    def loop(number: int, pid: Text) -> Text:
        return call(f"_{name}_loop_{number}", pid, *loops[number].arguments)

    phases = itertools.groupby(loops, key=lambda printed: printed.phase)
    sums = [total(printed.tiles.host for printed in phase if printed.tiles.host is not None) for _, phase in phases]
    if schedule.config["pid_type"] == "flat":
        lines, chain, pid = [f"pid = {PROGRAM}"], [], Text("pid")
        done: Text | None = None
        for number, printed in enumerate(loops[:-1]):
            tiles, end = printed.tiles.device, Text(f"end_{number}")
            assert tiles is not None
            lines.append(f"{end} = {tiles if done is None else done + tiles}")
            chain.append(f"{'if' if done is None else 'elif'} {pid < end}:")
            chain.append(f"    {loop(number, pid if done is None else pid - done)}")
            done = end
        assert done is not None
        return [*lines, *chain, "else:", f"    {loop(len(loops) - 1, pid - done)}"], str(sums[0])
    lines = []
    phase, from_the_end = 0, False
    for number, printed in enumerate(loops):
        if printed.phase != phase:
            lines.append(barrier)
            phase, from_the_end = printed.phase, False
        # Loops of one phase begin at different ends of the grid: two short ones keep different programs busy.
        program = call("tl.num_programs", 0) - 1 - PROGRAM if from_the_end else PROGRAM
        lines.append(str(loop(number, program)))
        from_the_end = not from_the_end
    most = sums[0] if len(sums) == 1 else call(host.builtin("max"), *sums)
    return lines, str(persistent_programs(schedule, settings, host, host.ir.device.host_tensors[tensor].text, most))
