"""Rows of assignments, stores and atomics."""

from __future__ import annotations

import torch

from . import memory
from .control import AxisSpec
from .control import Bound
from .control import Loop
from .generate import Generator
from .program import Param
from .scope import LARGEST_LOOP
from .scope import covers
from .scope import output
from .scope import place_of_store
from .scope import some_dims
from .scope import statement
from .scope import tile_dims
from .statements import Assign
from .statements import Atomic
from .statements import Augment
from .statements import Statement
from .statements import Store
from .table import ROWS
from .table import Expr
from .values import ONE
from .values import Dim
from .values import Invalid
from .values import elements


@statement(3, depth=0)
def assign(g: Generator, depth: int) -> list[Statement]:
    return [Assign(g.name("v"), g.expr(some_dims(g), g.kind(), False, 3))]


@statement(5, depth=0)
def store(g: Generator, depth: int) -> list[Statement]:
    dims, index, shape = place_of_store(g)
    kind = g.kind()
    value = g.expr(dims, kind, False, 4)
    v = g.value(value)
    dtype = v.dtype if g.chance(0.7) else g.dtype(kind)
    if kind == "int" and dtype is not v.dtype:
        dtype = v.dtype if v.low < -100 or v.high > 100 or (v.low < 0 and dtype is torch.uint8) else dtype
    fill = "empty" if covers(g, index) else g.choice(("zeros", "full"))
    if dtype is torch.bool:
        fill = "zeros" if fill == "full" else fill
    return [Store(output(g, shape, dtype, fill), index, [value], g.choice(("index", "index", "hl.store")))]


@statement(1, depth=0)
def masked_store(g: Generator, depth: int) -> list[Statement]:
    dims, index, shape = place_of_store(g)
    value = g.expr(dims, g.choice(("float", "int")), False, 3)
    mask = g.expr(g.part_of(dims), "bool", True, 2)
    dtype = g.value(value).dtype
    return [Store(output(g, shape, dtype, g.choice(("zeros", "full"))), index, [value, mask], masked=True)]


@statement(1, depth=0)
def broadcast_store(g: Generator, depth: int) -> list[Statement]:
    """A store of a value that PyTorch's rule broadcasts."""
    dims, index, shape = place_of_store(g)
    value = g.expr(g.part_of(dims), g.choice(("float", "int")), False, 3)
    fill = "empty" if covers(g, index) else "zeros"
    return [Store(output(g, shape, g.value(value).dtype, fill), index, [value])]


@statement(0.8, depth=0)
def slice_from_number(g: Generator, depth: int) -> list[Statement]:
    """`x[t, s : s + 4]` at a loaded number, read and maybe stored."""
    n, room = g.choice((1, 2, 3, 4, 8, 16)), g.rng.randint(0, 5)
    dims, index, shape = place_of_store(g, extra=False)
    if elements((*dims, Dim(n))) > LARGEST_LOOP:
        raise Invalid("too large")
    places = Param(f"x{len(g.program.params)}", g.choice((torch.int64, torch.int32)), [3], 0, room)
    places.seed = g.rng.randrange(99)
    g.add_param(places)
    grids = [a for a in g.env.axes.values() if a.kind == "grid" and 0 <= a.low <= a.high <= 2]
    at = ("grid", g.choice(grids).name) if grids and g.chance(0.7) else ("int", g.rng.randint(0, 2))
    start = Assign(g.name("v"), Expr("load", [], {"tensor": places.name, "index": [at], "form": "index"}))
    kind = g.choice(("float", "int"))
    part = ("from", 0, n)
    source = Expr("variable", [], {"name": start.name})
    x = g.param([*shape, n + room], kind)
    read = Expr("load", [source], {"tensor": x.name, "index": [*index, part], "form": g.choice(("index", "hl.load"))})
    taken = Assign(g.name("v"), read)
    if not g.chance(0.6):
        return [start, taken]
    g.env = g.env.copy()
    for made in (start, taken):
        made.infer(g.env)
    value = g.expr((*dims, Dim(n)), kind, False, 2) if g.chance(0.5) else Expr("variable", [], {"name": taken.name})
    name = output(g, [*shape, n + room], g.value(value).dtype, "zeros")
    return [start, taken, Store(name, [*index, ("from", 1, n)], [value, source])]


@statement(0.8, depth=0)
def number_store(g: Generator, depth: int) -> list[Statement]:
    """`out[t, :] = 1.0`, of a number or of one value for each row."""
    dims, index, shape = place_of_store(g)
    kind = g.choice(("float", "int"))
    n = g.size(1, 64)
    index, shape = [*index, ("all",)], [*shape, n]
    if elements((*dims, Dim(g.program.sizes[n]))) > LARGEST_LOOP:
        raise Invalid("too large")
    value = g.number(kind) if g.chance(0.6) else g.expr((*dims, ONE), kind, False, 2)
    dtype = g.value(value).dtype
    if g.value(value).weak:
        dtype = g.choice((torch.float32, torch.bfloat16)) if kind == "float" else g.choice((torch.int32, torch.int64))
    return [Store(output(g, shape, dtype, "empty" if covers(g, index) else "zeros"), index, [value])]


@statement(1, depth=0)
def scatter(g: Generator, depth: int) -> list[Statement]:
    """A store through a permutation."""
    dims, index, shape = place_of_store(g)
    places = [i for i, e in enumerate(index) if e[0] == "tile"]
    if not places:
        raise Invalid("nothing to permute")
    at = g.choice(places)
    axis = g.env.axes[index[at][1]]
    size = g.axis_size[axis.name]
    if axis.low < 0 or axis.high >= max(g.program.sizes[size], 1):
        raise Invalid("no permutation")
    p = Param(
        f"x{len(g.program.params)}",
        g.choice((torch.int64, torch.int32)),
        [size],
        0,
        0,
        fill="permutation",
        seed=g.rng.randrange(99),
    )
    g.add_param(p)
    where = Expr("load", [], {"tensor": p.name, "index": [("tile", axis.name, 0)], "form": "index"})
    if g.chance(0.5):
        where = g.computed_place(axis.name)
    dims = tuple([d for d in dims if d.axis != axis.name])
    before = [e for e in index[:at] if e[0] in ("tile", "all")]
    dims = (*dims[: len(before)], Dim(axis.size, axis.name), *dims[len(before) :])
    value = g.expr(dims, g.choice(("float", "int")), False, 3)
    index[at] = ("value", 1)
    return [Store(output(g, shape, g.value(value).dtype, g.choice(("zeros", "full"))), index, [value, where])]


@statement(2, depth=0)
def halo_store(g: Generator, depth: int) -> list[Statement]:
    """`out[t] = x[t] + y[t.begin - 2 : t.begin + t.block_size + 2].sum(-1)` and its like."""
    dims, index, shape = place_of_store(g, extra=False)
    kind = g.choice(("float", "int"))
    row = ROWS["halo" if kind == "float" or g.chance(0.6) else "tile_number_function"]
    made = row.make(g, (), kind, True, 2)
    if made is None:
        raise Invalid("no tile of its own")
    value = Expr(g.choice(("add", "sub", "maximum")), [g.expr(dims, kind, True, 2), made])
    return [Store(output(g, shape, g.value(value).dtype, "empty" if covers(g, index) else "zeros"), index, [value])]


@statement(1.5, depth=0)
def flat_scatter(g: Generator, depth: int) -> list[Statement]:
    """A store through an index tensor of two dimensions, into one dimension or one of several, maybe read back so."""
    axes = [a for a in g.env.axes.values() if a.kind == "tile" and a.name in g.axis_size]
    if len(axes) != 2 or len(g.env.axes) != 2:
        raise Invalid("not two tiles")
    dims = g.shuffled(tuple(Dim(a.size, a.name) for a in axes))
    place = ROWS["flat_place"].make(g, dims, "int", True, 0)
    if place is None:
        raise Invalid("no places")
    room = g.value(place).high + 1
    value = g.expr(dims, g.choice(("float", "int")), False, 3)
    index: memory.Index = [("value", 1)]
    shape: list[str | int] = [int(room)]
    if g.chance(0.3):
        index, shape = [("int", 1), *index], [2, *shape]
    stored = Store(output(g, shape, g.value(value).dtype, g.choice(("zeros", "full"))), index, [value, place])
    if g.chance(0.5):
        return [stored]
    x = g.param([int(room)], "float")
    taken = Expr("load", [place], {"tensor": x.name, "index": [("value", 0)], "form": g.choice(("index", "hl.load"))})
    return [Assign(g.name("v"), taken), stored]


@statement(1, depth=0)
def update_argument(g: Generator, depth: int) -> list[Statement]:
    """`x[tile] = f(x[tile])` of an argument."""
    dims, index, shape = place_of_store(g)
    kind = g.choice(("float", "int"))
    low = 0 if kind == "int" else -6
    p = Param(
        f"x{len(g.program.params)}",
        g.dtype(kind),
        shape,
        low,
        6,
        layout=g.choice(("contiguous", "part", "transposed", "strided")),
        seed=g.rng.randrange(99),
        written=True,
    )
    g.add_param(p)
    old = Expr("load", [], {"tensor": p.name, "index": index, "form": "index"})
    other = g.expr(dims, kind, False, 2)
    value = Expr(g.choice(("add", "mul", "maximum")), [old, other])
    g.value(value)
    return [Store(p.name, index, [g.cast(value, p.dtype)])]


@statement(1, depth=0)
def augment(g: Generator, depth: int) -> list[Statement]:
    names = [n for n, v in g.env.values.items() if v.kind != "bool" and n not in g.hidden]
    if not names:
        raise Invalid("no variable")
    name = g.choice(names)
    v = g.env.values[name]
    value = g.number(v.kind) if g.chance(0.2) else g.expr(v.dims, v.kind, False, 2)
    return [Augment(name, g.choice(("+", "-")), value)]


@statement(1.2, depth=0)
def atomic(g: Generator, depth: int) -> list[Statement]:
    """An atomic of every element of a value, at gathered places or at the tile's own."""
    tiles = list(tile_dims(g))
    op = g.choice(("add", "add", "max", "min", "and", "or", "xor", "xchg", "cas", "cas"))
    kind = "int" if op in ("and", "or", "xor", "cas") or g.chance(0.5) else "float"
    dtype = g.choice((torch.int32, torch.int64)) if kind == "int" else torch.float32
    if kind == "float" and op in ("max", "min"):
        dtype = torch.float32
    dims = tuple(d for d in g.shuffled(tuple(tiles)) if g.chance(0.7))[:2]
    result = g.name("old") if op in ("xchg", "cas") or g.chance(0.15) else ""
    if result:
        dims = tuple(tiles)
        dtype = torch.int32 if kind == "int" else torch.float32
    if g.chance(0.5) and dims and not result:
        source = g.size(1, 64)
        where = g.index_value(dims, source, 3)
        index: memory.Index = [("value", 1)]
        shape: list[str | int] = [source]
        args = [where]
    else:
        index = [("tile", d.axis, 0) for d in dims] or [("int", 0)]
        shape, args = [g.key(d) for d in dims] or [2], []
    value = g.cast(g.small(g.expr(dims, kind, True, 3)), dtype)
    return [Atomic(op, output(g, shape, dtype, g.choice(("zeros", "full"))), index, [value, *args], result)]


@statement(0.8, depth=0)
def store_then_load(g: Generator, depth: int) -> list[Statement]:
    """A row of scratch memory that is stored and read back in another order."""
    dims, index, shape = place_of_store(g, extra=False)
    n = g.size(1, 64)
    extra = Dim(g.program.sizes[n])
    if len(dims) > 2 or elements((*dims, extra)) > LARGEST_LOOP:
        raise Invalid("too large")
    value = g.expr((*dims, extra), g.choice(("float", "int")), False, 3)
    dtype = g.value(value).dtype
    whole = all(g.env.axes[e[1]].low == 0 for e in index)
    name = output(g, [*shape, n], dtype, "empty" if whole and covers(g, [*index, ("all",)]) else "zeros")
    first = Store(name, [*index, ("all",)], [value])
    form = g.choice(("reversed", "permuted", "number"))
    read: memory.Index = [*index, ("value", 0)]
    if form == "number":
        again = Expr("load", [], {"tensor": name, "index": [*index, ("int", g.rng.randint(-1, 0))], "form": "index"})
        return [first, Assign(g.name("v"), again)]
    if form == "reversed":
        places = Expr(
            "sub",
            [Expr("number", [], {"value": extra.size - 1}), Expr("position", [], {"dim": extra, "function": False})],
        )
    else:
        p = Param(
            f"x{len(g.program.params)}",
            torch.int64,
            [n],
            0,
            extra.size - 1,
            fill="permutation",
            seed=g.rng.randrange(99),
        )
        g.add_param(p)
        places = Expr("load", [], {"tensor": p.name, "index": [("all",)], "form": "index"})
    again = Expr("load", [places], {"tensor": name, "index": read, "form": "index"})
    loaded = Assign(g.name("v"), again)
    result: list[Statement] = [first, loaded]
    if g.chance(0.4):
        old = Expr("variable", [], {"name": loaded.name})
        result.append(
            Store(
                name,
                [*index, ("all",)],
                [Expr("cast", [Expr("clamp", [old], {"low": 0, "high": 9})], {"dtype": dtype})],
            )
        )
    return result


@statement(0.5, depth=1)
def store_in_loop(g: Generator, depth: int) -> list[Statement]:
    """A row of memory that each iteration of a loop reads and changes."""
    dims, index, shape = place_of_store(g, extra=False)
    steps = g.rng.randint(2, 5)
    width = g.size(steps, 33)
    extra = Dim(g.program.sizes[width])
    if len(dims) > 1 or elements((*dims, extra)) > LARGEST_LOOP:
        raise Invalid("too large")
    p = Param(
        f"x{len(g.program.params)}",
        g.choice((torch.float32, torch.int32)),
        [*shape, width],
        0,
        6,
        seed=g.rng.randrange(99),
        written=True,
    )
    g.add_param(p)
    spec = AxisSpec(g.name("i"), Bound(("number", 0)), Bound(("number", steps)))
    row = Expr("load", [], {"tensor": p.name, "index": [*index, ("all",)], "form": "index"})
    one = Expr("load", [], {"tensor": p.name, "index": [*index, ("grid", spec.name)], "form": "index"})
    mixed = Expr(
        g.choice(("add", "maximum", "minimum")),
        [row, Expr("new_dim", [one], {"place": len(dims), "form": "unsqueeze"})],
    )
    kept = Expr("clamp", [mixed], {"low": 0, "high": 50})
    return [Loop(g.choice(("grid", "range")), [spec], [Store(p.name, [*index, ("all",)], [kept])])]
