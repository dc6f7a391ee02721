"""Whole kernels through the Python launch path: front end, Triton code and launches, on the recording driver."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
import torch.utils._triton

import helion
import helion.language as hl
from helion import exc
from helion.runtime import launch_stats
from helion.runtime import measure as measure_module
from helion.runtime import no_compile

pytestmark = pytest.mark.compiles


def python_path(kernel):
    """Keep the calls of ``kernel`` out of the extension."""
    kernel.dispatch_enabled = False
    return kernel


def make_add(**settings):
    @helion.kernel(config=helion.Config(block_sizes=[128]), **settings)
    def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + y[tile]
        return out

    return python_path(add)


def make_scale():
    @helion.kernel(config=helion.Config(block_sizes=[128]))
    def scale(x: torch.Tensor, factor: float = 2.0) -> torch.Tensor:
        for tile in hl.tile(x.size(0)):
            x[tile] = x[tile] * factor
        return x

    return python_path(scale)


def layers(kernel):
    return kernel.stats.snapshot().layers


def pair(n=1024):
    return torch.ones(n), torch.ones(n)


def test_second_call_takes_the_fast_launcher(gpu):
    add = make_add()
    x, y = pair()
    add(x, y)
    out = add(x, y)
    assert layers(add) == {"default_launcher": 1, "fast_launcher": 1}
    assert gpu.launches[1].pointers == (x.data_ptr(), y.data_ptr(), out.data_ptr())
    assert gpu.launches[1].grid == (8, 1, 1)


def test_one_tensor_passed_twice_stays_two_parameters(gpu):
    add = make_add()
    x, y = pair()
    add(x, x)
    out = add(x, y)
    assert gpu.launches[1].pointers == (x.data_ptr(), y.data_ptr(), out.data_ptr())


def test_one_tensor_passed_twice_stays_two_parameters_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))
    add = make_add()
    x, y = pair()
    torch.testing.assert_close(add(x, x), x + x)
    torch.testing.assert_close(add(x, 2 * y), x + 2 * y)
    assert layers(add) == {"tile_executor": 2}


def with_bias(bias):
    def epilogue(value, tile):
        return value + bias[tile]

    return epilogue


@helion.kernel(config=helion.Config(block_sizes=[128]))
def mapped(x: torch.Tensor, first: Callable[..., torch.Tensor], second: Callable[..., torch.Tensor]) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        out[tile] = second(2 * first(x[tile], tile), tile)
    return out


def test_captured_tensor_that_is_also_an_argument_is_another_in_the_next_call(tmp_path, monkeypatch):
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))
    mapped.reset()
    x, a, b = torch.randn(300), torch.randn(300), torch.randn(300)
    bound = mapped.bind((x, with_bias(x), with_bias(x)))
    for first, second in [(x, x), (x, a), (a, x), (a, b), (b, b)]:
        expected = 2 * (x + first) + second
        torch.testing.assert_close(mapped(x, with_bias(first), with_bias(second)), expected)
        assert mapped.bind((x, with_bias(first), with_bias(second))) is bound


def test_two_functions_that_share_a_cell_and_one_that_calls_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))
    mapped.reset()

    def pair_of(bias):
        def outer(value, tile):
            return inner(value, tile) + bias[tile] if bias is not None else outer(value, tile)

        def inner(value, tile):
            return value * bias[tile]

        return outer, inner

    x, a, b = torch.randn(300), torch.randn(300), torch.randn(300)
    (outer_a, inner_a), (_, inner_b) = pair_of(a), pair_of(b)
    torch.testing.assert_close(mapped(x, outer_a, inner_a), 2 * (x * a + a) * a)
    torch.testing.assert_close(mapped(x, outer_a, inner_b), 2 * (x * a + a) * b)


def test_in_place_kernel_with_a_scalar_and_a_default(gpu):
    scale = make_scale()
    x, _ = pair()
    assert scale(x) is x and scale(x, 3.0) is x and scale(x, factor=4.0) is x
    assert [launch.scalars for launch in gpu.launches] == [(2.0,), (3.0,), (4.0,)]
    assert layers(scale) == {"default_launcher": 1, "fast_launcher": 2}


def test_ref_mode_calls_are_counted(gpu):
    add = make_add(ref_mode=helion.RefMode.EAGER)
    x, y = pair()
    torch.testing.assert_close(add(x, y), x + y)
    assert layers(add) == {"ref_mode": 1} and gpu.launches == []


def test_launch_stats_use_the_qualified_name(gpu):
    add = make_add()
    add(*pair())
    names = [name for name in launch_stats() if name.partition("#")[0].endswith("make_add.<locals>.add")]
    assert any("test_kernel_calls" in name for name in names), list(launch_stats())


# -- set_config, reset, override
# ----------------------------------------------------------------------------------------


def test_set_config_takes_effect_at_the_next_call(gpu):
    add = make_add()
    x, y = pair()
    add(x, y)
    add(x, y)
    add.bind((x, y)).set_config(helion.Config(block_sizes=[256], num_warps=8))
    add(x, y)
    add(x, y)
    assert [(launch.grid[0], launch.num_warps) for launch in gpu.launches] == [(8, 4), (8, 4), (4, 8), (4, 8)]


def test_set_config_back_finds_the_compiled_function(gpu):
    add = make_add()
    x, y = pair()
    add(x, y)
    bound = add.bind((x, y))
    for size in (256, 128, 256):
        bound.set_config(helion.Config(block_sizes=[size]))
        add(x, y)
    assert gpu.loads == 2


def test_reset_compiles_anew(gpu):
    add = make_add()
    x, y = pair()
    add(x, y)
    first = add.bind((x, y))
    add.reset()
    add(x, y)
    assert add.bind((x, y)) is not first


def test_explicit_launcher_of_a_compiled_config(gpu):
    add = make_add()
    x, y = pair()
    add(x, y)
    seen = []
    run = add.bind((x, y)).compile_config(helion.Config(block_sizes=[64], num_warps=2))
    run(x, y, _launcher=lambda kernel, grid, *args, num_warps, num_stages: seen.append((grid, len(args), num_warps)))
    assert seen == [((16,), 3, 2)] and len(gpu.launches) == 1


def test_eight_threads_call_while_another_resets_and_reconfigures(gpu):
    add = make_add()
    x, y = pair()
    add(x, y)
    stop = threading.Event()
    errors = []

    def work():
        try:
            while not stop.is_set():
                assert add(x, y).shape == x.shape
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for i in range(10):
        if i % 3 == 2:
            add.reset()
        else:
            add.bind((x, y)).set_config(helion.Config(block_sizes=[(128, 256)[i % 2]], num_warps=(4, 8)[i % 2]))
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    # Each launch is one binary with its own grid, never a mixture.
    assert {(launch.grid[0], launch.num_warps) for launch in gpu.launches} <= {(8, 4), (4, 8)}


# -- guards 16, 17, no_compile
# ------------------------------------------------------------------------------------------


def test_measuring_counts_every_bind_hits_included(gpu, monkeypatch):
    monkeypatch.setattr(measure_module, "enabled", True)
    measure_module.reset()
    add = make_add()
    x, y = pair()
    for _ in range(5):
        add(x, y)
    assert measure_module.results()["Kernel.bind"].count == 5
    assert "Kernel.bind" in measure_module.report()
    measure_module.reset()


def test_measuring_is_off_by_default(gpu):
    measure_module.reset()
    add = make_add()
    add(*pair())
    add(*pair())
    assert measure_module.results() == {}


def test_no_compile_forbids_a_new_specialization_and_allows_known_ones(gpu):
    add = make_add()
    x, y = pair()
    add(x, y)
    with no_compile():
        add(x, y)
        with pytest.raises(exc.CompilationForbidden, match=r"'add'.*compile a specialization.*torch.float32"):
            add(*pair(2048))
        with pytest.raises(exc.CompilationForbidden):
            add.bind((x, y)).set_config(helion.Config(block_sizes=[64]))
    add(*pair(2048))


# -- dynamic shapes, hl.specialize, constexpr
# ---------------------------------------------------------------------------


def test_dynamic_shapes_share_one_binary(gpu):
    add = make_add(static_shapes=False)
    for n in (1024, 2048, 512, 1024):
        assert add(*pair(n)).numel() == n
    assert [launch.grid[0] for launch in gpu.launches] == [8, 16, 4, 8]
    assert len({launch.function for launch in gpu.launches}) == 1


def test_specialized_size_gets_its_own_binary(gpu):
    @python_path
    @helion.kernel(config=helion.Config(block_sizes=[4]), static_shapes=False)
    def row_sums(x: torch.Tensor) -> torch.Tensor:
        m, n = x.size()
        n = hl.specialize(n)
        out = torch.empty([m], dtype=x.dtype, device=x.device)
        for tile in hl.tile(m):
            out[tile] = x[tile, :].sum(-1)
        return out

    # Sizes that Triton puts into one bucket.
    for m, n in [(8, 64), (20, 64), (8, 32), (12, 64), (8, 32)]:
        row_sums(torch.ones(m, n))
    functions = [launch.function for launch in gpu.launches]
    assert functions[0] == functions[1] == functions[3] != functions[2] == functions[4]


def test_constexpr_value_gets_its_own_binary(gpu):
    @python_path
    @helion.kernel(config=helion.Config(block_sizes=[128]))
    def add_n(x: torch.Tensor, n: hl.constexpr) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] + n
        return out

    x, _ = pair()
    for n in (3, 4, 3):
        add_n(x, n)
    functions = [launch.function for launch in gpu.launches]
    assert functions[0] == functions[2] != functions[1]
    assert all(launch.scalars == () for launch in gpu.launches)


# -- torch.compile and fake tensors
# -------------------------------------------------------------------------------------


@pytest.fixture
def dynamo(monkeypatch):
    monkeypatch.setattr(torch.utils._triton, "has_triton", lambda: True)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_function_holds_the_launch(gpu, dynamo, backend):
    add = make_add()
    compiled = torch.compile(lambda x, y: add(x * 2, y).relu(), backend=backend, fullgraph=True)
    for n in (1024, 1024, 2048):
        assert compiled(*pair(n)).shape == (n,)
    assert [launch.grid[0] for launch in gpu.launches] == [8, 8, 16]


def test_compiled_function_that_mutates_its_argument(gpu, dynamo):
    scale = make_scale()
    compiled = torch.compile(lambda x: scale(x) + 1, backend="aot_eager", fullgraph=True)
    x, _ = pair()
    assert compiled(x).shape == x.shape
    assert len(gpu.launches) == 1


@pytest.mark.parametrize("options", [{"maxnreg": 64, "pid_type": "persistent_blocked"}, {"barrier": True}], ids=str)
def test_launch_with_options_that_pytorch_does_not_know_is_in_the_graph(gpu, dynamo, options):
    def two_phases(x):
        between, out = torch.empty_like(x), torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            between[tile] = x[tile] * 2
        hl.barrier()
        for tile in hl.tile(x.size(0)):
            out[tile] = between[tile] + 1
        return out

    def one_phase(x):
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * 2
        return out

    barrier = options == {"barrier": True}
    config = helion.Config() if barrier else helion.Config(**options)
    kernel = helion.kernel(two_phases if barrier else one_phase, config=config)
    compiled = torch.compile(lambda x: kernel(x * 2) + 1, backend="aot_eager", fullgraph=True)
    compiled(pair()[0])
    (launch,) = gpu.launches
    assert launch.cooperative is barrier


def test_two_kernels_in_one_compiled_function(gpu, dynamo):
    add, scale = make_add(), make_scale()
    compiled = torch.compile(lambda x, y: scale(add(x, y), 3.0) + add(y, x), backend="eager", fullgraph=True)
    assert compiled(*pair()).shape == (1024,)
    assert len(gpu.launches) == 3


def test_kernel_bound_by_a_compiled_function_serves_plain_calls(gpu, dynamo):
    add = make_add()
    torch.compile(lambda x, y: add(x, y), backend="eager", fullgraph=True)(*pair())
    bound = add.bind(pair())
    add(*pair())
    assert add.bind(pair()) is bound and len(gpu.launches) == 2


def test_compiled_function_on_the_tile_executor_is_one_graph_and_right(tmp_path, monkeypatch):
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    add = make_add()
    for backend in ("eager", "aot_eager"):
        x, y = torch.randn(1000), torch.randn(1000)
        compiled = torch.compile(lambda x, y: add(x * 2, y) + 1, backend=backend, fullgraph=True)
        torch.testing.assert_close(compiled(x, y), x * 2 + y + 1)
    torch._dynamo.reset()


@pytest.mark.parametrize("static", [True, False])
def test_fake_tensors_give_a_fake_result(gpu, static):
    from torch._subclasses.fake_tensor import FakeTensorMode

    add = make_add(static_shapes=static)
    with FakeTensorMode() as mode:
        out = add(*[mode.from_tensor(t) for t in pair()])
    assert out.shape == (1024,) and gpu.launches == []
    add(*pair())
    assert len(gpu.launches) == 1


@pytest.mark.parametrize("strict", [False, True])
def test_export_holds_the_launch(gpu, dynamo, strict):
    add = make_add()

    class Model(torch.nn.Module):
        def forward(self, x, y):
            return add(x * 2, y).relu()

    program = torch.export.export(Model(), pair(), strict=strict)
    assert "triton_kernel_wrapper_mutation" in str(program.graph)
    assert gpu.launches == []
    assert program.module()(*pair()).shape == (1024,)
    assert len(gpu.launches) == 1


@pytest.mark.parametrize("strict", [False, True])
def test_export_of_a_kernel_that_mutates_its_argument(gpu, dynamo, strict):
    scale = make_scale()

    class Model(torch.nn.Module):
        def forward(self, x):
            y = x * 2
            return scale(y) + y

    program = torch.export.export(Model(), pair()[:1], strict=strict)
    assert "triton_kernel_wrapper_mutation" in str(program.graph) and gpu.launches == []
    assert program.module()(pair()[0]).shape == (1024,)
    assert len(gpu.launches) == 1


def test_fake_tensor_that_a_kernel_mutates(gpu):
    from torch._subclasses.fake_tensor import FakeTensorMode

    scale = make_scale()
    with FakeTensorMode() as mode:
        x = mode.from_tensor(pair()[0])
        assert scale(x) is x
    assert gpu.launches == []


def test_make_fx_of_a_kernel_that_mutates_its_argument(gpu, dynamo):
    from torch.fx.experimental.proxy_tensor import make_fx

    scale = make_scale()
    graph = make_fx(lambda x: scale(x * 2))(pair()[0])
    assert "triton_kernel_wrapper_mutation" in graph.code or "triton_kernel_wrapper_mutation" in str(graph.graph)


def test_make_fx_of_a_launch_with_options_that_pytorch_does_not_know(gpu, dynamo):
    from torch.fx.experimental.proxy_tensor import make_fx

    scale = make_scale()
    limited = python_path(
        helion.kernel(scale.fn, config=helion.Config(block_sizes=[128], maxnreg=64, pid_type="persistent_blocked"))
    )
    graph = make_fx(lambda x: limited(x * 2))(pair()[0])
    assert "helion.launch" in graph.code
    traced = len(gpu.launches)  # make_fx runs operators on the values that it is given
    graph(pair()[0])
    assert len(gpu.launches) == traced + 1


def test_first_call_under_an_observing_mode_compiles_out_of_its_sight(gpu):
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    add = make_add()
    with Watch():
        add(*pair())
    assert [name for name in seen if "ones" not in name] == ["aten.empty_like.default"] and len(gpu.launches) == 1


@pytest.mark.parametrize(
    ("warm", "trace", "name"),
    [
        (0, lambda f, x: torch.jit.trace(f, (x,)), "jit.trace"),
        (4, lambda f, x: torch.jit.trace(f, (x,)), "jit.trace"),
        (0, lambda f, x: torch.fx.symbolic_trace(f), "symbolic_trace"),
    ],
    ids=["jit", "jit, steady state", "fx"],
)
def test_tracers_that_cannot_record_a_launch_are_refused(warm, trace, name, seed):
    @helion.kernel(config=helion.Config(block_sizes=[16]))
    def double(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = x[tile] * 2
        return out

    x = torch.randn(40)
    for _ in range(warm):
        double(x)
    with pytest.raises(exc.InvalidAPIUsage, match=f"{name}.*\n.*torch.export"):
        trace(lambda a: double(a), x)
    assert torch.equal(double(x), 2 * x)
