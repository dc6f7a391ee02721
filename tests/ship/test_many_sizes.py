"""A kernel that is compiled again and again for another size: the warning, and `static_shapes="auto"`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pytest
import torch

import helion
import helion.language as hl
from helion import _extension
from helion import exc
from helion.runtime.launch.sizes import SizeCounter
from helion.runtime.launch.sizes import varying
from tests import softgpu as gpu


def make(**settings) -> helion.Kernel:
    @helion.kernel(config=helion.Config(block_sizes=[32]), **settings)
    def copy(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile]
        return out

    return copy


def warned(kernel: helion.Kernel, count: int, device: torch.device) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for n in range(count):
            kernel.bind((torch.empty(40 + n, device=device),))
    return [str(w.message) for w in found if isinstance(w.message, exc.ManySizes)]


@pytest.mark.softgpu(capability=90)
def test_the_eighth_size_of_a_dimension_is_named_and_no_later_one(softgpu) -> None:
    kernel = make()
    assert warned(kernel, 7, softgpu.device) == []
    (message,) = warned(kernel, 12, softgpu.device)
    assert "8 sizes of dimension 0 of 'x' (40, 41, 42" in message and "static_shapes=False`" in message


@pytest.mark.softgpu(capability=90)
def test_the_advice_works(softgpu) -> None:
    kernel = make(static_shapes=False)
    assert warned(kernel, 12, softgpu.device) == []
    assert sum(map(len, kernel._bound.values())) == 1


@pytest.mark.softgpu(capability=90)
def test_it_can_be_left_out(softgpu) -> None:
    assert warned(make(ignore_warnings=[exc.ManySizes]), 12, softgpu.device) == []


def test_the_same_sizes_again_and_dimensions_that_stay_do_not_count() -> None:
    counter = SizeCounter(("x", "ys"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(40):
            counter.add("k", (torch.empty(n % 7, 5), [torch.empty(3)]), ())


def test_tensors_in_lists_are_named_by_their_place() -> None:
    counter = SizeCounter(("x", "ys"))
    with pytest.warns(exc.ManySizes, match=r"dimension 1 of 'ys\[1\]'"):
        for n in range(8):
            counter.add("k", (torch.empty(5), [torch.empty(3), torch.empty(2, n)]), ())


# -- static_shapes="auto" ----------------------------------------------------------------------------------------------


def make_softmax(**settings) -> helion.Kernel:
    @helion.kernel(config=helion.Config(block_sizes=[4]), static_shapes="auto", **settings)
    def softmax(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile, :] = torch.softmax(x[tile, :] + bias[:], dim=-1)
        return out

    return softmax


def traces(kernel: helion.Kernel, sizes: Sequence[tuple[int, int]], times: int = 3) -> int:
    """How often calls with these sizes trace; results are checked."""
    heard: list[str] = []
    remove = helion.runtime.add_event_hook(lambda event: heard.append(event.name))
    try:
        for n, m in sizes:
            for _ in range(times):
                x, bias = torch.randn(n, m), torch.randn(m)
                torch.testing.assert_close(kernel(x, bias), torch.softmax(x + bias, -1))
    finally:
        remove()
    return heard.count("trace")


@pytest.fixture(params=["GPU", "CPU", "Python path"])
def mode(request, monkeypatch):
    """Where calls run."""
    if request.param != "CPU":
        gpu.install(90)
    yield request.param
    gpu.uninstall()


@pytest.mark.compiles
@pytest.mark.skipif(torch.cuda.is_available(), reason="the software GPU is installed by hand")
def test_the_eighth_size_and_all_later_ones_share_a_kernel(mode, seed) -> None:
    kernel = make_softmax()
    if mode == "Python path" and _extension.C is not None:
        kernel.dispatch_enabled = False
    with warnings.catch_warnings():
        warnings.simplefilter("error", exc.ManySizes)
        assert traces(kernel, [(n, 8) for n in range(2, 9)]) == 7
        assert traces(kernel, [(n, 8) for n in range(9, 30)]) == 1
    assert traces(kernel, [(2, 8), (100, 8)]) == 0, "sizes of before share it too"
    assert traces(kernel, [(1, 8), (0, 8), (1, 8)]) == 2, "1 and 0 are kernels of their own"
    assert traces(kernel, [(50, 16), (51, 16)]) == 1, "the other dimension is a constant"


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90, software_only=True)
@pytest.mark.skipif(_extension.C is None, reason="plans are the extension's")
def test_calls_of_a_dynamic_dimension_are_plans_in_c(softgpu, seed) -> None:
    kernel = make_softmax()
    traces(kernel, [(n, 8) for n in range(2, 12)])
    before = kernel.stats.snapshot().layers.get("plan", 0)
    assert traces(kernel, [(n, 8) for n in range(20, 24)], times=5) == 0
    assert kernel.stats.snapshot().layers["plan"] - before == 4 * 3
    assert gpu.faults() == []


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90, software_only=True)
def test_a_bound_kernel_of_before_serves_the_sizes_that_come_later(softgpu, seed) -> None:
    kernel = make_softmax()
    bound = kernel.bind((torch.ones(2, 8), torch.ones(8)))
    traces(kernel, [(n, 8) for n in range(2, 12)], times=1)
    for n in (2, 30):
        x, bias = torch.randn(n, 8), torch.randn(8)
        torch.testing.assert_close(bound(x, bias), torch.softmax(x + bias, -1))


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90, software_only=True)
def test_layouts_that_later_sizes_come_in_are_right(softgpu, seed) -> None:
    kernel = make_softmax()
    traces(kernel, [(9, m) for m in range(2, 12)], times=1)
    for m in range(20, 26):
        padded, transposed, expanded = (
            torch.randn(9, m + 3)[:, :m],
            torch.randn(m, 9).t(),
            torch.randn(1, m).expand(9, m),
        )
        for x in (torch.randn(9, m), padded, transposed, expanded):
            bias = torch.randn(2 * m)[::2]
            torch.testing.assert_close(kernel(x, bias), torch.softmax(x + bias, -1))
    assert gpu.faults() == []


def test_strides_that_a_dynamic_size_decides_are_left_open_and_no_others() -> None:
    x = torch.empty(4, 5, 6)
    assert varying(x, frozenset({0})) == (frozenset({0}), frozenset())
    assert varying(x, frozenset({2})) == (frozenset({2}), frozenset({0, 1}))
    assert varying(x.transpose(0, 1), frozenset({2})) == (frozenset({2}), frozenset({0, 1}))
    assert varying(x[:, :, :1], frozenset({2})) == (frozenset(), frozenset()), "a size of 1 is a constant"
    assert varying(x, frozenset({0, 3}), frozenset({0})) == (frozenset(), frozenset()), "one that was marked static too"


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90, software_only=True)
def test_a_stride_that_is_constant_in_the_trace_by_chance_is_a_guard(softgpu, seed) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[2, 4]), static_shapes="auto")
    def copy(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty(x.size(), dtype=x.dtype, device=x.device)
        for a, b in hl.tile([x.size(0), x.size(1)]):
            out[a, b] = x[a, b]
        return out

    memory = torch.randn(10_000)
    for m in range(2, 12):
        copy(memory.as_strided((4, m), (16, 1)))
    for m, stride in ((16, 16), (5, 16), (5, 32), (7, 7), (16, 17), (4, 4)):
        x = memory.as_strided((4, m), (stride, 1))
        assert torch.equal(copy(x), x), (m, stride)


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90, software_only=True)
def test_a_kernel_whose_config_somebody_set_stays_static_and_warns(softgpu) -> None:
    kernel = make_softmax()
    for n in range(2, 9):
        kernel.bind((torch.ones(n, 8), torch.ones(8)))
    kernel.bind((torch.ones(2, 8), torch.ones(8))).set_config(helion.Config(block_sizes=[2]))
    with pytest.warns(exc.ManySizes):
        assert traces(kernel, [(n, 8) for n in range(9, 20)], times=1) == 11


def test_under_torch_compile_it_is_right(seed) -> None:
    kernel = make_softmax()
    compiled = torch.compile(lambda x, bias: kernel(x, bias) * 2, backend="eager")
    for n in range(2, 6):
        x, bias = torch.randn(n, 8), torch.randn(8)
        torch.testing.assert_close(compiled(x, bias), 2 * torch.softmax(x + bias, -1))


def test_in_ref_mode_it_is_right(seed) -> None:
    kernel = make_softmax(ref_mode=helion.RefMode.EAGER)
    for n in range(2, 12):
        x, bias = torch.randn(n, 8), torch.randn(8)
        torch.testing.assert_close(kernel(x, bias), torch.softmax(x + bias, -1))


def test_the_setting_takes_a_bool_or_auto(monkeypatch) -> None:
    assert helion.Settings(static_shapes="auto").static_shapes == "auto"
    monkeypatch.setenv("HELION_STATIC_SHAPES", "auto")
    assert helion.Settings().static_shapes == "auto"
    monkeypatch.setenv("HELION_STATIC_SHAPES", "0")
    assert helion.Settings().static_shapes is False
    with pytest.raises(exc.InvalidAPIUsage, match="or auto"):
        helion.Settings(static_shapes="sometimes")


def sum_of_rows(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for rows in hl.tile(x.size(0)):
        out[rows, :] = x[rows, :] + y[:]
    return out


def test_sizes_that_a_kernel_needs_as_constants_stay_constants(caplog) -> None:
    """It was an error from the eighth size on, long after the tests."""

    @helion.kernel(config=helion.Config(block_sizes=[4]), static_shapes="auto")
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for rows in hl.tile(x.size(0)):
            out[rows, :] = torch.sort(x[rows, :], dim=1).values
        return out

    for columns in range(3, 15):
        x = torch.randn(5, columns)
        assert torch.equal(kernel(x), x.sort(1).values)
    assert caplog.text.count("its sizes stay constants") == 1
    with pytest.raises(exc.ShapeMismatch):  # an error of the kernel itself stays what it is
        broken = helion.kernel(sum_of_rows, static_shapes="auto", config=helion.Config(block_sizes=[4]))
        for columns in range(3, 15):
            broken(torch.randn(5, columns), torch.randn(columns if columns < 9 else 2))
