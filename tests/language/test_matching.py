"""`match` statements, and what a number's type decides: as Python does, in every mode."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


class Kind(enum.Enum):
    ADD = 1
    SCALE = 2


def by_kind(x: torch.Tensor, kind: Any) -> torch.Tensor:
    match kind, x.dim():
        case None | Kind.ADD, 1:
            shift = 1.0
        case _, n:
            shift = 2.0 * n
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        v = x[t]
        match kind:
            case Kind.ADD | Kind.SCALE:
                v = v + 7
            case "relu":
                v = torch.relu(v)
            case int() | float() as k if k > 5:
                v = v * k
            case int():
                v = v - kind
            case None:
                pass
            case _:
                v = v * 0
        out[t] = v + shift
    return out


def by_kind_in_python(x: torch.Tensor, kind: Any) -> torch.Tensor:
    shift = 1.0 if kind in (None, Kind.ADD) else 2.0
    if kind in (Kind.ADD, Kind.SCALE):
        return x + 7 + shift
    if kind == "relu":
        return torch.relu(x) + shift
    if isinstance(kind, (int, float)):
        return (x * kind if kind > 5 else x - kind if isinstance(kind, int) else x * 0) + shift
    return x + shift


@pytest.mark.parametrize("kind", [Kind.ADD, "relu", 7, 3, 6.5, 2.5, None])
def test_cases_are_asked_in_turn(kind: Any) -> None:
    args = (torch.randn(10), kind)
    run_everywhere(by_kind, args, by_kind_in_python, capabilities=[90], reference_args=args, input_dtype=torch.float32)


def by_row(x: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for i in hl.grid(x.size(0)):
        match which[i]:
            case 0:
                out[i, :] = x[i, :] * 2
            case 1 | -3:
                out[i, :] = x[i, :] + 1
            case _:
                out[i, :] = hl.zeros([x.size(1)])
    return out


def test_cases_of_device_values_are_branches() -> None:
    def reference(x: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        w = which[:, None]
        return torch.where(w == 0, x * 2, torch.where((w == 1) | (w == -3), x + 1, torch.zeros_like(x)))

    args = (torch.randn(5, 8), torch.tensor([0, 1, 2, -3, 0]))
    run_everywhere(by_row, args, reference, capabilities=[90])


def test_a_subject_is_evaluated_once_and_its_names_are_the_functions() -> None:
    def kernel(x: torch.Tensor, n: int) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            subject = x[t]
            for i in range(6):
                match i * 2:
                    case 0:
                        continue
                    case 8:
                        break
                    case n if n == 2:
                        subject = subject + 10 * n
                    case other:
                        subject = subject + other + n
            out[t] = subject
        return out

    run_everywhere(kernel, (torch.randn(10), 1), lambda x, n: x + 20 + 4 + 4 + 6 + 6, capabilities=[90])


def test_patterns_that_take_values_apart_are_refused() -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        match x.shape:
            case (n,):
                pass
        for t in hl.tile(n):
            out[t] = x[t]
        return out

    with pytest.raises(exc.StatementNotSupported, match="`if` and `elif`"):
        helion.kernel(kernel, config=helion.Config(block_sizes=[8]))(torch.randn(10))


def kind_of(a: Any) -> float:
    match a:
        case int():
            return 2.0
    return 3.0 if type(a) is float else 4.0


@dataclasses.dataclass
class Held:
    number: Any

    def kind(self) -> float:
        return kind_of(self.number) if isinstance(self.number, int) else 5.0


def kind_of_any(a: Any) -> float:
    try:
        return 2.0 if isinstance(a, int) else 3.0
    except TypeError:
        return 4.0


def by_text(x: torch.Tensor, a: int, b: float) -> torch.Tensor:
    scale = kind_of(a) * 10 + kind_of(b) if Held(a).kind() == 2.0 and kind_of_any(a) == 2.0 else 0.0
    scale += 100 if str(a) == "5" and f"{a!r:>3}" == "  5" and repr(a) == "5" else 200
    scale += 1000 if hasattr(a, "bit_length") and a.__class__ is int else 2000
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] * scale
    return out


def test_host_code_asks_numbers_what_they_are() -> None:
    kernel = helion.kernel(by_text, config=helion.Config(block_sizes=[8]))
    for a, scale in ((5, 1123), (6, 1223)):
        run_everywhere(kernel, (torch.randn(10), a, 2.5), lambda x, a, b: x * scale, capabilities=[90])


def by_type(x: torch.Tensor, a: Any, n: Any) -> torch.Tensor:
    out = torch.empty_like(x)
    shift = 1.0 if type(n) is int else 2.0
    for t in hl.tile(x.size(0)):
        v = x[t] + shift
        if isinstance(a, int):
            v = v * 2
        elif isinstance(a, float):
            v = v * 3
        if isinstance(n * 2, int | str) and isinstance(t.begin, int):
            v = v + 5
        out[t] = v
    return out


@pytest.mark.parametrize("settings", [{}, {"static_shapes": False}], ids=str)
@pytest.mark.parametrize(("a", "n"), [(7, 2.5), (7.5, 3), (True, 4)])
def test_numbers_have_the_types_that_they_have_in_the_call(a: Any, n: Any, settings: dict[str, Any]) -> None:
    def reference(x: torch.Tensor, a: Any, n: Any) -> torch.Tensor:
        x = (x + (1.0 if type(n) is int else 2.0)) * (2 if isinstance(a, int) else 3)
        return x + 5 if isinstance(n, int) else x

    args = (torch.randn(10), a, n)
    run_everywhere(
        by_type, args, reference, capabilities=[90], reference_args=args, input_dtype=torch.float32, **settings
    )


def reversed_bits(x: torch.Tensor, up: int) -> torch.Tensor:
    padded = torch.nn.functional.pad(x, (0, up - x.size(1) % up))
    out = torch.empty_like(padded)
    for t in hl.tile(x.size(0)):
        for i in range(8):
            out[t, i] = padded[t, int(f"{i:03b}"[::-1], 2)]
    return out


def test_text_of_constants_and_widths_of_padding() -> None:
    def reference(x: torch.Tensor, up: int) -> torch.Tensor:
        return torch.nn.functional.pad(x, (0, 2))[:, [0, 4, 2, 6, 1, 5, 3, 7]]

    kernel = helion.kernel(
        reversed_bits, config=helion.Config(block_sizes=[4]), ignore_warnings=[exc.TensorOperationInWrapper]
    )
    for up in (8, 4):
        run_everywhere(kernel, (torch.randn(5, 6), up), reference, capabilities=[90])
