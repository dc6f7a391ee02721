"""What the dispatcher in C reads from outside a kernel function: parameters that callers do not give, and constants."""

from __future__ import annotations

import types

import pytest
import torch

import helion
import helion.language as hl

FACTOR = 2.0
SHIFT = torch.ones(24)


def moved(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] * FACTOR + SHIFT[tile]
    return out


def times_two(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile] * 2
    return out


@pytest.fixture
def kernel(C, softgpu, monkeypatch):
    monkeypatch.setitem(globals(), "SHIFT", torch.randn(24, device=softgpu.device))
    return helion.kernel(moved, config=helion.Config(block_sizes=[8]))


def warm(kernel, x):
    """Call it until a plan serves it."""
    for _ in range(3):
        torch.testing.assert_close(kernel(x), x * FACTOR + SHIFT)


@pytest.mark.compiles
@pytest.mark.guard("outside")
def test_a_changed_number_is_another_signature(kernel, softgpu, monkeypatch):
    x = torch.randn(24, device=softgpu.device)
    warm(kernel, x)
    assert kernel.plan_count == 1
    for factor in (3.0, 3, -1.0):
        monkeypatch.setitem(globals(), "FACTOR", factor)
        warm(kernel, x)
    assert kernel.plan_count == 4
    hits = kernel.plan_hits
    with helion.runtime.no_compile():
        for factor in (2.0, 3.0, 3):
            monkeypatch.setitem(globals(), "FACTOR", factor)
            torch.testing.assert_close(kernel(x), x * FACTOR + SHIFT)
    assert kernel.plan_hits == hits + 3


@pytest.mark.compiles
@pytest.mark.guard("code")
def test_a_function_with_other_code_has_no_plan(kernel, softgpu):
    x = torch.randn(24, device=softgpu.device)
    warm(kernel, x)
    code = kernel.fn.__code__
    try:
        kernel.fn.__code__ = times_two.__code__
        for _ in range(3):
            torch.testing.assert_close(kernel(x), x * 2)
    finally:
        kernel.fn.__code__ = code
    warm(kernel, x)


@pytest.mark.compiles
def test_another_tensor_is_served_by_the_same_plan(kernel, softgpu, monkeypatch):
    x = torch.randn(24, device=softgpu.device)
    warm(kernel, x)
    hits = kernel.plan_hits
    for _ in range(3):
        monkeypatch.setitem(globals(), "SHIFT", torch.randn(24, device=softgpu.device))
        torch.testing.assert_close(kernel(x), x * FACTOR + SHIFT)
    assert kernel.plan_hits == hits + 3


@pytest.mark.compiles
def test_what_is_not_there_is_left_to_python(kernel, softgpu, monkeypatch):
    x = torch.randn(24, device=softgpu.device)
    warm(kernel, x)
    for name in ("FACTOR", "SHIFT"):
        with monkeypatch.context() as patch:
            patch.delitem(globals(), name)
            with pytest.raises(helion.exc.UndefinedVariable, match=name):
                kernel(x)
        warm(kernel, x)


def test_configure_dispatch_checks_its_places(kernel, softgpu):
    for places in ((1,), (("holder", "name"),), ((globals(), "FACTOR", True, 3),)):
        with pytest.raises(TypeError):
            kernel.configure_dispatch(("x",), (), (True,), None, 8, None, (), (), places)
    with pytest.raises(ValueError, match="do not fit"):
        kernel.configure_dispatch(("x",), (1,), (True,), None, 8, None, (), ((globals(), "FACTOR"),))


@pytest.mark.compiles
def test_a_function_that_raises_fails_the_call(kernel, softgpu):
    def broken():
        raise KeyError("gone")

    x = torch.randn(24, device=softgpu.device)
    warm(kernel, x)
    kernel.configure_dispatch(("x",), (), (True,), None, 8, None, (), (), ((broken, ""),))
    with pytest.raises(KeyError, match="gone"):
        kernel(x)


@pytest.mark.compiles
def test_a_function_may_reconfigure_while_it_is_asked(kernel, softgpu):
    x = torch.randn(24, device=softgpu.device)
    warm(kernel, x)

    def again():
        kernel.configure_dispatch(("x",), (), (True,), None, 8)
        return 1

    kernel.configure_dispatch(
        ("x", "y"), (), (True, True), None, 8, None, (), ((again, ""),), ((again, ""), (again, ""))
    )
    torch.testing.assert_close(kernel(x), x * FACTOR + SHIFT)


def test_cells_are_read(C, softgpu):
    cell = types.CellType(1)
    kernel = helion.kernel(moved)
    kernel.configure_dispatch(("x",), (), (True,), None, 8, None, (), ((cell, ""),))
    assert kernel.find_bound((torch.randn(2),)) is None
    del cell.cell_contents
    assert kernel.find_bound((torch.randn(2),)) is None
