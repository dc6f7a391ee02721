"""How each pointwise ATen op of the IR is spelled in Triton: a table, one row per op.

A row is the name of a function of the operands, or a function `(emitter, node, operands) -> text`.  Operands are
variables or literals already in the dtype the op computes in.  Functions of `helion.runtime.triton_helpers` are called
`hlt_...`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.fx

from ... import exc
from ...ir.nodes import Full
from ...ir.nodes import operand
from ...ir.nodes import tensor_of
from ...ir.pointwise import AGAIN
from ...ir.pointwise import BITCAST
from ...ir.pointwise import COMPARISONS
from ...ir.pointwise import CONVERT
from ...ir.symbols import OriginKind
from ...ir.symbols import symbols_of
from ..text import Text
from ..text import as_text
from ..text import call
from .dtypes import cast
from .dtypes import is_negative_zero
from .dtypes import negative_zero
from .dtypes import triton_dtype
from .emitter import KernelEmitter
from .emitter import Rules
from .scope import Scope
from .triangles import kept_off_diagonal

_aten = torch.ops.aten

Function = Callable[[KernelEmitter, torch.fx.Node, list[Text]], Text]
Row = str | Function


def _dtype(node: torch.fx.Node) -> torch.dtype:
    """The dtype an op computes in: that of its first tensor operand."""
    source = next((arg for arg in node.args if isinstance(arg, torch.fx.Node)), node)
    dtype: torch.dtype = source.meta["val"].dtype
    return dtype


def _float(node: torch.fx.Node) -> bool:
    return _dtype(node).is_floating_point


def _spelled(row: Row, k: KernelEmitter, node: torch.fx.Node, a: list[Text]) -> Text:
    return call(row, *a) if isinstance(row, str) else row(k, node, a)


def _by_kind(for_float: Row, for_int: Row) -> Function:
    return lambda k, node, a: _spelled(for_float if _float(node) else for_int, k, node, a)


def _of(build: Callable[..., Text]) -> Function:
    """What an operator, or another function of texts, makes of the operands."""
    return lambda k, node, a: build(*a)


#: What the host calls a tensor's sizes and strides, which are int32 as places of tiles are.
_SIZE = re.compile(r"\.(size|stride|numel)\(\d*\)$")


def _is_wide(k: KernelEmitter, arg: Any, dtype: torch.dtype) -> bool:
    """Whether an operand is a number of a dtype that is wider in Triton than the integers beside it: PyTorch takes its
    low bits, where Triton would compute in the number's dtype. Places of tiles are int32 unless a step of computing
    them may leave it; int arguments, and what the host computes of them, may be int64.
    """
    if not isinstance(arg, torch.SymInt) or dtype is torch.bool or dtype.is_floating_point or dtype.itemsize > 4:
        return False
    if _is_narrow(dtype) or k.numbers.is_wide(arg):
        return True
    origins = [k.ir.device.space.origins.get(symbol) for symbol in symbols_of(arg)]
    return any(o is not None and o.kind is OriginKind.HOST and not _SIZE.search(o.text) for o in origins)


def _as_tensors(k: KernelEmitter, node: torch.fx.Node, a: list[Text]) -> list[Text]:
    """Operands of a function that takes tensors of one dtype: numbers are made tensors."""
    dtype = _dtype(node)
    return [
        text
        if isinstance(arg, torch.fx.Node) or (text.is_name and not _is_narrow(dtype)) or _is_wide(k, arg, dtype)
        else call("tl.full", "[]", _wrapped(arg, dtype) if type(arg) is int else text, triton_dtype(dtype))
        for text, arg in zip(a, node.args)
    ]


def _is_narrow(dtype: torch.dtype) -> bool:
    """Whether Triton computes in int32 where an operand of this dtype meets an int."""
    return not dtype.is_floating_point and dtype is not torch.bool and dtype.itemsize < 4


def _fits(value: int, dtype: torch.dtype) -> bool:
    """Whether a number is one of an integer dtype's."""
    if dtype is torch.bool or dtype.is_floating_point:
        return True
    limits = torch.iinfo(dtype)
    return limits.min <= value <= limits.max


def _wrapped(value: int, dtype: torch.dtype) -> Text:
    """An int as PyTorch converts it to an integer dtype: the low bits of one that does not fit."""
    if dtype is torch.bool or dtype.is_floating_point:
        return as_text(value)
    limits = torch.iinfo(dtype)
    return as_text((value - limits.min) % (1 << limits.bits) + limits.min)


def _helper(name: str) -> Function:
    """A function of triton_helpers."""
    return lambda k, node, a: k.helper(name, *_as_tensors(k, node, a))


def _helpers(name: str) -> Function:
    """A function of triton_helpers that comes in a float and an int form."""
    return _by_kind(_helper(f"{name}_float"), _helper(f"{name}_int"))


def _libdevice(name: str) -> Function:
    return lambda k, node, a: call(k.module.libdevice(name), *_as_tensors(k, node, a))


def _exactly(name: str, fast: Row) -> Function:
    """A function of triton_helpers that knows subnormal numbers, as eager PyTorch's does; Triton's own, and libdevice's
    as it is linked, take those of float32 for 0.
    """

    def row(k: KernelEmitter, node: torch.fx.Node, a: list[Text]) -> Text:
        return _spelled(fast, k, node, a) if k.settings.fast_math else k.helper(name, *_as_tensors(k, node, a))

    return row


def _linear(fast: Row, slope: float = 1.0) -> Function:
    """A function that is `slope` times its operand near 0, where libdevice takes subnormal numbers for 0."""

    def row(k: KernelEmitter, node: torch.fx.Node, a: list[Text]) -> Text:
        (x,) = _as_tensors(k, node, a)
        y = _spelled(fast, k, node, [x])
        return y if k.settings.fast_math else k.helper("hlt_linear_near_zero", x, y, slope)

    return row


def _alpha(build: Callable[[Text, Text], Text]) -> Function:
    """A sum or difference; the second operand may have a factor."""

    def row(k: KernelEmitter, node: torch.fx.Node, a: list[Text]) -> Text:
        if _dtype(node) is torch.bool:
            return a[0] | a[1]  # as PyTorch adds; the sum of two i1 would wrap
        alpha = node.args[2] if len(node.args) > 2 else node.kwargs.get("alpha", 1)
        return build(a[0], a[1] if alpha == 1 else a[1] * k.text(alpha))

    return row


def _is_exact(k: KernelEmitter, node: torch.fx.Node) -> bool:
    """Whether results are rounded correctly, as those of eager PyTorch in float32."""
    return _dtype(node) is torch.float32 and not k.settings.fast_math


def _divide(k: KernelEmitter, node: torch.fx.Node, a: list[Text]) -> Text:
    inverse = _inverse(node.args[1], _dtype(node), exact=not k.settings.fast_math)
    if inverse is not None:
        return a[0] * as_text(inverse)
    # `/` in float32 is an approximation good to 2 ulp; div_rn is not, and promotes nothing: integers are made floats.
    if _is_exact(k, node):
        top = node.args[0]
        if _is_spread(k, node, node.args[1]) and not _is_spread(k, node, top) and not _is_one_number(k, top):
            return k.helper("hlt_quotient_of_row", *a)
        return call("tl.div_rn", *map(_as_float, a, node.args))
    if k.settings.fast_math and _is_spread(k, node, node.args[1]):
        return a[0] * (as_text(1.0) / a[1])  # one division for many products
    return a[0] / a[1]


def _inverse(divisor: Any, dtype: torch.dtype, *, exact: bool) -> float | None:
    """What to multiply by instead of dividing by a constant, if there is such a number.

    A quotient by a power of two and a product with its inverse are the same real number, rounded once: the same bits
    for every dividend, as long as the inverse is a number of the dtype.
    """
    if dtype not in (torch.float32, torch.float64) or type(divisor) not in (int, float):
        return None
    limits = torch.finfo(dtype)
    if not 1 / limits.max < abs(divisor) < 1 / limits.tiny:
        return None
    return 1 / divisor if not exact or abs(math.frexp(divisor)[0]) == 0.5 else None


def _is_spread(k: KernelEmitter, node: torch.fx.Node, source: Any) -> bool:
    """Whether an operand is broadcast to more elements than it has."""
    if not isinstance(source, torch.fx.Node):
        return False
    own, wide = (math.prod(map(k.extents.known, tensor_of(n).shape)) for n in (source, node))
    return own < wide


def _is_one_number(k: KernelEmitter, source: Any) -> bool:
    """Whether all elements of an operand are the same for what Triton knows, which then computes one: a constant,
    or computed from nothing else and values of one element."""
    if not isinstance(source, torch.fx.Node) or Full.match(source):
        return True
    if not isinstance(value := source.meta.get("val"), torch.Tensor):
        return True
    if math.prod(map(k.extents.known, value.shape)) == 1:
        return True
    computed = isinstance(source.target, torch._ops.OpOverload)
    return computed and all(_is_one_number(k, operand) for operand in source.all_input_nodes)


def _as_float(text: Text, arg: Any) -> Text:
    if isinstance(arg, torch.SymInt):  # a size or a bound of a tile
        return text * 1.0
    return as_text(float(arg)) if type(arg) is int else text


def _reciprocal(k: KernelEmitter, node: torch.fx.Node, a: list[Text]) -> Text:
    one = as_text(1.0)
    return call("tl.div_rn", one, a[0]) if _is_exact(k, node) else one / a[0]


def _divide_mode(k: KernelEmitter, node: torch.fx.Node, a: list[Text]) -> Text:
    mode = node.kwargs.get("rounding_mode")
    return (_divide if mode is None else _helpers(f"hlt_div_{mode}"))(k, node, a)


def _sqrt(k: KernelEmitter, node: torch.fx.Node, a: list[Text]) -> Text:
    return call("tl.sqrt_rn" if _is_exact(k, node) else "tl.sqrt", a[0])


def _extremum(name: str, node: torch.fx.Node, a: Text, b: Text) -> Text:
    text = call(f"tl.{name}", a, b, **({"propagate_nan": "tl.PropagateNan.ALL"} if _float(node) else {}))
    # Triton's is a float32, which an accumulator of bfloat16 is not.
    return text.to(triton_dtype(torch.bfloat16)) if _dtype(node) is torch.bfloat16 else text


def _max_min(name: str, of_bools: Callable[[Text, Text], Text]) -> Function:
    return lambda k, node, a: of_bools(*a) if _dtype(node) is torch.bool else _extremum(name, node, *a)


def _clamp(k: KernelEmitter, node: torch.fx.Node, a: list[Text]) -> Text:
    text, *bounds = _clamp_operands(k, node, a)
    for name, bound, arg in zip(("maximum", "minimum"), bounds, node.args[1:]):
        text = text if arg is None else _extremum(name, node, text, bound)
    return text


def _clamp_operands(k: KernelEmitter, node: torch.fx.Node, a: list[Text]) -> list[Text]:
    """The operands of a clamp in one dtype; unlike other ops PyTorch's clamp refuses bounds that do not fit it.

    Beside float64 `tl.minimum` makes a number of Python's a float32 first, which is another number.
    """
    dtype = _dtype(node)
    if not _is_narrow(dtype) and dtype is not torch.float64:
        return a
    limits = torch.iinfo(dtype) if _is_narrow(dtype) else None
    for bound in node.args[1:]:
        if limits and type(bound) is int and not (limits.min or -limits.max) <= bound <= limits.max:
            raise exc.UnsupportedDtype(
                f"torch.clamp: the bound {bound} does not fit into {dtype}",
                fix="use a bound that fits, or convert the value first, `.to(torch.int32)`.",
                location=node.meta.get("location"),
            )
    return [text if arg is None else full for text, full, arg in zip(a, _as_tensors(k, node, a), node.args)]


def _pow(k: KernelEmitter, node: torch.fx.Node, a: list[Text]) -> Text:
    base, exponent = a[0], node.args[1]
    if isinstance(exponent, (int, float)):
        if exponent in (1, 2, 3):
            return base if exponent == 1 else base * base if exponent == 2 else base * base * base
        if exponent == 0.5 and _float(node):
            return _sqrt(k, node, a)
        if exponent == -1 and _float(node):
            return _reciprocal(k, node, a)
    return _by_kind(_exactly("hls_pow", _libdevice("pow")), _helper("hlt_pow_int"))(k, node, a)


def _shift(direction: str, build: Callable[[Text, Text], Text]) -> Function:
    """A shift; PyTorch defines it for amounts below 0 and beyond the width too, where the hardware's differs."""
    general = _helper(f"hlt_shift_{direction}")

    def row(k: KernelEmitter, node: torch.fx.Node, a: list[Text]) -> Text:
        amount = node.args[1]
        plain = isinstance(amount, int) and 0 <= amount < 8 * _dtype(node).itemsize
        return build(*a) if plain else general(k, node, a)

    return row


def _logical(build: Callable[[Text, Text], Text]) -> Function:
    return lambda k, node, a: build(*(t if _is_bool(arg) else t.differs(0) for t, arg in zip(a, node.args)))


def _is_bool(arg: Any) -> bool:
    return isinstance(arg, bool) or (isinstance(arg, torch.fx.Node) and arg.meta["val"].dtype is torch.bool)


def _unsigned(node: torch.fx.Node) -> bool:
    return _dtype(node) in (torch.uint8, torch.uint16, torch.uint32, torch.uint64)


_same = _of(lambda a: a)
_plain_add, _subtract, _multiply = _alpha(operator.add), _alpha(operator.sub), _of(operator.mul)


def _add(k: KernelEmitter, node: torch.fx.Node, a: list[Text]) -> Text:
    if k.rounds_sums and _dtype(node) in (torch.float32, torch.float64) and len(node.args) == 2 and not node.kwargs:
        return k.helper("hlt_rounded_add", *_as_tensors(k, node, a))
    return _plain_add(k, node, a)


def _gcd(k: KernelEmitter, node: torch.fx.Node, a: list[Text]) -> Text:
    if _float(node) or _dtype(node) is torch.bool:
        raise exc.BackendUnsupported(
            backend="triton", reason=f"torch.gcd of {_dtype(node)}", fix="convert the operands to an integer dtype."
        )
    return k.helper("hlt_gcd", *_as_tensors(k, node, a))


_remainder = _helpers("hlt_remainder")
_fmod = _by_kind(_helper("hlt_fmod_float"), _of(operator.mod))
_ROWS: dict[str, Row] = {
    "abs.default": lambda k, node, a: a[0] if _unsigned(node) else call("tl.abs", a[0]),
    # Triton's `-x` is 0 - x: 0.0, and not -0.0, of 0.0.
    "neg.default": _by_kind(_of(lambda x: x * -1.0), _of(operator.neg)),
    "sign.default": _helpers("hlt_sign"),
    "signbit.default": lambda k, node, a: _libdevice("signbit")(k, node, a).differs(0) if _float(node) else a[0] < 0,
    "floor.default": _by_kind(_exactly("hlt_floor", "tl.floor"), _same),
    "ceil.default": _by_kind(_exactly("hlt_ceil", "tl.ceil"), _same),
    "round.default": _by_kind(_libdevice("rint"), _same),
    "trunc.default": _by_kind(_libdevice("trunc"), _same),
    "add.Tensor": _add,
    "add.Scalar": _add,
    "sub.Tensor": _subtract,
    "sub.Scalar": _subtract,
    "mul.Tensor": _multiply,
    "mul.Scalar": _multiply,
    "maximum.default": _max_min("maximum", operator.or_),
    "minimum.default": _max_min("minimum", operator.and_),
    "fmax.default": "tl.maximum",
    "fmin.default": "tl.minimum",
    "remainder.Tensor": _remainder,
    "remainder.Scalar": _remainder,
    "fmod.Tensor": _fmod,
    "fmod.Scalar": _fmod,
    "div.Tensor": _divide,
    "div.Scalar": _divide,
    "div.Tensor_mode": _divide_mode,
    "div.Scalar_mode": _divide_mode,
    "floor_divide.default": _helpers("hlt_div_floor"),
    "gcd.default": _gcd,
    "clamp.default": _clamp,
    "clamp.Tensor": _clamp,
    "clamp_min.default": _clamp,
    "clamp_max.default": lambda k, node, a: _extremum("minimum", node, *(_clamp_operands(k, node, a))),
    "copysign.Tensor": _libdevice("copysign"),
    "nextafter.default": _helper("hlt_nextafter"),
    "exp.default": "tl.exp",
    "exp2.default": "tl.exp2",
    "log.default": "tl.log",
    "log2.default": "tl.log2",
    "sqrt.default": _sqrt,
    "rsqrt.default": _exactly("hlt_rsqrt", "tl.rsqrt"),
    "reciprocal.default": _reciprocal,
    "sin.default": _linear("tl.sin"),
    "cos.default": "tl.cos",
    "sigmoid.default": "tl.sigmoid",
    "erf.default": _linear("tl.erf", 2 / math.sqrt(math.pi)),
    "pow.Tensor_Tensor": _pow,
    "pow.Tensor_Scalar": _pow,
    "pow.Scalar": _pow,
    "logical_and.default": _logical(operator.and_),
    "logical_or.default": _logical(operator.or_),
    "logical_xor.default": _logical(operator.xor),
    "logical_not.default": lambda k, node, a: ~a[0] if _dtype(node) is torch.bool else a[0].equals(0),
    "isinf.default": lambda k, node, a: (
        call("tl.abs", a[0]).equals(float("inf")) if _float(node) else a[0].differs(a[0])
    ),
    "bitwise_not.default": _of(operator.invert),
    "where.self": "tl.where",
    "atan2.default": _exactly("hls_atan2", _libdevice("atan2")),
    "hypot.default": _exactly("hls_hypot", _libdevice("hypot")),
    "lgamma.default": _exactly("hlt_lgamma", _libdevice("lgamma")),
    **{f"{name}.default": _libdevice(name) for name in ("log10", "acos", "cosh", "acosh", "erfc", "erfinv")},
    **{
        f"{name}.default": _linear(_libdevice(name))
        for name in ("expm1", "log1p", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh")
    },
    **{
        f"bitwise_{name}.{overload}": _of(build)
        for name, build in (("and", operator.and_), ("or", operator.or_), ("xor", operator.xor))
        for overload in ("Tensor", "Scalar")
    },
    **{
        f"bitwise_{name}_shift.{overload}": _shift(name, build)
        for name, build in (("left", operator.lshift), ("right", operator.rshift))
        for overload in ("Tensor", "Tensor_Scalar", "Scalar_Tensor")
    },
    **{
        f"{name}.{overload}": _of(build)
        for name, build in (
            *(("eq", Text.equals), ("ne", Text.differs)),
            *(("lt", operator.lt), ("le", operator.le), ("gt", operator.gt), ("ge", operator.ge)),
        )
        for overload in ("Tensor", "Scalar")
    },
}


def _overload(name: str) -> torch._ops.OpOverload:
    found: torch._ops.OpOverload = operator.attrgetter(name)(_aten)
    return found


POINTWISE_ROWS: dict[Any, Row] = {_overload(name): row for name, row in _ROWS.items()}


def emit_pointwise(k: KernelEmitter, node: torch.fx.Node) -> None:
    """A pointwise op by its row."""
    operands = [Text("None") if a is None else k.text(a) for a in node.args]
    if "neutral" in node.meta:  # a looped reduction's partial result
        which, dim, neutral = node.meta["neutral"]
        operands[which] = k.masked(operand(node, which), dim, neutral)
    dtype = _dtype(node)
    compares_doubles = node.target in COMPARISONS and any(
        tensor_of(source).dtype is torch.float64 for source in node.all_input_nodes
    )
    operands = [
        call("tl.full", "[]", text, triton_dtype(dtype))
        if _is_wide(k, arg, dtype)
        else _wrapped(arg, dtype)
        if type(arg) is int and not _fits(arg, dtype)
        else call("tl.full", "[]", text, "tl.float64")
        if type(arg) is float and compares_doubles  # Triton compares with a number in float32
        else negative_zero(node.meta["val"].dtype if node.target is _aten.where.self else dtype)
        if is_negative_zero(arg)
        else text
        for text, arg in zip(operands, node.args)
    ]
    text = _spelled(POINTWISE_ROWS[node.target], k, node, operands)
    kept = kept_off_diagonal(k, node) if node.target is _aten.where.self and "neutral" not in node.meta else None
    if kept is None:
        k.assign(node, text)
        return
    value, touched = kept
    name, outer = k.assign(node, k.text(value)), k.scope
    with k.inside(Scope(outer)) as inner:
        inner.add(f"{name} = {text}")
    outer.nest(f"if {touched}:", inner)


def emit_convert(k: KernelEmitter, node: torch.fx.Node) -> None:
    """A cast."""
    source, dtype = operand(node), node.meta["val"].dtype
    is_product = source.target in _PRODUCTS and tensor_of(source).dtype is torch.float32
    if dtype in _ROUNDED and is_product and not k.settings.fast_math and _is_summand(node):
        k.assign(node, k.helper(_ROUNDED[dtype], k.text(source)))
        return
    k.assign(node, cast(k.text(source), tensor_of(source).dtype, dtype, k.helper))


#: What rounds a product that is added to something. LLVM adds 16-bit numbers in 16 bits, as that is exact, and then
#: joins the product and the sum to one `fma`, which rounds once: another number than PyTorch's and the other modes'.
_ROUNDED = {torch.float16: "hlt_rounded_f16", torch.bfloat16: "hlt_rounded_bf16"}
_PRODUCTS = {_aten.mul.Tensor, _aten.mul.Scalar}
SUMS = {_aten.add.Tensor, _aten.add.Scalar, _aten.sub.Tensor, _aten.sub.Scalar}
MOVES = {
    CONVERT, _aten.neg.default, _aten.where.self, _aten.view.default, _aten.permute.default, _aten.expand.default,
    _aten.unsqueeze.default, _aten.squeeze.dims,
}  # fmt: skip


def _is_summand(node: torch.fx.Node) -> bool:
    """Whether a value is added to something, as it is or moved."""
    return any(user.target in SUMS or (user.target in MOVES and _is_summand(user)) for user in node.users)


def emit_bitcast(k: KernelEmitter, node: torch.fx.Node) -> None:
    """The bits of a value as another dtype."""
    k.assign(node, k.text(operand(node)).to(triton_dtype(node.meta["val"].dtype), bitcast=True))


def emit_again(k: KernelEmitter, node: torch.fx.Node) -> None:
    """A value of 16 bits that the compiler does not recognise."""
    k.assign(node, k.helper("hlt_again", k.text(operand(node))))


RULES: Rules = {
    **dict.fromkeys(POINTWISE_ROWS, emit_pointwise),
    CONVERT: emit_convert,
    BITCAST: emit_bitcast,
    AGAIN: emit_again,
}
