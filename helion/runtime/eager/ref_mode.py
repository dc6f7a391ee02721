"""Ref mode (`HELION_INTERPRET=1`): the user's own Python function, run on eager tiles.

Every statement really runs in Python, so a debugger steps through the user's lines and `print` and
`breakpoint()` work.  Tiles run one after the other, clipped at the end of their range.  A TorchFunctionMode
gives `x[tile]`, products and random functions their meaning in device code (`eager_torch`); here are the
loops and the entry point `run_ref`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import os
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from ... import _compat_torch
from ... import exc
from ...language.alignment import places_of_tiles
from ...language.broadcasts import Broadcasts
from ...language.containers import tensors_in
from ...language.creation import full
from ...language.eager_access import EagerAccess
from ...language.eager_tile import EagerInt
from ...language.eager_tile import EagerTile
from ...language.eager_tile import extent_of
from ...language.indexing import indexed_shape
from ...language.memory import load
from ...language.memory import store
from ...language.op import Access
from ...language.op import Effect
from ...language.op import LoopRanges
from ...language.op import Op
from ...language.op import handler
from ...language.outer_index import outer_access
from ...language.refusals import of_number
from ...language.shapes import resolve_shape
from ...language.subscripts import check_no_mask
from ...language.subscripts import subscript
from ...language.tile import Tile
from ..seeds import torch_seeds
from .alignment import JaggedAxis
from .alignment import check_one_tile
from .alignment import check_rank
from .alignment import marked
from .alignment import operands_of_product
from .alignment import padded
from .alignment import partial_tiles
from .alignment import tile_of_two
from .alignment import to_shape
from .alignment import with_lanes
from .axes import axes_of
from .axes import axes_of_index
from .axes import axes_of_op
from .axes import is_device_value
from .axes import mark
from .block_sizes import Block
from .block_sizes import BlockSizes
from .block_sizes import Site
from .broadcasts import LoopAxis
from .broadcasts import note_broadcasts
from .carried import CarriedBy
from .carried import CarriedVariables
from .carried import nothing
from .code import draws_of
from .code import names_a_loop
from .dependencies import StoredTwice
from .errors import in_torchs_scan
from .errors import location_of
from .errors import of_torch
from .handler import EagerHandler
from .handler import iterate_tiles
from .lanes import tiles_of
from .lanes import undecided
from .ragged import axes_of_reduction
from .ragged import check_keeps_rows
from .ragged import check_lengths
from .ragged import only_inside
from .ragged import ragged_mask
from .ragged import reduced
from .ragged import with_rows_of_operands
from .sizes import axes_of_shape
from .subscripts import check_parts
from .torch_mode import DeviceTorchMode
from .torch_mode import EagerLanes
from .torch_mode import arranged
from .torch_mode import name_of
from .torch_mode import user_frame

_PACKAGE = os.path.dirname(os.path.abspath(exc.__file__)) + os.sep


class RefHandler(EagerHandler):
    """Answers the language's calls while the user's function runs.

    Args:
        device: where the kernel's tensors live.
        config: schedule; only `block_sizes` and tunables matter here.
        index_dtype: dtype of `tile.index`.
        draws: places in the function that draw random numbers of torch's.
        smallest, sites: as in `BlockSizes`.
        carried_by: which variables a loop carries.
        stores_checked: it is known that tiles which run at the same time store apart.
    """

    def __init__(
        self,
        device: torch.device,
        config: Mapping[str, Any] | None,
        index_dtype: torch.dtype = torch.int32,
        draws: int = 0,
        smallest: Sequence[int] = (),
        carried_by: CarriedBy = nothing,
        sites: Sequence[Site | None] = (),
        stores_checked: bool = False,
    ) -> None:
        super().__init__(device, index_dtype)
        self.config: Mapping[str, Any] = config or {}
        self.loops_run = 0
        self.selected: dict[int, torch.Tensor] = {}
        self.active: list[tuple[EagerTile, Block] | None] = []
        # For each dimension of the enclosing loops its axis and the number of the iteration; and what the current
        # iteration of the innermost loop has drawn random numbers for: a place in the code -> how often.
        self.numbers: list[tuple[Any, int]] = []
        self._drawn: list[dict[Any, int]] = []
        self._seeds: list[int] = []
        self._draws = draws
        self._blocks = BlockSizes(self.config, smallest, sites)
        self._carried_by = carried_by
        self._root_tiles: list[EagerTile] = []
        self._stored = None if stores_checked else StoredTwice()
        self._broadcasts = Broadcasts()
        self._beside: EagerTile | None = None  # an index beside a vector of its own
        self._seed_sites: dict[Any, int] = {}

    @property
    def on_device(self) -> bool:
        """Whether device code is running."""
        return bool(self.active)

    def call_op(self, op: Op, args: tuple[Any, ...]) -> Any:
        name = f"hl.{op.name}"
        if not self.on_device:
            raise exc.DeviceAPIOnHost(name=name)
        if op is load and isinstance(args[0], torch.Tensor) and is_device_value(args[0]):
            check_no_mask(args[2])
            op, args = subscript, args[:2]
        outer = outer_access(op, args, EagerLanes(self.device), arranged, lambda new: self.call_op(op, new))
        if outer is not NotImplemented:
            return outer
        if op.access is not None and op.access.addresses_at is None:
            note_broadcasts(self._broadcasts, op.access, args, self.selected)
            args = self._check_access(op, args, op.access)
        if op is store and isinstance(args[2], torch.Tensor) and not is_device_value(args[2]):
            # `dst[i] = value` of the host's
            args = (*args[:2], self.call_op(load, (args[2], [slice(None)] * args[2].dim(), None, None)), *args[3:])
        for leaf in tensors_in(args if op.access is None else args[1:]):
            if not is_device_value(leaf) and not op.takes_pointers:
                raise exc.HostTensorDirectUsage(name=name_of(leaf))
            self.check_rows_are_known(leaf)
        if op.access is not None and op.access.addresses_at is None:
            args = self._placed(args, op.access)
        if op is store and self._stored is not None and self._root_tiles and isinstance(args[0], torch.Tensor):
            with _compat_torch.without_torch_functions():
                self._stored.check(args[0], args[1], args[2], args[3], self._root_tiles, name_of(args[0]))
        with _compat_torch.without_torch_functions():
            if op is store:
                EagerAccess(args[0], args[1], args[3], "store").check_distinct(args[2], name_of(args[0]))
            if op is subscript:
                check_parts(args[0], args[1], axes_of(args[0]))
            if op.access is None:
                args = with_rows_of_operands(op, args, self.active_tiles())
                args = operands_of_product(op, args, self.active_tiles(), axes_of, name_of)
            result = op.eager_rule(*args)
            if op is full:
                sizes = resolve_shape(args[0], "hl.full")
                return undecided(result, axes_of_shape(sizes), sizes, self.active)
        axes = axes_of_op(op, args)
        if op is load:
            self._beside = tile_of_two(axes or (), self.active_tiles(), self._beside)
        return mark(result, axes)

    def _placed(self, args: tuple[Any, ...], access: Access) -> tuple[Any, ...]:
        """The arguments of a memory op with what it stores aligned by tile."""
        given = [at for at in (*access.values_at, access.mask_at) if isinstance(args[at], torch.Tensor)]
        if not isinstance(args[0], torch.Tensor) or not given:
            return args
        axes = axes_of_index(args[0].shape, args[access.index_at])
        shape = indexed_shape(args[0], args[access.index_at])
        sizes = [extent_of(size) for size in shape]
        placed = list(args)
        for at in given:
            value = to_shape(args[at], sizes, axes, axes_of, arranged, places_of_tiles)
            known = axes_of(value)
            cuts = padded([value], axes_of, sizes) | partial_tiles(axes, self.active_tiles())
            cut = with_lanes(value, known, cuts)
            value = value if cut is value else marked(cut, known)
            placed[at] = to_shape(value, sizes, axes, axes_of, arranged)
            check_one_tile([axes, axes_of(placed[at])], self.active_tiles(), name_of)
            check_rank(axes_of(placed[at]), len(sizes), self.active_tiles(), self._beside, name_of)
        return tuple(placed)

    def _check_access(self, op: Op, args: tuple[Any, ...], access: Access) -> tuple[Any, ...]:
        target, mask_at = args[0], access.mask_at
        if isinstance(target, torch.Tensor) and is_device_value(target):
            if access.effect is Effect.UPDATE:
                raise exc.AtomicOnDeviceTensor(name=f"hl.{op.name}")
            raise exc.InvalidAPIUsage(
                f"hl.{op.name} writes a host tensor, got a device value",
                fix="device values are immutable: use torch.where to change part of one.",
            )
        with _compat_torch.without_torch_functions():
            mask = ragged_mask(target, args[access.index_at], args[mask_at], self.active_tiles(), op.name)
        if mask is args[mask_at]:
            return args
        return (*args[:mask_at], mark(mask), *args[mask_at + 1 :])

    def reduced(self, name: str, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A reduction of torch's along a jagged dimension; NotImplemented for any other call."""
        active = self.active_tiles()
        return reduced(name, func, args, kwargs, active) if _any_jagged(active) else NotImplemented

    def axes_of_reduction(self, name: str, args: Any, kwargs: Any) -> list[Any] | None:
        """The axes of what a reduction of torch's gives; None for any other call."""
        return axes_of_reduction(name, args, kwargs)

    def check_keeps_rows(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        """Check that a function of torch's has not combined elements along a jagged dimension unseen."""
        active = self.active_tiles()
        if _any_jagged(active):
            check_keeps_rows(name, args, kwargs, result, active)

    def check_rows_are_known(self, value: torch.Tensor) -> None:
        """Check that no dimension of a device value is that of a jagged loop which is over.

        Raises:
            exc.BackendUnsupported: one is. Compiled, a loop changes only lanes that are inside of their rows; here
                the values it leaves are the user's own.
        """
        for axis in axes_of(value):
            if isinstance(axis, JaggedAxis) and all(tile.axis is not axis for tile in self.active_tiles()):
                raise exc.BackendUnsupported(
                    backend="ref mode",
                    reason="a value with one lane per element of a jagged tile is used after its loop",
                    fix="reduce it in the loop.",
                )

    def active_tiles(self) -> list[EagerTile]:
        """The current tiles of the enclosing loops, outermost first."""
        return [entry[0] for entry in self.active if entry is not None]

    # -- loops -------------------------------------------------------------------------------------------

    def tile(self, ranges: LoopRanges) -> Iterable[Any]:
        begins, ends = [int(b) for b in ranges.begins], [int(e) for e in ranges.ends]
        blocks = [
            self._blocks.of(dim, size, end - begin)
            for dim, (size, begin, end) in enumerate(zip(ranges.block_sizes, begins, ends, strict=True))
        ]
        self.loops_run += 1
        known = not any(isinstance(bound, (torch.Tensor, EagerInt)) for bound in (*ranges.begins, *ranges.ends))
        tiles = iterate_tiles(
            [LoopAxis(known, block.is_one) for block in blocks], begins, ends, [b.size for b in blocks]
        )
        return self._iterate(tiles, blocks, is_sequence=ranges.is_sequence)

    def _iterate(
        self, tiles: Iterable[tuple[EagerTile, ...]], blocks: Sequence[Block], *, is_sequence: bool
    ) -> Iterator[Any]:
        at_top = not self.on_device
        if at_top and self._stored is not None:
            self._stored.clear()
        carried = self._carried()
        for group in tiles:
            carried.begin()
            if at_top:
                self._root_tiles = list(group)
                self._broadcasts.clear()
            with self._iteration(list(zip(group, blocks, strict=True)), [(tile.axis, int(tile.id)) for tile in group]):
                group[0].alone = is_sequence and len(group) == 1
                try:
                    yield group if is_sequence and not group[0].alone else group[0]
                finally:  # a `break` ends an iteration too
                    if group[0].lengths is not None:
                        with _compat_torch.without_torch_functions():
                            carried.end(functools.partial(only_inside, group[0], blocks[0]))
        carried.begin()

    def _carried(self) -> CarriedVariables:
        """The variables of the loop that begins here."""
        return CarriedVariables(user_frame() if self.on_device else None, "for", self.device, self._carried_by)

    def asked_for_truth(self) -> None:
        """A device value is a condition, of a `while` perhaps."""
        CarriedVariables(user_frame(), "while", self.device, self._carried_by).begin()

    @contextlib.contextmanager
    def _iteration(
        self, active: Sequence[tuple[EagerTile, Block] | None], numbers: Sequence[tuple[Any, int]]
    ) -> Iterator[None]:
        """The time in which one iteration of a loop runs."""
        depth, loops = len(self.active), len(self.numbers)
        self.active.extend(active)
        self.numbers.extend(numbers)
        self._drawn.append({})
        try:
            yield
        finally:
            del self.active[depth:]
            del self.numbers[loops:]
            self._drawn.pop()

    def grid(self, ranges: LoopRanges) -> Iterable[Any]:
        spans = [
            range(int(begin), int(end), int(step))
            for begin, end, step in zip(ranges.begins, ranges.ends, ranges.block_sizes, strict=True)
        ]
        self.loops_run += 1
        return self._iterate_grid(spans, is_sequence=ranges.is_sequence)

    def _iterate_grid(self, spans: list[range], *, is_sequence: bool) -> Iterator[Any]:
        if not self.on_device:
            self._root_tiles = []
        carried = self._carried()
        for flat in range(math.prod(map(len, spans))):
            carried.begin()
            indices, places = [], []
            for span in reversed(spans):
                flat, place = divmod(flat, len(span))
                indices.append(EagerInt(span[place]))
                places.append((None, place))
            indices.reverse()
            with self._iteration([None], places[::-1]):
                if is_sequence and len(indices) == 1:
                    yield _SoleInt(indices[0])
                else:
                    yield tuple(indices) if is_sequence else indices[0]
        carried.begin()

    def jagged_tile(self, lengths: torch.Tensor, block_size: Any) -> Iterable[Tile]:
        if not self.on_device:
            raise exc.InvalidJaggedTileUsage("hl.jagged_tile is not inside a loop over the rows")
        if not is_device_value(lengths):
            raise exc.HostTensorDirectUsage(name=name_of(lengths))
        check_lengths(lengths, self.active_tiles())
        with _compat_torch.without_torch_functions():
            longest = int(lengths.max()) if lengths.numel() else 0
        block = self._blocks.of(0, block_size, longest)
        return self._iterate(self._jagged_tiles(longest, block, lengths), [block], is_sequence=False)

    def _jagged_tiles(self, longest: int, block: Block, lengths: torch.Tensor) -> Iterator[tuple[EagerTile, ...]]:
        for (tile,) in iterate_tiles([JaggedAxis()], [0], [longest], [block.size]):
            tile.lengths = lengths
            yield (tile,)

    def barrier(self) -> None:
        if self.on_device:
            raise exc.BarrierOnlyAllowedAtTopLevel(
                "hl.barrier() must be a statement of its own between two top-level device loops",
                fix="write `hl.barrier()` on its own line after the first loop.",
            )

    # -- sizes -------------------------------------------------------------------------------------------

    def register_block_size(self, low: int, high: Any) -> Any:
        if self.on_device:
            raise exc.NotAllowedOnDevice(name="hl.register_block_size()", fix="call it in host code, before the loop.")
        block = self._blocks.registered(low, int(high))
        return EagerInt(block.size, lambda: self._extent_of(block), source=block)

    def _extent_of(self, block: Block) -> int:
        tile = self._active_tile(block)
        return block.size if tile is None else tile.extent

    def _active_tile(self, block: Block) -> EagerTile | None:
        for entry in reversed(self.active):
            if entry is not None and entry[1] is block:
                return entry[0]
        return None

    def register_tunable(self, name: str, fragment: Any) -> Any:
        if self.on_device:
            raise exc.NotAllowedOnDevice(name="hl.register_tunable()", fix="call it in host code, before the loop.")
        return self.config.get(name, fragment.default())

    def specialize(self, value: Any) -> Any:
        if self.on_device:
            raise exc.SpecializeOnDevice()
        return value

    def tile_of_size(self, size: Any) -> Tile | None:
        source = size.source if isinstance(size, EagerInt) else None
        return self._active_tile(source) if isinstance(source, Block) else super().tile_of_size(size)

    def extents(self, sizes: Sequence[Any]) -> list[int]:
        """Of dimensions of one registered size the last is the innermost tile's; one more than there are tiles has one
        lane per element of a full tile."""
        tiles = zip(sizes, tiles_of(sizes, self.active), strict=True)
        return [_without_tile(size) if tile is None else tile.extent for size, tile in tiles]

    def sizes_of(self, tensor: torch.Tensor) -> list[Any]:
        by_axis = {tile.axis: tile for tile in self.active_tiles()}
        tiles = [by_axis.get(axis) for axis in axes_of(tensor)]
        return [size if tile is None else tile.block_size for size, tile in zip(tensor.shape, tiles, strict=True)]

    # -- the rest ------------------------------------------------------------------------------------------

    def is_device_value(self, tensor: torch.Tensor) -> bool:
        return is_device_value(tensor)

    def torch_seed(self) -> int:
        # A Python loop comes by several times; compiled code has unrolled it, and draws anew each time.
        site = _call_site()
        drawn = self._drawn[-1]
        drawn[site] = drawn.get(site, 0) + 1
        place = self._seed_sites.setdefault((site, drawn[site]), len(self._seed_sites))
        if place >= len(self._seeds):
            # What unrolled loops and helpers draw beyond the places in the function itself gets seeds of its own.
            with _compat_torch.without_torch_functions():
                self._seeds += torch_seeds(max(self._draws - place, 1), self.device).tolist()
        return self._seeds[place]

    def iterations(self, tiles: Sequence[Tile]) -> list[Any]:
        left_out = {tile.axis for tile in tiles if isinstance(tile, EagerTile)}
        return [number for axis, number in self.numbers if axis is None or axis not in left_out]


def _without_tile(size: Any) -> int:
    """The extent of a dimension of a size that is no tile's around: of a registered size, that of a full tile."""
    return int(size) if isinstance(size, EagerInt) and isinstance(size.source, Block) else extent_of(size)


def _call_site() -> Any:
    """Identity of the place in the user's code that is being run."""
    frame = user_frame()
    return None if frame is None else (frame.f_code, frame.f_lasti)


# -- entry point ---------------------------------------------------------------------------------------------


def run_ref(
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    index_dtype: torch.dtype | None = None,
    draws: int | None = None,
    smallest: Sequence[int] = (),
    carried_by: CarriedBy = nothing,
    sites: Sequence[Site | None] = (),
    stores_checked: bool = False,
) -> Any:
    """Run a kernel function in ref mode.

    Args:
        fn: the user's function, undecorated.
        args, kwargs: its arguments; real tensors on one device.
        config: schedule; `block_sizes` (in the order in which loops are first met) and user tunables are
            honoured, the rest has no meaning here.  Without it loops get a few tiles each.
        index_dtype: dtype of `tile.index` and `hl.arange`; None: int64 where an argument has offsets past 2^31, else
            int32.
        draws: how many places draw random numbers of torch's; None: those that stand in the function.
        smallest: block sizes that are raised to these.
        carried_by: which variables a loop carries, where the source of the function is known.
        sites: for each block size of the Config the loop that it is for, None for registered ones.
        stores_checked: it is known of the function that tiles which run at the same time store apart.

    Returns:
        What `fn` returns.

    Raises:
        exc.NoTensorArgs: no argument is a tensor.
        exc.NoDeviceLoopsInKernel: the function has no `hl.tile` or `hl.grid` loop (it may return before it).
        exc.InvalidAPIUsage: it asks for the grad mode, which is another here.
        exc.BaseError: misuse of the language, with the place in the user's code.
    """
    leaves = tree_leaves((tuple(args), dict(kwargs or {})))
    tensors = tensors_in(leaves)
    devices = [tensors[0].device] if tensors else [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    if not devices:
        raise exc.NoTensorArgs(kernel=fn.__name__)
    if index_dtype is None:
        index_dtype = torch.int64 if any(_span(tensor) > 1 << 31 for tensor in tensors) else torch.int32
    if torch.is_grad_enabled() and "is_grad_enabled" in fn.__code__.co_names:
        raise exc.InvalidAPIUsage(
            f"kernel {fn.__name__!r} asks for torch.is_grad_enabled(), and ref mode runs without autograd",
            fix="pass it as an argument, or call the kernel under torch.no_grad().",
        )
    draws = draws_of(fn) if draws is None else draws
    ref = RefHandler(devices[0], config, index_dtype, draws, smallest, carried_by, sites, stores_checked)
    mode = DeviceTorchMode(ref)
    try:
        with torch.no_grad(), handler(ref), mode:
            # What the kernel function reads from outside itself it reads by itself.
            takes_all = fn.__code__.co_flags & inspect.CO_VARARGS
            result = fn(*(args if takes_all else args[: fn.__code__.co_argcount]), **(kwargs or {}))
        if not ref.loops_run and not names_a_loop(fn):
            raise exc.NoDeviceLoopsInKernel(kernel=fn.__name__)
        for leaf in tensors_in(result):
            if is_device_value(leaf):
                raise exc.CannotReadDeviceVariableOnHost(name="the returned value")
    except exc.Base as error:
        if error.location is None:
            error.location = location_of(error)
        if (known := in_torchs_scan(error)) is not None:
            known.location = error.location
            raise known from None
        raise
    except TypeError as error:
        if (number := of_number(error)) is not None:
            number.location = location_of(error)
            raise number from error
        raise
    except (ValueError, RuntimeError) as error:
        if (known := in_torchs_scan(error) or of_torch(error)) is not None:
            known.location = location_of(error)
            raise known from error
        raise
    return result


def _span(tensor: torch.Tensor) -> int:
    """Elements from a tensor's first to its last in memory, both counted."""
    if tensor.layout is not torch.strided:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))


class _SoleInt(EagerInt):
    """The index of a loop over a list of one bound: `for i in hl.grid([n])` and `for (i,) in hl.grid([n])`."""

    def __iter__(self) -> Iterator[int]:
        return iter((self,))


def _any_jagged(active: Sequence[EagerTile]) -> bool:
    return any(tile.lengths is not None for tile in active)
