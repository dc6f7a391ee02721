"""Rows of element-by-element operations: one line each."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch

from .table import Dims
from .table import Env
from .table import Expr
from .table import Row
from .table import add_row
from .values import INTS
from .values import Invalid
from .values import Value
from .values import broadcast
from .values import settle

Range = tuple[float, float, "float | None"]
_NUMBER = {torch.int64: 2, torch.float64: 2.5, torch.bool: True}


@functools.cache
def result_dtype(template: str, operands: tuple[tuple[torch.dtype, bool, bool], ...]) -> torch.dtype:
    """The dtype that PyTorch gives: operands are (dtype, whether a Python number, whether of no dimension)."""
    made: list[Any] = [
        _NUMBER[dtype] if weak else torch.ones(() if scalar else (2,), dtype=dtype, device="meta")
        for dtype, weak, scalar in operands
    ]
    names = {f"a{i}": m for i, m in enumerate(made)}
    try:
        return eval(template.format(*names), {"torch": torch, **names}).dtype
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise Invalid(str(error)) from error


class Pointwise(Row):
    """An operation on elements.

    Args:
        template: Python source of it, for kernel and reference alike.
        takes: kinds of the operands: "float", "int", "bool", "num" (int or float), "any", "same" (as the result).
        gives: kind of the result; "" that of the first operand.
        span: operands -> low, high, step of the exact result; None for the corners of a monotonic function `f`.
        slope: operands -> how much an error of each matters.
        domain: for each operand the range it is brought into, or None.
        jumps: operands must be without error.
        roundings: units in the last place that the operation may be off.
    """

    def __init__(
        self, name: str, template: str, takes: str, gives: str = "", span: Callable[..., Range] | None = None,
        slope: Callable[..., Sequence[float]] | float = 1.0, domain: Sequence[tuple[float, float] | None] = (),
        jumps: bool = False, roundings: float = 1, f: Callable[[float], float] | None = None, weight: float = 1.0,
        family: str = "", numbers: bool = True, signed: bool = False,
    ) -> None:  # fmt: skip
        self.takes = takes.split()
        self.gives = gives or self.takes[-1]
        family = family or f"pointwise, {self.gives}"
        super().__init__(name, family, weight)
        self.template, self.span, self.slope, self.domain = template, span, slope, domain
        self.jumps, self.roundings, self.f, self.numbers, self.signed = jumps, roundings, f, numbers, signed

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        gives = kind if self.gives in ("num", "any") else self.gives
        if gives != kind:
            return None
        if kind == "bool" and "num" in self.takes and self.gives == "num":
            return None
        picked = {"num": g.choice(("float", "int")) if self.gives not in ("num", "any") else kind, "any": kind}
        takes = [picked.get(t, t) for t in self.takes]
        whole = g.rng.randrange(len(takes))
        args = []
        for i, wanted in enumerate(takes):
            shape = dims if i == whole else g.part_of(dims)
            if i != whole and self.numbers and wanted in ("float", "int") and g.chance(0.25):
                arg = g.number(wanted)
            else:
                arg = g.expr(shape, wanted, exact or self.jumps, depth - 1)
            if i < len(self.domain) and self.domain[i] is not None:
                arg = g.within(arg, *self.domain[i])
            args.append(arg)
        return Expr(self.name, args)

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        if all(a.weak for a in args):
            raise Invalid("only numbers")
        for a, wanted in zip(args, self.takes):
            if wanted in ("float", "int", "bool") and a.kind != wanted:
                raise Invalid("kind")
            if wanted == "num" and a.kind == "bool":
                raise Invalid("kind")
        if self.jumps and any(a.error for a in args):
            raise Invalid("a jump at an inexact value")
        for a, span in zip(args, self.domain):
            if span is not None and not (span[0] <= a.low - a.error and a.high + a.error <= span[1]):
                raise Invalid("outside of the domain")
        dims = broadcast([a.dims for a in args])
        dtype = result_dtype(self.template, _operands(args))
        if self.signed and not dtype.is_signed:
            raise Invalid("unsigned")
        if dtype is torch.bool:
            if self.jumps and any(a.kind == "float" for a in args):
                common = result_dtype(" + ".join(f"{{{i}}}" for i in range(len(args))), _operands(args))
                if any(a.error for a in converted(common, args)):
                    raise Invalid("compared after rounding")
            return Value(dtype, dims, 0, 1)
        args = converted(dtype, args)
        if self.span is not None:
            low, high, step = self.span(*args)
        elif self.f is not None:
            ends = self.f(args[0].low), self.f(args[0].high)
            low, high, step = min(ends), max(ends), None
        else:
            raise AssertionError(self.name)
        slopes = self.slope(*args) if callable(self.slope) else [self.slope] * len(args)
        error = sum(s * a.error for s, a in zip(slopes, args) if a.error)
        exact_move = self.roundings == 0
        if exact_move and dtype.is_floating_point and all(a.dtype is dtype or a.weak for a in args):
            return Value(dtype, dims, low, high, step if error == 0 else None, error)
        return settle(dtype, dims, low, high, step, error, max(self.roundings, 1))

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return self.template.format(*args)

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        assert e.value is not None
        if e.value.dtype.is_floating_point or any(a.value.dtype.is_floating_point for a in e.args):
            texts = []
            for text, a in zip(args, e.args):
                wide = not a.value.weak and a.value.kind == "int"
                texts.append(f"{text}.double()" if wide else text)
            args = texts
        return self.template.format(*args)


def _operands(args: Sequence[Value]) -> tuple[tuple[torch.dtype, bool, bool], ...]:
    return tuple((a.dtype, a.weak, not a.dims) for a in args)


def converted(dtype: torch.dtype, args: Sequence[Value]) -> list[Value]:
    """Operands of a float operation as type promotion makes them; numbers are at least as exact as float32."""
    if not dtype.is_floating_point:
        return list(args)
    kept = []
    for a in args:
        target = torch.float32 if a.weak and dtype is not torch.float64 else dtype
        kept.append(a if a.dtype in (target, torch.bool) else settle(target, a.dims, a.low, a.high, a.step, a.error))
    return kept


# -- ranges --------------------------------------------------------------------------------------------------------


def _least(*args: Value) -> float | None:
    steps = [a.step for a in args]
    return None if any(s is None for s in steps) else min(s for s in steps if s is not None)


def _sum(a: Value, b: Value) -> Range:
    return a.low + b.low, a.high + b.high, _least(a, b)


def _difference(a: Value, b: Value) -> Range:
    return a.low - b.high, a.high - b.low, _least(a, b)


def _product(a: Value, b: Value) -> Range:
    corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return min(corners), max(corners), None if a.step is None or b.step is None else a.step * b.step


def _product_slope(a: Value, b: Value) -> list[float]:
    return [b.magnitude + b.error, a.magnitude + a.error]


def _larger(a: Value, b: Value) -> Range:
    return max(a.low, b.low), max(a.high, b.high), _least(a, b)


def _smaller(a: Value, b: Value) -> Range:
    return min(a.low, b.low), min(a.high, b.high), _least(a, b)


def _abs(a: Value) -> Range:
    low = 0 if a.low <= 0 <= a.high else min(abs(a.low), abs(a.high))
    return low, a.magnitude, a.step


def _square(a: Value) -> Range:
    low, high, _ = _abs(a)
    return low * low, high * high, None if a.step is None else a.step**2


def _quotient(a: Value, b: Value) -> Range:
    corners = [x / y for x in (a.low, a.high) for y in (b.low, b.high)]
    return min(corners), max(corners), None


def _quotient_slope(a: Value, b: Value) -> list[float]:
    least = min(abs(b.low), abs(b.high)) - b.error
    return [1 / least, (a.magnitude + a.error) / least**2]


def _bits(*args: Value) -> Range:
    return -math.inf, math.inf, 1  # any number of the dtype


def _whole_number(a: Value) -> Range:
    return math.floor(a.low), math.ceil(a.high), 1


def _either(c: Value, a: Value, b: Value) -> Range:
    return min(a.low, b.low), max(a.high, b.high), _least(a, b)


def _same(a: Value, *_: Value) -> Range:
    return a.low, a.high, a.step


def _fused(a: Value, b: Value, c: Value) -> Range:
    low, high, step = _product(b, c)
    return a.low + low, a.high + high, None if step is None or a.step is None else min(step, a.step)


def _gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


_P = Pointwise
_POSITIVE = (0.25, 1e4)
_DIVISOR = (1, 1e9)

POINTWISE = [
    _P("neg", "-{0}", "num", span=lambda a: (-a.high, -a.low, a.step), roundings=0),
    _P("abs", "{0}.abs()", "num", span=_abs, roundings=0),
    _P("add", "{0} + {1}", "num num", span=_sum, weight=4),
    _P("sub", "{0} - {1}", "num num", span=_difference, weight=3),
    _P("mul", "{0} * {1}", "num num", span=_product, slope=_product_slope, weight=4),
    _P("square", "torch.square({0})", "num", span=_square, slope=lambda a: [2 * (a.magnitude + a.error)]),
    _P("maximum", "torch.maximum({0}, {1})", "num num", span=_larger, roundings=0, numbers=False),
    _P("minimum", "torch.minimum({0}, {1})", "num num", span=_smaller, roundings=0, numbers=False),
    _P("addcmul", "torch.addcmul({0}, {1}, {2})", "float float float", span=_fused, numbers=False,
       slope=lambda a, b, c: [1, *_product_slope(b, c)], roundings=3),
    _P("lerp", "torch.lerp({0}, {1}, 0.25)", "float float", span=lambda a, b: (min(a.low, b.low), max(a.high, b.high),
       None),
       roundings=4, numbers=False),
    _P("relu", "torch.relu({0})", "num", span=lambda a: (max(a.low, 0), max(a.high, 0), a.step), roundings=0),
    _P("clamp_const", "torch.clamp({0}, -2, 3)", "num", roundings=0, signed=True,
       span=lambda a: (min(max(a.low, -2), 3), min(max(a.high, -2), 3), None if a.step is None else min(a.step, 1))),
    # functions that round
    _P("exp", "torch.exp({0})", "float", f=math.exp, slope=lambda a: [math.exp(a.high + a.error)], domain=[(-8, 4)],
       roundings=24),
    _P("exp2", "torch.exp2({0})", "float", f=lambda x: 2.0**x, slope=lambda a: [2.0 ** (a.high + a.error)],
       domain=[(-8, 4)], roundings=16),
    _P("log", "torch.log({0})", "float", f=math.log, slope=lambda a: [1 / (a.low - a.error)], domain=[_POSITIVE],
       roundings=8),
    _P("sqrt", "torch.sqrt({0})", "float", f=math.sqrt, slope=lambda a: [1 / math.sqrt(a.low - a.error)],
       domain=[_POSITIVE]),
    _P("rsqrt", "torch.rsqrt({0})", "float", f=lambda x: x**-0.5, slope=lambda a: [(a.low - a.error) ** -1.5],
       domain=[_POSITIVE], roundings=6),
    _P("reciprocal", "torch.reciprocal({0})", "float", f=lambda x: 1 / x, slope=lambda a: [(a.low - a.error) ** -2],
       domain=[_POSITIVE], roundings=2),
    _P("sigmoid", "torch.sigmoid({0})", "float", f=lambda x: 1 / (1 + math.exp(-x)), slope=0.25, domain=[(-30, 30)],
       roundings=16),
    _P("tanh", "torch.tanh({0})", "float", f=math.tanh, slope=1, domain=[(-30, 30)], roundings=16),
    _P("sin", "torch.sin({0})", "float", span=lambda a: (-1, 1, None), slope=1, domain=[(-50, 50)], roundings=16),
    _P("cos", "torch.cos({0})", "float", span=lambda a: (-1, 1, None), slope=1, domain=[(-50, 50)], roundings=16),
    _P("erf", "torch.erf({0})", "float", f=math.erf, slope=1.2, domain=[(-30, 30)], roundings=16),
    _P("log1p", "torch.log1p({0})", "float", f=math.log1p, slope=2, domain=[(-0.5, 1e4)], roundings=8),
    _P("gelu", "torch.nn.functional.gelu({0})", "float", slope=1.2, domain=[(-20, 20)], roundings=24,
       span=lambda a: (-max(a.magnitude, 0.2), max(a.high, 0), None)),  # 1 + erf(x) loses what x has
    _P("silu", "torch.nn.functional.silu({0})", "float", slope=1.2, domain=[(-20, 20)], roundings=24,
       span=lambda a: (-0.3, max(a.high, 0), None)),
    _P("softplus", "torch.nn.functional.softplus({0})", "float", f=lambda x: math.log1p(math.exp(x)), slope=1,
       domain=[(-15, 15)],
       roundings=24),
    _P("div", "{0} / {1}", "num num", "float", span=_quotient, slope=_quotient_slope, domain=[None, _DIVISOR],
       roundings=2),
    _P("hypot", "torch.hypot({0}, {1})", "float float", span=lambda a, b: (0, a.magnitude + b.magnitude, None),
       numbers=False, roundings=8),
    _P("atan", "torch.atan({0})", "float", f=math.atan, roundings=16),
    # jumps
    _P("floor", "torch.floor({0})", "float", span=_whole_number, jumps=True),
    _P("ceil", "torch.ceil({0})", "float", span=_whole_number, jumps=True),
    _P("round", "torch.round({0})", "float", span=_whole_number, jumps=True),
    _P("trunc", "torch.trunc({0})", "float", span=_whole_number, jumps=True),
    _P("frac", "torch.frac({0})", "float", span=lambda a: (-1, 1, a.step), jumps=True),
    _P("sign", "torch.sign({0})", "num", span=lambda a: (-1, 1, 1), jumps=True),
    _P("lt", "{0} < {1}", "num num", "bool", jumps=True),
    _P("le", "{0} <= {1}", "num num", "bool", jumps=True),
    _P("gt", "{0} > {1}", "num num", "bool", jumps=True, weight=2),
    _P("ge", "{0} >= {1}", "num num", "bool", jumps=True),
    _P("eq", "{0} == {1}", "num num", "bool", jumps=True),
    _P("ne", "{0} != {1}", "num num", "bool", jumps=True),
    _P("isfinite", "torch.isfinite({0})", "float", "bool"),
    _P("and", "{0} & {1}", "bool bool"),
    _P("or", "{0} | {1}", "bool bool"),
    _P("xor", "{0} ^ {1}", "bool bool"),
    _P("not", "~{0}", "bool"),
    _P("logical_and", "torch.logical_and({0}, {1})", "num num", "bool", jumps=True, numbers=False),
    # integers
    _P("int_and", "{0} & {1}", "int int", span=_bits),
    _P("int_or", "{0} | {1}", "int int", span=_bits),
    _P("int_xor", "{0} ^ {1}", "int int", span=_bits),
    _P("invert", "~{0}", "int", span=_bits),
    _P("shift_left", "{0} << 2", "int", span=_bits),
    _P("shift_right", "{0} >> 1", "int", span=_bits),
    _P("floor_div", "{0} // {1}", "int int", span=lambda a, b: (-a.magnitude, a.magnitude, 1), domain=[None,
       _DIVISOR], numbers=False),
    _P("remainder", "{0} % {1}", "int int", span=lambda a, b: (-b.magnitude, b.magnitude, 1), domain=[None, _DIVISOR],
       numbers=False),
    _P("floor_div_const", "{0} // 3", "int", span=lambda a: (-a.magnitude, a.magnitude, 1)),
    _P("remainder_const", "{0} % 5", "int", span=lambda a: (0, 4, 1)),
    _P("remainder_negative", "{0} % -5", "int", span=lambda a: (-4, 0, 1), signed=True),
    _P("floor_div_float", "{0} // {1}", "float float", span=lambda a, b: (-a.magnitude - 1, a.magnitude + 1, 1),
       domain=[None, _DIVISOR], jumps=True, numbers=False),
    _P("remainder_float", "{0} % {1}", "float float", span=lambda a, b: (0, b.magnitude, _least(a, b)),
       domain=[None, _DIVISOR], jumps=True, numbers=False),
    # choices
    _P("where", "torch.where({0}, {1}, {2})", "bool any any", "any", span=_either, slope=lambda c, a, b: [0, 1, 1],
       roundings=0, weight=4),
    _P("where_zero", "torch.where({0}, {1}, 0)", "bool num", "num", span=lambda c, a: (min(a.low, 0), max(a.high, 0),
       a.step),
       slope=lambda c, a: [0, 1], roundings=0, numbers=False),
    _P("clamp_tensor", "torch.clamp({0}, min={1})", "num num", span=_larger, roundings=0, numbers=False),
]  # fmt: skip
for _row in POINTWISE:
    add_row(_row)


# -- what is not a line of the table -----------------------------------------------------------------------------------


class Clamp(Row):
    """Brings a value into a range."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        return None  # Generator.within makes them

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        low, high = e.attrs["low"], e.attrs["high"]
        (a,) = args
        step = a.step if a.step is not None and (low / a.step).is_integer() and (high / a.step).is_integer() else None
        if a.kind == "int":
            info = torch.iinfo(a.dtype)
            if low < info.min or high > info.max:
                raise Invalid("bounds do not fit")
        bounds = min(max(a.low, low), high), min(max(a.high, low), high)
        if a.step is not None and a.error == 0 and step is None:
            return settle(a.dtype, a.dims, *bounds, step)
        if a.weak or a.kind == "bool":
            raise Invalid("a number")
        return Value(a.dtype, a.dims, *bounds, step, a.error)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"torch.clamp({args[0]}, {e.attrs['low']}, {e.attrs['high']})"


class Cast(Row):
    """`.to(dtype)`."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind == "bool":
            arg = g.expr(dims, g.choice(("int", "float")), True, depth - 1)
            return Expr(self.name, [arg], {"dtype": torch.bool})
        source = g.choice(("float", "int", "bool", kind))
        dtype = g.dtype(kind)
        arg = g.expr(dims, source, exact or (kind == "int" and source == "float"), depth - 1)
        if kind == "int" and source == "float":
            arg = g.within(arg, *((0, 100) if dtype is torch.uint8 else (-100, 100)))
        return Expr(self.name, [arg], {"dtype": dtype})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), dtype = args, e.attrs["dtype"]
        if a.weak:
            raise Invalid("a number")
        if dtype is torch.bool:
            if a.error:
                raise Invalid("a jump")
            return Value(dtype, a.dims, 0, 1)
        if dtype in INTS and a.kind == "float":
            info = torch.iinfo(dtype)
            if a.error or a.low < info.min or a.high > info.max:
                raise Invalid("a float outside of the integers")
            return Value(dtype, a.dims, math.floor(a.low), math.ceil(a.high))
        return settle(dtype, a.dims, a.low, a.high, a.step, a.error)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"{args[0]}.to({e.attrs['dtype']})"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        if e.attrs["dtype"].is_floating_point:
            return f"{args[0]}.double()"
        return f"{args[0]}.to({e.attrs['dtype']})"


class Number(Row):
    """A Python number in the source, or a scalar argument; only as an operand."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        return None  # Generator.number makes them

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        value = env.program.scalars[e.attrs["name"]].value if "name" in e.attrs else e.attrs["value"]
        dtype = torch.float64 if isinstance(value, float) else torch.int64
        return Value(dtype, (), value, value, power_of_two_in(value), 0.0, weak=True)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        if "name" in e.attrs:
            return e.attrs["name"]
        value = e.attrs["value"]
        return f"({value})" if value < 0 else repr(value)


class TileNumber(Row):
    """`tile.begin` and the like, which depend on the block size."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        return None

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        axis = env.axes.get(e.attrs["axis"])
        if axis is None or not axis.chunked:
            raise Invalid("no such tile")
        high = {"begin": axis.high, "end": axis.high + 1, "id": axis.size, "count": axis.size, "block_size": 4096}
        return Value(torch.int64, (), min(axis.low, 0), high[e.attrs["what"]], 1, 0.0, weak=True)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        axis, what = e.attrs["axis"], e.attrs["what"]
        return f"hl.tile_{what}({axis})" if e.attrs["function"] else f"{axis}.{what}"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        axis, what = e.attrs["axis"], e.attrs["what"]
        begin, end, block = p.span(axis)
        return {
            "begin": f"{axis}.start",
            "end": f"{axis}.stop",
            "id": f"({axis}.start - ({begin})) // {block}" if begin != "0" else f"{axis}.start // {block}",
            "count": f"-(-({end} - ({begin})) // {block})",
            "block_size": f"{block}",
        }[what].join("()")


#: Numbers made of the index of a grid, as source and as function.
GRID_NUMBERS: dict[str, Callable[[int], int]] = {
    "{0}": lambda i: i,
    "1 << {0}": lambda i: 1 << i,
    "2 ** ({0} % 4)": lambda i: 2 ** (i % 4),
    "{0} * 3 - 2": lambda i: i * 3 - 2,
}


class GridNumber(Row):
    """The index of a loop over indices as a number, `1 << i`."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        return None  # Generator.number makes them

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        axis = env.axes.get(e.attrs["axis"])
        if axis is None or axis.kind != "grid" or axis.low < 0 or axis.high > 24:
            raise Invalid("no such index")
        found = [GRID_NUMBERS[e.attrs["form"]](i) for i in range(axis.low, axis.high + 1)]
        return Value(torch.int64, (), min(found), max(found), 1, 0.0, weak=True)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        text = e.attrs["form"].format(e.attrs["axis"])
        return text if text == e.attrs["axis"] else f"({text})"


class GridCondition(Row):
    """`mask & (i > 2)`, of the index of a grid."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        grids = [a for a in g.env.axes.values() if a.kind == "grid"]
        if kind != "bool" or not grids or not dims:
            return None
        axis = g.choice(grids)
        attrs = {"axis": axis.name, "form": g.choice(("{0} & ({1})", "{0} | ({1})", "({1}) & {0}"))}
        test = f"{axis.name} {g.choice(('>', '==', '<='))} {g.rng.randint(axis.low, axis.high)}"
        return Expr(self.name, [g.expr(dims, "bool", True, depth - 1)], {**attrs, "test": test})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        if args[0].kind != "bool" or args[0].weak or e.attrs["axis"] not in env.axes:
            raise Invalid("no condition")
        return args[0]

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return e.attrs["form"].format(args[0], e.attrs["test"])


class NumberTest(Row):
    """A comparison of numbers, for an `if`."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        return None

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        if not all(a.weak for a in args):
            raise Invalid("no numbers")
        return Value(torch.bool, (), 0, 1)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"{args[0]} {e.attrs['op']} {args[1]}" if e.attrs["op"] else args[0]


def power_of_two_in(value: float) -> float | None:
    """The largest power of two that a number is a multiple of."""
    if value == 0:
        return 1
    numerator, denominator = float(value).as_integer_ratio()
    if denominator > 1:
        return 1 / denominator
    return float(numerator & -numerator)


add_row(Clamp("clamp", "pointwise, num"))
add_row(Cast("cast", "casts", 3))
add_row(Number("number", "numbers"))
add_row(TileNumber("tile_number", "tile attributes"))
add_row(GridNumber("grid_number", "indices as numbers"))
add_row(GridCondition("grid_condition", "indices as numbers", 6))
add_row(NumberTest("number_test", "branches"))
add_row(NumberTest("host_test", "branches"))
