"""Rows of loops whose bounds are numbers that a loop around them carries: windows that go along a range."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from .control import AxisSpec
from .control import Bound
from .control import Loop
from .generate import Generator
from .loops import accumulator
from .loops import loop_axis
from .patterns import StartNumber
from .scope import body
from .scope import enter
from .scope import statement
from .statements import Accumulate
from .statements import Assign
from .statements import Statement
from .table import Env
from .table import Expr
from .table import infer
from .values import Dim
from .values import Invalid

if TYPE_CHECKING:
    from .printing import Printer


@dataclasses.dataclass
class Together(Statement):
    """`low, high = high, high + 3`: every value is read before any name gets its new one."""

    names: list[str]
    args: list[Expr]
    feature = "names assigned together"

    def expressions(self) -> list[Expr]:
        return self.args

    def infer(self, env: Env) -> None:
        values = [infer(e, env) for e in self.args]
        if any(v.weak for v in values):
            raise Invalid("a number")
        env.values.update(zip(self.names, values))

    def print(self, p: Printer) -> None:
        p.line(f"{', '.join(self.names)} = {', '.join(map(p.expr, self.args))}")


def _number(value: int) -> Expr:
    return Expr("number", [], {"value": value})


def _moves(g: Generator, low: str, high: str, by: int, form: str) -> list[Statement]:
    """How the window goes on; `by` places at most."""
    begin, end = (Expr("variable", [], {"name": name}) for name in (low, high))
    more: Expr = _number(by)
    if form == "loaded":
        found = g.load((), "int", True, 0, "load")
        if found is None:
            raise Invalid("nothing to load")
        g.value(found)
        more = Expr("clamp", [found], {"low": 0, "high": by})
    further = Expr("add", [end, more])
    if form == "together":
        return [Together([low, high], [end, further])]
    if form == "wider":
        return [Assign(high, further)]
    if form == "apart":
        return [Assign(low, Expr("add", [begin, _number(by)])), Assign(high, further)]
    return [Assign(low, end), Assign(high, further)]


@statement(1.2, depth=1)
def window(g: Generator, depth: int) -> list[Statement]:
    """A loop over indices with a window that it moves, and a loop over the window in it."""
    outer = g.choice(("grid", "grid", "grid", "range"))
    around = loop_axis(g, "i", 1, 9, tile=False)
    if outer == "range":
        around.begin, around.end = Bound(("number", 0)), Bound(("number", g.rng.randint(1, 4)))
        del g.axis_size[around.name]
    (first, _), (_, last) = around.begin.range(g.env), around.end.range(g.env)
    trips = max(last - first, 0)
    size = g.size(2, 65)
    n = g.program.sizes[size]
    by = max(1, n // (trips + 1))
    low, high = g.name("c"), g.name("c")
    starts: list[Statement] = [StartNumber(low, 0), StartNumber(high, by)]
    most = by * (trips + 1)
    inner = g.choice(("tile", "tile", "grid"))
    spec = AxisSpec(g.name("k" if inner == "tile" else "i"), *(Bound(("carried", v, 0, most)) for v in (low, high)))
    g.axis_size[spec.name] = size
    if inner == "tile":
        spec.block = g.choice((None, None, 1, 4, 16))
    if inner == "grid" and g.chance(0.5):
        spec.step = g.choice((2, 3))
    adds = inner == "tile" and g.chance(0.6)
    start, dims, kind, _ = accumulator(g, "sum")

    def fill_inner() -> list[Statement]:
        if not adds:
            return body(g, depth - 1, 1, ("store", "store", "assign", "masked_store"))
        axis = g.env.axes[spec.name]
        g.hidden.add(start.name)
        place = g.rng.randint(0, len(dims))
        value = g.expr(dims[:place] + (Dim(axis.size, axis.name),) + dims[place:], kind, False, 2)
        g.hidden.discard(start.name)
        return [Accumulate(start.name, "sum", place, spec.name, [value])]

    def fill() -> list[Statement]:
        for s in starts:
            s.infer(g.env)
        if adds:
            g.env.values[start.name] = g.value(start.value)
        moves = _moves(g, low, high, by, g.choice(("next", "next", "together", "loaded", "wider", "apart")))
        return [enter(g, Loop(inner, [spec], []), fill_inner), *moves]

    return [*([start] if adds else []), *starts, enter(g, Loop(outer, [around], []), fill)]
