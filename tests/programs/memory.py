"""Indices of host tensors, and rows of values that no operand makes: loads, constants, variables, positions.

An index is a list of elements, one for each dimension (and `None`s), as tuples:

    ("tile", axis, shift)   a tile, maybe shifted         ("all",)        a whole dimension
    ("one", axis)           a tile where the size is 1    ("int", k)      a number
    ("grid", axis, shift)   the index of a grid loop      ("none",)       a new dimension
                            (no shift: 0)
    ("value", place)        an operand: gather or scatter       ("slice", a, b)   a part of a dimension
                            maybe with its text: ("slice", 1, 5, "-4:")
    ("half", size, which)   the first or second half of a dimension of that size
    ("moved", axis, place)  a tile shifted by an operand, a loaded number
    ("from", place, n)      n elements from an operand on, a variable: `x[v1 : v1 + 8]`
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from .table import Dims
from .table import Env
from .table import Expr
from .table import Memory
from .table import Row
from .table import add_row
from .values import ONE
from .values import Dim
from .values import Invalid
from .values import Value
from .values import broadcast
from .values import settle

Element = tuple[Any, ...]
Index = list[Element]


def resolve(index: Index, shape: Sequence[int], values: Sequence[Value], env: Env, masked: bool) -> tuple[Dims, bool]:
    """The dimensions of an access and whether it may leave the tensor.

    Raises:
        Invalid: it does not fit the tensor.
    """
    if sum(e[0] != "none" for e in index) != len(shape):
        raise Invalid("rank")
    dims: list[Dim] = []
    leaves, block, block_at, place = False, [], -1, 0
    for element in index:
        kind = element[0]
        if kind == "none":
            dims.append(ONE)
            continue
        n = shape[place]
        place += 1
        if kind in ("tile", "one", "grid"):
            axis = env.axes.get(element[1])
            if axis is None or (axis.kind in ("grid", "unrolled")) != (kind == "grid"):
                raise Invalid("no such loop")
            shifted = element[2] if len(element) > 2 else 0
            if kind == "one":
                if n != 1 or axis.low < 0:  # from below 0 to 1 it is the dimension's own tile
                    raise Invalid("not of size 1")
                dims.append(Dim(axis.size, axis.name))
                continue
            inside = axis.size == 0 or (axis.low + shifted >= 0 and axis.high + shifted < n)
            if kind == "grid":
                if not inside:
                    raise Invalid("a grid index outside")
                continue
            if n == 1 and axis.size > 1:
                raise Invalid("a tile over a dimension of size 1 broadcasts")
            leaves |= not inside
            dims.append(Dim(axis.size, axis.name))
        elif kind == "moved":
            by, axis = values[element[2]], env.axes.get(element[1])
            if axis is None or axis.kind != "tile" or by.dims or by.kind != "int" or by.weak or (n == 1 < axis.size):
                raise Invalid("no tile to move")
            leaves |= axis.size > 0 and (axis.low + by.low < 0 or axis.high + by.high >= n)
            dims.append(Dim(axis.size, axis.name))
        elif kind == "from":
            start = values[element[1]]
            if start.dims or start.kind != "int" or start.weak or start.low < 0 or start.high + element[2] > n:
                raise Invalid("a slice outside")
            if any(e[0] == "value" for e in index):
                raise Invalid("the reference has no such index")
            dims.append(Dim(element[2]))
        elif kind == "all":
            dims.append(Dim(n))
        elif kind == "slice":
            if not 0 <= element[1] < element[2] <= n:
                raise Invalid("a slice outside")
            dims.append(Dim(element[2] - element[1]))
        elif kind == "half":
            if env.program.extent(element[1]) != n:
                raise Invalid("half of another size")
            dims.append(Dim(n - n // 2 if element[2] else n // 2))
        elif kind == "int":
            if not -n <= element[1] < n:
                raise Invalid("a number outside")
        else:
            value = values[element[1]]
            if value.kind != "int" or value.weak or value.dtype is torch.uint8:
                raise Invalid("index dtype")
            if not masked and not (value.low >= 0 and value.high < n):
                raise Invalid("an index outside")
            if n == 0:
                raise Invalid("nothing to gather")
            if block_at < 0:
                block_at = len(dims)
            block.append(value.dims)
    if block and leaves:
        raise Invalid("a gather outside")
    if block:
        dims[block_at:block_at] = broadcast(block)
    return tuple(dims), leaves


def covers(index: Index, shape: Sequence[int], env: Env) -> bool:
    """Whether a store with this index, in all iterations of the loops around, writes the whole tensor."""
    place = 0
    for kind, *rest in index:
        if kind == "none":
            continue
        n = shape[place]
        place += 1
        if kind in ("tile", "grid"):
            axis = env.axes[rest[0]]
            if axis.partial or axis.low or axis.size != n or any(rest[1:]):
                return False
        elif kind != "all":
            return False
    return True


def index_text(index: Index, args: Sequence[str]) -> list[str]:
    """The elements of an index as helion writes them."""
    texts = []
    for kind, *rest in index:
        if kind in ("tile", "grid"):
            by = rest[1] if len(rest) > 1 else 0
            texts.append(rest[0] if by == 0 else f"{rest[0]} {'+' if by > 0 else '-'} {abs(by)}")
        elif kind == "slice":
            texts.append(f"{rest[0]}:{rest[1]}" if len(rest) < 3 else rest[2])
        elif kind == "half":
            texts.append(_half(rest))
        elif kind == "from":
            texts.append(f"{args[rest[0]]}:{args[rest[0]]} + {rest[1]}")
        elif kind == "moved":
            texts.append(f"{rest[0]} + {args[rest[1]]}")
        else:
            texts.append({"all": ":", "none": "None"}.get(kind) or (args[rest[0]] if kind == "value" else str(rest[0])))
    return texts


def in_list(texts: Sequence[str]) -> list[str]:
    """The elements as members of a list, where a slice has to be written out."""
    sliced = [", ".join(bound or "None" for bound in t.split(":")) if t != ":" else "None" for t in texts]
    return [f"slice({s})" if ":" in t.split("[")[0] else t for s, t in zip(sliced, texts)]


def oracle_load(
    name: str, index: Index, e: Expr, args: Sequence[str], env_shape: Sequence[int], leaves: bool, masked: bool
) -> str:
    """The elements as PyTorch reads them from the whole tensor."""
    if not any(kind == "value" for kind, *_ in index):
        expanded = [
            f"{rest[0]}.stop - {rest[0]}.start" if kind == "one" else "-1" for kind, *rest in index if kind != "none"
        ]
        if any(kind == "one" for kind, *_ in index):
            name = f"{name}.expand({', '.join(expanded)})"
        spans = [_span(element, args) for element in index]
        if leaves:
            inner = [s for s, element in zip(spans, index) if element[0] != "none"]
            kept = [
                ":" if element[0] not in ("none",) else "None" for element in index if element[0] not in ("int", "grid")
            ]
            inner = in_list(inner)
            text = f"window({name}, {', '.join(inner)})"
            return f"{text}[{', '.join(kept)}]" if "None" in kept else text
        return f"{name}[{', '.join(spans)}]"
    makes = [kind for kind, *_ in index if kind not in ("int", "grid")]
    first = next(i for i, kind in enumerate(makes) if kind != "none")
    new = f"[{', '.join(['None'] * first)}, ...]" if first else ""  # the tensors of the index say nothing of them
    return f"{name}[{', '.join(gathered(index, e, args, env_shape, masked))}]{new}"


def gathered(index: Index, e: Expr, args: Sequence[str], shape: Sequence[int], masked: bool) -> list[str]:
    """Each element as an index tensor that stands where its dimensions are in the result."""
    values = [e.args[element[1]].value for element in index if element[0] == "value"]
    block = len(broadcast([v.dims for v in values]))  # type: ignore[union-attr]
    own = sum(kind in ("tile", "all", "slice", "half", "none", "one") for kind, *_ in index)
    texts, seen, place, block_after = [], 0, 0, None
    for kind, *rest in index:
        if kind == "none":
            seen += 1
            continue
        n = shape[place]
        place += 1
        if kind == "value":
            if block_after is None:
                block_after = own - seen
            text = f"({args[rest[0]]})"
            if masked:
                text = f"{text}.clamp(0, {n - 1})"
            text = f"{text}.long()"
            texts.append(text + _trailing(block_after))
        elif kind in ("int", "grid"):
            texts.append(_span((kind, *rest)))
        else:
            seen += 1
            after = own - seen + (block if block_after is None else 0)
            base = f"torch.arange({n})" if kind == "all" else f"index({_span((kind, *rest))}, torch.int64)"
            if kind == "slice":
                base = f"torch.arange({rest[0]}, {rest[1]})"
            if kind == "half":
                base = f"torch.arange({rest[0]})[{_half(rest)}]"
            if kind == "one":
                base = f"(index({rest[0]}, torch.int64) * 0)"
            texts.append(base + _trailing(after))
    return texts


def _trailing(after: int) -> str:
    return f"[..., {', '.join(['None'] * after)}]" if after else ""


def _half(rest: Sequence[Any]) -> str:
    size, which = rest
    return f"{size} // 2:{size}" if which else f"0:{size} // 2"


def _span(element: Element, args: Sequence[str] = ()) -> str:
    kind, *rest = element
    if kind == "moved":
        return f"shift({rest[0]}, int({args[rest[1]]}))"
    if kind == "from":
        return f"int({args[rest[0]]}):int({args[rest[0]]}) + {rest[1]}"
    if kind == "tile":
        return rest[0] if rest[1] == 0 else f"shift({rest[0]}, {rest[1]})"
    if kind == "grid" and len(rest) > 1:
        return f"{rest[0]} + {rest[1]}"
    if kind == "slice":
        return f"{rest[0]}:{rest[1]}"
    if kind == "half":
        return _half(rest)
    return {"all": ":", "one": ":", "none": "None"}.get(kind) or str(rest[0])


class Load(Row):
    """`x[...]` or `hl.load(x, [...])`; with a mask where the last operand is one."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        return g.load(dims, kind, exact, depth, self.name)

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        memory = env.memory.get(e.attrs["tensor"])
        if memory is None or not memory.defined:
            raise Invalid("no such tensor")
        masked = e.attrs.get("masked", False)
        dims, leaves = resolve(e.attrs["index"], memory.shape, args, env, masked)
        e.attrs["leaves"], e.attrs["shape"] = leaves, memory.shape
        if masked and (args[-1].dtype is not torch.bool or broadcast([args[-1].dims, dims]) != dims):
            raise Invalid("mask")
        low, high = memory.low, memory.high
        if leaves or masked:
            low, high = min(low, 0), max(high, 0)
        return Value(memory.dtype, dims, low, high, memory.step, memory.error)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        texts = index_text(e.attrs["index"], args)
        if e.attrs["form"] == "index":
            return f"{e.attrs['tensor']}[{', '.join(texts)}]"
        mask = f", extra_mask={args[-1]}" if e.attrs.get("masked") else ""
        policy = ', eviction_policy="evict_first"' if e.attrs["form"] == "evict" else ""
        texts = in_list(texts)
        return f"hl.load({e.attrs['tensor']}, [{', '.join(texts)}]{mask}{policy})"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        masked = e.attrs.get("masked", False)
        text = oracle_load(e.attrs["tensor"], e.attrs["index"], e, args, e.attrs["shape"], e.attrs["leaves"], masked)
        if masked:
            boolean = e.value.dtype is torch.bool  # type: ignore[union-attr]
            text = f"({args[-1]} & {text})" if boolean else f"torch.where({args[-1]}, {text}, 0)"
        floats = e.value.dtype.is_floating_point  # type: ignore[union-attr]
        return f"{text}.double()" if floats else text


class Variable(Row):
    """A variable of the kernel."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        names = [
            n for n, v in g.env.values.items()
            if v.dims == dims and v.kind == kind and not (exact and v.error) and n not in g.hidden
        ]  # fmt: skip
        return Expr(self.name, [], {"name": g.choice(names)}) if names else None

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        if e.attrs["name"] not in env.values:
            raise Invalid("no such variable")
        return env.values[e.attrs["name"]]

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return e.attrs["name"]


class Full(Row):
    """`hl.zeros`, `hl.full`, `torch.full`."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind == "bool":
            return None
        value = g.choice((0, 1, -2, 3)) if kind == "int" else g.choice((0.0, 0.5, -1.5, 2.0))
        dtype = g.dtype(kind)
        if dtype is torch.uint8:
            value = abs(value)
        return Expr(
            self.name, [], {"dims": dims, "value": value, "dtype": dtype, "form": g.choice(("hl", "sizes", "torch"))}
        )

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        dims = []
        for d in e.attrs["dims"]:
            if d.axis is not None and d.axis not in env.axes:
                raise Invalid("a tile that is gone")
            dims.append(Dim(env.axes[d.axis].size, d.axis) if d.axis else d)
        e.attrs["dims"] = tuple(dims)
        value = e.attrs["value"]
        return settle(e.attrs["dtype"], dims, value, value, 0.5)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        a = e.attrs
        if a["form"] == "sizes":
            function = "hl.zeros" if a["value"] == 0 else "torch.full"
            fill = "" if a["value"] == 0 else f", {a['value']}"
            return f"{function}({p.shape_read(a['dims'])}{fill}, dtype={a['dtype']})"
        if a["form"] == "hl" and a["value"] == 0:
            return f"hl.zeros({p.shape(a['dims'])}, dtype={a['dtype']})"
        if a["form"] == "hl":
            return f"hl.full({p.shape(a['dims'])}, {a['value']}, dtype={a['dtype']})"
        return f"torch.full({p.shape(a['dims'])}, {a['value']}, dtype={a['dtype']})"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        a = e.attrs
        dtype = torch.float64 if a["dtype"].is_floating_point else a["dtype"]
        return f"torch.full({p.shape(a['dims'])}, {a['value']}, dtype={dtype})"


class Position(Row):
    """`tile.index` or `hl.arange`."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind != "int" or len(dims) != 1 or dims == (ONE,):
            return None
        if dims[0].axis is None and dims[0].size == 0:
            return None
        return Expr(self.name, [], {"dim": dims[0], "function": g.chance(0.3)})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        dim = e.attrs["dim"]
        if dim.axis is None:
            return Value(torch.int32, (dim,), 0, max(dim.size - 1, 0))
        axis = env.axes.get(dim.axis)
        if axis is None:
            raise Invalid("a tile that is gone")
        e.attrs["dim"] = Dim(axis.size, dim.axis)
        return Value(torch.int32, (e.attrs["dim"],), axis.low, max(axis.high, axis.low))

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        dim = e.attrs["dim"]
        if dim.axis is None:
            return f"hl.arange({dim.size})"
        return f"hl.tile_index({dim.axis})" if e.attrs["function"] else f"{dim.axis}.index"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        dim = e.attrs["dim"]
        return f"torch.arange({dim.size}, dtype=torch.int32)" if dim.axis is None else f"index({dim.axis})"


class Arange(Row):
    """`hl.arange` with a begin and a step."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind != "int" or len(dims) != 1 or dims[0].axis is not None or dims[0].size < 2:
            return None
        return Expr(self.name, [], {"dim": dims[0], "begin": g.rng.randint(-3, 5), "step": g.choice((1, 2, 3))})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        begin, step, n = e.attrs["begin"], e.attrs["step"], e.attrs["dim"].size
        return Value(torch.int32, (e.attrs["dim"],), begin, begin + step * (n - 1))

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        begin, step, n = e.attrs["begin"], e.attrs["step"], e.attrs["dim"].size
        return f"hl.arange({begin}, {begin + step * n}, {step})" if step > 1 else f"hl.arange({begin}, {begin + n})"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        begin, step, n = e.attrs["begin"], e.attrs["step"], e.attrs["dim"].size
        return f"torch.arange({begin}, {begin + step * n}, {step}, dtype=torch.int32)"


class ArangeDown(Row):
    """`hl.arange` and `torch.arange` with a step below 0."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind != "int" or len(dims) != 1 or dims[0].axis is not None or dims[0].size < 2:
            return None
        attrs = {"dim": dims[0], "begin": g.rng.randint(-3, 70), "step": -g.choice((1, 1, 2, 3))}
        return Expr(self.name, [], {**attrs, "form": g.choice(("hl", "torch", "flat"))})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        begin, step, n = e.attrs["begin"], e.attrs["step"], e.attrs["dim"].size
        dtype = torch.int64 if e.attrs["form"] == "torch" else torch.int32
        return Value(dtype, (e.attrs["dim"],), begin + step * (n - 1), begin)

    def _bounds(self, e: Expr) -> str:
        begin, step = e.attrs["begin"], e.attrs["step"]
        last = begin + step * (e.attrs["dim"].size - 1)
        return f"{begin}, {last - 1}, {step}"

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        if e.attrs["form"] == "flat":
            return f"torch.arange({self._bounds(e)}, dtype=torch.int32)"
        return f"{e.attrs['form']}.arange({self._bounds(e)})"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"torch.arange({self._bounds(e)}, dtype={e.value.dtype})"  # type: ignore[union-attr]


class ComputedPlace(Row):
    """`(tile.index * 7 + 3) % n` and `n - 1 - tile.index`: permutations of the places of a loop that begins at 0."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind != "int" or len(dims) != 1 or dims[0].axis not in g.axis_size:
            return None
        return g.computed_place(dims[0].axis)

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        axis, n = env.axes.get(e.attrs["axis"]), env.program.sizes.get(e.attrs["size"])
        if axis is None or axis.kind != "tile" or n is None or n < 1 or axis.high >= max(n, 1) or axis.low < 0:
            raise Invalid("no such loop")
        if math.gcd(abs(e.attrs["factor"]), n) != 1 or (e.attrs["factor"] < 0 and e.attrs["plus"] != n - 1):
            raise Invalid("no permutation")
        return Value(torch.int32, (Dim(axis.size, axis.name),), 0, n - 1)

    def _text(self, e: Expr, position: str) -> str:
        size, factor, plus = (e.attrs[key] for key in ("size", "factor", "plus"))
        if factor < 0:
            return f"{size} - 1 - {position}"
        return f"({position} * {factor} + {plus}) % {size}"

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return self._text(e, f"{e.attrs['axis']}.index")

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return self._text(e, f"index({e.attrs['axis']})")


class Random(Row):
    """`hl.rand` over tiles of loops that begin at 0, and constant dimensions."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind != "float" or exact or not dims or ONE in dims:
            return None
        return Expr(self.name, [], {"dims": dims, "seed": g.rng.randrange(1000)})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        dims = []
        for d in e.attrs["dims"]:
            axis = env.axes.get(d.axis)
            if d.axis is not None and (axis is None or axis.low or axis.partial or axis.kind != "tile"):
                raise Invalid("no range from 0")
            dims.append(d if axis is None else Dim(axis.size, d.axis))
        e.attrs["dims"] = tuple(dims)
        return Value(torch.float32, tuple(dims), 0, 1, None, 2.0**-23)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"hl.rand({p.shape(e.attrs['dims'])}, {e.attrs['seed']})"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        dims = e.attrs["dims"]
        spans = ", ".join(d.axis or f"slice(0, {d.size})" for d in dims)
        return f"uniform({e.attrs['seed']}, {[d.size for d in dims]}, {spans})"


class JaggedLoad(Row):
    """`data[starts[:, None] + columns.index[None, :]]` in a loop over rows of different lengths."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        return None  # loops.jagged makes them

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        data, axis = env.memory.get(e.attrs["tensor"]), env.axes.get(e.attrs["axis"])
        starts = env.values.get(e.attrs["starts"])
        if data is None or axis is None or starts is None or len(starts.dims) != 1:
            raise Invalid("no such rows")
        if not data.defined or not data.shape[0]:
            raise Invalid("no such elements")
        dims = (starts.dims[0], Dim(axis.size, axis.name))
        return Value(data.dtype, dims, min(data.low, 0), max(data.high, 0), data.step, data.error)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"{e.attrs['tensor']}[{e.attrs['starts']}[:, None] + {e.attrs['axis']}.index[None, :]]"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        a = e.attrs
        text = f"rows({a['tensor']}, {a['starts']}, {a['lengths']}, {a['axis']})"
        return f"{text}.double()" if e.value.dtype.is_floating_point else text  # type: ignore[union-attr]


class OuterGather(Row):
    """`x[i[t0], j[t1]]`: vectors of different tiles make the product, in every mode."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if len(dims) != 2 or None in (dims[0].axis, dims[1].axis) or dims[0].axis == dims[1].axis:
            return None
        sizes = [g.size(1, 40) for _ in dims]
        args = [g.index_value((d,), size, 2) for d, size in zip(dims, sizes)]
        return Expr(self.name, args, {"tensor": g.param(list(sizes), kind).name})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        source = env.memory.get(e.attrs["tensor"])
        if source is None or len(source.shape) != 2 or not source.defined:
            raise Invalid("no such tensor")
        if any(len(a.dims) != 1 or a.kind != "int" for a in args) or args[0].dims == args[1].dims:
            raise Invalid("no vectors")
        if any(a.low < 0 or a.high >= n for a, n in zip(args, source.shape)):
            raise Invalid("an index outside")
        dims = (*args[0].dims, *args[1].dims)
        return Value(source.dtype, dims, source.low, source.high, source.step, source.error)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"{e.attrs['tensor']}[{args[0]}, {args[1]}]"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        text = f"{e.attrs['tensor']}[({args[0]}).long()[:, None], ({args[1]}).long()[None, :]]"
        return f"{text}.double()" if e.value.dtype.is_floating_point else text  # type: ignore[union-attr]


for _row in [
    Random("rand", "random numbers", 0.7),
    JaggedLoad("jagged_load", "jagged loads"),
    OuterGather("outer_gather", "gathers", 1),
    Load("load", "loads", 8),
    Load("masked_load", "masked loads", 1),
    Load("gather_load", "gathers", 2),
    Load("shifted_load", "shifted tiles", 1),
    Load("one_load", "tiles over size 1", 1),
    Load("moved_load", "tiles moved by a loaded number", 1),
    Variable("variable", "variables", 6),
    Full("full", "constants", 1),
    Position("position", "positions", 2),
    Arange("arange", "positions", 1),
    ArangeDown("arange_down", "positions", 2),
    ComputedPlace("computed_place", "positions", 1),
]:
    add_row(_row)
assert Memory
