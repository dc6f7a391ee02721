"""Host code that reads numbers from tensors: at each call, for one compiled kernel."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


def longest_rows(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    n = int(lengths.max().item())
    out = torch.zeros([x.size(0), n], dtype=x.dtype, device=x.device)
    for tm, tn in hl.tile([x.size(0), n]):
        out[tm, tn] = torch.where(tn.index[None, :] < lengths[tm][:, None], x[tm, tn], 0.0)
    return out


def expected_rows(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    n = int(lengths.max())
    return torch.where(torch.arange(n) < lengths[:, None], x[:, :n], 0.0)


def test_a_number_read_from_a_tensor_is_a_size() -> None:
    args = (torch.randn(5, 40), torch.tensor([3, 17, 0, 9, 1]))
    run_everywhere(longest_rows, args, expected_rows, configs=[{"block_sizes": [2, 8]}], capabilities=[90])


@pytest.mark.parametrize("static", [True, False])
def test_it_is_read_at_each_call_of_one_kernel(static: bool) -> None:
    kernel = helion.kernel(longest_rows, static_shapes=static)
    x = torch.randn(3, 40)
    bound = kernel.bind((x, torch.tensor([1, 2, 3])))
    for lengths in ([1, 2, 3], [40, 0, 5], [1, 1, 1], [0, 0, 0]):
        given = torch.tensor(lengths)
        assert kernel.bind((x, given)) is bound
        assert torch.equal(kernel(x, given), expected_rows(x, given))


def test_floats_are_read_too() -> None:
    def scaled(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        s, t = float(m.sum().item()), m[0].item()
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * s + (t + 1)
        return out

    for m in (torch.tensor([3.0, 5.0]), torch.tensor([float("inf"), 1.0]), torch.tensor([-1.5, 0.0])):
        run_everywhere(scaled, (torch.rand(30) + 1, m), lambda x, m: x * m.sum() + (m[0] + 1), capabilities=[90])


def test_a_bound_of_a_top_level_loop_may_be_a_tensor() -> None:
    def first(x: torch.Tensor, n: torch.Tensor, begin: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        for t in hl.tile([begin[0]], [n]):
            out[t] = x[t] + 1
        return out

    def expected(x: torch.Tensor, n: torch.Tensor, begin: torch.Tensor) -> torch.Tensor:
        at = torch.arange(x.size(0))
        return torch.where((at >= begin[0]) & (at < n), x + 1, 0.0)

    for n in (17, 3, 40):
        run_everywhere(first, (torch.randn(40), torch.tensor(n), torch.tensor([3])), expected, capabilities=[90])


#: Host arithmetic on a number that is read from a tensor: float(x) or int(x) as v.
ARITHMETIC = {
    "max(v, 1.0)": float,
    "float(max(v, 1))": float,
    "1.0 if v < 1 else 8.0 if v > 8 else v": float,
    "2 * (1.0 if v < 1.0 else v) + (1 if v > 8 else 0)": float,
    "(v > 1) + 1": float,
    "float(not v)": float,
    "bool(v) + 0.5": float,
    "float(v and 5.0)": float,
    "max([v, 1.0, 2.5])": float,
    "float(min(v, x.size(0)))": float,
    "max([v, 1])": int,
    "(v > 1) + 2": int,
    "max(v + 0.0, 1.0)": int,
    "float(2 ** v)": int,
    "not v": int,
    "v if v > 1 else 1": int,
}


@pytest.mark.parametrize("text", ARITHMETIC)
def test_host_code_computes_with_it_as_python_does(text: str, tmp_path: Path) -> None:
    kind = ARITHMETIC[text]
    kernel = helion.kernel(_function_with(text, kind, tmp_path))
    x = torch.arange(5.0)
    for number in (3.0, 0.0, 1.0, -2.0, 9.5):
        expected = eval(text, {"v": kind(number), "x": x})
        for run in (kernel, kernel.bind((x, torch.tensor(number))).run_ref):
            torch.testing.assert_close(run(x, torch.tensor(number)), x * expected)


@pytest.mark.parametrize("text", ["max({0}, 1.0)", "2 * min(8.0, {0}, {0} + 1) + 1.0", "(not {0}) + 1"])
@pytest.mark.parametrize("read", ["float(number)", "number.item()"])
def test_the_number_may_be_read_in_the_expression(text: str, read: str, tmp_path: Path) -> None:
    text = text.format(read)
    kernel = helion.kernel(_function_with(text, float, tmp_path))
    x = torch.arange(5.0)
    for number in (3.0, 0.0, 9.5):
        expected = eval(text, {"number": torch.tensor(number)})
        for run in (kernel, kernel.bind((x, torch.tensor(number))).run_ref):
            torch.testing.assert_close(run(x, torch.tensor(number)), x * expected)


def test_arithmetic_whose_type_depends_on_it_says_what_to_write(tmp_path: Path) -> None:
    kernel = helion.kernel(_function_with("max(v, 1)", float, tmp_path))
    with pytest.raises(exc.InvalidAPIUsage, match=r"an int for some numbers(.|\n)*`float\(max\(v, 1\)\)`"):
        kernel(torch.ones(3), torch.tensor(2.0))


@pytest.mark.parametrize("text", ["1 if v < 5000 else 0.5", "v % 7000 or 0.5", "max(v * v > 40000000, 0.5) + 1.0"])
def test_a_type_may_change_far_from_0(text: str, tmp_path: Path) -> None:
    kernel = helion.kernel(_function_with(text, int, tmp_path))
    for v in (3, 7000):
        assert torch.equal(kernel(torch.ones(3), torch.tensor(v)), torch.ones(3) * eval(text))


def test_a_call_whose_number_is_of_another_type_is_refused(tmp_path: Path) -> None:
    """Nothing in `1 if (v + 5) % 64 else 0.5` says that it is a float for 59."""
    kernel = helion.kernel(_function_with("1 if (v + 5) % 64 else 0.5", int, tmp_path))
    x = torch.arange(4, dtype=torch.int32)
    assert torch.equal(kernel(x, torch.tensor(58)), x)
    with pytest.raises(exc.InvalidAPIUsage, match=r"is 0.5 in this call(.|\n)*`float\(1 if"):
        kernel(x, torch.tensor(59))
    assert torch.equal(kernel(x, torch.tensor(60)), x)


def test_a_random_number_of_another_type_is_refused(tmp_path: Path) -> None:
    """The trace has one of the two, and the calls that draw it are right."""
    kernel = helion.kernel(_function_with("random.choice([2, 2.5])", int, tmp_path))
    x, refused, right = torch.ones(3), 0, set()
    for _ in range(40):
        try:
            right.add(kernel(x, torch.tensor(1))[0].item())
        except exc.InvalidAPIUsage:
            refused += 1
    assert refused and len(right) == 1


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90)
def test_it_is_checked_on_the_gpu_too(softgpu: Any, tmp_path: Path) -> None:
    kernel = helion.kernel(_function_with("1 if (v + 5) % 64 else 0.5", int, tmp_path))
    x = torch.ones(4, device=softgpu.device)
    for v in (58, 57, 58):
        assert torch.equal(kernel(x, torch.tensor(v)), x)
    with pytest.raises(exc.InvalidAPIUsage, match=r"0\.5 in this call"):
        kernel(x, torch.tensor(59))


def test_what_pytorch_needs_as_a_number_is_refused_while_tracing() -> None:
    @helion.kernel
    def padded(x: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.pad(x[used], (1, 1))
        out = torch.empty_like(y)
        for t in hl.tile(y.size(0)):
            out[t] = y[t]
        return out

    with pytest.raises(exc.HostTensorRead, match=r"pad\(\) asks for a number"):
        padded(torch.ones(4), torch.ones(4, dtype=torch.bool))


def _function_with(text: str, kind: type, folder: Path) -> Any:
    """A kernel function that multiplies x by what an expression gives."""
    file = folder / "function.py"
    file.write_text(f"""
import random
import torch
import helion.language as hl
def scaled(x, number):
    v = {kind.__name__}(number)
    w = {text}
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] * w
    return out
""")
    spec = importlib.util.spec_from_file_location("function", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.scaled
