"""Rows of operations that know about dimensions: reductions, scans, sorts, views, joins, products.

Where a dimension is a tile's, what these do along it would depend on the block size; so it is a constant one, or a tile
of a loop that the reference runs in chunks as well.
"""

from __future__ import annotations

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
from .values import ONE
from .values import Dim
from .values import Invalid
from .values import Value
from .values import settle


def _whole_dim(dim: Dim, env: Env) -> None:
    """Refuse what would depend on a block size that the reference does not follow."""
    if dim.axis is not None and not env.axes[dim.axis].chunked:
        raise Invalid("a reduction of a tile")


def _without(dims: Dims, place: int) -> Dims:
    return dims[:place] + dims[place + 1 :]


# -- reductions ----------------------------------------------------------------------------------------------------


def _total(a: Value, n: int) -> tuple[float, float, float | None, float, float]:
    return min(n * a.low, 0 if n == 0 else n * a.low), n * a.high, a.step, n * a.error, n


def _mean(a: Value, n: int) -> tuple[float, float, float | None, float, float]:
    return a.low, a.high, None, a.error, n + 2


def _extremum(a: Value, n: int) -> tuple[float, float, float | None, float, float]:
    return a.low, a.high, a.step, a.error, 0


def _variance(a: Value, n: int) -> tuple[float, float, float | None, float, float]:
    width = a.high - a.low
    mean_off = a.error + 4 * n * 2.0**-24 * a.magnitude  # of equal elements, the mean is not one of them to the bit
    return 0, width**2, None, 4 * mean_off * width + mean_off**2, 4 * n


def _product(a: Value, n: int) -> tuple[float, float, float | None, float, float]:
    m = max(a.magnitude, 1) ** n
    if a.error:
        raise Invalid("a product of inexact values")
    step = None if a.step is None or (a.step < 1 and n * math.log2(1 / a.step) > 14) else min(a.step, 1) ** n
    return -m, m, step, 0.0, n


def _logsumexp(a: Value, n: int) -> tuple[float, float, float | None, float, float]:
    return a.low, a.high + math.log(max(n, 1)), None, a.error + (n + 8) * 2.0**-24, n + 8


def _norm(a: Value, n: int) -> tuple[float, float, float | None, float, float]:
    if a.low < 0.25:
        raise Invalid("near 0 a norm is steep")
    return 0, a.magnitude * math.sqrt(n), None, a.error * math.sqrt(n), n + 4


class Reduction(Row):
    """A reduction over one dimension.

    Args:
        template: source; {0} the operand, {d} the dimension, {keep} True or False.
        rule: (operand, number of elements) -> low, high, step, error, roundings.
        kinds: of the operand.
    """

    def __init__(
        self, name: str, template: str, rule: Callable[..., Any], kinds: str = "float int", gives: str = "",
        jumps: bool = False, smallest: int = 1, most: int = 100000, domain: tuple[float, float] | None = None,
        oracle: str = "", keeps: bool = True, weight: float = 1.0, family: str = "reductions",
    ) -> None:  # fmt: skip
        super().__init__(name, family, weight)
        self.template, self.rule, self.kinds, self.gives = template, rule, kinds.split(), gives
        self.jumps, self.smallest, self.most, self.domain, self.oracle_template = jumps, smallest, most, domain, oracle
        self.keeps = keeps

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        kinds = [k for k in self.kinds if (self.gives or k) == kind]
        if not kinds:
            return None
        ones = [i for i, d in enumerate(dims) if d == ONE] if self.keeps else []
        keep = bool(ones) and g.chance(0.7)
        place = g.choice(ones) if keep else g.rng.randint(0, len(dims))
        if (
            self.name in ("sum", "amax", "amin")
            and kind != "bool"
            and len(dims) < 3
            and ONE not in dims
            and g.chance(0.1)
        ):
            return Expr(self.name, [g.slice_by_arguments(dims, kind)], {"place": -1, "keep": False})
        inner = g.constant_dim(dims, smallest=self.smallest)
        if inner is None:
            return None
        shape = dims[:place] + (inner,) + dims[place + keep :]
        arg = g.expr(shape, g.choice(kinds), exact or self.jumps, depth - 1)
        if self.domain is not None:
            arg = g.within(arg, *self.domain)
        negative = g.chance(0.5)
        return Expr(self.name, [arg], {"place": place - len(shape) if negative else place, "keep": keep})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), place = args, e.attrs["place"]
        if not -len(a.dims) <= place < len(a.dims):
            raise Invalid("no such dimension")
        place %= len(a.dims)
        _whole_dim(a.dims[place], env)
        if a.kind not in self.kinds or (self.jumps and a.error):
            raise Invalid("operand of a reduction")
        if self.domain and not (self.domain[0] <= a.low - a.error and a.high + a.error <= self.domain[1]):
            raise Invalid("domain")
        n = a.dims[place].size
        if not self.smallest <= n <= self.most or (a.dims[place].axis and self.smallest > 1):
            raise Invalid("too few")
        dims = a.dims[:place] + ((ONE,) if e.attrs["keep"] else ()) + a.dims[place + 1 :]
        text = self.template.format("a", d=-1, keep=False)
        dtype = eval(text, {"torch": torch, "a": torch.ones(3, 4, dtype=a.dtype), "add": None}).dtype
        if self.gives == "bool" or dtype is torch.bool:
            return Value(dtype, dims, 0, 1)
        if self.gives == "int" and a.kind != "int":
            return Value(dtype, dims, 0, n)
        low, high, step, error, roundings = self.rule(a, n)
        if roundings == 0:
            return Value(dtype, dims, low, high, step, error)
        return settle(dtype, dims, low, high, step, error, roundings)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return self.template.format(args[0], d=e.attrs["place"], keep=e.attrs["keep"])

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        if self.oracle_template:
            return self.oracle_template.format(args[0], d=e.attrs["place"], keep=e.attrs["keep"])
        assert e.value is not None
        wide = e.value.dtype.is_floating_point and e.args[0].value.kind != "float"  # type: ignore[union-attr]
        return self.template.format(args[0] + ".double()" * wide, d=e.attrs["place"], keep=e.attrs["keep"])


class Places(Reduction):
    """argmax and argmin: places below the number of elements."""

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        n = args[0].dims[e.attrs["place"]].size if args[0].dims else 0
        found = super().infer(e, args, env)
        return Value(torch.int64, found.dims, 0, max(n - 1, 0))


_ARG = "first_{what}({{0}}, {{d}}, {{keep}})"
REDUCTIONS = [
    Reduction("sum", "torch.sum({0}, dim={d}, keepdim={keep})", _total, weight=4, smallest=0),
    Reduction("sum_method", "{0}.sum({d}, keepdim={keep})", _total, kinds="float int bool", smallest=0),
    Reduction("amax", "torch.amax({0}, dim={d}, keepdim={keep})", _extremum, weight=2),
    Reduction("amin", "torch.amin({0}, dim={d}, keepdim={keep})", _extremum),
    Reduction("mean", "{0}.mean({d}, keepdim={keep})", _mean, kinds="float"),
    Reduction("prod", "torch.prod({0}, dim={d}, keepdim={keep})", _product, domain=(-1, 1), most=64, smallest=0),
    Reduction("any", "torch.any({0}, dim={d}, keepdim={keep})", _extremum, kinds="bool", gives="bool", smallest=0),
    Reduction("all", "torch.all({0}, dim={d}, keepdim={keep})", _extremum, kinds="bool", gives="bool", smallest=0),
    Reduction("var", "torch.var({0}, dim={d}, keepdim={keep}, correction=0)", _variance, kinds="float", domain=(-8, 8)),
    Reduction("logsumexp", "torch.logsumexp({0}, dim={d}, keepdim={keep})", _logsumexp, kinds="float", domain=(-20,
       20)),
    Reduction("norm", "torch.linalg.vector_norm({0}, dim={d}, keepdim={keep})", _norm, kinds="float", domain=(0.25,
       30)),
    Places("argmax", "torch.argmax({0}, dim={d}, keepdim={keep})", _extremum, gives="int", jumps=True,
           oracle="first_max({0}, {d}, {keep})"),
    Places("argmin", "torch.argmin({0}, dim={d}, keepdim={keep})", _extremum, gives="int", jumps=True,
           oracle="first_min({0}, {d}, {keep})"),
]  # fmt: skip


COMBINE = {
    "combine_add": "def combine_add(a, b):\n    return a + b",
    "combine_larger": "def combine_larger(a, b):\n    return torch.maximum(a, b)",
}


class CombineReduction(Row):
    """`hl.reduce` with a function."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        inner = g.constant_dim(dims, smallest=1)
        if kind == "bool" or inner is None:
            return None
        place = g.rng.randint(0, len(dims))
        arg = g.expr(dims[:place] + (inner,) + dims[place:], kind, exact, depth - 1)
        return Expr(self.name, [arg], {"place": place, "what": g.choice(("add", "larger"))})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), place = args, e.attrs["place"]
        if place >= len(a.dims) or a.kind == "bool" or a.dims[place].size == 0:
            raise Invalid("no such dimension")
        _whole_dim(a.dims[place], env)
        dims = _without(a.dims, place)
        if e.attrs["what"] == "larger":
            if a.low < -500 or (a.kind == "int" and a.dtype is torch.uint8):
                raise Invalid("the neutral element is -1000")
            if a.dtype is torch.int8:
                raise Invalid("-1000 is no int8")
            return Value(a.dtype, dims, a.low, a.high, a.step, a.error)
        n = a.dims[place].size
        return settle(a.dtype, dims, n * a.low, n * a.high, a.step, n * a.error, n)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        name, other = {"add": ("combine_add", 0), "larger": ("combine_larger", -1000)}[e.attrs["what"]]
        p.needs(COMBINE[name])
        return f"hl.reduce({name}, {args[0]}, dim={e.attrs['place']}, other={other})"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        dtype = e.value.dtype  # type: ignore[union-attr]
        if e.attrs["what"] == "larger":
            return f"torch.amax({args[0]}, {e.attrs['place']})"
        kept = "" if dtype.is_floating_point else f", dtype={dtype}"
        return f"torch.sum({args[0]}, {e.attrs['place']}{kept})"


# -- scans, sorts: the shape stays --------------------------------------------------------------------------------


class AlongDim(Row):
    """An operation along one constant dimension that keeps the shape.

    Args:
        template: source; {0} the operand, {d} the dimension.
        rule: as of `Reduction`.
    """

    def __init__(
        self, name: str, template: str, rule: Callable[..., Any], family: str, kinds: str = "float int",
        jumps: bool = False,
        domain: tuple[float, float] | None = None, most: int = 64, oracle: str = "", gives: str = "",
        weight: float = 1.0,
        bits: int = 64, smallest: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(name, family, weight)
        self.template, self.rule, self.kinds, self.jumps = template, rule, kinds.split(), jumps
        self.domain, self.most, self.oracle_template, self.gives = domain, most, oracle, gives
        self.bits, self.smallest = bits, smallest

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        kinds = [k for k in self.kinds if (self.gives or k) == kind]
        places = [i for i, d in enumerate(dims) if d.axis is None and self.smallest <= d.size <= self.most]
        if not kinds or not places:
            return None
        place = g.choice(places)
        arg = g.expr(dims, g.choice(kinds), exact or self.jumps, depth - 1)
        if self.domain is not None:
            arg = g.within(arg, *self.domain)
        return Expr(self.name, [arg], {"place": place})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), place = args, e.attrs["place"]
        if place >= len(a.dims) or a.dims[place].axis is not None:
            raise Invalid("no constant dimension")
        n = a.dims[place].size
        if a.kind not in self.kinds or (self.jumps and a.error) or not self.smallest <= n <= self.most:
            raise Invalid("operand of a scan")
        if a.dtype.itemsize * 8 > self.bits:
            raise Invalid("too wide to sort")
        if self.domain and not (self.domain[0] <= a.low - a.error and a.high + a.error <= self.domain[1]):
            raise Invalid("domain")
        text = self.template.format("a", d=-1)
        dtype = eval(text, {"torch": torch, "a": torch.ones(4, 4, dtype=a.dtype), "hl": _TORCH_NAMES}).dtype
        if self.gives == "int" and a.kind != "int":
            return Value(dtype, a.dims, 0, n)
        low, high, step, error, roundings = self.rule(a, n)
        if roundings == 0:
            return Value(dtype, a.dims, low, high, step, error)
        return settle(dtype, a.dims, low, high, step, error, roundings)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return self.template.format(args[0], d=e.attrs["place"])

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return (self.oracle_template or self.template).format(args[0], d=e.attrs["place"])


class _TORCH_NAMES:
    """What language functions are called in torch, for dtypes."""

    cumsum, cumprod = torch.cumsum, torch.cumprod


def _partial_sums(a: Value, n: int) -> tuple[float, float, float | None, float, float]:
    return min(a.low, n * a.low), max(a.high, n * a.high), a.step, n * a.error, n


def _share(a: Value, n: int) -> tuple[float, float, float | None, float, float]:
    return 0, 1, None, 2 * a.error + (n + 24) * 2.0**-24, 2


def _positions(a: Value, n: int) -> tuple[float, float, float | None, float, float]:
    return 0, n, 1, 0, 0


def _partial_products(a: Value, n: int) -> tuple[float, float, float | None, float, float]:
    return _product(a, n)


ALONG = [
    AlongDim("cumsum", "torch.cumsum({0}, dim={d})", _partial_sums, "scans", weight=2),
    AlongDim("hl_cumsum", "hl.cumsum({0}, dim={d})", _partial_sums, "scans", oracle="torch.cumsum({0}, dim={d})"),
    AlongDim("cumprod", "torch.cumprod({0}, dim={d})", _partial_products, "scans", domain=(-1, 1)),
    AlongDim("cummax", "torch.cummax({0}, dim={d}).values", _extremum, "scans"),
    AlongDim("softmax", "torch.softmax({0}, dim={d})", _share, "scans", kinds="float", domain=(-20, 20)),
    AlongDim("log_softmax", "torch.log_softmax({0}, dim={d})",
             lambda a, n: (a.low - a.high - math.log(n), 0, None, 2 * a.error + (n + 24) * 2.0**-24 * 8, 4),
             "scans", kinds="float", domain=(-20, 20)),
    AlongDim("flip", "torch.flip({0}, [{d}])", _extremum, "views", kinds="float int bool"),
    AlongDim("roll", "torch.roll({0}, 2, {d})", _extremum, "views"),
    AlongDim("sort", "torch.sort({0}, dim={d}).values", _extremum, "sorts", bits=32),
    AlongDim("sort_descending", "torch.sort({0}, dim={d}, descending=True).values", _extremum, "sorts", bits=32),
    AlongDim("argsort", "torch.argsort({0}, dim={d}, stable=True)", _positions, "sorts", jumps=True, gives="int",
       bits=32),
    AlongDim("sort_places", "torch.sort({0}, dim={d}, stable=True).indices", _positions, "sorts", jumps=True,
       gives="int", bits=32),
]  # fmt: skip


class AssociativeScan(Row):
    """`hl.associative_scan` of sums, forwards or backwards."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        places = [i for i, d in enumerate(dims) if d.axis is None and 1 <= d.size <= 64]
        if kind == "bool" or not places:
            return None
        arg = g.expr(dims, kind, exact, depth - 1)
        return Expr(self.name, [arg], {"place": g.choice(places), "reverse": g.chance(0.5)})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), place = args, e.attrs["place"]
        if place >= len(a.dims) or a.dims[place].axis is not None or a.kind == "bool":
            raise Invalid("no constant dimension")
        low, high, step, error, roundings = _partial_sums(a, a.dims[place].size)
        return settle(a.dtype, a.dims, low, high, step, error, roundings)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        p.needs(COMBINE["combine_add"])
        return f"hl.associative_scan(combine_add, {args[0]}, dim={e.attrs['place']}, reverse={e.attrs['reverse']})"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        d, dtype = e.attrs["place"], e.value.dtype  # type: ignore[union-attr]
        kept = "" if dtype.is_floating_point else f", dtype={dtype}"
        if e.attrs["reverse"]:
            return f"torch.cumsum({args[0]}.flip({d}), {d}{kept}).flip({d})"
        return f"torch.cumsum({args[0]}, {d}{kept})"


class TopK(Row):
    """The largest values of a constant dimension."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        places = [i for i, d in enumerate(dims) if d.axis is None and 1 <= d.size <= 16]
        if kind == "bool" or not places:
            return None
        place = g.choice(places)
        inner = g.constant_dim(dims, smallest=dims[place].size, but=place)
        if inner is None or inner.size > 64:
            return None
        arg = g.expr(dims[:place] + (inner,) + dims[place + 1 :], kind, exact, depth - 1)
        return Expr(self.name, [arg], {"place": place, "k": dims[place].size})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        (a,), place, k = args, e.attrs["place"], e.attrs["k"]
        if place >= len(a.dims) or a.dims[place].axis is not None or a.dtype.itemsize > 4 or a.dims[place].size < k:
            raise Invalid("no constant dimension")
        return Value(a.dtype, a.dims[:place] + (Dim(k),) + a.dims[place + 1 :], a.low, a.high, a.step, a.error)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"torch.topk({args[0]}, {e.attrs['k']}, dim={e.attrs['place']}).values"


class SumOfProducts(Row):
    """`(a[:, :, None] * b[None]).sum(1)` over a few elements: a product of matrices that is not written as one."""

    def make(self, g: Any, dims: Dims, kind: str, exact: bool, depth: int) -> Expr | None:
        if len(dims) != 2 or kind != "float":
            return None
        inner = Dim(g.program.sizes[g.size(1, 6)])
        shapes = ((dims[0], inner), (inner, dims[1]))
        args = [g.small(g.cast(g.expr(shape, kind, exact, depth - 1), torch.float32)) for shape in shapes]
        return Expr(self.name, args, {"form": g.choice(("sum", "reduce"))})

    def infer(self, e: Expr, args: Sequence[Value], env: Env) -> Value:
        a, b = args
        if len(a.dims) != 2 or len(b.dims) != 2 or a.dims[1] != b.dims[0] or a.dims[1].axis is not None:
            raise Invalid("no such product")
        if not a.dtype is b.dtype is torch.float32:
            raise Invalid("another dtype")
        n = a.dims[1].size
        high = n * a.magnitude * b.magnitude
        step = a.step * b.step if a.step is not None and b.step is not None else None
        error = n * (a.error * b.magnitude + b.error * a.magnitude + a.error * b.error)
        return settle(torch.float32, (a.dims[0], b.dims[1]), -high, high, step, error, n + 1)

    def kernel(self, e: Expr, args: Sequence[str], p: Any) -> str:
        products = f"({args[0]})[:, :, None] * ({args[1]})[None]"
        return f"({products}).sum(1)" if e.attrs["form"] == "sum" else f"hl.reduce(lambda a, b: a + b, {products}, 1)"

    def oracle(self, e: Expr, args: Sequence[str], p: Any) -> str:
        return f"(({args[0]})[:, :, None] * ({args[1]})[None]).sum(1)"


for _row in [
    *REDUCTIONS,
    SumOfProducts("sum_of_products", "reductions", 2),
    CombineReduction("hl_reduce", "reductions with a function"),
    *ALONG,
    AssociativeScan("associative_scan", "scans with a function"),
    TopK("topk", "sorts"),
]:
    add_row(_row)
