"""Arguments that overlap in memory: another specialization, where the kernel stores to one and touches the other."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import helion
import helion.language as hl
from helion import _extension
from helion import exc
from helion.runtime.launch.overlaps import apart_text
from helion.runtime.launch.overlaps import overlaps

pytestmark = [
    pytest.mark.softgpu(capability=90, software_only=True),
    pytest.mark.usefixtures("softgpu"),
    pytest.mark.compiles,
]

N = 256


@pytest.fixture(params=["extension", "python"])
def kernel(request: pytest.FixtureRequest) -> Any:
    """Makes a kernel of a function whose calls take one of the two paths."""

    def make(fn: Any, **settings: Any) -> Any:
        made = helion.kernel(fn, **{"config": helion.Config(), **settings})
        if request.param == "extension":
            if _extension.C is None:
                pytest.skip("needs helion._C")
        elif _extension.C is not None:
            made.dispatch_enabled = False
        return made

    return make


def double_and_reverse(x, y):
    """Doubles the rows of x; the result is the rows of y, reversed, as they are then."""
    out = torch.empty_like(y)
    n = hl.specialize(y.size(1))
    for i in hl.grid(x.size(0)):
        x[i, :] = x[i, :] * 2
        out[i, :] = y[i, n - 1 - hl.arange(n)]
    return out


def shift(x, y):
    for t in hl.tile(y.size(0)):
        y[t] = x[t] + 1


def expected(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x.mul_(2)
    return y.flip(1)


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("first", ["apart", "the same"])
def test_one_tensor_given_twice_gets_barriers_of_its_own(kernel: Any, first: str, static: bool, seed: int) -> None:
    k = kernel(double_and_reverse, static_shapes=static)
    x, y = torch.randn(4, N), torch.randn(4, N)
    pairs = [(x, y), (x, x)] if first == "apart" else [(x, x), (x, y)]
    for _ in range(4):
        for a, b in pairs:
            copy = a.clone()
            want = expected(copy, copy if b is a else b)
            assert torch.equal(k(a, b), want)
            assert torch.equal(a, copy)
            a.copy_(torch.randn_like(a))
    assert "debug_barrier" not in k.bind((x, y)).to_triton_code()
    assert "debug_barrier" in k.bind((x, x)).to_triton_code()


@pytest.mark.parametrize("static", [True, False])
def test_view_of_another_argument_that_other_programs_store_is_an_error(kernel: Any, static: bool) -> None:
    k = kernel(shift, config=helion.Config(block_sizes=[64]), static_shapes=static)
    base = torch.randn(2 * N)
    x, y = base[:N], base[N:]
    for _ in range(4):  # views of one tensor that are apart are like any other
        k(x, y)
        assert torch.equal(y, x + 1)
    for _ in range(3):
        with pytest.raises(exc.LoopDependencyError, match="overlaps it in memory") as caught:
            k(base[:N], base[1 : N + 1])
        assert "x.clone()" in str(caught.value)
    for _ in range(2):  # in place is no hazard
        before = x.clone()
        k(x, x)
        assert torch.equal(x, before + 1)
        k(x, y)
        assert torch.equal(y, x + 1)


def test_views_between_each_others_rows_are_apart(kernel: Any, seed: int) -> None:
    def swap(q, k):
        for t in hl.tile(q.size(0)):
            left, right = q[t, :], k[t, :]
            q[t, :] = right
            k[t, :] = left

    run = kernel(swap, config=helion.Config(block_sizes=[2]))
    both = torch.randn(8, 64)
    want = both.roll(32, 1)
    for _ in range(3):
        for _ in range(2):
            run(both[:, :32], both[:, 32:])
        assert torch.equal(both, want.roll(32, 1))
        run(both[:, :32], both[:, 32:])
        assert torch.equal(both, want)
        run(both[:, 32:], both[:, :32])


def test_storages_that_show_one_memory_overlap(kernel: Any) -> None:
    """As those of tensors made by DLPack or `from_numpy`, which PyTorch takes for different ones."""
    k = kernel(shift, config=helion.Config(block_sizes=[64]))
    array = torch.arange(2 * N, dtype=torch.float32).numpy()
    x, y = torch.from_numpy(array), torch.from_numpy(array)
    k(torch.zeros(N), torch.zeros(N))
    with pytest.raises(exc.LoopDependencyError):
        k(x[:N], y[8 : N + 8])


@pytest.mark.filterwarnings("error:Accessing the data pointer of FakeTensor")
def test_of_tensors_without_memory_those_of_one_storage_overlap(kernel: Any) -> None:
    """As a FakeTensorMode has them, whose addresses are all 0: `apart` has the offset and the sizes of the others."""

    def step(x, y, apart):
        """Tiles read rows of `apart` that other tiles would write, were it the memory of x."""
        for i in hl.grid(x.size(0)):
            x[i, :] = y[i, :] + apart[x.size(0) - 1 - i, :]
        return x

    with FakeTensorMode():
        x, apart = torch.empty(8, 16), torch.empty(8, 16)
        assert kernel(step)(x, x.view(8, 16), apart) is x
        with pytest.raises(exc.LoopDependencyError, match=r"apart.* is read and x.* stored"):
            kernel(step)(x, apart, x.view(8, 16))


def test_tensors_of_a_list_and_of_closures_are_asked_too(kernel: Any) -> None:
    def rows(outs, x):
        for t in hl.tile(x.size(0)):
            outs[0][t] = x[t]
            outs[1][t] = x[t] + 1

    k = kernel(rows, config=helion.Config(block_sizes=[64]))
    base, x = torch.zeros(2 * N), torch.randn(N)
    for _ in range(4):
        k([base[:N], base[N:]], x)
        assert torch.equal(base, torch.cat([x, x + 1]))
    with pytest.raises(exc.LoopDependencyError):
        k([base[:N], base[4 : N + 4]], x)
    with pytest.raises(exc.LoopDependencyError):
        k([base[:N], base[N:]], base[4 : N + 4])

    def with_function(out, f):
        for t in hl.tile(out.size(0)):
            out[t] = f(t)

    def reader(tensor: torch.Tensor) -> Any:
        return lambda t: tensor[t] * 2

    k = kernel(with_function, config=helion.Config(block_sizes=[64]))
    out = torch.zeros(2 * N)
    k(out[:N], reader(x))
    assert torch.equal(out[:N], x * 2)
    with pytest.raises(exc.LoopDependencyError):
        k(out[:N], reader(out[4 : N + 4]))


def test_a_kernel_whose_stores_meet_no_other_argument_asks_nothing(kernel: Any) -> None:
    def add(x, y):
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t] + y[t]
        return out

    k = kernel(add, config=helion.Config(block_sizes=[64]))
    x = torch.randn(N)
    k(x, x[:])
    assert not k.specializer.assumed_apart


@pytest.mark.usefixtures("seed")
def test_calls_of_both_kinds_in_several_threads(kernel: Any) -> None:
    k = kernel(double_and_reverse)
    wrong = []

    def call(same: bool) -> None:
        for _ in range(20):
            x = torch.randn(2, 32)
            y = x if same else torch.randn(2, 32)
            copy = x.clone()
            if not torch.equal(k(x, y), expected(copy, copy if same else y)):
                wrong.append(same)

    threads = [threading.Thread(target=call, args=(i % 2 == 0,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_how_two_tensors_lie() -> None:
    base = torch.zeros(8, 8)
    pair = frozenset({(0, 1)})
    assert overlaps((base, base), pair) == ((0, 0, 1, 0, None),)
    assert overlaps((base, base.T), pair) == ((0, 0, 1, 0, 0),) == overlaps((base, base.view(-1)), pair)
    assert overlaps((base[1:], base[:-1]), pair) == ((0, 0, 1, 0, -32),)
    for a, b in ((base[:4], base[4:]), (base[:, ::2], base[:, 1::2]), (base[:0], base), (base, torch.zeros(8, 8))):
        assert overlaps((a, b), pair) == ()


@pytest.mark.parametrize("seed", range(20))
def test_tensors_that_two_numbers_tell_apart_do_not_overlap(seed: int) -> None:
    """The expression is made for one pair of tensors, and asked of others of the same shapes at other places."""
    draw = random.Random(seed)
    memory = torch.zeros(256)

    def view(shape: tuple[int, int], stride: tuple[int, int]) -> torch.Tensor:
        return memory.as_strided(shape, stride, draw.randrange(128))

    layouts = [((draw.randrange(4), draw.randrange(1, 5)), (draw.choice([5, 16]), draw.choice([1, 2]))) for _ in "ab"]
    told = 0
    for _ in range(200):
        text = apart_text([view(*layout) for layout in layouts], {0: "a", 1: "b"}, {(0, 1)})
        a, b = (view(*layout) for layout in layouts)
        if text is not None and eval(text, {"a": a, "b": b}):
            told += 1
            assert not overlaps([a, b], {(0, 1)}), (text, a.data_ptr() - b.data_ptr(), layouts)
    assert told


def test_what_two_numbers_cannot_tell_has_no_expression() -> None:
    x, y = torch.zeros(8), torch.zeros(8)
    names = {0: "a", 1: "b"}
    assert apart_text([x, x], names, {(0, 1)}) is None
    assert apart_text([x, x[4:]], names, {(0, 1)}) is None
    assert apart_text([x, [y]], {0: "a"}, {(0, 1)}) is None
    assert apart_text([x, y], names, {(0, 0)}) == "True"
