"""Pointwise statements of an epilogue as CuTe expressions.

One table, `OPS`: operation -> expression. A value is either a *vector* (this thread's columns of one row: the
accumulator, row vectors, matrices and what is computed from them) or a *scalar* (numbers, per-row column vectors and
what is computed from those alone); scalars stay scalars, so a per-row scale costs one register. Nothing here knows
tiles, loads or stores.
"""

from __future__ import annotations

import dataclasses
import keyword
import math

import torch

from .spec import Aux
from .spec import Epilogue
from .spec import Input
from .spec import Statement
from .spec import cutlass_name
from .spec import refuse

__all__ = ["OPS", "RESERVED", "EpiloguePrinter", "Template", "is_vector"]

ACC = "acc"
# Names of the printed code, which a value of the epilogue would hide, or the kernel's own name; those in capitals are
# kept free by `Match`, which spells values in small letters.
_RESERVED_NAMES = """
    a a_fragment a_layout a_mask a_stage a_tile ab_barriers ab_pipeline ab_state acc acc_barriers acc_layout
    acc_pipeline acc_shape acc_state accumulators all_acc annotations at b b_fragment b_layout b_mask b_stage b_tile
    band batch behind block buffer buffers c_pipeline cluster cluster_x cluster_y clusters column columns
    consumer_role converted cpasync cute cutlass epilogue epilogue_barrier epilogue_role example_arguments first float
    full global_a global_b global_out group held i inside k load load_columns load_columns_inside load_elements
    load_elements_inside load_role loaded m make_fake_stream make_fake_tensor max min mma mma_role n one_thread out
    out_layout part partial parts_a parts_b pipeline place range row shared_a shared_b shared_out sm100 sm90 smem
    smem_store source stage_bytes stages_a stages_b state step_mma store stream subtile subtile_shape subtiles tcgen05
    thread thread_acc thread_converted thread_mma thread_shared threads tile tile_coordinates tiled_mma tiles_a
    tiles_b tiles_out tma_a tma_b tma_out tmem tmem_address tmem_freed tmem_load values warp warpgroup width within
"""
RESERVED = frozenset(_RESERVED_NAMES.split())
# PyTorch computes pointwise bf16 and fp16 arithmetic in fp32 and rounds once (OpMathType, aten/src/ATen/OpMathType.h).
_NARROW = (torch.bfloat16, torch.float16)


@dataclasses.dataclass(frozen=True)
class Template:
    """How one operation is written.

    Args:
        text: a format string over its inputs ``{0}``, ``{1}``, ...
        arity: number of inputs.
        compares: the result is a truth value; the inputs keep their own type.
        same_shape: the toolkit wants all inputs to be vectors if one is, so scalars are spread first.
    """

    text: str
    arity: int
    compares: bool = False
    same_shape: bool = False


def _math(name: str) -> Template:
    return Template(f"cute.math.{name}({{0}})", 1)


OPS: dict[str, Template] = {
    "add": Template("{0} + {1}", 2),
    "sub": Template("{0} - {1}", 2),
    "mul": Template("{0} * {1}", 2),
    "div": Template("{0} / {1}", 2),
    "neg": Template("-{0}", 1),
    "abs": _math("abs"),
    "reciprocal": Template("1.0 / {0}", 1),
    "exp": _math("exp"),
    "exp2": _math("exp2"),
    "expm1": _math("expm1"),
    "log": _math("log"),
    "log2": _math("log2"),
    "log10": _math("log10"),
    "log1p": _math("log1p"),
    "sqrt": _math("sqrt"),
    "rsqrt": _math("rsqrt"),
    "sin": _math("sin"),
    "cos": _math("cos"),
    "tan": _math("tan"),
    "tanh": _math("tanh"),
    "erf": _math("erf"),
    "floor": _math("floor"),
    "ceil": _math("ceil"),
    "trunc": _math("trunc"),
    "round": _math("roundeven"),
    # exp saturates to inf or 0, so that the quotient goes to 0 or 1 without a special case.
    "sigmoid": Template("1.0 / (1.0 + cute.math.exp(-{0}))", 1),
    # aten's maximum and minimum propagate NaN.
    "maximum": Template("cute.math.max({0}, {1}, propagate_nan=True)", 2, same_shape=True),
    "minimum": Template("cute.math.min({0}, {1}, propagate_nan=True)", 2, same_shape=True),
    "pow": Template("cute.math.pow({0}, {1})", 2, same_shape=True),
    "gt": Template("{0} > {1}", 2, compares=True),
    "ge": Template("{0} >= {1}", 2, compares=True),
    "lt": Template("{0} < {1}", 2, compares=True),
    "le": Template("{0} <= {1}", 2, compares=True),
    "eq": Template("{0} == {1}", 2, compares=True),
    "ne": Template("{0} != {1}", 2, compares=True),
    "logical_and": Template("{0} & {1}", 2, compares=True, same_shape=True),
    "logical_or": Template("{0} | {1}", 2, compares=True, same_shape=True),
    "logical_xor": Template("{0} ^ {1}", 2, compares=True, same_shape=True),
    "where": Template("cute.where({0}, {1}, {2})", 3, same_shape=True),
    "cast": Template("{0}", 1),
}


@dataclasses.dataclass(frozen=True)
class _Value:
    text: str
    dtype: torch.dtype
    vector: bool
    number: float | None = None


class EpiloguePrinter:
    """Prints an `Epilogue` as the body of a function of ``acc`` and the auxiliary operands.

    Args:
        epilogue: what to print. Raises BackendUnsupported if a statement has an operation, type or input that is not
            known.
        one_row: whether a thread's values lie in one row of the output, so that a per-row column vector is a scalar to
            it.
    """

    def __init__(self, epilogue: Epilogue, one_row: bool = True) -> None:
        self.epilogue = epilogue
        self._values: dict[str, _Value] = {ACC: _Value(ACC, torch.float32, True)}
        for aux in epilogue.aux:
            text = f"({aux.name} != 0)" if aux.dtype is torch.bool else aux.name  # the toolkit loads a bool as a byte
            self._define(aux.name, _Value(text, aux.dtype, is_vector(aux, one_row)))
        self._lines = [self._statement(s) for s in epilogue.statements]
        if epilogue.result not in self._values:
            raise refuse(f"the stored value {epilogue.result!r} is not computed from the accumulator")
        self._result = self._values[epilogue.result]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the printed function's parameters."""
        return (ACC, *(aux.name for aux in self.epilogue.aux))

    def body(self, out_dtype: torch.dtype) -> list[str]:
        """Source lines, the last one returning a vector of ``out_dtype``."""
        value = self._spread(self._result) if not self._result.vector else self._result
        return [*self._lines, f"return {self._cast(value, out_dtype).text}"]

    def _define(self, name: str, value: _Value) -> None:
        if not name.isidentifier() or keyword.iskeyword(name) or name in self._values:
            raise ValueError(f"{name!r} cannot name an epilogue value")
        self._values[name] = value

    def _statement(self, s: Statement) -> str:
        op = OPS.get(s.op)
        where = f" ({s.comment})" if s.comment else ""
        if op is None:
            raise refuse(f"its epilogue has no {s.op!r}{where}; it has {', '.join(OPS)}")
        if len(s.inputs) != op.arity:
            raise ValueError(f"{s.op} takes {op.arity} inputs, not {len(s.inputs)}")
        inputs = [self._input(i, s, where) for i in s.inputs]
        vector = s.op == "where" or any(v.vector for v in inputs)  # the toolkit's select wants vectors
        if s.op == "cast":
            value = self._cast(inputs[0], s.dtype)
        else:
            value = self._arithmetic(s, op, inputs, vector)
        self._define(s.name, _Value(s.name, s.dtype, vector))
        note = f"  # {s.comment}" if s.comment else ""
        return f"{s.name} = {value.text}{note}"

    def _arithmetic(self, s: Statement, op: Template, inputs: list[_Value], vector: bool) -> _Value:
        compute = _compute_dtype(_widest(inputs) if op.compares else s.dtype)
        operands = []
        for position, value in enumerate(inputs):
            chosen = s.op == "where" and position == 0
            value = value if chosen else self._cast(value, compute)
            if op.same_shape and vector and not value.vector:
                value = self._spread(value)
            operands.append(value)
        text = op.text.format(*(_parenthesize(v.text) for v in operands))
        result = torch.bool if op.compares else compute
        return self._cast(_Value(f"({text})" if result != s.dtype else text, result, vector), s.dtype)

    def _input(self, given: Input, s: Statement, where: str) -> _Value:
        if isinstance(given, str):
            if given not in self._values:
                raise refuse(f"{s.op} uses {given!r}{where}, which is not part of its epilogue")
            return self._values[given]
        if isinstance(given, bool):
            return _Value(str(given), torch.bool, False, float(given))
        # A Python number takes the type of the statement, as a 0-dim operand does in PyTorch.
        return _Value(_literal(float(given)), torch.float32, False, float(given))

    @staticmethod
    def _cast(value: _Value, dtype: torch.dtype) -> _Value:
        if value.dtype == dtype:
            return value
        name = cutlass_name(dtype)
        if value.number is not None:
            text = _literal(value.number) if dtype.is_floating_point else str(int(value.number))
            return _Value(f"cutlass.{name}({text})", dtype, False, None)
        return _Value(f"{_parenthesize(value.text)}.to(cutlass.{name})", dtype, value.vector)

    @staticmethod
    def _spread(value: _Value) -> _Value:
        name = cutlass_name(value.dtype)
        text = value.text if value.number is None else f"cutlass.{name}({value.text})"
        return _Value(f"cute.full(VALUES, {text}, cutlass.{name})", value.dtype, True)


def is_vector(aux: Aux, one_row: bool) -> bool:
    """Whether a thread holds several values of ``aux`` in one epilogue step."""
    return aux.kind in ("row", "matrix") or (aux.kind == "column" and not one_row)


def _compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in _NARROW else dtype


def _widest(values: list[_Value]) -> torch.dtype:
    typed = [v.dtype for v in values if v.number is None] or [torch.float32]
    out = typed[0]
    for dtype in typed[1:]:
        out = torch.promote_types(out, dtype)
    return out


def _literal(number: float) -> str:
    if math.isfinite(number):
        return repr(number)
    return f'float("{number}")'


def _parenthesize(text: str) -> str:
    simple = text.replace(".", "").replace("_", "").isalnum() or _one_call(text)
    return text if simple else f"({text})"


def _one_call(text: str) -> bool:
    """Whether ``text`` is a name with one balanced argument list behind it, such as ``f(a, g(b))`` or ``x.to(T)``."""
    if not text.endswith(")") or "(" not in text:
        return False
    head = text[: text.index("(")]
    if not (head == "" or head.replace(".", "").replace("_", "").isalnum()):
        return False
    depth = 0
    for position, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth == 0 and char == ")":
            return position == len(text) - 1
    return False
