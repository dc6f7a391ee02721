"""From a program of the launch grid to the tiles it works on: pid_type, loop_orders, l2_groupings, flatten_loops."""

from __future__ import annotations

import dataclasses

from ...ir.device_ir import Axis
from ...ir.device_ir import AxisKind
from ...settings import Settings
from ..host import HostPrinter
from .emitter import KernelEmitter
from .schedule import Schedule
from .scope import Scope


@dataclasses.dataclass(frozen=True)
class Tiles:
    """The tiles of a top-level loop.

    Attributes:
        host, device: how many there are, as host and as device text.
        grid: host text of each dimension of the grid of a kernel that does nothing else.
    """

    host: str
    device: str
    grid: list[str]


def tile_count(k: KernelEmitter, axis: Axis, host: HostPrinter | None) -> str:
    """Number of tiles of an axis, as host text (with `host`) or device text."""
    number = k.number if host is None else host.number
    begin, end = number(axis.begin), number(axis.end)
    length = end if begin == "0" else f"{end} - {begin}"
    if k.schedule.block_size(axis) == 1:
        return length
    block = k.block_name(axis.block)
    return f"tl.cdiv({length}, {block})" if host is None else host_cdiv(length, block)


def host_cdiv(number: str, block: str) -> str:
    """Host text of `number / block`, rounded up. Written out: `triton.cdiv` takes 5 us, more than the launch itself."""
    return f"({number} + {block} - 1) // {block}"


#: The number of a program, in a kernel of one loop.
PROGRAM = "tl.program_id(0)"


def emit_program_ids(k: KernelEmitter, host: HostPrinter, program: str = PROGRAM) -> tuple[Tiles, Scope]:
    """Open the scope in which a tile's offsets are known.

    Args:
        k: the emitter of the loop.
        host: prints what the host knows.
        program: device text of the number of the program among those that do this loop.

    Returns:
        The tiles, and the scope for the body of the loop: the kernel's own, or the inside of a loop over tiles
        where programs are persistent.
    """
    axes = k.root.axes
    order = k.schedule.order.get(k.root.id, list(range(len(axes))))
    pid_type = k.schedule.config.get("pid_type", "flat")
    top = k.kernel_scope
    if pid_type == "xyz":
        # The innermost loop is the fastest dimension of the grid.
        for place, which in zip("012", reversed(order)):
            _define_offset(k, top, axes[which], f"tl.program_id({place})")
        return Tiles("", "", [tile_count(k, axes[i], host) for i in reversed(order)]), top
    host_tiles = _tiles(k, host)
    # Only where it is needed: what it names becomes a parameter.
    device_tiles = "" if pid_type == "flat" and program == PROGRAM else _tiles(k, None)

    def decompose(scope: Scope, pid: str) -> None:
        if k.flat_root:
            _decompose_flat(k, scope, pid)
        else:
            _decompose(k, scope, pid, order)

    if pid_type == "flat":
        decompose(top, program)
        return Tiles(host_tiles, device_tiles, [host_tiles]), top
    top.head.append(f"total_tiles = {device_tiles}")
    pid = k.names.unique("tile_pid")
    if pid_type == "persistent_blocked":
        top.head.append("tiles_per_program = tl.cdiv(total_tiles, tl.num_programs(0))")
        top.head.append(f"first_tile = {program} * tiles_per_program")
        k.persistent_header = (
            f"for {pid} in tl.range(first_tile, tl.minimum(first_tile + tiles_per_program, total_tiles)):"
        )
    else:
        k.persistent_header = f"for {pid} in tl.range({program}, total_tiles, tl.num_programs(0)):"
    inner = Scope(top)
    decompose(inner, pid)
    tensor = k.ir.device.host_tensors[k.tensor_args[0]].text
    return Tiles(
        host_tiles, device_tiles, [persistent_programs(k.schedule, k.settings, host, tensor, host_tiles)]
    ), inner


def persistent_programs(schedule: Schedule, settings: Settings, host: HostPrinter, tensor: str, tiles: str) -> str:
    """Host text: how many programs run through `tiles` tiles on the device of a tensor, when each runs through many."""
    sms = host.multiprocessors(tensor, settings.persistent_reserved_sms)
    multiplier = schedule.config.get("num_sm_multiplier", 1)
    programs = sms if multiplier == 1 else f"{sms} * {multiplier}"
    return f"max(1, min({programs}, {tiles}))"


def _tiles(k: KernelEmitter, host: HostPrinter | None) -> str:
    """How many tiles there are, as host text (with `host`) or device text."""
    if not k.flat_root:
        counts = [tile_count(k, axis, host) for axis in k.root.axes]
        return counts[0] if len(counts) == 1 else " * ".join(_device_factor(c) for c in counts)
    number, blocks = k.number if host is None else host.number, _flat_blocks(k)
    numel = " * ".join(_device_factor(number(axis.end)) for axis in k.root.axes)
    return (
        f"tl.cdiv({numel}, {blocks})"
        if host is None
        else host_cdiv(numel, blocks if blocks.isidentifier() else f"({blocks})")
    )


def _device_factor(text: str) -> str:
    return text if text.startswith("tl.cdiv") or text.isidentifier() or text.isdigit() else f"({text})"


def _decompose(k: KernelEmitter, scope: Scope, pid: str, order: list[int]) -> None:
    """Split a flat program id into one id per axis: the last loop of `order` varies fastest."""
    axes = [k.root.axes[i] for i in order]
    if len(axes) == 1:
        _define_offset(k, scope, axes[0], pid)
        return
    group = k.schedule.l2_group.get(k.root.id, 1)
    if group > 1:
        _grouped(k, scope, pid, axes, group)
        return
    rest = scope.define(k.names.unique("pid"), pid) if not pid.isidentifier() else pid
    for axis in reversed(axes[1:]):
        count = tile_count(k, axis, None)
        count_name = scope.define(k.axis_name(axis, "num_tiles_"), count) if not count.isdigit() else count
        _define_offset(k, scope, axis, f"{rest} % {count_name}")
        rest = scope.define(k.names.unique("pid"), f"{rest} // {count_name}")
    _define_offset(k, scope, axes[0], rest)


def _grouped(k: KernelEmitter, scope: Scope, pid: str, axes: list[Axis], group: int) -> None:
    """Tiles in groups of `group` rows, column by column, so that neighbours share operands in L2.

    The order of Triton's matrix multiplication tutorial, over the two innermost loops.
    """
    rest = scope.define(k.names.unique("pid"), pid) if not pid.isidentifier() else pid
    *outer, rows, columns = axes
    names = {}
    for axis in (rows, columns):
        names[axis.id] = scope.define(k.axis_name(axis, "num_tiles_"), tile_count(k, axis, None))
    if outer:
        plane = scope.define(k.names.unique("plane"), f"{names[rows.id]} * {names[columns.id]}")
        inner = scope.define(k.names.unique("pid"), f"{rest} % {plane}")
        rest = scope.define(k.names.unique("pid"), f"{rest} // {plane}")
        for axis in reversed(outer[1:]):
            count = scope.define(k.axis_name(axis, "num_tiles_"), tile_count(k, axis, None))
            _define_offset(k, scope, axis, f"{rest} % {count}")
            rest = scope.define(k.names.unique("pid"), f"{rest} // {count}")
        _define_offset(k, scope, outer[0], rest)
    else:
        inner = rest
    width = scope.define(k.names.unique("group_tiles"), f"{group} * {names[columns.id]}")
    first = scope.define(k.names.unique("group_first"), f"{inner} // {width} * {group}")
    size = scope.define(k.names.unique("group_rows"), f"tl.minimum({names[rows.id]} - {first}, {group})")
    _define_offset(k, scope, rows, f"{first} + {inner} % {width} % {size}")
    _define_offset(k, scope, columns, f"{inner} % {width} // {size}")


def _define_offset(k: KernelEmitter, scope: Scope, axis: Axis, pid: str) -> None:
    wide = ".to(tl.int64)" if k.wide_index else ""
    pid = f"({pid}){wide}" if wide and " " in pid else f"{pid}{wide}"
    size = k.schedule.block_size(axis)
    if (axis.kind is AxisKind.GRID and size == 1) or size == 1:
        text = pid
    else:
        text = f"{f'({pid})' if ' ' in pid else pid} * {k.block_name(axis.block)}"
    begin = k.number(axis.begin)
    if begin != "0":
        text = f"{begin} + {text}"
    scope.define(k.offset(axis), text)
    k.open_axis(axis, scope)


def _flat_blocks(k: KernelEmitter) -> str:
    return " * ".join(k.block_name(axis.block) for axis in k.root.axes)


def _decompose_flat(k: KernelEmitter, scope: Scope, pid: str) -> None:
    """All dimensions as one: a program takes consecutive elements of the flat iteration space."""
    axes, blocks = k.root.axes, _flat_blocks(k)
    wide = ".to(tl.int64)" if k.wide_index else ""
    flat = scope.define(
        k.names.unique("flat_index"), f"{f'({pid})' if ' ' in pid else pid}{wide} * ({blocks}) + tl.arange(0, {blocks})"
    )
    scope.define("flat_mask", f"{flat} < {' * '.join(_device_factor(k.number(axis.end)) for axis in axes)}")
    rest = flat
    for axis in reversed(axes[1:]):
        size = _device_factor(k.number(axis.end))
        scope.define(k.axis_name(axis, "index_"), f"{rest} % {size}")
        rest = f"{rest} // {size}"
    scope.define(k.axis_name(axes[0], "index_"), rest)
    for axis in axes:
        k.open_axis(axis, scope)
