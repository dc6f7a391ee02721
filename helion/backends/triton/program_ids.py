"""From a program of the launch grid to the tiles it works on: pid_type, loop_orders, l2_groupings, flatten_loops."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from ...ir.device_ir import Axis
from ...settings import Settings
from ..host import HostPrinter
from ..text import Text
from ..text import call
from ..text import parsed
from ..text import product
from .emitter import KernelEmitter
from .schedule import Schedule
from .scope import Scope


@dataclasses.dataclass(frozen=True)
class Tiles:
    """The tiles of a top-level loop.

    Attributes:
        host, device: how many there are, as host and as device text; None where nobody asks.
        grid: host text of each dimension of the grid of a kernel that does nothing else.
    """

    host: Text | None
    device: Text | None
    grid: list[Text]


class _Counts:
    """How many tiles there are: `number` is the text of a number, `cdiv` that of a division that rounds up."""

    def __init__(self, k: KernelEmitter, number: Callable[[Any], Text], cdiv: Callable[[Text, Text], Text]) -> None:
        self._k, self._number, self._cdiv = k, number, cdiv

    def of(self, axis: Axis) -> Text:
        """Tiles of an axis."""
        begin, end = self._number(axis.begin), self._number(axis.end)
        length = end if begin.number == 0 else end - begin
        return length if self._k.schedule.block_size(axis) == 1 else self._cdiv(length, self._k.axes.block(axis))

    def total(self) -> Text:
        """Tiles of the loop."""
        axes = self._k.root.axes
        if not self._k.extents.flat:
            return product(map(self.of, axes))
        return self._cdiv(product(self._number(axis.end) for axis in axes), product(map(self._k.axes.block, axes)))


def _on_device(k: KernelEmitter) -> _Counts:
    return _Counts(k, k.number, lambda number, block: call("tl.cdiv", number, block))


def _on_host(k: KernelEmitter, host: HostPrinter) -> _Counts:
    def cdiv(number: Text, block: Text) -> Text:
        """Written out: `triton.cdiv` takes 5 us, more than the launch itself."""
        return (number + block - 1) // block

    return _Counts(k, lambda number: parsed(host.number(number)), cdiv)


#: The number of a program, in a kernel of one loop.
PROGRAM = call("tl.program_id", 0)


def emit_program_ids(
    k: KernelEmitter, host: HostPrinter, program: Text = PROGRAM
) -> tuple[Tiles, contextlib.AbstractContextManager[object]]:
    """Open the scope in which a tile's offsets are known.

    Args:
        k: the emitter of the loop.
        host: prints what the host knows.
        program: the number of the program among those that do this loop.

    Returns:
        The tiles, and a context in which the body of the loop is printed: the kernel's own scope, or the inside of a
        loop over tiles where programs are persistent.
    """
    axes = k.root.axes
    order = k.schedule.order.get(k.root.id, list(range(len(axes))))
    pid_type = k.schedule.config.get("pid_type", "flat")
    top, on_host = k.top, _on_host(k, host)
    if pid_type == "xyz":
        # The innermost loop is the fastest dimension of the grid.
        for place, which in enumerate(reversed(order)):
            _define_offset(k, top, axes[which], call("tl.program_id", place))
        return Tiles(None, None, [on_host.of(axes[i]) for i in reversed(order)]), contextlib.nullcontext()
    tiles = on_host.total()
    # Only where it is needed: what it names becomes a parameter.
    device = None if pid_type == "flat" and program == PROGRAM else _on_device(k).total()
    decompose = _decompose_flat if k.extents.flat else _decompose
    if device is None or pid_type == "flat":
        decompose(k, top, program, order)
        return Tiles(tiles, device, [tiles]), contextlib.nullcontext()
    all_tiles = top.share("total_tiles", device)
    begin, end, step = program, all_tiles, [call("tl.num_programs", 0)]
    if pid_type == "persistent_blocked":
        count = top.share("tiles_per_program", call("tl.cdiv", all_tiles, *step))
        begin = top.share("first_tile", program * count)
        end, step = call("tl.minimum", begin + count, all_tiles), []
    pid = Text(k.names.unique("tile_pid"))
    inner = Scope(top)
    decompose(k, inner, pid, order)
    # Of a loop that uses none (one phase of several, with nothing in it) that of any other tells the device.
    tensor = k.ir.device.host_tensors[next(iter(k.tensors or k.ir.device.host_tensors))].text
    grid = [persistent_programs(k.schedule, k.settings, host, tensor, tiles)]
    options = k.loop_options(k.root)
    header = f"for {pid} in {call('tl.range', begin, end, *step, **options)}:"
    return Tiles(tiles, device, grid), _nested(k, header, inner)


@contextlib.contextmanager
def _nested(k: KernelEmitter, header: str, inner: Scope) -> Iterator[None]:
    with k.inside(inner):
        yield
    k.scope.nest(header, inner)


def persistent_programs(schedule: Schedule, settings: Settings, host: HostPrinter, tensor: str, tiles: Text) -> Text:
    """Host text: how many programs run through `tiles` tiles on the device of a tensor, when each runs through many."""
    sms = parsed(host.multiprocessors(tensor, settings.persistent_reserved_sms))
    multiplier = schedule.config.get("num_sm_multiplier", 1)
    programs = call(host.builtin("min"), sms if multiplier == 1 else sms * multiplier, tiles)
    return call(host.builtin("max"), 1, programs)


def _decompose(k: KernelEmitter, scope: Scope, pid: Text, order: list[int]) -> None:
    """Split a flat program id into one id per axis: the last loop of `order` varies fastest."""
    axes = [k.root.axes[i] for i in order]
    if len(axes) > 1:
        # A dimension of one has no part in it: no division, and what it indexes begins at a constant.
        for axis in axes:
            if axis.static_extent == 1:
                scope.define(str(k.axes.offset(axis)), k.number(axis.begin))
                k.axes.open(axis, scope)
        axes = [axis for axis in axes if axis.static_extent != 1]
    if len(axes) <= 1:
        for axis in axes:
            _define_offset(k, scope, axis, pid)
        return
    rest = pid if pid.is_name else scope.share("pid", pid)
    group = k.schedule.l2_group.get(k.root.id, 1)
    if group == 1:
        _split(k, scope, axes, rest)
        return
    # Tiles in groups of `group` rows, column by column, so that neighbours share operands in L2: the order of Triton's
    # matrix multiplication tutorial, over the two innermost loops.
    *outer, rows, columns = axes
    row_tiles, column_tiles = _count(k, scope, rows), _count(k, scope, columns)
    inner = rest
    if outer:
        plane = scope.share("plane", row_tiles * column_tiles)
        inner = scope.share("pid", rest % plane)
        _split(k, scope, outer, scope.share("pid", rest // plane))
    width = scope.share("group_tiles", Text(str(group)) * column_tiles)
    first = scope.share("group_first", inner // width * group)
    size = scope.share("group_rows", call("tl.minimum", row_tiles - first, group))
    _define_offset(k, scope, rows, first + inner % width % size)
    _define_offset(k, scope, columns, inner % width // size)


def _split(k: KernelEmitter, scope: Scope, axes: list[Axis], rest: Text) -> None:
    for axis in reversed(axes[1:]):
        count = _count(k, scope, axis)
        _define_offset(k, scope, axis, rest % count)
        rest = scope.share("pid", rest // count)
    _define_offset(k, scope, axes[0], rest)


def _count(k: KernelEmitter, scope: Scope, axis: Axis) -> Text:
    count = _on_device(k).of(axis)
    plain = count.number is not None and k.schedule.l2_group.get(k.root.id, 1) == 1
    return count if plain else scope.define(k.axes.name(axis, "num_tiles_"), count)


def _define_offset(k: KernelEmitter, scope: Scope, axis: Axis, pid: Text) -> None:
    text = pid.to("tl.int64") if k.axes.wide else pid
    if k.schedule.block_size(axis) != 1:
        text = text * k.axes.block(axis)
    begin = k.number(axis.begin)
    scope.define(str(k.axes.offset(axis)), text if begin.number == 0 else begin + text)
    k.axes.open(axis, scope)


def _decompose_flat(k: KernelEmitter, scope: Scope, pid: Text, order: list[int]) -> None:
    """All dimensions as one: a program takes consecutive elements of the flat iteration space."""
    axes = k.root.axes
    blocks = product(map(k.axes.block, axes))
    sizes = [k.number(axis.end) for axis in axes]
    first = (pid.to("tl.int64") if k.axes.wide else pid) * blocks
    rest = scope.share("flat_index", first + call("tl.arange", 0, blocks))
    k.axes.flat_mask = scope.share("flat_mask", rest < product(sizes))
    for axis, size in zip(reversed(axes[1:]), reversed(sizes[1:])):
        scope.define(k.axes.name(axis, "index_"), rest % size)
        rest = rest // size
    scope.define(k.axes.name(axes[0], "index_"), rest)
    for axis in axes:
        k.axes.open(axis, scope)
