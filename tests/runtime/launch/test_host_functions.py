"""Host functions as users write them become plans, and do as plans what they do in Python."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import _extension
from helion.runtime import launch_stats

from . import host_functions_more as more
from .host_functions import FUNCTIONS as FIRST

pytestmark = [
    pytest.mark.softgpu(capability=90, software_only=True),
    pytest.mark.usefixtures("softgpu"),
    pytest.mark.compiles,
    pytest.mark.skipif(_extension.C is None, reason="needs helion._C"),
]

FUNCTIONS = {**FIRST, **more.FUNCTIONS}

#: Those that stay with the host function, and why.
NO_PLAN: dict[str, str] = {}


def reasons(kernel: Any) -> list[str]:
    return [reason for reason in kernel.stats.snapshot().reasons if reason.startswith("no plan")]


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Those in a result, in order; what else is in it is compared on the way."""
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from tensors(item)


def without_tensors(value: Any) -> Any:
    """A result with its tensors' places left empty."""
    if dataclasses.is_dataclass(value):
        return type(value), without_tensors(vars(value))
    if isinstance(value, dict):
        return {key: without_tensors(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value), [without_tensors(item) for item in value]
    return None if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("name", FUNCTIONS)
def test_host_function_is_a_plan(name: str) -> None:
    kernel = helion.kernel(config=helion.Config(block_sizes=[128]))(FUNCTIONS[name])
    generator = torch.Generator().manual_seed(7)
    for _ in range(5):
        x, y = (torch.randn(256, generator=generator) for _ in range(2))
        mine = [x.clone(), y.clone()]
        want, got = kernel._call_python(*mine), kernel(x, y)
        assert type(got) is type(want) and without_tensors(got) == without_tensors(want)
        for one, other in zip(tensors(got), tensors(want), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
            assert (one.stride(), one._version, one.requires_grad) == (other.stride(), other._version, False)
        torch.testing.assert_close(x, mine[0], rtol=0, atol=0)
    if name in NO_PLAN:
        assert any(NO_PLAN[name] in reason for reason in reasons(kernel)), reasons(kernel)
    else:
        assert kernel.plan_hits == 3, reasons(kernel)


def test_at_least_95_of_100_are_plans() -> None:
    assert len(FUNCTIONS) >= 60 and len(NO_PLAN) <= 0.05 * len(FUNCTIONS)


def test_reason_of_one_that_is_none_is_in_launch_stats() -> None:
    @helion.kernel(config=helion.Config(block_sizes=[128]))
    def noisy(x, y):
        print("adding")
        out = torch.empty_like(x)
        for t in helion.language.tile(x.size(0)):
            out[t] = x[t] + y[t]
        return out

    x = torch.randn(256)
    for _ in range(3):
        noisy(x, x)
    name = next(n for n in launch_stats() if n.endswith("noisy"))
    assert "no plan: host code calls print()" in launch_stats()[name].reasons


def test_operations_of_a_plan_follow_autocast() -> None:
    from .host_functions import arithmetic_before

    kernel = helion.kernel(config=helion.Config(block_sizes=[128]))(arithmetic_before)
    x, y = torch.randn(256), torch.randn(256)
    for _ in range(4):
        want = kernel(x, y)
    hits = kernel.plan_hits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(kernel(x, y), want)
    assert kernel.plan_hits == hits > 0


def test_call_of_a_bound_kernel_takes_the_plan_of_its_kernel() -> None:
    from .host_functions import empty_like

    kernel = helion.kernel(config=helion.Config(block_sizes=[128]))(empty_like)
    x, y = torch.randn(256), torch.randn(256)
    bound = kernel.bind((x, y))
    for _ in range(5):
        assert torch.equal(bound(x, y), x + y)
        assert torch.equal(kernel.bind((x, y))(x, y), x + y)
    assert kernel.plan_hits == 8
    bound.set_config(helion.Config(block_sizes=[64]))
    assert torch.equal(bound(x, y), x + y) and kernel.bind((x, y)) is bound
    kernel.reset()
    hits = kernel.plan_hits
    assert torch.equal(bound(x, y), x + y)
    assert kernel.plan_hits == hits and kernel.bind((x, y)) is not bound


def test_constant_that_a_helper_of_host_code_reads_is_read_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = helion.kernel(config=helion.Config(block_sizes=[128]))(more.helper_reads_a_constant)
    x, y = torch.randn(256), torch.randn(256)
    for eps in (0.5, 3.0):
        monkeypatch.setattr(more, "EPS", eps)
        for _ in range(4):
            torch.testing.assert_close(kernel(x, y), x + y + eps)
    assert kernel.plan_hits >= 3, reasons(kernel)


HELPER = """\
import torch

import helion
import helion.language as hl

def make(x{parameters}):
    {body}
    return torch.empty_like(x)


def host(x, y):
    out = make(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + y[t]
    return out
"""


def helped(tmp_path: Path, parameters: str, body: str) -> Any:
    """A module with a helper of host code."""
    path = tmp_path / "with_helper.py"
    path.write_text(HELPER.format(parameters=parameters, body=body))
    spec = importlib.util.spec_from_file_location("with_helper", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("parameters", "body", "reason"),
    [
        (", seen=[]", "seen.append(1)", "a default of it can change"),
        ("", "print(x.size(0))", "calls print()"),
        ("", "x.item() if x.numel() == 1 else None", "calls .item()"),
        ("", "make.calls = 1", "assigns to something other"),
    ],
)
def test_helper_that_does_more_than_its_arguments_say_is_named(
    tmp_path: Path, parameters: str, body: str, reason: str
) -> None:
    kernel = helion.kernel(config=helion.Config(block_sizes=[128]))(helped(tmp_path, parameters, body).host)
    x, y = torch.randn(256), torch.randn(256)
    for _ in range(4):
        torch.testing.assert_close(kernel(x, y), x + y)
    assert kernel.plan_hits == 0
    assert any("calls make()" in why and reason in why for why in reasons(kernel)), reasons(kernel)


def test_helper_whose_file_was_edited_since_is_not_judged_by_the_file(tmp_path: Path) -> None:
    module = helped(tmp_path, "", "print(x.size(0))")
    (tmp_path / "with_helper.py").write_text(HELPER.format(parameters="", body="len('')"))
    kernel = helion.kernel(config=helion.Config(block_sizes=[128]))(module.host)
    x, y = torch.randn(256), torch.randn(256)
    for _ in range(4):
        kernel(x, y)
    assert kernel.plan_hits == 0
    assert any("not what runs" in why for why in reasons(kernel)), reasons(kernel)


def test_argument_that_only_python_reads_is_the_reason() -> None:
    @dataclasses.dataclass(frozen=True)
    class Options:
        scale: float = 2.0

    @helion.kernel(config=helion.Config(block_sizes=[128]))
    def scaled(x: torch.Tensor, options: Options) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t] * options.scale
        return out

    x = torch.randn(256)
    for _ in range(3):
        torch.testing.assert_close(scaled(x, Options()), x * 2)
    assert any("argument options is a Options" in why for why in reasons(scaled)), reasons(scaled)
