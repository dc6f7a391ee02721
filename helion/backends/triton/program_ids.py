"""From a program of the launch grid to the tiles it works on: pid_type, loop_orders, l2_groupings, flatten_loops."""

from __future__ import annotations

import dataclasses

from ...ir.device_ir import Axis
from ...ir.device_ir import AxisKind
from ..host import HostPrinter
from .emitter import KernelEmitter
from .scope import Scope


@dataclasses.dataclass(frozen=True)
class Launch:
    """How a kernel is launched.

    Attributes:
        grid: host text of each grid dimension.
        setup: host statements before the launch.
    """

    grid: list[str]
    setup: list[str]


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


def emit_program_ids(k: KernelEmitter, host: HostPrinter) -> tuple[Launch, Scope]:
    """Open the scope in which a tile's offsets are known.

    Returns:
        How to launch, and the scope for the body of the loop: the kernel's own, or the inside of a loop over tiles
        where programs are persistent.
    """
    axes = k.root.axes
    order = k.schedule.order.get(k.root.id, list(range(len(axes))))
    pid_type = k.schedule.config.get("pid_type", "flat")
    counts = [tile_count(k, axis, host) for axis in axes]
    top = k.kernel_scope
    if k.flat_root:
        return _flattened(k, host, pid_type)
    if pid_type == "xyz":
        # The innermost loop is the fastest dimension of the grid.
        for place, which in zip("012", reversed(order)):
            _define_offset(k, top, axes[which], f"tl.program_id({place})")
        return Launch([counts[i] for i in reversed(order)], []), top
    total = counts[0] if len(counts) == 1 else " * ".join(_device_factor(c) for c in counts)
    if pid_type == "flat":
        _decompose(k, top, "tl.program_id(0)", order)
        return Launch([total], []), top
    return _persistent(k, host, pid_type, total, lambda scope, pid: _decompose(k, scope, pid, order))


def _persistent(k: KernelEmitter, host: HostPrinter, pid_type: str, total: str, decompose: object) -> tuple[Launch, Scope]:
    """A fixed number of programs, each of which runs through many tiles."""
    top = k.kernel_scope
    tensor = k.ir.device.host_tensors[k.tensor_args[0]]
    device_total = " * ".join(_device_factor(tile_count(k, axis, None)) for axis in k.root.axes)
    top.head.append(f"total_tiles = {device_total}")
    reserved = k.settings.persistent_reserved_sms
    sms = f"_get_num_sm({tensor.text}.device{f', reserved_sms={reserved}' if reserved else ''})"
    multiplier = k.schedule.config.get("num_sm_multiplier", 1)
    programs = sms if multiplier == 1 else f"{sms} * {multiplier}"
    inner = Scope(top)
    pid = k.names.unique("tile_pid")
    if pid_type == "persistent_blocked":
        top.head.append("tiles_per_program = tl.cdiv(total_tiles, tl.num_programs(0))")
        top.head.append("first_tile = tl.program_id(0) * tiles_per_program")
        header = f"for {pid} in tl.range(first_tile, tl.minimum(first_tile + tiles_per_program, total_tiles)):"
    else:
        header = f"for {pid} in tl.range(tl.program_id(0), total_tiles, tl.num_programs(0)):"
    k.persistent_header = header
    decompose(inner, pid)  # type: ignore[operator]
    return Launch([f"max(1, min({programs}, {total}))"], []), inner


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


def _flattened(k: KernelEmitter, host: HostPrinter, pid_type: str) -> tuple[Launch, Scope]:
    """All dimensions as one: a program takes consecutive elements of the flat iteration space."""
    axes = k.root.axes
    blocks = " * ".join(k.block_name(axis.block) for axis in axes)
    numel_host = " * ".join(_device_factor(host.number(axis.end)) for axis in axes)
    numel = " * ".join(_device_factor(k.number(axis.end)) for axis in axes)

    def decompose(scope: Scope, pid: str) -> None:
        wide = ".to(tl.int64)" if k.wide_index else ""
        flat = scope.define(
            k.names.unique("flat_index"), f"{f'({pid})' if ' ' in pid else pid}{wide} * ({blocks}) + tl.arange(0, {blocks})"
        )
        scope.define("flat_mask", f"{flat} < {numel}")
        rest = flat
        for axis in reversed(axes[1:]):
            size = _device_factor(k.number(axis.end))
            scope.define(k.axis_name(axis, "index_"), f"{rest} % {size}")
            rest = f"{rest} // {size}"
        scope.define(k.axis_name(axes[0], "index_"), rest)
        for axis in axes:
            k.open_axis(axis, scope)

    total = host_cdiv(numel_host, blocks if blocks.isidentifier() else f"({blocks})")
    if pid_type in ("persistent_blocked", "persistent_interleaved"):
        launch, inner = _persistent(k, host, pid_type, total, decompose)
        k.kernel_scope.head[0] = f"total_tiles = tl.cdiv({numel}, {blocks})"
        return launch, inner
    decompose(k.kernel_scope, "tl.program_id(0)")
    return Launch([total], []), k.kernel_scope
