"""A random program: sizes, arguments, and expressions of any dimensions; statements are `building`'s.

Generation draws first and asks afterwards: a row makes an expression, inference says whether it means something
definite, and if not another one is drawn.  Each program draws for every row how much it likes it (swarm testing), so
that some programs are all reductions and others have none.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any
from typing import TypeVar

import torch

from . import formats
from . import halos
from . import inlined
from . import memory
from . import merged
from . import pointwise
from . import shaped
from . import triangles
from . import views
from .inputs import LAYOUTS
from .inputs import READ_ONLY
from .pointwise import GRID_NUMBERS
from .program import Param
from .program import Program
from .program import Scalar
from .program import View
from .table import ROWS
from .table import Dims
from .table import Env
from .table import Expr
from .table import infer
from .values import FLOATS
from .values import INTS
from .values import ONE
from .values import Dim
from .values import Invalid
from .values import Value
from .values import elements
from .values import kind_of

T = TypeVar("T")

SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 24, 31, 32, 33, 40, 64, 65, 100)
_SIZE_WEIGHTS = (1, 3, 3, 4, 4, 5, 5, 5, 5, 5, 6, 6, 4, 4, 5, 5, 3, 3, 2, 1)
_FLOATS = (torch.float32,) * 6 + (torch.bfloat16,) * 2 + (torch.float16,) * 2 + (torch.float64,)
_INTS = (torch.int32,) * 4 + (torch.int64,) * 3 + (torch.int8, torch.uint8, torch.int16)
#: Elements of one value over all of its loops.
_LARGEST_VALUE = 60_000
#: kind -> tunables, with their default values.
_TUNABLES: dict[str, tuple[tuple[str, float], ...]] = {
    "power": (("PowerOfTwoFragment(1, 8, 2)", 2), ("PowerOfTwoFragment(2, 4, 4)", 4)),
    "int": (("PowerOfTwoFragment(1, 8, 2)", 2), ("IntegerFragment(1, 5, 3)", 3), ("EnumFragment((3, 1, 4))", 3)),
    "float": (("EnumFragment((0.5, 2.0))", 0.5), ("EnumFragment((1.5, -1.0))", 1.5)),
    "bool": (("BooleanFragment()", False), ("EnumFragment((True, False))", True)),
}
_LEAVES = ("load", "variable", "full", "position", "load", "load")


class Generator:
    """Draws one program.

    Args:
        seed: decides everything.
    """

    def __init__(self, seed: str | int) -> None:
        self.rng = random.Random(str(seed))
        self.program = Program(seed=str(seed))
        self.env = Env(self.program)
        self.hidden: set[str] = set()
        self.axis_size: dict[str, str] = {}
        self.readable: set[str] = set()
        self.names = 0
        self.statement_weights: dict[str, float] = {}
        self.initial: dict[str, memory.Memory] = {}
        self.weights = {row.name: row.weight * self.choice((0, 0.3, 1, 1, 1, 4)) for row in ROWS.values()}
        self.program.special = self.chance(0.15)
        self.dynamic = self.chance(0.3)
        if self.dynamic:
            self.program.settings["static_shapes"] = self.choice((False, False, "auto"))
        # Some programs are of few dtypes: pairs of seldom ones meet there.
        self.floats: tuple[torch.dtype, ...] = self.choice((_FLOATS, _FLOATS, self._few(FLOATS)))
        self.ints: tuple[torch.dtype, ...] = self.choice((_INTS, _INTS, self._few(INTS)))
        if self.chance(0.1):
            self.program.settings["index_dtype"] = torch.int64
        if self.chance(0.15):
            self.program.settings["debug_dtype_asserts"] = True

    # -- drawing -------------------------------------------------------------------------------------------------

    def choice(self, options: Sequence[T]) -> T:
        return options[self.rng.randrange(len(options))]

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def _few(self, dtypes: tuple[torch.dtype, ...]) -> tuple[torch.dtype, ...]:
        return tuple(self.rng.sample(dtypes, 2))

    def shuffled(self, items: tuple[T, ...]) -> tuple[T, ...]:
        listed = list(items)
        self.rng.shuffle(listed)
        return tuple(listed)

    def name(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    def dtype(self, kind: str) -> torch.dtype:
        return torch.bool if kind == "bool" else self.choice(self.floats if kind == "float" else self.ints)

    def kind(self) -> str:
        return self.choice(("float", "float", "float", "int", "int", "bool"))

    # -- sizes ---------------------------------------------------------------------------------------------------

    def size(self, smallest: int = 0, largest: int = 100) -> str:
        """The name of a size: one that there is, or a new one."""
        fitting = [s for s, n in self.program.sizes.items() if smallest <= n <= largest]
        if fitting and (self.chance(0.6) or len(self.program.sizes) > 5):
            return self.choice(fitting)
        options = [(n, w) for n, w in zip(SIZES, _SIZE_WEIGHTS) if smallest <= n <= largest]
        n = self.rng.choices([n for n, _ in options], [w for _, w in options])[0]
        name = f"n{len(self.program.sizes)}"
        self.program.sizes[name] = n
        return name

    def key(self, dim: Dim) -> str | int:
        """How the size of a dimension is written in the shape of a tensor."""
        if dim.axis is not None:
            return self.axis_size.get(dim.axis, dim.size)
        same = [s for s, n in self.program.sizes.items() if n == dim.size]
        return self.choice(same) if same and not self.dynamic else (same[0] if same else dim.size)

    def constant_dim(self, dims: Dims, smallest: int = 1, but: int | None = None) -> Dim | None:
        """Another dimension for a value of these dimensions, or None if that would be too large."""
        room = _LARGEST_VALUE // max(elements([d for i, d in enumerate(dims) if i != but]), 1)
        if len(dims) >= 4 or room < max(smallest, 1) or sum(d.axis is None and d != ONE for d in dims) > 2:
            return None
        tiles = [
            a for a in self.env.axes.values() if a.kind == "tile" and a.chunked and Dim(a.size, a.name) not in dims
        ]
        if tiles and smallest <= 1 and self.chance(0.4):
            axis = self.choice(tiles)
            return Dim(axis.size, axis.name)
        constants = elements([d for d in dims if d.axis is None])
        largest = min(room, 1024 // max(constants, 1), 64)
        if largest < max(smallest, 1):
            return None
        n = (
            self.program.sizes[self.size(smallest, largest)]
            if any(smallest <= s <= largest for s in SIZES)
            else smallest
        )
        return Dim(n)

    def part_of(self, dims: Dims) -> Dims:
        """Dimensions that broadcast to these."""
        if not dims or self.chance(0.6):
            return dims
        if self.chance(0.25):
            return ()
        return tuple(ONE if self.chance(0.4) else d for d in dims)

    # -- expressions ---------------------------------------------------------------------------------------------

    def value(self, e: Expr) -> Value:
        return infer(e, self.env)

    def number(self, kind: str) -> Expr:
        """A Python number: in the source, a scalar argument, a tunable, a number of a tile."""
        grids = [a for a in self.env.axes.values() if a.kind == "grid" and 0 <= a.low <= a.high <= 12]
        if kind == "int" and grids and self.chance(0.3):
            return Expr("grid_number", [], {"axis": self.choice(grids).name, "form": self.choice(tuple(GRID_NUMBERS))})
        if kind == "int":
            tiles = [a for a in self.env.axes.values() if a.kind == "tile" and a.chunked]
            if tiles and self.chance(0.5):
                what = self.choice(("begin", "end", "id", "count", "block_size"))
                return Expr(
                    "tile_number", [], {"axis": self.choice(tiles).name, "what": what, "function": self.chance(0.3)}
                )
        if self.chance(0.35):
            fitting = [s.name for s in self.program.scalars.values() if isinstance(s.value, float) == (kind == "float")]
            if not fitting or (len(fitting) < 3 and self.chance(0.5)):
                fitting = [self.scalar(kind)]
            return Expr("number", [], {"name": self.choice(fitting)})
        value = self.choice((1, 2, 3, 5, -1, -2)) if kind == "int" else self.choice((0.5, 2.0, 1.5, -0.25, 3.0))
        return Expr("number", [], {"value": value})

    def computed_place(self, axis: str) -> Expr:
        """A permutation of the places of a loop that begins at 0."""
        size = self.axis_size[axis]
        n = self.program.sizes[size]
        factor = self.choice((-1, 1, 3, 5, 7, 11))
        plus = n - 1 if factor < 0 else self.rng.randint(0, max(n, 1))
        return Expr("computed_place", [], {"axis": axis, "size": size, "factor": factor, "plus": plus})

    def scalar(self, kind: str) -> str:
        """A new number argument, or host arithmetic with others."""
        name = f"s{len(self.program.scalars)}"
        scalars = self.program.scalars
        ints = [s.name for s in scalars.values() if isinstance(s.value, int) and s.origin != "tunable"]
        if self.chance(0.25):
            return self.tunable(kind)
        if self.chance(0.25):
            text = self._read(kind)
            scalars[name] = Scalar(name, self.program.evaluate(text), text)
            return name
        if kind == "int" and self.chance(0.15) and self.program.sizes:
            size, limit = self.choice(list(self.program.sizes)), self.choice((1, 4, 16))
            value = 3 if self.program.sizes[size] > limit else -2
            scalars[name] = Scalar(name, value, f"3 if {size} > {limit} else -2")
        elif kind == "int" and self.chance(0.4) and self.program.sizes:
            size = self.choice(list(self.program.sizes))
            n = self.program.sizes[size]
            text, value = self.choice(((f"{size} // 2", n // 2), (f"{size} * 2 + 1", n * 2 + 1), (f"-(-{size} // 4)",
            -(-n // 4)),
                                       (f"max({size}, 3)", max(n, 3)), (f"({size} + 2) % 5", (n + 2) % 5)))  # fmt: skip
            scalars[name] = Scalar(name, value, text)
        elif ints and kind == "int" and self.chance(0.4):
            other = self.choice(ints)
            scalars[name] = Scalar(name, int(scalars[other].value) * 2 - 1, f"{other} * 2 - 1")
        else:
            value = self.choice((2, 3, -1, 4, 0, 1)) if kind == "int" else self.choice((0.5, 2.0, -1.5, 4.0))
            scalars[name] = Scalar(name, value, self.choice(("argument", "argument", "constexpr")))
        return name

    def _read(self, kind: str) -> str:
        """The text of a number that host code reads from an argument."""
        fitting = [
            p for p in self.program.params
            if kind_of(p.dtype) == kind and p.fill == "random" and not p.written and p.dtype in (*FLOATS, *INTS)
            and 0 not in [self.program.extent(s) for s in p.shape]
        ]  # fmt: skip
        if fitting and self.chance(0.4):
            p = self.choice(fitting)
        else:
            step = 1 if kind == "int" else 0.5
            dtype = self.dtype(kind)
            low = 0 if dtype is torch.uint8 else -2
            p = Param(f"x{len(self.program.params)}", dtype, [3], low, 4, step, seed=self.rng.randrange(1000))
            self.add_param(p)
        at = ", ".join(self.choice(("0", "-1")) for _ in p.shape)
        forms = (f"{kind}({p.name}[{at}])", f"{p.name}[{at}].item()", f"{p.name}.amax().item()")
        return self.choice((*forms, f"max({forms[0]}, {'1' if kind == 'int' else '1.0'})"))

    def tunable(self, kind: str = "power") -> str:
        """A new tunable."""
        name = f"s{len(self.program.scalars)}"
        fragment, value = self.choice(_TUNABLES[kind])
        self.program.scalars[name] = Scalar(name, value, "tunable", fragment)
        return name

    def cast(self, e: Expr, dtype: torch.dtype) -> Expr:
        return e if self.value(e).dtype is dtype else Expr("cast", [e], {"dtype": dtype})

    def within(self, e: Expr, low: float, high: float) -> Expr:
        """The expression brought into a range, if it may leave it."""
        v = self.value(e)
        if v.weak:
            return e
        if low <= v.low - v.error and v.high + v.error <= high:
            return e
        if v.kind == "int":
            if high > 1e8:
                high = 100
            return Expr("clamp", [e], {"low": int(low), "high": int(high)})
        step = 0.5 if v.error else 0
        return Expr("clamp", [e], {"low": low + step, "high": min(high, 1000) - step})

    def small(self, e: Expr) -> Expr:
        """The expression with values that stay exact in a product."""
        v = self.value(e)
        return e if v.magnitude <= 16 else Expr("clamp", [e], {"low": 0 if v.dtype is torch.uint8 else -8, "high": 8})

    def expr(self, dims: Dims, kind: str, exact: bool, depth: int) -> Expr:
        """A random expression of a kind, of these dimensions.

        Raises:
            Invalid: none was found.
        """
        for attempt in range(12):
            if depth <= 0 or attempt > 6:
                name = self.choice(_LEAVES)
            else:
                name = self.rng.choices(list(self.weights), [w + 1e-3 for w in self.weights.values()])[0]
            try:
                e = ROWS[name].make(self, dims, kind, exact, min(depth, 4))
                if e is None:
                    continue
                v = infer(e, self.env)
            except Invalid:
                continue
            if v.dims == dims and v.kind == kind and not v.weak and not (exact and v.error) and self._fits(e):
                return e
        return self.fallback(dims, kind)

    def _fits(self, e: Expr) -> bool:
        return e.value is not None and elements(e.value.dims) <= _LARGEST_VALUE

    def fallback(self, dims: Dims, kind: str) -> Expr:
        """A load, which always goes."""
        e = self.load(dims, kind, True, 0, "load")
        if e is None:
            raise Invalid("nothing to load")
        self.value(e)
        return e

    # -- memory --------------------------------------------------------------------------------------------------

    def param(self, shape: list[str | int], kind: str, exactly: torch.dtype | None = None) -> Param:
        """A tensor argument of this shape: one that there is, or a new one."""
        fitting = [
            p for p in self.program.params
            if p.shape == shape and kind_of(p.dtype) == kind and p.fill in ("random", "special") and not p.written
            and exactly in (None, p.dtype) and p.name not in self.hidden and p.dtype in (*FLOATS, *INTS, torch.bool)
        ]  # fmt: skip
        if fitting and self.chance(0.6):
            return self.choice(fitting)
        dtype = exactly or self.dtype(kind)
        low, high, step = -8, 8, 0.5
        if kind == "bool":
            low, high, step = 0, 1, 1
        elif kind == "int":
            low, high = self.choice(((-10, 10), (0, 9), (1, 7), (-100, 100)))
            step = 1
            if dtype is torch.uint8:
                low = max(low, 0)
        elif self.chance(0.3):
            low, high, step = self.choice(((1, 8, 0.5), (-3, 3, 1), (0, 60, 0.25), (-20, 20, 2)))
        p = Param(f"x{len(self.program.params)}", dtype, list(shape), low, high, step, seed=self.rng.randrange(1000))
        if self.chance(0.4):
            p.layout = self.choice(list(LAYOUTS))
        if self.program.special and kind == "float" and self.chance(0.6):
            p.fill = "special"
        self.add_param(p)
        return p

    def view(self, shape: list[str | int], kind: str) -> str | None:
        """A view, made in host code, of a new argument."""
        forms: list[tuple[str, list[str | int]]] = [("[0]", [2, *shape]), (".unsqueeze(0)[0]", shape)]
        if len(shape) == 2:
            forms += [(".t()", shape[::-1]), (".T", shape[::-1])]
        if len(shape) >= 2:
            order = list(range(len(shape)))
            forms.append((f".transpose(0, {len(shape) - 1})", [shape[-1], *shape[1:-1], shape[0]]))
            forms.append((f".permute({', '.join(map(str, order[::-1]))})", shape[::-1]))
        if len(shape) == 1:
            forms.append(("[:, 1]", [*shape, 3]))
            forms.append((".flatten()", [*shape, 1]))
        forms.append(
            (f".reshape({', '.join(map(str, shape))})", [elements([Dim(self.program.extent(s)) for s in shape])])
        )
        if counted := len(shape) == 1 and kind != "bool" and self.chance(0.6):
            limit = self.choice((-2, 0, 1))
            forms = [(f"[{{}} > {limit}]", [self.size(2, 100)])]
            if kind == "int":
                forms += [(".nonzero()[:, 0]", forms[0][1]), (f".masked_select({{}} >= {limit})", forms[0][1])]
        text, base = self.choice(forms)
        p = self.param(list(base), kind)
        if p.written or p.layout != "contiguous" or p.fill != "random":
            return None
        v = View(f"y{len(self.program.views)}", p.name, text.format(p.name), list(shape), counted)
        found = self.program.viewed(v, self.initial[p.name])
        if 0 in found.shape or (counted and 1 in found.shape):
            return None
        self.program.views.append(v)
        self.initial[v.name] = found
        self.remember()
        return v.name

    def add_param(self, p: Param) -> None:
        self.program.params.append(p)
        shape = tuple(self.program.extent(s) for s in p.shape)
        low, high = p.low * p.step, p.high * p.step
        if p.fill == "permutation":
            low, high = 0, max(shape[0] - 1, 0)
        if p.written and p.layout in READ_ONLY:
            p.layout = "contiguous"
        self.initial[p.name] = memory.Memory(p.dtype, shape, low, high, p.step, written=p.written)
        self.remember()

    def remember(self) -> None:
        """Tensors that were made in an inner scope are known in this one."""
        for name, found in self.initial.items():
            if name not in self.env.memory:
                self.env.memory[name] = dataclasses.replace(found)

    def forget(self, outputs: int, params: int) -> None:
        """Take back the tensors made since there were so many."""
        alive = {p.name for p in self.program.params[:params]}
        for v in [v for v in self.program.views if v.base not in alive]:
            self.program.views.remove(v)
            self.initial.pop(v.name, None)
            self.env.memory.pop(v.name, None)
        self.program.closures = [c for c in self.program.closures if c.tensor in alive]
        gone = [o.name for o in self.program.outputs[outputs:]] + [p.name for p in self.program.params[params:]]
        del self.program.outputs[outputs:], self.program.params[params:]
        for name in gone:
            self.initial.pop(name, None)
            self.env.memory.pop(name, None)

    def load(self, dims: Dims, kind: str, exact: bool, depth: int, name: str) -> Expr | None:
        """A load of a tensor argument, or of what an earlier phase wrote."""
        index, shape = self._places(dims)
        args: list[Expr] = []
        attrs: dict[str, Any] = {"form": "index"}
        if not self._take_form(name, dims, index, shape, args, attrs, depth):
            return None
        self._add_places(index, shape)
        earlier = [
            n for n in sorted(self.readable)
            if (o := next(x for x in self.program.outputs if x.name == n)).shape == shape and kind_of(o.dtype) == kind
            and not (exact and self.env.memory[n].error)
        ]  # fmt: skip
        if earlier and self.chance(0.7):
            return Expr(name, args, {"tensor": self.choice(earlier), "index": index, **attrs})
        if shape and all(e[0] != "slice" for e in index) and self.chance(0.06) and (viewed := self.view(shape, kind)):
            return Expr(name, args, {"tensor": viewed, "index": index, **attrs})
        return Expr(name, args, {"tensor": self.param(shape, kind).name, "index": index, **attrs})

    def _places(self, dims: Dims) -> tuple[memory.Index, list[str | int]]:
        """Where a load of a value of these dimensions reads, and the shape of what it reads from."""
        index: memory.Index = []
        shape: list[str | int] = []
        for d in dims:
            if d == ONE and self.chance(0.6):
                index.append(("none",))
                continue
            if d.axis is None and d.size and self.chance(0.12):
                n = d.size + self.choice((1, 2))
                last = "-1" if n > d.size + 1 else self.choice(("", str(n + 7)))
                text = self.choice((f"1:{1 + d.size}", f"1:{last}", f"{1 - n}:{last}"))
                index.append(("slice", 1, 1 + d.size, text))
                shape.append(n)
                continue
            if d.axis is None and 0 < d.size <= 32 and self.chance(0.1):
                whole = next((s for s, n in self.program.sizes.items() if n == 2 * d.size), "")
                if not whole:
                    whole = f"n{len(self.program.sizes)}"
                    self.program.sizes[whole] = 2 * d.size
                index.append(("half", whole, self.choice((0, 1))))
                shape.append(whole)
                continue
            index.append(("all",) if d.axis is None else ("tile", d.axis, 0))
            shape.append(self.key(d))
        return index, shape

    def _take_form(
        self, name: str, dims: Dims, index: memory.Index, shape: list[str | int], args: list[Expr],
        attrs: dict[str, Any], depth: int,
    ) -> bool:  # fmt: skip
        """Turns a plain load into the named form; False where it has no place for it."""
        tiles = [i for i, element in enumerate(index) if element[0] == "tile"]
        if name == "one_load":
            if not tiles:
                return False
            at = self.choice(tiles)  # from below 0 to 1 it is the dimension's own tile: `memory` refuses it
            shape[at - sum(e[0] == "none" for e in index[:at])] = 1
            index[at] = ("one", index[at][1])
        elif name == "shifted_load":
            if not tiles:
                return False
            self._shift(index, shape, self.choice(tiles))
        elif name == "moved_load":
            if not tiles or not self._move(index, args, self.choice(tiles)):
                return False
        elif name == "gather_load":
            whole = [i for i, element in enumerate(index) if element[0] in ("tile", "all")]
            if not whole:
                return False
            at = self.choice(whole)
            place = at - sum(e[0] == "none" for e in index[:at])
            source = self.size(1, 64)
            shape[place] = source
            args.append(self.index_value((dims[at],), source, depth))
            index[at] = ("value", 0)
        elif name == "masked_load":
            if not dims or not self.chance(0.8):
                attrs["form"] = "evict"
            else:
                attrs |= {"form": "hl.load", "masked": True}
                args.append(self.expr(self.part_of(dims), "bool", True, depth - 1))
        return True

    def _add_places(self, index: memory.Index, shape: list[str | int]) -> None:
        """Adds dimensions that the load reads one place of: a grid's, or a constant one."""
        grids = [a for a in self.env.axes.values() if a.kind in ("grid", "unrolled") and a.name in self.axis_size]
        for a in grids:
            if self.chance(0.6) and len(shape) < 4:
                at = self.rng.randint(0, len(index))
                shape.insert(at - sum(e[0] == "none" for e in index[:at]), self.axis_size[a.name])
                index.insert(at, ("grid", a.name))
        if self.chance(0.1) and len(shape) < 4:
            at = self.rng.randint(0, len(index))
            shape.insert(at - sum(e[0] == "none" for e in index[:at]), 3)
            index.insert(at, ("int", self.choice((0, 1, 2, -1))))
        if not shape:
            shape.append(3)
            index.append(("int", self.choice((0, 1, 2, -1))))

    def slice_by_arguments(self, dims: Dims, kind: str) -> Expr:
        """`x[t, a:b]`, of number arguments."""
        size = self.size(4, 40)
        begin, end = self.rng.randint(0, 2), self.rng.randint(3, self.program.sizes[size])
        names = []
        for value in (begin, end):
            names.append(f"s{len(self.program.scalars)}")
            self.program.scalars[names[-1]] = Scalar(names[-1], value, self.choice(("argument", "constexpr")))
        index: memory.Index = [("all",) if d.axis is None else ("tile", d.axis, 0) for d in dims]
        index.append(("slice", begin, end, ":".join(names)))
        p = self.param([*map(self.key, dims), size], kind)
        return Expr("load", [], {"tensor": p.name, "index": index, "form": "index"})

    def _move(self, index: memory.Index, args: list[Expr], at: int) -> bool:
        """Move a tile of an index by a loaded number, if there is one."""
        by = self.load((), "int", True, 0, "load")
        if by is None or self.value(by).dtype is torch.uint8:
            return False
        args.append(self.within(by, -20, 20))
        index[at] = ("moved", index[at][1], len(args) - 1)
        return True

    def _shift(self, index: memory.Index, shape: list[str | int], at: int) -> None:
        """Move a tile of an index, or let its loop go on behind the end of the tensor."""
        if self.chance(0.4):
            place = at - sum(e[0] == "none" for e in index[:at])
            shape[place] = max(self.env.axes[index[at][1]].size - self.choice((1, 2, 5)), 2)
        else:
            index[at] = ("tile", index[at][1], self.choice((-3, -1, 1, 2, 5)))

    def index_value(self, dims: Dims, source: str, depth: int) -> Expr:
        """Integers that are places of a dimension of that size."""
        n = self.program.sizes[source]
        if depth > 1 and self.chance(0.4):
            e = self.expr(dims, "int", True, depth - 2)
            e = self.within(Expr("remainder_const", [e]) if n >= 5 else e, 0, n - 1)
            v = self.value(e)
            if v.low >= 0 and v.high < n and v.dtype is not torch.uint8:
                return e
        shape = [self.key(d) for d in dims]
        index: memory.Index = [("all",) if d.axis is None else ("tile", d.axis, 0) for d in dims]
        dtype = self.choice((torch.int64, torch.int32, torch.int64, torch.int16, torch.int8))  # all of sizes below 128
        p = Param(f"x{len(self.program.params)}", dtype, shape, 0, n - 1, seed=self.rng.randrange(1000))
        self.add_param(p)
        return Expr("load", [], {"tensor": p.name, "index": index, "form": "index"})


#: Modules whose import fills the table.
TABLES = (formats, halos, inlined, memory, merged, pointwise, shaped, triangles, views)
