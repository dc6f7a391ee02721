"""Rows of inner loops and branches."""

from __future__ import annotations

import torch

from . import memory
from .control import AxisSpec
from .control import Bound
from .control import EachTensor
from .control import If
from .control import Jump
from .control import Lanes
from .control import Loop
from .control import While
from .generate import Generator
from .program import Block
from .program import Param
from .scope import LARGEST_LOOP
from .scope import body
from .scope import enter
from .scope import some_dims
from .scope import statement
from .scope import tile_dims
from .statements import Accumulate
from .statements import Assign
from .statements import Rename
from .statements import Statement
from .table import Axis
from .table import Dims
from .table import Expr
from .values import Dim
from .values import Invalid
from .values import elements

#: Origins of numbers that are no tunables.
_GIVEN = ("argument", "constexpr")


def loop_axis(g: Generator, prefix: str, smallest: int = 0, largest: int = 64, tile: bool = True) -> AxisSpec:
    size = g.size(smallest, largest)
    spec = AxisSpec(g.name(prefix), Bound(("number", 0)), Bound(("size", size)))
    g.axis_size[spec.name] = size
    n = g.program.sizes[size]
    draw = g.rng.random()
    if draw < 0.1 and n > 2:
        spec.begin = Bound(("number", g.rng.randint(1, min(n - 1, 5))))
    elif draw < 0.16 and n > 3:
        spec.end = Bound(("half", size))
    elif draw < 0.22 and n > 3:
        spec.end = Bound(("less", size, g.rng.randint(1, 2)))
    if tile and draw > 0.86:
        _mixed_bounds(g, spec, size)
    if tile:
        if g.chance(0.2):
            spec.block = g.choice((4, 8, 16, 32, 16, 3))
        elif g.chance(0.15):
            spec.block = _registered(g, size)
        elif g.chance(0.08) and n > 0:
            tunable = g.tunable()
            spec.block = f"helion.next_power_of_2(helion.cdiv({size}, {tunable}))"
    return spec


def _mixed_bounds(g: Generator, spec: AxisSpec, size: str) -> None:
    """A range from below 0, or to a number that is computed from sizes, arguments and indices of grids around."""
    names = [a.name for a in g.env.axes.values() if a.kind == "grid"]
    scalars = g.program.scalars.items()
    names += [n for n, s in scalars if isinstance(s.value, int) and (s.origin in _GIVEN or "x" in s.origin)] or (
        [n] if isinstance(g.program.scalars[n := g.scalar("int")].value, int) else []
    )
    form = g.choice(("below", "end", "end", "both"))
    if form != "end":
        spec.begin = Bound(("number", -g.rng.randint(1, 9)))
        if names and g.chance(0.4):
            spec.begin = Bound(("mixed", ((1, g.choice(names)),), -g.rng.randint(1, 9)))
    if form != "below" and names:
        terms = ((1, size), (1, g.choice(names))) if g.chance(0.6) else ((g.choice((1, 2)), g.choice(names)),)
        spec.end = Bound(("mixed", terms, g.rng.randint(-4, 5)))


def _registered(g: Generator, size: str) -> str:
    fitting = [b.name for b in g.program.blocks if b.extent == size]
    if fitting and g.chance(0.5):
        return g.choice(fitting)
    if g.program.sizes[size] < 1:
        raise Invalid("a block of nothing")
    name = f"block{len(g.program.blocks)}"
    g.program.blocks.append(Block(name, size))
    return name


def accumulator(g: Generator, form: str) -> tuple[Assign, Dims, str, torch.dtype]:
    dims = tuple(d for d in tile_dims(g) if g.chance(0.85))[:2]
    kind = "float" if form == "dot" else g.choice(("float", "float", "int"))
    dtype = torch.float32 if form == "dot" or (kind == "float" and g.chance(0.8)) else g.dtype(kind)
    if form == "dot" and len(dims) != 2:
        raise Invalid("no product")
    start = 0 if form in ("sum", "dot") else g.choice((0, -1 if dtype is not torch.uint8 else 1, 3))
    value = float(start) if kind == "float" else start
    name = g.name("acc")
    return (
        Assign(name, Expr("full", [], {"dims": dims, "value": value, "dtype": dtype, "form": "hl"})),
        dims,
        kind,
        dtype,
    )


@statement(2.5, depth=1)
def accumulate(g: Generator, depth: int) -> list[Statement]:
    """An accumulator, and an inner loop over tiles that adds to it."""
    form = g.choice(("sum", "sum", "max", "min", "dot", "dot"))
    start, dims, kind, dtype = accumulator(g, form)
    spec = loop_axis(g, "k")
    loop = Loop("tile", [spec], [])

    def fill() -> list[Statement]:
        axis = g.env.axes[spec.name]
        mine = Dim(axis.size, axis.name)
        if elements((*dims, mine)) > 200_000:
            raise Invalid("too large")
        g.env.values[start.name] = g.value(start.value)
        g.hidden.add(start.name)
        block: list[Statement] = []
        if g.chance(0.4):
            block += body(g, depth - 1, 0, ("assign", "store", "assign"))
        if form == "dot":
            operand = g.choice((torch.float32, torch.bfloat16, torch.float16))
            args = [
                g.cast(g.small(g.expr(shape, "float", True, 2)), operand)
                for shape in ((dims[0], mine), (mine, dims[1]))
            ]
            block.append(Accumulate(start.name, form, 0, spec.name, args))
        else:
            place = g.rng.randint(0, len(dims))
            value = g.expr(dims[:place] + (mine,) + dims[place:], kind, False, 3)
            if form != "sum":
                value = g.cast(value, dtype)
            block.append(Accumulate(start.name, form, place, spec.name, [value]))
        g.hidden.discard(start.name)
        return block

    return [start, enter(g, loop, fill)]


@statement(1.5, depth=1)
def carry(g: Generator, depth: int) -> list[Statement]:
    """A variable that a loop over indices carries."""
    kind = g.choice(("float", "float", "int"))
    dims = some_dims(g, 2)
    dtype = torch.float32 if kind == "float" and g.chance(0.6) else g.dtype(kind)
    start = Assign(g.name("c"), g.cast(g.within(g.expr(dims, kind, True, 2), 0, 30), dtype))
    starts, carried = [start], [start.name]
    if g.chance(0.3):  # a second name, which the loop changes too or only reads
        other_name = Expr("variable", [], {"name": start.name})
        starts.append(Rename(g.name("c"), other_name))
        carried = [starts[1].name, *([start.name] if g.chance(0.3) else [])]
    loop_kind = g.choice(("grid", "grid", "static_range", "range"))
    spec = loop_axis(g, "i", 0, 9 if loop_kind == "grid" else 4, tile=False)
    if loop_kind in ("static_range", "range"):
        # Its bounds are constants of the compiled kernel, not sizes of tensors.
        spec.begin, spec.end = Bound(("number", 0)), Bound(("number", g.rng.randint(1, 4)))
        del g.axis_size[spec.name]
    loop = Loop(loop_kind, [spec], [])

    def fill() -> list[Statement]:
        for begun in starts:
            g.env.values[begun.name] = g.value(begun.value)
        block: list[Statement] = []
        for i in range(g.rng.randint(len(carried), 2)):
            name = carried[i % len(carried)]
            old = Expr("variable", [], {"name": name})
            other = g.expr(g.part_of(dims), kind, True, 2)
            if len(starts) > 1 and g.chance(0.5):
                other = Expr("variable", [], {"name": start.name})
            new = Expr(g.choice(("add", "sub", "mul", "maximum", "minimum")), [old, other])
            low, high = (0, 60) if dtype is torch.uint8 else (-60, 60)
            block.append(Assign(name, g.cast(Expr("clamp", [g.cast(new, dtype)], {"low": low, "high": high}), dtype)))
        if loop_kind == "grid" and g.chance(0.35):
            block.insert(g.rng.randint(0, len(block)), Jump(_loaded_test(g), g.choice(("break", "continue"))))
            g.env.certain = False
        if depth > 0 and g.chance(0.3):
            block += body(g, depth - 1, 0, ("store", "assign", "branch"))
        return block

    return [*starts, enter(g, loop, fill)]


@statement(0.8)
def count_down(g: Generator, depth: int) -> list[Statement]:
    """A `while` loop on a loaded number, which carries a variable."""
    dims, kind = some_dims(g, 2), g.choice(("float", "int"))
    dtype = torch.float32 if kind == "float" else torch.int32
    start = Assign(g.name("c"), g.cast(g.within(g.expr(dims, kind, True, 2), 0, 30), dtype))
    old = Expr("variable", [], {"name": start.name})
    counter = g.load((), "int", True, 0, "load")
    if counter is None:
        raise Invalid("nothing to load")
    g.value(counter)
    count = g.cast(Expr("clamp", [counter], {"low": 0, "high": g.rng.randint(1, 5)}), torch.int32)
    saved, g.env = g.env, g.env.copy()
    g.env.certain = False
    try:
        g.env.values[start.name] = g.value(start.value)
        new = Expr(g.choice(("add", "sub", "maximum")), [old, g.expr(g.part_of(dims), kind, True, 2)])
        block: list[Statement] = [Assign(start.name, Expr("clamp", [g.cast(new, dtype)], {"low": -60, "high": 60}))]
        if g.chance(0.3):
            block += body(g, 0, 0, ("store", "assign"))
    finally:
        g.env = saved
        g.remember()
    return [start, While(g.name("w"), count, block)]


def _loaded_test(g: Generator) -> Expr:
    """A condition that only the kernel knows."""
    for _ in range(6):
        value = g.load((), g.choice(("int", "float")), True, 0, "load")
        if value is not None and not g.value(value).weak:
            number = Expr("number", [], {"value": g.choice((0, 1, 2))})
            return Expr(g.choice(("gt", "lt", "eq")), [value, number])
    raise Invalid("nothing to test")


@statement(1.2, depth=1)
def inner_tile(g: Generator, depth: int) -> list[Statement]:
    """An inner loop over tiles that stores."""
    spec = loop_axis(g, "t")
    _limit(g, spec)
    return [
        enter(
            g,
            Loop("tile", [spec], []),
            lambda: body(g, depth - 1, 1, ("store", "store", "assign", "masked_store", "branch")),
        )
    ]


@statement(0.8, depth=1)
def inner_grid(g: Generator, depth: int) -> list[Statement]:
    """An inner loop over indices that stores."""
    spec = loop_axis(g, "i", 1, 9, tile=False)
    return [
        enter(g, Loop("grid", [spec], []), lambda: body(g, depth - 1, 1, ("store", "store", "assign", "accumulate")))
    ]


def _limit(g: Generator, spec: AxisSpec) -> None:
    total = (
        elements([Dim(a.size) for a in g.env.axes.values() if a.kind == "tile"])
        * g.program.sizes[g.axis_size[spec.name]]
    )
    if total > LARGEST_LOOP:
        raise Invalid("too many elements")


@statement(2, depth=1)
def data_dependent(g: Generator, depth: int) -> list[Statement]:
    """An accumulation over a range that memory holds, for an index of a grid."""
    grids = [a for a in g.env.axes.values() if a.kind == "grid" and a.name in g.axis_size]
    if not grids:
        raise Invalid("no grid")
    grid = g.choice(grids)
    size = g.size(1, 64)
    rows = g.program.sizes[g.axis_size[grid.name]]
    p = Param(
        f"x{len(g.program.params)}",
        g.choice((torch.int64, torch.int32)),
        [rows + 1],
        0,
        g.program.sizes[size],
        fill="offsets",
        seed=g.rng.randrange(99),
    )
    g.add_param(p)
    spec = AxisSpec(g.name("k"), Bound(("load", p.name, grid.name, 0)), Bound(("load", p.name, grid.name, 1)))
    g.axis_size[spec.name] = size
    form = g.choice(("sum", "max", "min"))
    start, dims, kind, dtype = accumulator(g, form)

    def fill() -> list[Statement]:
        axis = g.env.axes[spec.name]
        place = g.rng.randint(0, len(dims))
        value = g.expr(dims[:place] + (Dim(axis.size, axis.name),) + dims[place:], kind, False, 2)
        return [Accumulate(start.name, form, place, spec.name, [g.cast(value, dtype) if form != "sum" else value])]

    return [start, enter(g, Loop("tile", [spec], []), fill)]


@statement(1.5, depth=0)
def branch(g: Generator, depth: int) -> list[Statement]:
    """`if` on a scalar: both branches assign, or store."""
    test = _test(g)
    names = [n for n, v in g.env.values.items() if n not in g.hidden]
    then: list[Statement] = []
    other: list[Statement] = []
    if names and g.chance(0.6):
        name = g.choice(names)
        v = g.env.values[name]
        then.append(Assign(name, g.cast(g.expr(v.dims, v.kind, bool(v.error == 0), 2), v.dtype)))
        if g.chance(0.5):
            other.append(Assign(name, g.cast(g.expr(v.dims, v.kind, bool(v.error == 0), 2), v.dtype)))
    else:
        saved = g.env
        g.env = g.env.copy()
        g.env.certain = False
        try:
            then += body(g, 0, 1, ("store", "broadcast_store", "augment"))
            if g.chance(0.4):
                other += body(g, 0, 1, ("store",))
        finally:
            g.env = saved
            g.remember()
    return [If(test, then, other)]


def _test(g: Generator) -> Expr:
    chunked = [a for a in g.env.axes.values() if a.kind == "tile" and a.chunked]
    if chunked and g.chance(0.5):
        what = g.choice(("begin", "id", "end"))
        left = Expr("tile_number", [], {"axis": g.choice(chunked).name, "what": what, "function": False})
        return Expr(
            "number_test",
            [left, Expr("number", [], {"value": g.choice((0, 1, 4, 16))})],
            {"op": g.choice((">", "==", "<"))},
        )
    scalars = [s.name for s in g.program.scalars.values() if isinstance(s.value, int)]
    if g.chance(0.3):
        name = g.choice(scalars) if scalars and g.chance(0.6) else g.scalar("int")
        if g.chance(0.5):
            name = g.tunable("bool")
        return Expr(
            "host_test",
            [Expr("number", [], {"name": name}), Expr("number", [], {"value": g.choice((0, 2))})],
            {"op": "" if isinstance(g.program.scalars[name].value, bool) else ">"},
        )
    return g.expr((), "bool", True, 2)


def _constant(dims: Dims, value: int, dtype: torch.dtype) -> Expr:
    number = float(value) if dtype.is_floating_point else value
    return Expr("full", [], {"dims": dims, "value": number, "dtype": dtype, "form": "hl"})


@statement(1.2, depth=1)
def jagged(g: Generator, depth: int) -> list[Statement]:
    """An accumulation over rows of different lengths; of more than the loads themselves where that is right."""
    tiles = [d for d in tile_dims(g) if g.env.axes[d.axis or ""].low == 0]
    if not tiles:
        raise Invalid("no rows")
    rows = g.choice(tiles)
    assert rows.axis is not None
    size, count = g.size(1, 64), g.axis_size[rows.axis]
    total = g.program.sizes[size]
    bounds = Param(f"x{len(g.program.params)}", torch.int64, [g.program.sizes[count] + 1], 0, total, fill="offsets")
    bounds.seed = g.rng.randrange(99)
    g.add_param(bounds)
    starts, lengths = g.name("starts"), g.name("lengths")
    at = {"tensor": bounds.name, "form": "index"}
    first = Expr("load", [], {**at, "index": [("tile", rows.axis, 0)]})
    second = Expr("load", [], {**at, "index": [("tile", rows.axis, 1)]})
    form = g.choice(("sum", "max", "min"))
    kind = g.choice(("float", "int"))
    data = g.param([size], kind)
    if data.written:
        raise Invalid("written")
    spec = AxisSpec(g.name("k"), Bound(("number", 0)), Bound(("lengths", lengths)))
    load = Expr("jagged_load", [], {"tensor": data.name, "starts": starts, "lengths": lengths, "axis": spec.name})
    value = load
    if g.chance(0.5):
        value = Expr("mul", [load, g.number(kind)])
    if g.chance(0.6):
        value = Expr(g.choice(("add", "sub", "maximum")), [value, _constant((), 2, data.dtype)])
    dtype = torch.float32 if kind == "float" else torch.int64
    if form != "sum":
        value = Expr("cast", [value], {"dtype": dtype})
    name = g.name("acc")
    return [
        Assign(starts, first),
        Assign(lengths, Expr("sub", [second, Expr("variable", [], {"name": starts})])),
        Assign(name, _constant((rows,), 0, dtype)),
        Loop("jagged", [spec], [Accumulate(name, form, 1, spec.name, [value])]),
    ]


@statement(0.8, depth=1)
def nested_in_a_tile(g: Generator, depth: int) -> list[Statement]:
    """A loop over the part of the range that an outer tile covers."""
    outer = g.choice([a for a in g.env.axes.values() if a.kind == "tile"] or [None])
    if outer is None or outer.chunked:
        raise Invalid("no tile to divide")
    begin, end = Bound(("tile", outer.name, "begin")), Bound(("tile", outer.name, "end"))
    spec = AxisSpec(g.name("t"), begin, end, g.choice((None, 4, 8)))
    g.axis_size[spec.name] = g.axis_size[outer.name]
    kinds = ("store", "broadcast_store", "assign")
    return [enter(g, Loop("tile", [spec], []), lambda: body(g, 0, 1, kinds))]


@statement(0.8)
def each_tensor(g: Generator, depth: int) -> list[Statement]:
    """A loop over a tuple of tensors, which adds them up."""
    dims = tuple(tile_dims(g))[:2]
    if not dims:
        raise Invalid("no tile")
    kind = g.choice(("float", "int"))
    shape = [g.key(d) for d in dims]
    index: memory.Index = [("tile", d.axis, 0) for d in dims]
    names = [g.param(shape, kind).name for _ in range(g.rng.randint(2, 3))]
    dtype = torch.float32 if kind == "float" else torch.int64
    start = Assign(g.name("acc"), _constant(dims, 1, dtype))
    name = g.name("x_")
    load = Expr("load", [], {"tensor": name, "index": index, "form": "index"})
    old = Expr("variable", [], {"name": start.name})
    new = Expr("cast", [Expr(g.choice(("add", "sub", "maximum")), [old, load])], {"dtype": dtype})
    return [start, EachTensor(name, names, [Assign(start.name, new)])]


@statement(0.8, depth=1)
def lanes(g: Generator, depth: int) -> list[Statement]:
    """A sum with one lane for each element of a full tile."""
    dims = tuple(d for d in tile_dims(g) if g.chance(0.8))[:1]
    spec = loop_axis(g, "k", 1, 64)
    block = spec.block = _registered(g, g.axis_size[spec.name])
    saved = g.env
    g.env = g.env.copy()
    (begin, _), (_, end) = spec.begin.range(saved), spec.end.range(saved)
    mine = Axis(spec.name, "tile", begin, max(end - 1, begin), max(end - begin, 0))
    g.env.axes = {**saved.axes, spec.name: mine}
    try:
        value = g.expr((*dims, Dim(mine.size, mine.name)), "float", False, 2)
        value = g.cast(value, torch.float32)
    finally:
        g.env = saved
        g.remember()
    return [Lanes(g.name("acc"), dims, block, spec, value)]
