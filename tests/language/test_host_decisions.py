"""Host code that decides on what a tensor holds: each way it goes is a variant of the kernel, found at each call."""

from __future__ import annotations

import sys
import threading
import types

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.settings import RefMode
from tests.support import run_everywhere


def unless_empty(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    if m.sum().item() == 0:
        return out
    for t in hl.tile(x.size(0)):
        out[t] = x[t] * 2
    return out


def expected_unless_empty(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    return x * 2 if m.sum() != 0 else torch.zeros_like(x)


@pytest.mark.parametrize("static", [True, False])
def test_early_return_on_what_a_tensor_holds(static: bool) -> None:
    kernel = helion.kernel(unless_empty, static_shapes=static)
    x = torch.randn(40)
    for count in (2, 0, 1, 0, 0, 3):
        m = torch.full((2,), count)
        run_everywhere(kernel, (x, m), expected_unless_empty, configs=[{"block_sizes": [16]}], capabilities=[90])
        assert torch.equal(kernel(x, m), expected_unless_empty(x, m))


def test_calls_that_decide_alike_share_a_variant() -> None:
    kernel = helion.kernel(unless_empty, config=helion.Config(block_sizes=[16]))
    x, some, none = torch.randn(40), torch.ones(2), torch.zeros(2)
    first, second = kernel.bind((x, some)), kernel.bind((x, none))
    assert first is not second
    for _ in range(2):
        assert kernel.bind((x + 1, some * 3)) is first
        assert kernel.bind((x, none)) is second


def longest(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    n = int(lengths.max())
    out = x.new_zeros([x.size(0)])
    if n > 8:
        for tm in hl.tile(x.size(0)):
            acc = hl.zeros([tm], dtype=torch.float32)
            for tn in hl.tile(n):
                acc += torch.where(tn.index[None, :] < lengths[tm][:, None], x[tm, tn], 0.0).sum(1)
            out[tm] = acc
    elif n > 0:
        for tm in hl.tile(x.size(0)):
            part = x[tm, 0:8]
            out[tm] = torch.where(hl.arange(8)[None, :] < lengths[tm][:, None], part, 0.0).sum(1)
    return out


def expected_longest(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.arange(x.size(1)) < lengths[:, None], x, 0.0).sum(1)


@pytest.mark.parametrize("lengths", [[3, 20, 9], [3, 8, 0], [0, 0, 0]])
def test_each_way_has_loops_of_its_own(lengths: list[int]) -> None:
    run_everywhere(longest, (torch.randn(3, 20), torch.tensor(lengths)), expected_longest, capabilities=[90])


def first_set(x: torch.Tensor, flags: torch.Tensor) -> torch.Tensor:
    i = 0
    while i < flags.size(0) and not flags[i].item():
        i += 1
    out = torch.zeros_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t] + i
    return out


def test_a_loop_runs_as_often_as_the_tensor_says() -> None:
    kernel = helion.kernel(first_set)
    x = torch.randn(20)
    for place in (2, 0, 3, 2, 4):
        flags = torch.arange(4) >= place
        run_everywhere(first_set, (x, flags), lambda x, f, place=place: x + place, capabilities=[90])
        assert torch.equal(kernel(x, flags), x + place)


def counted_up(x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    n = 0
    while counts[0] > n:
        n = n + 1
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        acc = x[t]
        for _ in hl.grid(n):
            acc = acc * 2
        out[t] = acc
    return out


def counted_up_as_advised(x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    n = int(counts[0])
    out = torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        acc = x[t]
        for i in hl.grid(n):
            acc = acc * 2
        out[t] = acc
    return out


def test_a_loop_that_counts_does_not_make_kernels_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["helion.kernel"], "_MOST_DECISIONS", 4)
    kernel, advised, x = helion.kernel(counted_up), helion.kernel(counted_up_as_advised), torch.randn(5)
    for n in range(4):
        assert torch.equal(kernel(x, torch.tensor([n])), x * 2**n)
    with pytest.raises(exc.HostTensorRead, match="4 different ways") as error:
        kernel(x, torch.tensor([4]))
    assert torch.equal(kernel(x, torch.tensor([2])), x * 4)
    assert all(text in str(error.value) for text in ("`n = int(counts[0])`", "`for i in hl.grid(n)`"))
    for n in range(7):
        assert torch.equal(advised(x, torch.tensor([n])), x * 2**n)


def test_a_choice_among_tensors() -> None:
    def larger(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        source = x if x.sum() > y.sum() else y.flip(0)
        negative = bool((source < 0).any())
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = source[t] * (2 if negative else 1)
        return out

    def expected(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        source = x if x.sum() > y.sum() else y.flip(0)
        return source * (2 if bool((source < 0).any()) else 1)

    x = torch.rand(20)
    for args in ((x, x - 1), (x - 1, x), (x - 2, x - 3)):
        run_everywhere(larger, args, expected, capabilities=[90])


def checked(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    assert index.max() < x.size(0), "index too large"
    if (index < 0).any():
        raise ValueError("negative index")
    out = torch.empty([index.size(0)], dtype=x.dtype, device=x.device)
    for t in hl.tile(index.size(0)):
        out[t] = x[index[t]]
    return out


def test_checks_of_what_a_tensor_holds_are_made_at_each_call() -> None:
    kernel = helion.kernel(checked)
    x, index = torch.randn(10), torch.tensor([3, 9, 0])
    run_everywhere(checked, (x, index), lambda x, i: x[i], capabilities=[90])
    for _ in range(2):
        assert torch.equal(kernel(x, index), x[index])
        with pytest.raises(AssertionError, match="index too large"):
            kernel(x, index + 1)
        with pytest.raises(ValueError, match="negative index"):
            kernel(x, index - 1)


def test_tensors_that_host_code_has_made_may_be_written_before() -> None:
    def counted(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        counts = torch.zeros([4], dtype=torch.int64, device=x.device)
        counts.scatter_add_(0, index, torch.ones_like(index))
        out = torch.empty_like(x)
        if counts.max() > 2:
            counts = counts.clamp(max=2)
        for t in hl.tile(x.size(0)):
            out[t] = x[t] * counts[index[t]]
        return out

    def expected(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return x * torch.bincount(index, minlength=4).clamp(max=2)[index]

    for index in ([0, 1, 2, 3, 3], [1, 1, 1, 1, 0]):
        run_everywhere(counted, (torch.randn(5), torch.tensor(index)), expected, capabilities=[90])


def test_what_would_be_done_twice_is_an_error_and_not_done() -> None:
    def writes(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        m.add_(1)
        out = torch.zeros_like(x)
        if m.sum() > 2:
            return out
        for t in hl.tile(x.size(0)):
            out[t] = x[t]
        return out

    def draws(x: torch.Tensor) -> torch.Tensor:
        noise = torch.rand_like(x)
        out = torch.zeros_like(x)
        if noise.sum() > 2:
            return out
        for t in hl.tile(x.size(0)):
            out[t] = x[t] + noise[t]
        return out

    m = torch.zeros(2)
    with pytest.raises(exc.HostTensorRead, match="after writing to a tensor of the caller's"):
        helion.kernel(writes)(torch.randn(8), m)
    assert m.sum() == 0
    state = torch.get_rng_state()
    with pytest.raises(exc.HostTensorRead, match="after drawing random numbers"):
        helion.kernel(draws)(torch.randn(8))
    assert not torch.equal(torch.get_rng_state(), state)  # by the argument alone
    torch.set_rng_state(state)
    torch.randn(8)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    with pytest.raises(exc.HostTensorRead):
        helion.kernel(draws)(torch.randn(8))
    assert torch.equal(torch.get_rng_state(), after)


def test_what_comes_after_the_last_decision_is_done_once() -> None:
    def later(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        if m.sum() > 100:
            return out
        m.add_(1)
        for t in hl.tile(x.size(0)):
            out[t] = x[t] + m[0]
        return out

    kernel = helion.kernel(later)
    x, m = torch.randn(8), torch.zeros(1)
    for count in range(1, 4):
        assert torch.equal(kernel(x, m), x + count)
    assert m.item() == 3


def test_a_decision_in_a_helper_says_where_to_put_it() -> None:
    def width(lengths: torch.Tensor) -> int:
        return 8 if lengths.max() > 8 else 4

    @helion.kernel
    def padded(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        out = x.new_zeros([width(lengths)])
        for t in hl.tile(4):
            out[t] = x[t]
        return out

    with pytest.raises(exc.HostTensorRead, match="in the kernel function itself"):
        padded(torch.randn(8), torch.tensor([3]))


def test_a_compiled_config_finds_its_variant() -> None:
    kernel = helion.kernel(unless_empty)
    x = torch.randn(40)
    run = kernel.bind((x, torch.ones(2))).compile_config({"block_sizes": [8]})
    for count in (1, 0, 1):
        m = torch.full((2,), count)
        assert torch.equal(run(x, m), expected_unless_empty(x, m))


def test_a_config_of_each_way_is_tuned_for_it() -> None:
    kernel = helion.kernel(longest)
    x, many, few = torch.randn(3, 20), torch.tensor([3, 20, 9]), torch.tensor([3, 8, 0])
    assert len(kernel.autotune((x, many), configs=[{"block_sizes": [2, 8]}, {"block_sizes": [4, 16]}]).block_sizes) == 2
    assert len(kernel.autotune((x, few), configs=[{"block_sizes": [2]}, {"block_sizes": [4]}]).block_sizes) == 1
    for lengths in (many, few, many):
        torch.testing.assert_close(kernel(x, lengths), expected_longest(x, lengths))


def test_ref_mode_decides_as_python_does() -> None:
    kernel = helion.kernel(unless_empty, ref_mode=RefMode.EAGER)
    x = torch.randn(20)
    for m in (torch.ones(2), torch.zeros(2)):
        assert torch.equal(kernel(x, m), expected_unless_empty(x, m))


def test_threads_that_decide_otherwise_do_not_disturb_each_other() -> None:
    kernel = helion.kernel(unless_empty, config=helion.Config(block_sizes=[16]))
    x = torch.randn(40)
    wrong: list[object] = []

    def calls(count: int) -> None:
        m = torch.full((2,), count)
        try:
            for _ in range(40):
                if not torch.equal(kernel(x, m), expected_unless_empty(x, m)):
                    wrong.append(count)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=calls, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_graph_is_told_to_leave_the_call_out() -> None:
    kernel = helion.kernel(unless_empty, config=helion.Config(block_sizes=[16]))

    def around(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        return kernel(x, m) + 1

    x, m = torch.randn(40), torch.ones(2)
    with pytest.raises(Exception, match=r"torch\.compiler\.disable"):
        torch.compile(around, fullgraph=True, backend="eager")(x, m)

    def apart(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        return torch.compiler.disable(kernel)(x, m) + 1

    assert torch.equal(torch.compile(apart, backend="eager")(x, m), x * 2 + 1)


@pytest.mark.compiles
@pytest.mark.compiles
@pytest.mark.softgpu(capability=90)
def test_on_the_gpu_no_plan_takes_one_way_for_the_other(softgpu) -> None:
    kernel = helion.kernel(unless_empty, config=helion.Config(block_sizes=[16]))
    x = torch.randn(40)
    for count in (1, 1, 1, 0, 0, 0, 1, 0):
        m = torch.full((2,), count)
        result = kernel(x.to(softgpu.device), m.to(softgpu.device))
        assert torch.equal(result.cpu(), expected_unless_empty(x, m))
    found = helion.explain(kernel, x.to(softgpu.device), m.to(softgpu.device))
    assert not found.plan
    assert "host code decides on what a tensor holds" in found.why_no_plan


@helion.kernel(config=helion.Config(block_sizes=[16]))
def _row_sums(x: torch.Tensor) -> torch.Tensor:
    out = x.new_empty([x.size(0)])
    for t in hl.tile(x.size(0)):
        out[t] = x[t, :].sum(1)
    return out


@helion.kernel(config=helion.Config(block_sizes=[16]))
def _add_one(x: torch.Tensor) -> None:
    for t in hl.tile(x.size(0)):
        x[t] = x[t] + 1


def test_the_result_of_another_kernel_may_decide() -> None:
    def negated(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        sign = -1 if (_row_sums(x) > 0).any() else 1
        for t in hl.tile(x.size(0)):
            out[t, :] = x[t, :] * sign
        return out

    kernel = helion.kernel(negated)
    for x in (torch.rand(4, 8), -torch.rand(4, 8), torch.rand(4, 8)):
        assert torch.equal(kernel(x), -x.abs())


def test_another_kernel_that_writes_before_is_an_error() -> None:
    @helion.kernel
    def grown(x: torch.Tensor) -> torch.Tensor:
        _add_one(x)
        if x.sum() > 0:
            return x
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t]
        return out

    with pytest.raises(exc.HostTensorRead, match=r"after writing to a tensor of the caller's|writes to an argument"):
        grown(-torch.ones(8) * 5)


def test_a_graph_ends_before_the_call_where_it_may() -> None:
    kernel = helion.kernel(unless_empty, config=helion.Config(block_sizes=[16]))
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, m: kernel(x, m) + 1, backend="eager")
    x = torch.randn(40)
    for count in (1, 0, 1, 1, 0):  # a later call makes plans: Dynamo must not look into that
        m = torch.full((2,), count)
        assert torch.equal(compiled(x, m), expected_unless_empty(x, m) + 1)


def second_loop_if(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t]
    if m.sum().item() > 0:
        for t in hl.tile(x.size(0)):
            out[t] = x[t] * 2
    return out


def second_loop_if_tensor(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t]
    if m.any():
        for t in hl.tile(x.size(0)):
            out[t] = x[t] * 2
    return out


def return_between(x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = x[t]
    if m.sum().item() > 0:
        return out
    hl.barrier()
    for t in hl.tile(x.size(0)):
        out[t] = x[t] * 2
    return out


@pytest.mark.parametrize("fn", [second_loop_if, second_loop_if_tensor, return_between])
def test_what_a_tensor_holds_decides_before_the_first_device_loop(fn: types.FunctionType) -> None:
    with pytest.raises(exc.HostTensorRead, match=r"(?s)between device loops.*before the first device loop"):
        helion.kernel(fn)(torch.randn(40), torch.ones(2))
