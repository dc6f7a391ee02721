"""Tensors and numbers that a kernel reads from outside its function: anew at each call, whatever path that takes."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

pytestmark = pytest.mark.slow

#: What the kernels below read. Tests replace it with `monkeypatch`.
SCALE = 1.5
COUNT = 3
MODE = "plain"
SHIFTS = (1.0, 2.0)
BIAS = torch.linspace(-1, 1, 24)
PAIR = [torch.ones(24), torch.arange(24.0)]
OPTIONS: dict[str, Any] = {"gain": 2.0, "act": torch.sigmoid}


class Layer:
    """An object of the module that holds a number and a tensor."""

    def __init__(self) -> None:
        self.gain = 3.0
        self.weight = torch.linspace(0, 2, 24)

    def apply(self, value: torch.Tensor) -> torch.Tensor:
        return value * self.gain


LAYER = Layer()
HERE = types.ModuleType("a_module_of_the_user")
HERE.offset = 4.0  # type: ignore[attr-defined]


def scaled(value: torch.Tensor) -> torch.Tensor:
    return value * SCALE


def reads_all(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        value = scaled(x[tile]) + BIAS[tile] + PAIR[1][tile] * SHIFTS[1]
        for i in range(COUNT):
            value = value + i
        if MODE == "double":
            value = value * 2
        value = LAYER.apply(value) + LAYER.weight[tile]
        out[tile] = value * OPTIONS["gain"] + HERE.offset  # type: ignore[attr-defined]
    return out


def expected(x: torch.Tensor) -> torch.Tensor:
    value = x.double() * SCALE + BIAS.double() + PAIR[1].double() * SHIFTS[1] + sum(range(COUNT))
    if MODE == "double":
        value = value * 2
    return (value * LAYER.gain + LAYER.weight.double()) * OPTIONS["gain"] + HERE.offset  # type: ignore[attr-defined]


def changes(patch: pytest.MonkeyPatch, device: torch.device | str = "cpu") -> list[Callable[[], Any]]:
    """Each gives one thing outside another value."""
    here = globals()

    def new(size: int = 24) -> torch.Tensor:
        return torch.randn(size, device=device)

    return [
        lambda: patch.setitem(here, "SCALE", -0.5),
        lambda: patch.setitem(here, "SCALE", 2),
        lambda: patch.setitem(here, "COUNT", 5),
        lambda: patch.setitem(here, "MODE", "double"),
        lambda: patch.setitem(here, "SHIFTS", (1.0, 7.0)),
        lambda: patch.setitem(here, "BIAS", new()),
        lambda: patch.setitem(here, "BIAS", new(48)[::2]),
        lambda: patch.setitem(here, "BIAS", new().double()),
        lambda: PAIR.__setitem__(1, new()),
        lambda: patch.setitem(OPTIONS, "gain", 5.0),
        lambda: patch.setattr(LAYER, "gain", -1.0),
        lambda: patch.setattr(LAYER, "weight", new()),
        lambda: patch.setattr(HERE, "offset", 0.25),
        lambda: BIAS.fill_(2.0),
    ]


@pytest.mark.softgpu(capability=90)
def test_a_plan_is_for_the_numbers_that_it_was_recorded_with(softgpu: Any, patch: pytest.MonkeyPatch) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[8]))
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = scaled(x[tile])
        return out

    x = torch.randn(24, device=softgpu.device)
    for scale in (1.5, -2.0, 1.5, 2, 2.0):
        patch.setitem(globals(), "SCALE", scale)
        for _ in range(3):
            assert torch.equal(kernel(x), x * scale)
    hits = getattr(kernel, "plan_hits", None)
    with helion.runtime.no_compile():
        for scale in (-2.0, 1.5, 2):
            patch.setitem(globals(), "SCALE", scale)
            assert torch.equal(kernel(x), x * scale)
    assert hits is None or kernel.plan_hits == hits + 3


def check_after_each_change(kernel: helion.Kernel, x: torch.Tensor, patch: pytest.MonkeyPatch) -> None:
    torch.testing.assert_close(kernel(x).double(), expected(x), rtol=1e-5, atol=1e-4)
    for number, change in enumerate(changes(patch, x.device)):
        change()
        for _ in range(3):  # found, recorded, and served as a plan where there are any
            torch.testing.assert_close(kernel(x).double(), expected(x), rtol=1e-5, atol=1e-4, msg=f"change {number}")


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Everything outside is as above again after a test."""
    monkeypatch.setitem(globals(), "BIAS", BIAS.clone())
    monkeypatch.setitem(globals(), "PAIR", list(PAIR))
    return monkeypatch


def test_what_is_read_from_outside_is_right_in_every_mode() -> None:
    run_everywhere(reads_all, (torch.randn(24),), expected, configs=[{"block_sizes": [8]}], capabilities=[90])


def test_each_call_of_the_tile_executor_reads_it_anew(patch: pytest.MonkeyPatch) -> None:
    check_after_each_change(helion.kernel(reads_all), torch.randn(24), patch)


def test_each_call_in_ref_mode_reads_it_anew(patch: pytest.MonkeyPatch) -> None:
    check_after_each_change(helion.kernel(reads_all, ref_mode=helion.RefMode.EAGER), torch.randn(24), patch)


def test_each_call_under_dynamic_shapes_reads_it_anew(patch: pytest.MonkeyPatch) -> None:
    check_after_each_change(helion.kernel(reads_all, static_shapes=False), torch.randn(24), patch)


@pytest.mark.softgpu(capability=90)
def test_each_call_on_a_gpu_reads_it_anew(softgpu: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(globals(), "BIAS", BIAS.to(softgpu.device))
    patch.setitem(globals(), "PAIR", [t.to(softgpu.device) for t in PAIR])
    patch.setattr(LAYER, "weight", LAYER.weight.to(softgpu.device))
    kernel = helion.kernel(reads_all, config=helion.Config(block_sizes=[8]))
    check_after_each_change(kernel, torch.randn(24, device=softgpu.device), patch)


def test_a_compiled_function_reads_it_anew(patch: pytest.MonkeyPatch) -> None:
    kernel = helion.kernel(reads_all)
    compiled = torch.compile(lambda x: kernel(x) + 1, fullgraph=True, backend="aot_eager")
    x = torch.randn(24)
    torch._dynamo.reset()
    torch.testing.assert_close(compiled(x).double(), expected(x) + 1, rtol=1e-5, atol=1e-4)
    for number in (0, 2, 3, 4, 5, 10, 11):
        changes(patch)[number]()
        torch.testing.assert_close(compiled(x).double(), expected(x) + 1, rtol=1e-5, atol=1e-4, msg=f"change {number}")


def test_variables_of_the_enclosing_function_are_read_anew() -> None:
    factor, bias = 2.0, torch.randn(20)

    @helion.kernel
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * factor + bias[tile]
        return out

    x = torch.randn(20)
    first = bias
    for factor, bias in [(2.0, first), (3.0, torch.randn(20)), (2.0, first)]:
        for _ in range(3):
            assert torch.allclose(kernel(x), x * factor + bias)


def test_numbers_that_a_function_argument_reads_are_read_anew(patch: pytest.MonkeyPatch) -> None:
    @helion.kernel
    def kernel(x: torch.Tensor, epilogue: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = epilogue(x[tile])
        return out

    x = torch.randn(20)
    for scale in (1.5, 4.0, 1.5):
        patch.setitem(globals(), "SCALE", scale)
        for _ in range(3):
            assert torch.allclose(kernel(x, scaled), x * scale)


def test_a_tensor_may_come_and_go(patch: pytest.MonkeyPatch) -> None:
    @helion.kernel
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            value = x[tile]
            if BIAS is not None:
                value = value + BIAS[tile]
            out[tile] = value
        return out

    x = torch.randn(24)
    for bias in (None, torch.randn(24), None, torch.randn(24)):
        patch.setitem(globals(), "BIAS", bias)
        for _ in range(3):
            assert torch.allclose(kernel(x), x if bias is None else x + bias)


def test_host_code_reads_tensors_from_outside(patch: pytest.MonkeyPatch) -> None:
    @helion.kernel
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty([BIAS.size(0)], dtype=x.dtype, device=x.device)
        doubled = BIAS * 2
        for tile in hl.tile(out.size(0)):
            out[tile] = doubled[tile] + x[0]
        return out

    x = torch.randn(1)
    for size in (24, 7, 24):
        patch.setitem(globals(), "BIAS", torch.randn(size))
        assert torch.allclose(kernel(x), BIAS * 2 + x)


def test_a_kernel_may_write_to_a_tensor_from_outside(patch: pytest.MonkeyPatch) -> None:
    @helion.kernel
    def kernel(x: torch.Tensor) -> None:
        for tile in hl.tile(x.size(0)):
            BIAS[tile] = BIAS[tile] + x[tile]

    patch.setitem(globals(), "BIAS", torch.zeros(24))
    x, version = torch.randn(24), BIAS._version
    kernel(x)
    kernel(x)
    assert torch.allclose(BIAS, 2 * x) and BIAS._version > version


def test_an_argument_that_is_the_tensor_outside(patch: pytest.MonkeyPatch) -> None:
    @helion.kernel
    def kernel(x: torch.Tensor) -> torch.Tensor:
        for tile in hl.tile(x.size(0)):
            x[tile] = x[tile] + BIAS[tile]
        return x

    patch.setitem(globals(), "BIAS", torch.randn(24))
    given = BIAS.clone()
    assert torch.allclose(kernel(BIAS), given * 2)
    x = torch.randn(24)
    want = x + BIAS
    assert torch.allclose(kernel(x), want)


def test_callers_cannot_give_what_comes_from_outside() -> None:
    kernel = helion.kernel(reads_all)
    x = torch.randn(24)
    kernel(x)
    with pytest.raises(TypeError, match="takes 1 positional argument but 2 were given"):
        kernel(x, BIAS)
    with pytest.raises(TypeError, match="unexpected keyword argument 'BIAS'"):
        kernel(x, BIAS=BIAS)


@pytest.mark.softgpu(capability=90)
def test_code_of_a_config_refuses_another_number(softgpu: Any, patch: pytest.MonkeyPatch) -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * SCALE
        return out

    for device in {"cpu", str(softgpu.device)}:
        x = torch.randn(24, device=device)
        run = helion.kernel(kernel).bind((x,)).compile_config({"block_sizes": [8]})
        assert torch.allclose(run(x), x * SCALE)
        patch.setitem(globals(), "SCALE", SCALE + 1)
        with pytest.raises(exc.InvalidAPIUsage, match="numbers that were compiled in"):
            run(x)


def test_a_tensor_under_a_computed_name_is_refused() -> None:
    @helion.kernel
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        weight = getattr(LAYER, "weigh" + "t")
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + weight[tile]
        return out

    with pytest.raises(exc.InvalidAPIUsage, match="from outside its function"):
        kernel(torch.randn(24))


def test_a_bundle_has_no_kernel_that_reads_tensors_from_outside(tmp_path: Any) -> None:
    kernel = helion.kernel(reads_all, config=helion.Config(block_sizes=[8]))
    with pytest.raises(exc.BaseError, match="it reads tensors from outside itself"):
        helion.bundle(kernel, [(torch.randn(24),)], tmp_path / "one.hlb", capabilities=[90])


TRAINING: dict[str, Any] = {"step": 0, "gain": 2.0, "decay": [0.5, 0.25]}


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90)
@pytest.mark.parametrize("in_device_code", [True, False], ids=["device", "host"])
def test_an_item_that_nothing_reads_may_change_without_a_compile(softgpu, patch, in_device_code, seed) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[8]))
    def on_device(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * TRAINING["gain"] + TRAINING["decay"][1]
        return out

    @helion.kernel(config=helion.Config(block_sizes=[8]))
    def on_host(x: torch.Tensor) -> torch.Tensor:
        gain = TRAINING["gain"] if "gain" in TRAINING else 1.0  # noqa: SIM401
        decay = TRAINING["decay"][1]
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * gain + decay
        return out

    kernel, x = on_device if in_device_code else on_host, torch.randn(24, device=softgpu.device)
    patch.setitem(globals(), "TRAINING", {**TRAINING, "decay": list(TRAINING["decay"])})
    assert torch.equal(kernel(x), x * 2.0 + 0.25)
    if in_device_code:
        with helion.runtime.no_compile():
            for step in range(4):
                TRAINING["step"], TRAINING["decay"][0] = step, float(step)
                assert torch.equal(kernel(x), x * 2.0 + 0.25)
    TRAINING["gain"], TRAINING["decay"][1] = 4.0, 1.0
    assert torch.equal(kernel(x), x * 4.0 + 1.0)
    del TRAINING["gain"]
    if in_device_code:
        with pytest.raises(exc.BaseError, match="KeyError: 'gain'"):
            kernel(x)
    else:
        assert torch.equal(kernel(x), x + 1.0)
    TRAINING["gain"] = 8.0
    for _ in range(4):
        assert torch.equal(kernel(x), x * 8.0 + 1.0)


STATE: dict[str, Any] = {"weight": torch.ones(24), "step": 0}


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90)
def test_a_tensor_beside_a_counter_is_an_argument_of_a_plan(softgpu, patch, seed) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[8]))
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * STATE["weight"][tile]
        return out

    x = torch.randn(24, device=softgpu.device)
    for step in range(6):
        patch.setitem(STATE, "step", step)
        patch.setitem(STATE, "weight", torch.randn(24, device=softgpu.device))
        assert torch.equal(kernel(x), x * STATE["weight"])
    assert getattr(kernel, "plan_hits", 3) == 3, kernel.stats.snapshot()


ARRAY = numpy.array([1.0, 2.0])
CHOSEN = {1, 2}


def test_arrays_of_numpy_and_sets_are_read_anew(patch: pytest.MonkeyPatch) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[8]))
    def kernel(x: torch.Tensor) -> torch.Tensor:
        scale, count = float(ARRAY[0]), len(CHOSEN)
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * scale + count
        return out

    patch.setitem(globals(), "ARRAY", ARRAY.copy())
    patch.setitem(globals(), "CHOSEN", set(CHOSEN))
    x = torch.ones(20)
    for scale, count in ((1.0, 2), (9.0, 2), (9.0, 3), (1.0, 3)):
        ARRAY[0] = scale
        CHOSEN.update(range(1, count + 1))
        for _ in range(3):
            assert torch.equal(kernel(x), x * scale + count)


def test_calls_that_read_arrays_and_sets_are_plans(softgpu, patch: pytest.MonkeyPatch) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[8]))
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * (2 if 1 in CHOSEN else 3) + len(CHOSEN)
        return out

    x = torch.ones(20, device=softgpu.device)
    for chosen, expected in (({1, 2}, 4), ({2}, 4), ({1}, 3)):
        patch.setitem(globals(), "CHOSEN", chosen)
        for _ in range(4):
            assert torch.equal(kernel(x), torch.full_like(x, expected))
    assert getattr(kernel, "plan_hits", 3) >= 3, kernel.stats.snapshot()


TABLE: dict[Any, Any] = {1: 2.0, 5: 3.0, (24, 5): 7.0, "sizes": [4, 5]}
ROW = (1.0, 2.0, 3.0)


def looked_up() -> float:
    return TABLE[1]  # type: ignore[no-any-return]


def item(x: torch.Tensor, n: int) -> Any:
    return TABLE[n]


def get(x: torch.Tensor, n: int) -> Any:
    return TABLE.get(n, n + 1.0)


def pair(x: torch.Tensor, n: int) -> Any:
    return TABLE.get((x.size(0), n), 0.5)


def contained(x: torch.Tensor, n: int) -> Any:
    return 2.0 if n in TABLE else 3.0


def in_a_set(x: torch.Tensor, n: int) -> Any:
    return 2.0 if n not in {5, n + 1} else 3.0


def made_here(x: torch.Tensor, n: int) -> Any:
    return {n: 3.0, n + 1: 4.0}[n]


def of_a_float(x: torch.Tensor, n: int) -> Any:
    return {2.5: 1.0, 3.0: 2.0}.get(n * 0.5, 9.0)


def computed(x: torch.Tensor, n: int) -> Any:
    return ROW[n // 2]


def nested(x: torch.Tensor, n: int) -> Any:
    return TABLE["sizes"][-1] + len(TABLE)


def in_a_helper(x: torch.Tensor, n: int) -> Any:
    return looked_up() + sum(ROW)


LOOKUPS = [item, get, pair, contained, in_a_set, made_here, of_a_float, computed, nested, in_a_helper]


@pytest.mark.parametrize("look", LOOKUPS)
def test_host_code_looks_numbers_up(softgpu, patch: pytest.MonkeyPatch, look: Callable[..., Any]) -> None:
    @helion.kernel(config=helion.Config(block_sizes=[8]))
    def kernel(x: torch.Tensor, n: int) -> torch.Tensor:
        factor = look(x, n)
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * factor
        return out

    x = torch.ones(24, device=softgpu.device)
    patch.setitem(globals(), "TABLE", {**TABLE, "sizes": [4, 5]})
    for _ in range(2):
        for n in (1, 5, 1):
            for _ in range(3):
                assert torch.equal(kernel(x, n), x * look(x, n))
        assert getattr(kernel, "plan_hits", 1) > 0, kernel.stats.snapshot()
        # In place: the same object, which only a comparison of what is in it tells from before.
        TABLE.update({1: -1.0, 5: 8.0, 7: 1.0, (24, 5): 0.25})
        TABLE["sizes"].append(11)


def test_a_table_that_host_code_returns_is_the_table() -> None:
    @helion.kernel(config=helion.Config(block_sizes=[8]))
    def kernel(x: torch.Tensor) -> tuple[torch.Tensor, Any, Any]:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * ROW[1]
        return out, TABLE["sizes"], ROW

    for _ in range(4):
        out, sizes, row = kernel(torch.ones(8))
        assert out[0] == 2.0 and sizes is TABLE["sizes"] and row is ROW


class Layer:
    def __init__(self, scale: float) -> None:
        self.scale = scale


LAYERS = [Layer(1.0), Layer(2.0)]


def times_layers(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] * len(LAYERS)
    return out


def test_how_many_objects_a_list_holds() -> None:
    """Their number stayed that of the first call."""
    kernel = helion.kernel(times_layers)
    x = torch.ones(3)
    for count in (2, 3, 1, 2):
        LAYERS[:] = [Layer(1.0) for _ in range(count)]
        assert torch.equal(kernel(x), x * count)


EPSILON, KIND = 0.25, torch.float64


def with_defaults(x: torch.Tensor, eps: float = EPSILON, dtype: torch.dtype = KIND) -> torch.Tensor:
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    for tile in hl.tile(x.size(0)):
        out[tile] = x[tile].to(dtype) + eps
    return out


def test_defaults_are_what_they_were_when_the_function_was_defined(patch: pytest.MonkeyPatch) -> None:
    """Tuning such a kernel of a script failed: what goes to a worker by value has no names of its defaults."""
    x = torch.randn(9)
    patch.setitem(globals(), "EPSILON", 7.0)
    run_everywhere(with_defaults, (x,), lambda x: x.double() + 0.25, configs=[{}], reference_args=(x,))
    code = with_defaults.__code__
    alone = types.FunctionType(code, {"torch": torch, "hl": hl}, code.co_name, with_defaults.__defaults__)
    kernel = helion.kernel(alone, config=helion.Config())
    assert "eps=0.25, dtype=None" in kernel.bind((x,)).to_triton_code()
    torch.testing.assert_close(kernel(x), x.double() + 0.25)
