"""Rows of calls: helper functions of the module, and functions passed as arguments that close over tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .program import Closure
from .table import Dims
from .table import Env
from .table import Expr
from .table import Row
from .table import add_row
from .table import infer
from .values import Invalid
from .values import Value


def _plus(a: Expr, b: Expr) -> Expr:
    return Expr("add", [a, b])


#: name -> its source, kinds of its operands, and the expression that it stands for.
HELPERS: dict[str, tuple[str, tuple[str, ...], Any]] = {
    "scaled_sum": (
        "def scaled_sum(a, b, factor=2):\n    return a * factor + b",
        ("num", "num"),
        lambda a, b: Expr("add", [Expr("mul", [a, Expr("number", [], {"value": 2})]), b]),
    ),
    "choose": (
        "def choose(condition, a, b=None):\n    if b is None:\n        b = -a\n    return torch.where(condition, a, b)",
        ("bool", "num"),
        lambda c, a: Expr("where", [c, a, Expr("neg", [a])]),
    ),
    "one_of": (
        "def one_of(a, b, low=True):\n    if low:\n        return torch.minimum(a, b)\n"
        "    if a.dtype == torch.bool:\n        return a\n    return torch.maximum(a, b)",
        ("num", "num"),
        lambda a, b: Expr("minimum", [a, b]),
    ),
    "other_of": (
        "def other_of(a, b):\n    return one_of(a, b, low=False)\n\n\n"
        "def one_of(a, b, low=True):\n    if low:\n        return torch.minimum(a, b)\n"
        "    if a.dtype == torch.bool:\n        return a\n    return torch.maximum(a, b)",
        ("num", "num"),
        lambda a, b: Expr("maximum", [a, b]),
    ),
    "by_rank": (
        "def by_rank(a, b):\n    if a.dim() > 1:\n        return a - b\n    return b - a",
        ("num", "num"),
        lambda a, b: Expr("sub", [a, b] if len(a.value.dims) > 1 else [b, a]),
    ),
    "by_value": (
        "def by_value(test, a, b):\n    if test:\n        made = a + b\n"
        "    else:\n        made = a - b\n    return made",
        ("scalar", "num", "num"),
        lambda c, a, b: Expr("where", [c, Expr("add", [a, b]), Expr("sub", [a, b])]),
    ),
    "both_ends": (
        "def both_ends(a, b):\n    low, high = torch.minimum(a, b), torch.maximum(a, b)\n"
        "    for _ in range(2):\n        high = high + low\n    return low, high",
        ("num", "num"),
        lambda a, b: _plus(_plus(Expr("maximum", [a, b]), Expr("minimum", [a, b])), Expr("minimum", [a, b])),
    ),
}


class Helper(Row):
    """A call of a Python function of the module, which the kernel inlines."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind == "bool":
            return None
        name = g.choice(list(HELPERS))
        shapes = {"scalar": ((), "bool", True), "bool": (dims, "bool", exact)}
        args = [g.expr(*shapes.get(k, (dims, kind, exact)), depth - 1) for k in HELPERS[name][1]]
        return Expr(self.name, args, {"function": name})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        takes, meaning = HELPERS[e.attrs["function"]][1:]
        if len(args) != len(takes) or any(a.weak or (a.kind == "bool") == (k == "num") for a, k in zip(args, takes)):
            raise Invalid("operands of a function")
        if any(bool(a.dims) for a, k in zip(args, takes) if k == "scalar"):
            raise Invalid("no one condition")
        return infer(meaning(*e.args), env)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        name = e.attrs["function"]
        p.needs(HELPERS[name][0])
        wide = ["" for _ in args]
        if p.oracle and e.value.dtype.is_floating_point:  # type: ignore[union-attr]
            wide = [".double()" if a.value.kind == "int" else "" for a in e.args]  # type: ignore[union-attr]
        text = f"{name}({', '.join(a + w for a, w in zip(args, wide))})"
        return f"{text}[1]" if name == "both_ends" else text


class Epilogue(Row):
    """A call of a function argument that holds a tensor."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind != "float" or not dims or dims[-1].axis is None or g.env.axes[dims[-1].axis].kind != "tile":
            return None
        closures, shape = g.program.closures, [g.key(dims[-1])]
        fitting = [c for c in closures if g.program.param(c.tensor).shape == shape]
        if not fitting:
            tensor = g.param(shape, "float")
            if tensor.written:
                return None
            fitting = [Closure(f"f{len(closures)}", tensor.name, g.choice(("add", "mul", "relu")))]
            closures.extend(fitting)
        attrs = {"closure": g.choice(fitting).name, "axis": dims[-1].axis}
        return Expr(self.name, [g.expr(dims, kind, exact, depth - 1)], attrs)

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        closure = next((c for c in env.program.closures if c.name == e.attrs["closure"]), None)
        if closure is None or not args[0].dims or args[0].dims[-1].axis != e.attrs["axis"] or args[0].kind != "float":
            raise Invalid("no such function")
        load = Expr("load", [], {"tensor": closure.tensor, "index": [("tile", e.attrs["axis"], 0)], "form": "index"})
        if infer(load, env).dims != args[0].dims[-1:] or load.attrs["leaves"]:
            raise Invalid("another tile")
        value = Expr("relu", e.args) if closure.form == "relu" else e.args[0]
        return infer(Expr("mul" if closure.form == "mul" else "add", [value, load]), env)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"{e.attrs['closure']}({args[0]}, {e.attrs['axis']})"


CLOSURES = {
    "add": "value + captured[tile]",
    "mul": "value * captured[tile]",
    "relu": "torch.relu(value) + captured[tile]",
}

for _row in [Helper("helper", "helper functions", 2), Epilogue("epilogue", "closures", 1.5)]:
    add_row(_row)
