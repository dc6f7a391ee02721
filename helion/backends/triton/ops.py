"""How each ATen op of the IR is spelled in Triton: a table, one row per op.

Templates refer to operands by position (`{0}`, `{1}`); operands are variables or literals already in the
dtype the op computes in.  A row is a template, or a function `(op, node, operands) -> text` where the text depends
on dtypes.  Functions of `helion.runtime.triton_helpers` are called `hlt_...`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.fx

from ...ir.pointwise import BITCAST
from ...ir.pointwise import CONVERT
from .dtypes import triton_dtype
from .emitter import KernelEmitter
from .emitter import Rules

_aten = torch.ops.aten

Row = str | Callable[[KernelEmitter, torch.fx.Node, list[str]], str]


def _dtype(node: torch.fx.Node) -> torch.dtype:
    """The dtype an op computes in: that of its first tensor operand."""
    for arg in node.args:
        if isinstance(arg, torch.fx.Node):
            return arg.meta["val"].dtype  # type: ignore[no-any-return]
    return node.meta["val"].dtype  # type: ignore[no-any-return]


def _float(node: torch.fx.Node) -> bool:
    return _dtype(node).is_floating_point


def _alpha(sign: str) -> Row:
    def row(k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
        if _dtype(node) is torch.bool:
            return f"{a[0]} | {a[1]}"  # as PyTorch adds; the sum of two i1 would wrap
        alpha = node.kwargs.get("alpha", 1)
        if len(node.args) > 2:
            alpha = node.args[2]
        right = a[1] if alpha == 1 else f"{a[1]} * {alpha!r}"
        return f"{a[0]} {sign} {right}"

    return row


def _divide(k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
    # `/` in float32 is an approximation good to 2 ulp; div_rn is what eager PyTorch computes.
    if k.settings.fast_math or _dtype(node) is not torch.float32:
        return f"{a[0]} / {a[1]}"
    # div_rn promotes nothing: a size or a bound of a tile is an integer.
    sizes = [isinstance(arg, torch.SymInt) for arg in node.args] if len(node.args) == len(a) else [False] * len(a)
    operands = [f"({text}) * 1.0" if size else _float_literal(text) for size, text in zip(sizes, a)]
    return f"tl.div_rn({', '.join(operands)})"


def _float_literal(text: str) -> str:
    """An integer literal as a float one; anything else as it is."""
    try:
        return repr(float(int(text)))
    except ValueError:
        return text


def _divide_mode(k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
    mode = node.kwargs.get("rounding_mode")
    if mode is None:
        return _divide(k, node, a)
    return _helper(f"div_{mode}")(k, node, a)


def _helper(name: str) -> Callable[[KernelEmitter, torch.fx.Node, list[str]], str]:
    """A function of triton_helpers that comes in a float and an int form."""

    def row(k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
        operands = ", ".join(_as_tensor(text, node) for text in a)
        kind = "float" if _float(node) else "int"
        return f"{k.module.helper(f'hlt_{name}_{kind}')}({operands})"

    return row


def _text(row: Row, k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
    return row.format(*a) if isinstance(row, str) else row(k, node, a)


def _by_kind(for_float: Row, for_int: Row) -> Row:
    return lambda k, node, a: _text(for_float if _float(node) else for_int, k, node, a)


def _sqrt(k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
    return f"tl.sqrt({a[0]})" if k.settings.fast_math or _dtype(node) is not torch.float32 else f"tl.sqrt_rn({a[0]})"


def _max_min(name: str) -> Row:
    def row(k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
        if _dtype(node) is torch.bool:
            return f"{a[0]} {'|' if name == 'maximum' else '&'} {a[1]}"
        return (
            f"tl.{name}({a[0]}, {a[1]}, propagate_nan=tl.PropagateNan.ALL)"
            if _float(node)
            else f"tl.{name}({a[0]}, {a[1]})"
        )

    return row


def _clamp(k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
    nan = ", propagate_nan=tl.PropagateNan.ALL" if _float(node) else ""
    text = a[0]
    if len(node.args) > 1 and node.args[1] is not None:
        text = f"tl.maximum({text}, {a[1]}{nan})"
    if len(node.args) > 2 and node.args[2] is not None:
        text = f"tl.minimum({text}, {a[2]}{nan})"
    return text


def _clamp_max(k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
    nan = ", propagate_nan=tl.PropagateNan.ALL" if _float(node) else ""
    return f"tl.minimum({a[0]}, {a[1]}{nan})"


def _pow(k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
    exponent = node.args[1]
    if not isinstance(exponent, torch.fx.Node) and isinstance(exponent, (int, float)):
        if exponent == 2:
            return f"{a[0]} * {a[0]}"
        if exponent == 3:
            return f"{a[0]} * {a[0]} * {a[0]}"
        if exponent == 0.5 and _float(node):
            return _sqrt(k, node, a)
        if exponent == -1 and _float(node):
            return _divide(k, node, ["1.0", a[0]])
        if exponent == 1:
            return a[0]
    return (
        f"{k.module.libdevice('pow')}({_as_tensor(a[0], node)}, {_as_tensor(a[1], node)})"
        if _float(node)
        else f"{k.module.helper('hlt_pow_int')}({_as_tensor(a[0], node)}, {_as_tensor(a[1], node)})"
    )


def _as_tensor(text: str, node: torch.fx.Node) -> str:
    """A literal operand of a libdevice function, which takes tensors of one dtype."""
    return text if text.isidentifier() else f"tl.full([], {text}, {triton_dtype(_dtype(node))})"


def _libdevice(name: str, arity: int = 1) -> Row:
    def row(k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
        return f"{k.module.libdevice(name)}({', '.join(_as_tensor(text, node) for text in a[:arity])})"

    return row


def _signbit(k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
    return f"{k.module.libdevice('signbit')}({a[0]}) != 0"


def _shift(direction: str, symbol: str) -> Row:
    """A shift; PyTorch defines it for amounts below 0 and beyond the width too, where the hardware's differs."""

    def row(k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
        amount = node.args[1]
        if isinstance(amount, int) and 0 <= amount < 8 * _dtype(node).itemsize:
            return f"{a[0]} {symbol} {a[1]}"
        return f"{k.module.helper(f'hlt_shift_{direction}')}({_as_tensor(a[0], node)}, {_as_tensor(a[1], node)})"

    return row


def _not(k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
    return f"~{a[0]}" if _dtype(node) is torch.bool else f"{a[0]} == 0"


def _logical(symbol: str) -> Row:
    def row(k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
        left, right = (text if _is_bool(arg) else f"({text} != 0)" for text, arg in zip(a, node.args))
        return f"{left} {symbol} {right}"

    return row


def _is_bool(arg: Any) -> bool:
    return isinstance(arg, bool) or (isinstance(arg, torch.fx.Node) and arg.meta["val"].dtype is torch.bool)


def _unsigned(node: torch.fx.Node) -> bool:
    return _dtype(node) in (torch.uint8, torch.uint16, torch.uint32, torch.uint64)


def _abs(k: KernelEmitter, node: torch.fx.Node, a: list[str]) -> str:
    return a[0] if _unsigned(node) else f"tl.abs({a[0]})"


POINTWISE_ROWS: dict[torch._ops.OpOverload, Row] = {}


def _fill() -> None:
    rows: dict[str, Row] = {
        "abs.default": _abs,
        "neg.default": "-{0}",
        "sign.default": _helper("sign"),
        "signbit.default": _by_kind(_signbit, "{0} < 0"),
        "floor.default": _by_kind("tl.floor({0})", "{0}"),
        "ceil.default": _by_kind("tl.ceil({0})", "{0}"),
        "round.default": _by_kind(_libdevice("rint"), "{0}"),
        "trunc.default": _by_kind(_libdevice("trunc"), "{0}"),
        "add.Tensor": _alpha("+"),
        "add.Scalar": _alpha("+"),
        "sub.Tensor": _alpha("-"),
        "sub.Scalar": _alpha("-"),
        "mul.Tensor": "{0} * {1}",
        "mul.Scalar": "{0} * {1}",
        "maximum.default": _max_min("maximum"),
        "minimum.default": _max_min("minimum"),
        "fmax.default": "tl.maximum({0}, {1})",
        "fmin.default": "tl.minimum({0}, {1})",
        "remainder.Tensor": _helper("remainder"),
        "remainder.Scalar": _helper("remainder"),
        "fmod.Tensor": _by_kind(_helper("fmod"), "{0} % {1}"),
        "fmod.Scalar": _by_kind(_helper("fmod"), "{0} % {1}"),
        "div.Tensor": _divide,
        "div.Scalar": _divide,
        "div.Tensor_mode": _divide_mode,
        "div.Scalar_mode": _divide_mode,
        "floor_divide.default": _helper("div_floor"),
        "clamp.default": _clamp,
        "clamp.Tensor": _clamp,
        "clamp_min.default": _clamp,
        "clamp_max.default": _clamp_max,
        "copysign.Tensor": _libdevice("copysign", 2),
        "nextafter.default": _libdevice("nextafter", 2),
        "exp.default": "tl.exp({0})",
        "exp2.default": "tl.exp2({0})",
        "log.default": "tl.log({0})",
        "log2.default": "tl.log2({0})",
        "sqrt.default": _sqrt,
        "rsqrt.default": "tl.rsqrt({0})",
        "reciprocal.default": lambda k, node, a: _divide(k, node, ["1.0", a[0]]),
        "sin.default": "tl.sin({0})",
        "cos.default": "tl.cos({0})",
        "sigmoid.default": "tl.sigmoid({0})",
        "erf.default": "tl.erf({0})",
        "pow.Tensor_Tensor": _pow,
        "pow.Tensor_Scalar": _pow,
        "pow.Scalar": _pow,
        "logical_and.default": _logical("&"),
        "logical_or.default": _logical("|"),
        "logical_xor.default": _logical("^"),
        "logical_not.default": _not,
        "isinf.default": _by_kind("tl.abs({0}) == float('inf')", "{0} != {0}"),
        "bitwise_not.default": "~{0}",
        "where.self": "tl.where({0}, {1}, {2})",
    }
    for name in ("and", "or", "xor"):
        symbol = {"and": "&", "or": "|", "xor": "^"}[name]
        rows[f"bitwise_{name}.Tensor"] = rows[f"bitwise_{name}.Scalar"] = f"{{0}} {symbol} {{1}}"
    for name, symbol in (("left", "<<"), ("right", ">>")):
        for overload in ("Tensor", "Tensor_Scalar", "Scalar_Tensor"):
            rows[f"bitwise_{name}_shift.{overload}"] = _shift(name, symbol)
    for name, symbol in (("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
        rows[f"{name}.Tensor"] = rows[f"{name}.Scalar"] = f"{{0}} {symbol} {{1}}"
    for name in [
        "expm1",
        "log10",
        "log1p",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "asinh",
        "acosh",
        "atanh",
        "erfc",
        "erfinv",
        "lgamma",
    ]:
        rows[f"{name}.default"] = _libdevice(name)
    rows["atan2.default"] = _libdevice("atan2", 2)
    rows["hypot.default"] = _libdevice("hypot", 2)
    rows["special_i0.default"] = _libdevice("cyl_bessel_i0")
    for name, row in rows.items():
        packet, overload = name.split(".")
        POINTWISE_ROWS[getattr(getattr(_aten, packet), overload)] = row


_fill()


def emit_pointwise(k: KernelEmitter, node: torch.fx.Node) -> None:
    """A pointwise op by its row."""
    operands = [k.text(a) if a is not None else "None" for a in node.args]
    if "neutral" in node.meta:  # a looped reduction's partial result
        which, dim, neutral = node.meta["neutral"]
        operands[which] = k.masked(node.args[which], dim, neutral)  # type: ignore[arg-type]
    k.assign(node, _text(POINTWISE_ROWS[node.target], k, node, operands))  # type: ignore[index]


def emit_convert(k: KernelEmitter, node: torch.fx.Node) -> None:
    """A cast."""
    source, dtype = node.args
    text = k.text(source)
    if dtype is torch.bool:
        k.assign(node, f"{text} != 0")
        return
    if source.meta["val"].dtype is torch.bool and dtype.is_floating_point:  # type: ignore[union-attr]
        text = f"{text}.to(tl.int32)"
    k.assign(node, f"{text}.to({triton_dtype(dtype)})")  # type: ignore[arg-type]


def emit_bitcast(k: KernelEmitter, node: torch.fx.Node) -> None:
    """The bits of a value as another dtype."""
    k.assign(node, f"{k.text(node.args[0])}.to({triton_dtype(node.meta['val'].dtype)}, bitcast=True)")


RULES: Rules = {**dict.fromkeys(POINTWISE_ROWS, emit_pointwise), CONVERT: emit_convert, BITCAST: emit_bitcast}
