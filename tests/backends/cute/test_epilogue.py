"""Printed epilogues: their text, and their values when the same text runs on torch tensors."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch

from helion import exc
from helion.backends.cute.epilogue import OPS
from helion.backends.cute.epilogue import EpiloguePrinter
from helion.backends.cute.spec import Aux
from helion.backends.cute.spec import Epilogue
from helion.backends.cute.spec import Statement

from .problems import BF16
from .problems import F32
from .problems import every_kind
from .problems import rowwise

_DTYPES = {"Float32": F32, "BFloat16": BF16, "Float16": torch.float16, "Boolean": torch.bool, "Int32": torch.int32}


def run(epilogue: Epilogue, out: torch.dtype, **values: Any) -> torch.Tensor:
    """Execute the printed body with torch tensors in the place of the toolkit's vectors."""
    printer = EpiloguePrinter(epilogue)
    lines = [f"def body({', '.join(printer.parameters)}):", *(f"    {line}" for line in printer.body(out))]
    namespace: dict[str, Any] = {"VALUES": 32, "cute": _fake_cute(), "cutlass": _fake_cutlass()}
    exec("\n".join(lines), namespace)
    return namespace["body"](**values)


def _fake_cutlass() -> types.SimpleNamespace:
    class Type:
        def __init__(self, dtype: torch.dtype) -> None:
            self.dtype = dtype

        def __call__(self, number: float) -> torch.Tensor:
            return torch.tensor(number, dtype=self.dtype)

    return types.SimpleNamespace(**{name: Type(dtype) for name, dtype in _DTYPES.items()})


def _fake_cute() -> types.SimpleNamespace:
    def same(function: Any) -> Any:
        def checked(x: torch.Tensor, y: torch.Tensor, **_: bool) -> torch.Tensor:
            assert x.shape == y.shape and x.dtype == y.dtype, "the toolkit wants two vectors of one type"
            return function(x, y)

        return checked

    math = {n: getattr(torch, n) for n in ("abs", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt")}
    math |= {n: getattr(torch, n) for n in ("rsqrt", "sin", "cos", "tan", "tanh", "erf", "floor", "ceil", "trunc")}
    math |= {"roundeven": torch.round, "max": same(torch.maximum), "min": same(torch.minimum), "pow": same(torch.pow)}

    def where(cond: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        assert cond.shape == x.shape == y.shape and x.dtype == y.dtype
        return torch.where(cond, x, y)

    def full(count: int, value: Any, dtype: Any) -> torch.Tensor:
        return torch.full((count,), float(value), dtype=dtype.dtype)

    return types.SimpleNamespace(math=types.SimpleNamespace(**math), where=where, full=full)


@pytest.fixture(autouse=True)
def tensors_convert_to_printed_types(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda self, dtype: plain(self, getattr(dtype, "dtype", dtype)))


def vector(seed: int) -> torch.Tensor:
    print(f"seed {seed}")
    return torch.randn(32, generator=torch.Generator().manual_seed(seed))


def test_a_row_wise_scale_is_two_readable_lines() -> None:
    assert EpiloguePrinter(rowwise()).body(BF16) == [
        "rows = acc * scale_a",
        "scaled = rows * scale_b",
        "return scaled.to(cutlass.BFloat16)",
    ]


def test_every_kind_of_operand() -> None:
    acc, bias, residual = vector(1), vector(2).bfloat16(), vector(3).bfloat16()
    alpha, gain, scale = torch.tensor(0.5), torch.tensor(2.0), torch.tensor(-1.5)
    got = run(every_kind(64), BF16, acc=acc, alpha=alpha, gain=gain, scale=scale, bias=bias, residual=residual)
    want = torch.relu(acc * alpha + scale * bias.float()) + residual.float() * gain
    torch.testing.assert_close(got, want.bfloat16())


_UNARY = {name: op for name, op in OPS.items() if op.arity == 1 and name not in ("cast",)}


@pytest.mark.parametrize("name", sorted(_UNARY))
def test_unary_operation(name: str) -> None:
    torch_name = {"reciprocal": "reciprocal", "sigmoid": "sigmoid", "neg": "neg"}.get(name, name)
    acc = vector(4).abs() + 0.1
    got = run(Epilogue((), (Statement("x", name, ("acc",), F32),), "x"), F32, acc=acc)
    torch.testing.assert_close(got, getattr(torch, torch_name)(acc))


_BINARY = ["add", "sub", "mul", "div", "maximum", "minimum", "pow"]


@pytest.mark.parametrize("name", _BINARY)
@pytest.mark.parametrize("aux", [(Aux("y", F32, "row", n=1),), (Aux("y", F32, "column", m=1),), ()])
def test_binary_operation_with_a_vector_a_scalar_and_a_number(name: str, aux: tuple[Aux, ...]) -> None:
    acc = vector(5).abs() + 0.1
    y: Any = {"row": vector(6).abs() + 0.1, "column": torch.tensor(1.25)}[aux[0].kind] if aux else 1.75
    statement = Statement("x", name, ("acc", "y" if aux else y), F32)
    got = run(Epilogue(aux, (statement,), "x"), F32, acc=acc, **({"y": y} if aux else {}))
    torch.testing.assert_close(got, getattr(torch, name)(acc, torch.as_tensor(y).expand(32)))


@pytest.mark.parametrize("name", ["gt", "ge", "lt", "le", "eq", "ne"])
def test_comparison_chooses_with_where(name: str) -> None:
    acc = vector(7)
    acc[3] = 0.5
    statements = (Statement("c", name, ("acc", 0.5), torch.bool), Statement("x", "where", ("c", "acc", -1.0), F32))
    got = run(Epilogue((), statements, "x"), F32, acc=acc)
    want = torch.where(getattr(torch, name)(acc, 0.5), acc, torch.tensor(-1.0))
    torch.testing.assert_close(got, want)


def test_narrow_arithmetic_is_done_in_fp32_and_rounded_once() -> None:
    acc, bias = vector(8), vector(9).bfloat16()
    statements = (Statement("a", "cast", ("acc",), BF16), Statement("x", "add", ("a", "bias"), BF16))
    got = run(Epilogue((Aux("bias", BF16, "row", n=1),), statements, "x"), BF16, acc=acc, bias=bias)
    assert torch.equal(got, acc.bfloat16() + bias)


def test_a_result_without_the_accumulator_is_spread_over_the_vector() -> None:
    epilogue = Epilogue((Aux("s", F32, "column", m=1),), (Statement("x", "mul", ("s", 2.0), F32),), "x")
    assert torch.equal(run(epilogue, F32, acc=vector(1), s=torch.tensor(3.0)), torch.full((32,), 6.0))


def test_an_unknown_operation_is_refused_by_name_and_place() -> None:
    epilogue = Epilogue((), (Statement("x", "lgamma", ("acc",), F32, "model.py:12"),), "x")
    with pytest.raises(exc.BackendUnsupported, match=r"'lgamma' \(model.py:12\)"):
        EpiloguePrinter(epilogue)


def test_a_value_from_elsewhere_is_refused_by_name() -> None:
    with pytest.raises(exc.BackendUnsupported, match="'other'"):
        EpiloguePrinter(Epilogue((), (Statement("x", "add", ("acc", "other"), F32),), "x"))


def test_infinite_numbers_are_printed_as_python() -> None:
    statements = (
        Statement("c", "gt", ("acc", 0.0), torch.bool),
        Statement("x", "where", ("c", "acc", float("-inf")), F32),
    )
    got = run(Epilogue((), statements, "x"), F32, acc=torch.linspace(-1, 1, 32))
    assert torch.isneginf(got[0])
