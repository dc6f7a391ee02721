"""Rows of number formats: block-scaled products (fp8, fp4), wide unsigned integers, bits, float64 literals."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import torch

from .memory import Index
from .pointwise import Pointwise
from .program import Param
from .table import Dims
from .table import Env
from .table import Expr
from .table import Row
from .table import add_row
from .values import UNSIGNED
from .values import Dim
from .values import Invalid
from .values import Value
from .values import settle

_E4M3 = torch.float8_e4m3fn
#: Where float8_e4m3fn and float8_e5m2 both have numbers.
_FLOAT8_RANGE = (-240, 240)

#: format -> dtype of what holds it, values in a byte, and the least and largest number drawn, in steps of so much.
_FORMATS: dict[str, tuple[torch.dtype, int, int, int, float]] = {
    "e2m1": (torch.uint8, 2, 0, 255, 1.0),
    "e4m3": (_E4M3, 1, -8, 8, 0.5),
    "e5m2": (torch.float8_e5m2, 1, -4, 4, 1.0),
    "bf16": (torch.bfloat16, 1, -8, 8, 0.5),
    "fp16": (torch.float16, 1, -8, 8, 0.5),
}
#: What the scales are -> their dtype, elements that share one, and the range drawn.
_SCALES: dict[str, tuple[torch.dtype, int, int, int, float]] = {
    "mx": (torch.uint8, 32, 125, 129, 1.0),
    "nv": (_E4M3, 16, 1, 8, 0.5),
}
_FORMS = (
    ("e2m1", "mx", "e2m1", "mx"), ("e2m1", "nv", "e2m1", "nv"), ("e4m3", "mx", "e2m1", "mx"),
    ("e4m3", "mx", "e4m3", "mx"), ("e5m2", "mx", "e4m3", "mx"), ("bf16", "", "e2m1", "mx"), ("fp16", "", "e2m1", "mx"),
)  # fmt: skip
#: The largest magnitude of a format times its scale, and a power of two that all such products are multiples of.
_LARGEST, _STEP = 64.0, 2.0**-4


def _operand(g: Any, dim: Dim, made: tuple[torch.dtype, int, int, int, float], columns: int, first: bool) -> Expr:
    """A load of a new argument, [dim, columns] or the other way round."""
    dtype, _, low, high, step = made
    own: Index = [("all",) if dim.axis is None else ("tile", dim.axis, 0)]
    shape: list[str | int] = [g.key(dim)]
    index = [*own, ("all",)] if first else [("all",), *own]
    shape = [*shape, columns] if first else [columns, *shape]
    p = Param(f"x{len(g.program.params)}", dtype, shape, low, high, step, seed=g.rng.randrange(1000))
    g.add_param(p)
    return Expr("load", [], {"tensor": p.name, "index": index, "form": "index"})


class DotScaled(Row):
    """`hl.dot_scaled` of two arguments; K is 32 or 64."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if len(dims) != 2 or kind != "float" or any(d.axis is None or d.size < 1 for d in dims):
            return None
        form = g.choice(_FORMS)
        k = g.choice((32, 64))
        args = []
        for dim, fmt, scales, first in ((dims[0], form[0], form[1], True), (dims[1], form[2], form[3], False)):
            args.append(_operand(g, dim, _FORMATS[fmt], k // _FORMATS[fmt][1], first))
            if scales:
                args.append(_operand(g, dim, _SCALES[scales], k // _SCALES[scales][1], True))
        return Expr(self.name, args, {"form": form})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        fmt_a, scales_a, fmt_b, scales_b = e.attrs["form"]
        given = iter(args)
        rows, ks = [], []
        for fmt, scales, first in ((fmt_a, scales_a, True), (fmt_b, scales_b, False)):
            dtype, packed, *_ = _FORMATS[fmt]
            stored = next(given)
            if stored.dtype is not dtype or len(stored.dims) != 2:
                raise Invalid("an operand of another format")
            row, column = stored.dims if first else stored.dims[::-1]
            rows.append(row)
            ks.append(column.size * packed)
            if scales:
                scale = next(given)
                kind, group, *_ = _SCALES[scales]
                if scale.dtype is not kind or scale.dims != (row, Dim(ks[-1] // group)):
                    raise Invalid("scales of another format")
        if ks[0] != ks[1]:
            raise Invalid("operands of two lengths")
        most = ks[0] * _LARGEST**2
        return settle(torch.float32, rows, -most, most, _STEP**2)

    def _texts(self, e: Expr, args: Sequence[str]) -> str:
        fmt_a, scales_a, fmt_b, scales_b = e.attrs["form"]
        given = iter(args)
        a, sa = next(given), next(given) if scales_a else "None"
        b, sb = next(given), next(given) if scales_b else "None"
        return f'{a}, {sa}, "{fmt_a}", {b}, {sb}, "{fmt_b}"'

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"hl.dot_scaled({self._texts(e, args)})"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"scaled_product({self._texts(e, args)})"


class Unsigned(Row):
    """An argument of unsigned integers, as int64: PyTorch itself has few operations on them."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind != "int":
            return None
        dtype = g.choice(UNSIGNED)
        high = g.choice((9, 2 ** (8 * min(dtype.itemsize, 5)) - 1))
        shape = [g.key(d) for d in dims] or [3]
        index: Index = [("all",) if d.axis is None else ("tile", d.axis, 0) for d in dims] or [
            ("int", g.rng.randrange(3))
        ]
        p = Param(f"x{len(g.program.params)}", dtype, shape, 0, high, seed=g.rng.randrange(1000))
        g.add_param(p)
        return Expr(self.name, [Expr("load", [], {"tensor": p.name, "index": index, "form": "index"})])

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,) = args
        if a.dtype not in UNSIGNED:
            raise Invalid("no unsigned integer")
        return Value(torch.int64, a.dims, a.low, a.high)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"{args[0]}.to(torch.int64)"


class ThroughFloat8(Row):
    """`x.to(torch.float8_e4m3fn).to(torch.int32)`, from and to ints and other floats: the nearest, without error."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind == "bool":
            return None
        arg = g.within(g.expr(dims, g.choice(("float", "int", kind)), True, depth - 1), *_FLOAT8_RANGE)
        through = g.choice((("e4m3fn",), ("e5m2",), ("e4m3fn",), ("e5m2",), ("e4m3fn", "e5m2"), ("e5m2", "e4m3fn")))
        return Expr(self.name, [arg], {"through": through, "dtype": g.dtype(kind)})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), dtype = args, e.attrs["dtype"]
        if a.weak or a.error or a.kind == "bool" or a.step is None or a.step < 2.0**-6 or a.dtype in UNSIGNED:
            raise Invalid("values that may lie between two")
        if a.magnitude > _FLOAT8_RANGE[1] or not (a.dtype.is_floating_point or a.magnitude < 2**24):
            raise Invalid("beyond float8")
        most = a.magnitude * 1.25
        if (dtype is torch.uint8 and a.low < 0) or (not dtype.is_floating_point and most > torch.iinfo(dtype).max):
            raise Invalid("beyond the dtype")
        low = -most if a.low < 0 else 0
        if not dtype.is_floating_point:
            return Value(dtype, a.dims, low, most)
        return settle(dtype, a.dims, low, most, a.step)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        through = "".join(f".to(torch.float8_{name})" for name in e.attrs["through"])
        return f"{args[0]}{through}.to({e.attrs['dtype']})"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        text = self.kernel(e, [f"{args[0]}.float()"], p)
        return text.replace(f".to({e.attrs['dtype']})", ".double()") if e.attrs["dtype"].is_floating_point else text


class ThroughUnsigned(Row):
    """`x.to(torch.uint16).to(torch.int64)`: the low bits."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind != "int":
            return None
        arg = g.expr(dims, "int", exact, depth - 1)
        return Expr(self.name, [arg], {"dtype": g.choice((torch.uint8, *UNSIGNED))})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), bits = args, 8 * e.attrs["dtype"].itemsize
        if a.weak or a.kind != "int":
            raise Invalid("no integer")
        if bits == 64 or (a.low >= 0 and a.high < 2**bits):
            return Value(torch.int64, a.dims, a.low, a.high)
        return Value(torch.int64, a.dims, 0, 2**bits - 1)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"{args[0]}.to({e.attrs['dtype']}).to(torch.int64)"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        bits = 8 * e.attrs["dtype"].itemsize
        return f"{args[0]}.to(torch.int64)" if bits == 64 else f"({args[0]}.to(torch.int64) & {2**bits - 1})"


class BitsOfFloat(Row):
    """The bits of float32 elements: their magnitude, and whether they are negative."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind == "bool" or not dims:
            return None
        shape = [g.key(d) for d in dims]
        index: Index = [("all",) if d.axis is None else ("tile", d.axis, 0) for d in dims]
        p = g.param(shape, "float", torch.float32)
        load = Expr("load", [], {"tensor": p.name, "index": index, "form": "index"})
        return Expr(self.name, [load], {"form": "magnitude" if kind == "float" else "sign"})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,) = args
        if a.dtype is not torch.float32 or a.error or e.args[0].op != "load":
            raise Invalid("no float32 of which each bit is known")
        if e.attrs["form"] == "sign":
            return Value(torch.int32, a.dims, -1, 0)
        return Value(torch.float32, a.dims, 0, a.magnitude, a.step)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        bits = f"{args[0]}.view(torch.int32)"
        return f"{bits} >> 31" if e.attrs["form"] == "sign" else f"({bits} & 0x7FFFFFFF).view(torch.float32)"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"-({args[0]} < 0).to(torch.int32)" if e.attrs["form"] == "sign" else f"{args[0]}.abs()"


def _any_bits(*args: Value) -> tuple[float, float, float | None]:
    return float("-inf"), float("inf"), 1


_LITERALS: dict[str, str] = {
    "times": "({0} * 0.1)",
    "plus": "({0} + 3.141592653589793)",
    "from": "(1e-3 - {0})",
    "over": "({0} / 0.7)",
    "clamp": "torch.clamp({0}, -0.9, 0.9)",
    "least": "torch.clamp({0}, min=0.1)",
    "chosen": "torch.where({0} > 0.1, {0}, 0.1)",
    "full": "({0} + hl.full([], 0.1, dtype=torch.float64))",
    "filled": "torch.full_like({0}, 0.3)",
}
#: form -> least and largest result of an operand in [low, high].
_LITERAL_RANGES: dict[str, Callable[[Value], tuple[float, float]]] = {
    "times": lambda a: (a.low * 0.1, a.high * 0.1),
    "plus": lambda a: (a.low + 3.15, a.high + 3.15),
    "from": lambda a: (1e-3 - a.high, 1e-3 - a.low),
    "over": lambda a: (a.low / 0.7, a.high / 0.7),
    "clamp": lambda a: (max(min(a.low, 0.9), -0.9), max(min(a.high, 0.9), -0.9)),
    "least": lambda a: (max(a.low, 0.1), max(a.high, 0.1)),
    "chosen": lambda a: (max(a.low, 0.1), max(a.high, 0.1)),
    "full": lambda a: (a.low + 0.1, a.high + 0.1),
    "filled": lambda a: (0.3, 0.3),
}


class DoubleLiteral(Row):
    """float64 values beside literals that float32 does not hold."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if kind != "float" or exact:
            return None
        form = g.choice(tuple(_LITERALS))
        arg = g.expr(dims, "float", form == "chosen", depth - 1)
        return Expr(self.name, [g.cast(arg, torch.float64)], {"form": form})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), form = args, e.attrs["form"]
        if a.dtype is not torch.float64 or (form == "chosen" and a.error):
            raise Invalid("no float64")
        low, high = _LITERAL_RANGES[form](a)
        slope = {"times": 0.1, "over": 1.5, "filled": 0.0}.get(form, 1.0)
        return settle(torch.float64, a.dims, low, high, None, a.error * slope, 2)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return _LITERALS[e.attrs["form"]].format(args[0])

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return self.kernel(e, args, p).replace("hl.full([]", "torch.full([]")


_BITS = [
    Pointwise("rotate", "({0} << 5) | ({0} >> 3) & 31", "int", span=_any_bits, family="bit manipulation"),
    Pointwise("gray_code", "{0} ^ {0} >> 1", "int", span=_any_bits, family="bit manipulation"),
    Pointwise("lowest_bit", "{0} & -{0}", "int", span=_any_bits, family="bit manipulation"),
    Pointwise("count_bits", "({0} & 1) + ({0} >> 1 & 1) + ({0} >> 2 & 1) + ({0} >> 3 & 1)", "int",
              span=lambda a: (0, 4, 1), family="bit manipulation"),
    Pointwise("swap_bytes", "({0}.to(torch.int64) & 0xFF) << 8 | {0}.to(torch.int64) >> 8 & 0xFF", "int",
              span=lambda a: (0, 65535, 1), family="bit manipulation"),
    Pointwise("shift_left_by", "{0} << {1}", "int int", span=_any_bits, domain=[None, (0, 5)], numbers=False,
              family="bit manipulation"),
    Pointwise("shift_right_by", "{0} >> {1}", "int int", span=_any_bits, domain=[None, (0, 5)], numbers=False,
              family="bit manipulation"),
]  # fmt: skip
for _row in [
    *_BITS,
    DotScaled("dot_scaled", "products", 6),
    Unsigned("unsigned", "loads", 0.7),
    ThroughFloat8("through_float8", "casts", 0.7),
    ThroughUnsigned("through_unsigned", "casts", 0.7),
    BitsOfFloat("bits_of_float", "bit manipulation", 0.7),
    DoubleLiteral("double_literal", "float64 literals", 1.5),
]:
    add_row(_row)
