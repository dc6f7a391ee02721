"""From a call's arguments to the function that runs it: front, table, Kernel; and calls that something watches."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref

import pytest
import torch
import torch.utils._triton
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from helion import exc
from helion.runtime import launch_stats
from helion.runtime import reset_launch_stats
from helion.runtime import stats as stats_module
from helion.runtime.launch import dispatch

from .hand_written import HandWrittenKernel
from .hand_written import pair

pytestmark = pytest.mark.compiles


class Plain(torch.Tensor):
    pass


# -- finding the function
# -----------------------------------------------------------------------------------------------


def test_a_second_call_does_not_build_a_key(gpu, monkeypatch):
    add = HandWrittenKernel()
    x, y = pair()
    add(x, y)
    monkeypatch.setattr(add.specializer, "key", None)
    assert add(x, y).shape == x.shape


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: (x[:512], y),
        lambda x, y: (x.half(), y),
        lambda x, y: (x, torch.ones(2048)[::2]),
        lambda x, y: (x.view(8, 128), y),
    ],
    ids=["size", "dtype", "stride", "rank"],
)
def test_calls_of_another_kind_bind_anew(gpu, change):
    add = HandWrittenKernel()
    x, y = pair()
    for _ in range(2):
        add(x, y)
        add(*change(x, y))
    assert add.bound_count == 2


def test_keywords_and_defaults_find_the_same_function(gpu):
    def fn(x, y, scale=1.0):
        pass

    add = HandWrittenKernel(fn)
    x, y = pair()
    add(x, y)
    add(x, y, 2.0)
    add(x=x, y=y)
    add(y=y, x=x, scale=3.0)
    assert add.bound_count == 1
    with pytest.raises(TypeError, match="scale"):
        add(x, y, 1.0, scale=2.0)
    with pytest.raises(TypeError):
        add(x)


def test_scalars_in_the_front_count_as_in_the_key(gpu):
    def fn(x, y, n, flag: hl.constexpr = 0):  # noqa: F821
        pass

    add = HandWrittenKernel(fn)
    x, y = pair()
    for args in [(1,), (2,), (1.0,), (None,), (True,), (False,), ("a",), ("b",), (1, 5), (1, 6)] * 3:
        add(x, y, *args)
    assert add.bound_count == 9


def test_key_function_is_asked_on_every_call(gpu):
    add = HandWrittenKernel(key=lambda x, y: bool(x[0] > 0))
    x, y = pair()
    add(x, y)
    add(x, y)
    add(-x, y)
    assert add.bound_count == 2


def test_more_shapes_than_the_front_holds(gpu):
    add = HandWrittenKernel()
    pairs = [pair(128 * n) for n in range(1, 2 * dispatch._FRONT_SIZE)]
    for _ in range(5):
        for x, y in pairs:
            assert add(x, y).shape == x.shape
    assert add.bound_count == len(pairs) and len(add._front) == dispatch._FRONT_SIZE
    grids = [launch.grid[0] for launch in gpu.launches]
    assert grids == [x.numel() // 128 for x, _ in pairs] * 5


def test_table_is_bounded_and_an_evicted_entry_is_found_again(gpu):
    add = HandWrittenKernel()
    add._max_entries = 4
    pairs = [pair(128 * n) for n in range(1, 11)]
    for _ in range(2):
        for x, y in pairs:
            add(x, y)
    assert len(add._table) == 4 and add.bound_count == len(pairs)


def test_dynamic_shapes_share_a_function_and_marked_ones_do_not(gpu):
    add = HandWrittenKernel(static_shapes=False)
    for n in (1024, 2048, 4096, 1024):
        assert add(*pair(n)).numel() == n
    assert add.bound_count == 1
    marked = torch.ones(1024)
    torch._dynamo.mark_static(marked, 0)
    for _ in range(2):
        add(marked, torch.ones(1024))
        add(*pair(1024))
    assert add.bound_count == 2


def test_inference_mode_and_autocast_use_the_same_function(gpu):
    add = HandWrittenKernel()
    x, y = pair()
    for _ in range(3):
        add(x, y)
        with torch.inference_mode():
            add(x, y)
            add(*pair())
        with torch.autocast("cpu"):
            add(x, y)
    assert add.bound_count == 1
    assert add.stats.snapshot().layers == {"default_launcher": 1, "fast_launcher": 11}


def test_tensors_are_not_kept_alive(gpu):
    add = HandWrittenKernel()
    x, y = pair()
    add(x, y)
    add(x, y)
    alive = weakref.ref(x)
    del x
    gc.collect()
    assert alive() is None


# -- change while calls are under way
# -----------------------------------------------------------------------------------


def test_every_call_runs_the_old_or_the_new_binary_in_full(gpu):
    add = HandWrittenKernel()
    x, y = pair()
    stop = threading.Event()
    errors = []

    def work():
        try:
            while not stop.is_set():
                add(x, y)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for warps in (8, 4, 2, 4, 8) * 4:
        add.set_warps(warps)
        before = len(gpu.launches)
        add(x, y)
        assert gpu.launches[before:]
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    add(x, y)
    assert gpu.launches[-1].num_warps == 8


def test_a_function_found_before_a_change_is_not_remembered_after_it(gpu):
    add = HandWrittenKernel()
    x, y = pair()
    original = add._runner

    def slow_runner(args):
        run = original(args)
        add._runner = original
        add.set_warps(8)  # another thread, while this one was binding
        return run

    add._runner = slow_runner
    add(x, y)
    add(x, y)
    assert [launch.num_warps for launch in gpu.launches] == [4, 8]


# -- gradients
# ----------------------------------------------------------------------------------------------------------


def test_requires_grad_warns_once_and_names_the_way_out(gpu):
    add = HandWrittenKernel()
    x, y = pair()
    weight = torch.nn.Parameter(y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad():
            add(x, weight)
            add(x, weight)
    with pytest.warns(exc.RequiresGradWarning, match="torch.autograd.Function"):
        out = add(x, weight)
    assert not out.requires_grad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add(x, weight)
        add(x, weight)


def test_no_warning_inside_an_autograd_function(gpu):
    add = HandWrittenKernel()

    class Add(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            return add(x, y)

        @staticmethod
        def backward(ctx, grad):
            return grad, grad

    x, y = (t.requires_grad_() for t in pair())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Add.apply(x, y).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


# -- guards 2 and 3: types and modes
# ------------------------------------------------------------------------------------


def test_subclass_shares_the_bound_kernel(gpu):
    add = HandWrittenKernel()
    x, y = pair()
    add(x, y)
    add(x.as_subclass(Plain), y)
    assert add.bound_count == 1 and len(gpu.launches) == 2


def test_negated_tensor_is_refused_after_a_plain_one(gpu):
    add = HandWrittenKernel()
    x, y = pair()
    add(x, y)
    add(x, y)
    with pytest.raises(exc.InvalidAPIUsage, match="resolve_neg"):
        add(torch._neg_view(x), y)


def test_wrapper_subclass_is_refused(gpu):
    from torch.testing._internal.two_tensor import TwoTensor

    x, y = pair()
    with pytest.raises(exc.InvalidAPIUsage, match="TwoTensor"):
        HandWrittenKernel()(TwoTensor(x, y), y)


@pytest.mark.parametrize(
    "transform", [torch.func.vmap, lambda f: torch.func.grad(lambda a: f(a).sum())], ids=["vmap", "grad"]
)
def test_torch_func_transform_is_refused(gpu, transform):
    add = HandWrittenKernel()
    x, y = pair()
    add(x, y)
    add(x, y)
    argument = torch.ones(3, 1024) if transform is torch.func.vmap else x
    with pytest.raises(exc.InvalidAPIUsage, match=r"torch\.autograd\.Function"):
        transform(lambda a: add(a, y))(argument)


def test_plain_tensors_inside_a_transform_are_an_ordinary_call(gpu):
    add = HandWrittenKernel()
    x, y = pair()
    torch.func.vmap(lambda a: a + add(x, y)[0])(torch.ones(3))
    assert len(gpu.launches) == 1


def test_observing_mode_sees_the_host_code_and_the_kernel_runs(gpu):
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    add = HandWrittenKernel()
    x, y = pair()
    add(x, y)
    add(x, y)
    with Watch():
        add(x, y)
    assert any("empty_like" in name for name in seen) and len(gpu.launches) == 3


def test_pair_made_under_one_mode_does_not_answer_under_another(gpu):
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    add = HandWrittenKernel()
    x, y = pair()
    with Watch():
        add(x, y)
        add(x, y)
    assert add._front == ()


def test_fake_tensors_give_fake_results_and_nothing_runs(gpu):
    add = HandWrittenKernel()
    x, y = pair()
    add(x, y)
    with FakeTensorMode() as mode:
        out = add(mode.from_tensor(x), mode.from_tensor(y))
    assert isinstance(out, torch._subclasses.FakeTensor) and out.shape == x.shape
    assert len(gpu.launches) == 1 and add.bound_count == 1
    assert add.stats.snapshot().layers["traced"] == 1


def test_make_fx_records_the_launch(gpu):
    from torch.fx.experimental.proxy_tensor import make_fx

    add = HandWrittenKernel()
    graph = make_fx(lambda x, y: add(x, y) + 1, tracing_mode="fake")(*pair())
    assert "triton_kernel_wrapper_mutation" in graph.code
    launched = len(gpu.launches)
    graph(*pair())
    assert len(gpu.launches) == launched + 1


# -- torch.compile
# ------------------------------------------------------------------------------------------------------


@pytest.fixture
def dynamo(monkeypatch):
    # PyTorch asks whether a device is there before it looks for Triton kernels in the code it traces.
    monkeypatch.setattr(torch.utils._triton, "has_triton", lambda: True)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_function_holds_the_launch_without_a_graph_break(gpu, dynamo, backend, dynamic):
    add = HandWrittenKernel()
    graphs = []

    def keep(graph, example):
        graphs.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, example)

    compiled = torch.compile(lambda a, b: add(a * 2, b) + 1, backend=keep, fullgraph=True, dynamic=dynamic)
    for n in (1024, 1024, 2048):
        assert compiled(*pair(n)).shape == (n,)
    assert [launch.grid[0] for launch in gpu.launches] == [8, 8, 16]
    assert all("triton_kernel_wrapper_mutation" in graph.code for graph in graphs)


def test_compiled_call_with_keywords_and_defaults(gpu, dynamo):
    def fn(x, y, scale=1.0, mode="sum"):
        pass

    add = HandWrittenKernel(fn)
    compiled = torch.compile(lambda a, b: add(a, y=b, mode="mean"), backend="eager", fullgraph=True)
    assert compiled(*pair()).shape == (1024,)
    assert len(gpu.launches) == 1


def test_compiled_call_that_requires_grad_warns(gpu, dynamo):
    add = HandWrittenKernel()
    x, y = pair()
    compiled = torch.compile(lambda a, b: add(a, b), backend="aot_eager", fullgraph=True)
    with pytest.warns(exc.RequiresGradWarning):
        compiled(x.requires_grad_(), y)


# -- statistics
# ---------------------------------------------------------------------------------------------------------


def test_launch_stats_names_layers_and_reasons(gpu):
    gc.collect()
    add, other = HandWrittenKernel(), HandWrittenKernel()
    x, y = pair()
    for _ in range(5):
        add(x, y)
    other(x, y)
    found = launch_stats()
    mine = [found[name] for name in found if found[name].layers in ({"default_launcher": 1, "fast_launcher": 4},)]
    assert len(mine) == 1 and mine[0].launches == 5 and mine[0].reasons == {"first call": 1}
    assert len([name for name in found if name.partition("#")[0] == "add"]) >= 2


def test_launch_stats_start_at_zero_after_a_reset(gpu):
    gc.collect()
    add = HandWrittenKernel()
    x, y = pair()
    add(x, y)
    reset_launch_stats()
    add(x, y)
    mine = [row for row in launch_stats().values() if row.layers]
    assert [row.layers for row in mine] == [{"fast_launcher": 1}]
    assert mine[0].reasons == {}


def test_a_kernel_keeps_its_name_when_others_of_its_name_end(gpu):
    name = "a name of its own"
    first, second, third = (stats_module.KernelStats(name) for _ in range(3))
    for _ in range(5):
        first.counter("plan").hit()
    second.counter("plan").hit()
    before = launch_stats()
    assert [label for label in before if label.startswith(name)] == [name, f"{name}#2", f"{name}#3"]
    del first
    gc.collect()
    second.counter("plan").hit()
    after = launch_stats()
    assert after[f"{name}#2"].launches - before[f"{name}#2"].launches == 1
    assert name not in after and f"{name}#3" in after
    later = stats_module.KernelStats(name)
    assert later.label == name and third.label == f"{name}#3"


def test_counters_lose_nothing_between_threads():
    counter = stats_module.Counter()

    def work():
        for _ in range(20000):
            counter.hit()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.value == 160000 == counter.value
