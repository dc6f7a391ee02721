"""Calls inside ``torch.compile(fullgraph=True)``, on CPU tensors: one graph, and the results of eager mode."""

from __future__ import annotations

import dataclasses
import functools
import os
import random
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import pytest
import torch

import helion
import helion.language as hl
from helion import exc

pytestmark = pytest.mark.slow  # Dynamo traces its own way to each of them

SEED = int(os.environ.get("HELION_TEST_SEED", random.randrange(10**6)))
BLOCK = {"config": helion.Config(block_sizes=[16])}


class Pair(NamedTuple):
    tensor: torch.Tensor
    scale: float


@dataclasses.dataclass
class Record:
    tensor: torch.Tensor
    scale: float


@pytest.fixture(autouse=True)
def fresh(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    torch.manual_seed(SEED)
    print("seed", SEED)
    yield
    torch._dynamo.reset()


@pytest.fixture(params=["eager", "aot_eager"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def tensors_of(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def shown(value: Any) -> Any:
    """A result with its tensors' metadata in their places."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, tuple(value.shape), value.stride(), value.requires_grad)
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    return [type(value), *map(shown, value)] if isinstance(value, (list, tuple)) else value


def check(function: Callable[..., Any], *calls: tuple[Any, ...], backend: str = "aot_eager", **options: Any) -> None:
    """Compares a compiled function with itself uncompiled: results, what happens to the arguments, aliases."""
    compiled = torch.compile(function, fullgraph=True, backend=backend, **options)
    for args in calls:
        ours = torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.clone, args)
        expected, got = function(*args), compiled(*ours)
        assert shown(got) == shown(expected)
        for one, other in zip(tensors_of(got) + tensors_of(ours), tensors_of(expected) + tensors_of(args)):
            torch.testing.assert_close(one, other)
        for one, other in zip(tensors_of(got), tensors_of(expected)):
            shared = [one.untyped_storage().data_ptr() == arg.untyped_storage().data_ptr() for arg in tensors_of(ours)]
            assert shared == [
                other.untyped_storage().data_ptr() == arg.untyped_storage().data_ptr() for arg in tensors_of(args)
            ]


@helion.kernel(**BLOCK)
def add(x: torch.Tensor, y: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.numel()):
        out[tile] = x[tile] + y[tile] * alpha
    return out


@helion.kernel(**BLOCK)
def add_to(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    for tile in hl.tile(x.numel()):
        x[tile] = x[tile] + y[tile]
    return x


@helion.kernel(**BLOCK)
def add_to_and_return_nothing(x: torch.Tensor, y: torch.Tensor) -> None:
    for tile in hl.tile(x.numel()):
        x[tile] = x[tile] + y[tile]


@helion.kernel(**BLOCK)
def many_results(x: torch.Tensor, n: int, word: str) -> Any:
    out, both = torch.empty_like(x), torch.empty([2, x.size(0)])
    for tile in hl.tile(x.numel()):
        out[tile] = x[tile] * n
        both[0, tile] = x[tile]
        both[1, tile] = x[tile]
    return {"out": out, "more": (both[0], None, word, x.size(0), n)}, [x, both.view(-1)]


@helion.kernel(**BLOCK)
def by_mode(x: torch.Tensor, times: hl.constexpr, mode: str = "plus") -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.numel()):
        value = x[tile]
        for i in range(times):
            value = value + i
        if mode == "minus":
            value = -value
        out[tile] = value
    return out


@helion.kernel(**BLOCK)
def by_sign(x: torch.Tensor, a: float) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.numel()):
        if a > 0:
            out[tile] = x[tile] * a
        else:
            out[tile] = x[tile] - a
    return out


@helion.kernel(**BLOCK)
def of_containers(
    xs: list[torch.Tensor], weights: dict[str, torch.Tensor], extra: torch.Tensor | None = None
) -> torch.Tensor:
    out = torch.empty_like(xs[0])
    for tile in hl.tile(out.numel()):
        value = xs[0][tile] + xs[1][tile] * weights["w"][tile]
        if extra is not None:
            value = value + extra[tile]
        out[tile] = value
    return out


@helion.kernel(**BLOCK)
def of_record(x: torch.Tensor, record: Any) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.numel()):
        out[tile] = x[tile] * record.scale + record.tensor[tile]
    return out


@helion.kernel(**BLOCK)
def mapped(x: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    out = torch.empty_like(x)
    for tile in hl.tile(x.numel()):
        out[tile] = function(x[tile])
    return out


@helion.kernel(config=helion.Config(block_sizes=[16, 16]), static_shapes=False)
def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    m, k = a.shape
    k2, n = b.shape
    assert k == k2
    out = torch.empty([m, n], dtype=torch.promote_types(a.dtype, b.dtype), device=a.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k, block_size=16):
            acc = torch.addmm(acc, a[tile_m, tile_k], b[tile_k, tile_n])
        out[tile_m, tile_n] = acc.to(out.dtype)
    return out


def x64() -> torch.Tensor:
    return torch.randn(64)


def test_a_call_between_other_operations(backend: str) -> None:
    check(lambda x, y: add(x * 2, y).relu() + add(y=y, x=x, alpha=3.0), (x64(), x64()), backend=backend)


def test_inductor_compiles_a_call() -> None:
    check(lambda x, y: add(add_to(x * 2, y), y).relu(), (x64(), x64()), backend="inductor")


def test_noncontiguous_arguments_keep_their_strides(backend: str) -> None:
    check(lambda x: add(x[::2], x[1::2]), (x64(),), backend=backend)


def test_arguments_that_share_memory(backend: str) -> None:
    check(lambda x: add(x, x) + add(x, x[:]), (x64(),), backend=backend)


def test_argument_written_and_returned(backend: str) -> None:
    check(add_to, (x64(), x64()), backend=backend)


def test_argument_written_by_a_kernel_without_result(backend: str) -> None:
    check(lambda x, y: (add_to_and_return_nothing(x, y), x + 1), (x64(), x64()), backend=backend)


def test_intermediate_tensor_written(backend: str) -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> Any:
        z = x * 2
        w = add_to(z, y)
        return z + w, w

    check(function, (x64(), x64()), backend=backend)


def test_view_of_an_argument_written(backend: str) -> None:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        add_to_and_return_nothing(x.view(4, 16)[1], y[:16])
        return x * 1

    check(function, (x64(), x64()), backend=backend)


def test_one_part_of_a_tensor_written_from_another(backend: str) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        add_to_and_return_nothing(x[:32], x[32:])
        return x + 1

    check(function, (x64(),), backend=backend)


def test_kernel_that_reads_through_one_view_what_it_writes_through_another(backend: str) -> None:
    @helion.kernel(**BLOCK)
    def shift(x: torch.Tensor) -> torch.Tensor:
        flat = x.view(-1)
        out = torch.empty_like(flat)
        for tile in hl.tile(x.size(0)):
            x[tile] = x[tile] * 2
            out[tile] = flat[tile]
        return out

    check(lambda x: shift(x * 1), (x64(),), backend=backend)


def test_nested_results_with_none_words_numbers_sizes_and_arguments(backend: str) -> None:
    check(lambda x: many_results(x * 1.0, 3, "word"), (x64(),), backend=backend)


def test_constexpr_and_words(backend: str) -> None:
    check(lambda x: by_mode(x, 3) + by_mode(x, 4, mode="minus"), (x64(),), backend=backend)


def test_containers_and_optional_arguments(backend: str) -> None:
    check(
        lambda xs, weights: of_containers(xs, weights) + of_containers(xs, weights, xs[0]),
        ([x64(), x64()], {"w": x64()}),
        backend=backend,
    )


@pytest.mark.parametrize("cls", [Pair, Record])
def test_named_tuples_and_dataclasses(backend: str, cls: Any) -> None:
    check(lambda x, y: of_record(x, cls(y, 2.0)), (x64(), x64()), backend=backend)


def test_functions_as_arguments(backend: str) -> None:
    bias, factor = torch.randn(1), 2.5

    def scaled(value: torch.Tensor) -> torch.Tensor:
        return value * factor + bias[0]

    check(lambda x: mapped(x, scaled) + mapped(x, torch.relu) + mapped(x, lambda v: v * 2), (x64(),), backend=backend)


@pytest.mark.parametrize("dynamic", [None, True])
def test_numbers_change_from_call_to_call(backend: str, dynamic: bool | None) -> None:
    check(add, *[(x64(), x64(), value) for value in (2.0, 3.0, -4.5)], backend=backend, dynamic=dynamic)


@pytest.mark.parametrize("dynamic", [None, True])
def test_a_number_that_decides_is_asked_again_in_later_calls(backend: str, dynamic: bool | None) -> None:
    check(by_sign, *[(x64(), value) for value in (2.0, 3.0, -4.5, 5.5)], backend=backend, dynamic=dynamic)


@pytest.mark.parametrize("dynamic", [None, True])
def test_several_shapes(backend: str, dynamic: bool | None) -> None:
    calls = [(torch.randn(n), torch.randn(n)) for n in (64, 32, 17, 1, 64)]
    check(lambda x, y: add(x, y) + 1, *calls, backend=backend, dynamic=dynamic)


def test_dynamic_shapes_of_a_kernel_without_static_shapes_compile_twice() -> None:
    graphs = []

    def keep(graph: Any, example: Any) -> Any:
        graphs.append(graph)
        return graph

    compiled = torch.compile(lambda a, b: matmul(a, b) + 1, fullgraph=True, backend=keep)
    for m in (64, 32, 17, 5, 31, 40, 41, 42, 43, 44):
        a, b = torch.randn(m, 16), torch.randn(16, m + 3)
        torch.testing.assert_close(compiled(a, b), a @ b + 1)
    assert len(graphs) == 2


def test_inference_mode(backend: str) -> None:
    with torch.inference_mode():
        check(lambda x, y: add_to(x, y) * 2 + add(x, y), (x64(), x64()), backend=backend)


def test_result_of_parameters_has_no_gradient() -> None:
    weight = torch.nn.Parameter(x64())
    with pytest.warns(exc.RequiresGradWarning):
        check(lambda x: add(x, weight) * weight, (x64(),))


def test_ref_mode_is_compiled() -> None:
    doubled = helion.kernel(add.fn, ref_mode=helion.RefMode.EAGER, **BLOCK)
    check(lambda x, y: doubled(x, y), (x64(), x64()))


def test_fusion_asked_for_is_refused_in_the_compiled_call_and_eager_calls_work() -> None:
    fused = helion.kernel(add.fn, torch_compile_fusion=True, **BLOCK)
    x, y = x64(), x64()
    torch.testing.assert_close(fused(x, y), x + y)
    with pytest.raises(RuntimeError, match=r"torch_compile_fusion=True[\s\S]*nightly"):
        torch.compile(lambda x, y: fused(x, y), fullgraph=True, backend="eager")(x, y)


@pytest.mark.parametrize("arguments", [{"x": 1}, {"x": 1, "z": 2}, {"x": 1, "y": 2, "beta": 3}])
def test_wrong_keywords_are_a_type_error(arguments: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"missing 1 required|unexpected keyword|Observed exception"):
        torch.compile(lambda x: add(**dict.fromkeys(arguments, x)), fullgraph=True, backend="eager")(x64())


def test_fake_cpu_tensors_give_fake_results() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        x = mode.from_tensor(x64())
        assert add(x, x).shape == (64,) and add_to(x, x) is x


def test_fake_tensors_of_unknown_size_give_fake_results() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    kernel = helion.kernel(add.fn, config=helion.Config(block_sizes=[16]), static_shapes=False)
    with FakeTensorMode(shape_env=ShapeEnv()):
        size = torch.empty(5).nonzero().size(0)
        x = torch.empty(size)
        assert kernel(x, x).size(0) == size
        assert kernel.bind((x, x)) is kernel.bind((x, x))
    y = torch.randn(9)
    assert torch.equal(kernel(y, y), 2 * y)


def test_make_fx_of_a_call_with_cpu_tensors_runs_the_kernel() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    x, y = x64(), x64()
    graph = make_fx(lambda x, y: add(x, y) + 1)(x, y)
    torch.testing.assert_close(graph(y, x), x + y + 1)


def test_graph_is_told_apart_from_those_of_other_processes() -> None:
    from helion.runtime.launch import graph_launch

    compiled = torch.compile(lambda x, y: add(x, y), fullgraph=True, backend="eager")
    compiled(x64(), x64())
    assert all(name.endswith(graph_launch._process) for name in graph_launch._launches)


def test_a_number_that_host_code_reads_is_in_the_graph(backend: str) -> None:
    @helion.kernel(**BLOCK)
    def first(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        n = int(lengths.max().item())
        out = x.new_zeros([n])
        for tile in hl.tile(n):
            out[tile] = x[tile] * 2
        return out

    compiled = torch.compile(lambda x, lengths: first(x, lengths), fullgraph=True, backend=backend)
    for n in (7, 30, 64):
        x = x64()
        torch.testing.assert_close(compiled(x, torch.tensor([3, n])), x[:n] * 2)


def _plus(value: torch.Tensor, number: float = 1.0) -> torch.Tensor:
    return value + number


def _times(value: torch.Tensor, number: float) -> torch.Tensor:
    return value * number


HELPER: Callable[[torch.Tensor], torch.Tensor] = _plus


@pytest.mark.parametrize("place", ["module", "closure"])
def test_helpers_are_those_of_each_call(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    helper: Callable[[torch.Tensor], torch.Tensor] = _plus

    def closing(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.numel()):
            out[tile] = helper(x[tile])
        return out

    def reading(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.numel()):
            out[tile] = HELPER(x[tile])
        return out

    kernel = helion.kernel(reading if place == "module" else closing, **BLOCK)
    compiled = torch.compile(lambda x: kernel(x), fullgraph=True, backend="eager")
    partials = [functools.partial(function, number=3.0) for function in (_plus, _times)]
    for helper in [_plus, lambda value: value - 1, *partials, functools.partial(_times, number=4.0), torch.exp, _plus]:
        monkeypatch.setitem(globals(), "HELPER", helper)
        x = x64()
        torch.testing.assert_close(compiled(x), helper(x))
