"""Parts of host tensors whose bounds are numbers that host code reads from tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import fresh
from tests.support import run_everywhere

Part = Callable[[torch.Tensor, int], torch.Tensor]

#: The part that the function takes of a 5x7 tensor.
PARTS: dict[str, Part] = {
    "x[:p]": lambda x, p: x[:p],
    "x[p:]": lambda x, p: x[p:],
    "x[p:-1]": lambda x, p: x[p:-1],
    "x[1:p:2]": lambda x, p: x[1:p:2],
    "x[p - 1 : p + 2]": lambda x, p: x[p - 1 : p + 2],
    "x[:, :p]": lambda x, p: x[:, :p],
    "x[..., p:, None]": lambda x, p: x[..., p:, None],
    "x[p:, p:]": lambda x, p: x[p:, p:],
    "x[p]": lambda x, p: x[p],
    "x[:, p]": lambda x, p: x[:, p],
    "x[None, p, 2:]": lambda x, p: x[None, p, 2:],
    "x.narrow(0, p, 2)": lambda x, p: x.narrow(0, p, 2),
    "torch.narrow(x, 1, p, 3)": lambda x, p: torch.narrow(x, 1, p, 3),
    "x.select(-1, p)": lambda x, p: x.select(-1, p),
}


@helion.kernel
def doubled(x: torch.Tensor, at: torch.Tensor, part: Part) -> torch.Tensor:
    p = int(at)
    y = part(x, p)
    out = torch.empty(y.shape, dtype=x.dtype, device=x.device)
    for t in hl.tile(y.shape):
        out[t] = y[t] * 2
    return out


@pytest.mark.compiles
@pytest.mark.parametrize("static_shapes", [True, False])
@pytest.mark.parametrize("text", PARTS)
def test_a_part_at_a_read_place_is_the_one_of_each_call(text: str, static_shapes: bool, softgpu) -> None:
    kernel = helion.kernel(doubled.fn, static_shapes=static_shapes)
    part = PARTS[text]
    x = torch.randn(5, 7)
    for p in (1, 3, 2):
        torch.testing.assert_close(kernel(x, torch.tensor(p), part), part(x, p) * 2, rtol=0, atol=0)
    assert kernel.bind((x, torch.tensor(1), part)) is kernel.bind((x, torch.tensor(3), part))


@pytest.mark.parametrize("p", [-9, -2, 0, 5, 9])
@pytest.mark.parametrize("text", ["x[:p]", "x[p:]", "x[p:-1]", "x[1:p:2]", "x[p:, p:]"])
def test_a_bound_outside_is_clamped_as_pytorch_does(text: str, p: int) -> None:
    x = torch.randn(5, 7)
    torch.testing.assert_close(fresh(doubled)(x, torch.tensor(p), PARTS[text]), PARTS[text](x, p) * 2)


def test_a_place_outside_raises_before_anything_is_launched() -> None:
    kernel = fresh(doubled)
    x = torch.randn(5, 7)
    kernel(x, torch.tensor(1), PARTS["x[p]"])
    for text in ("x[p]", "x.narrow(0, p, 2)"):
        with pytest.raises((IndexError, RuntimeError), match=r"out of|range|exceeds"):
            kernel(x, torch.tensor(9), PARTS[text])


@helion.kernel
def append(cache: torch.Tensor, new: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    p = int(at)
    slot = cache[p : p + new.size(0)]
    for t in hl.tile(new.shape):
        slot[t] = new[t]
    cache[:1] = -1
    return cache[: p + new.size(0)]


def test_one_row_that_would_broadcast_is_refused_in_the_users_terms() -> None:
    with pytest.raises(exc.InvalidAPIUsage, match=r"compiled for: length\(9, int\(at\), .*\) >= 2"):
        append(torch.zeros(9, 3), torch.randn(2, 3), torch.tensor(8))


@pytest.mark.compiles
def test_what_is_written_through_a_part_is_in_the_tensor() -> None:
    def reference(cache: torch.Tensor, new: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        p = int(at)
        cache[p : p + new.size(0)] = new
        cache[:1] = -1
        return cache[: p + new.size(0)]

    for p in (1, 4):
        run_everywhere(append, (torch.zeros(9, 3), torch.randn(2, 3), torch.tensor(p)), reference)


@pytest.mark.compiles
def test_a_part_may_be_what_another_part_of_the_kernel_stores() -> None:
    @helion.kernel(config=helion.Config(block_sizes=[16, 16]))
    def shifted(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        tail = x[int(at) :]
        out = torch.empty_like(x)
        for t in hl.grid(1):
            for i in hl.tile(x.size(0)):
                x[i] = x[i] + 1
            for j in hl.tile(tail.size(0)):
                out[j] = tail[j] + t
        return out[: tail.size(0)]

    def reference(x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return (x + 1)[int(at) :]

    run_everywhere(shifted, (torch.randn(50), torch.tensor(7)), reference)


def test_parts_of_one_length_may_be_added_by_host_code() -> None:
    @helion.kernel(ignore_warnings=[exc.TensorOperationInWrapper])
    def both(x: torch.Tensor, y: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        p = int(at)
        z = x[:p] + y[:p]
        out = torch.empty_like(z)
        for t in hl.tile(z.size(0)):
            out[t] = z[t] * x[t]
        return out

    x, y = torch.randn(6), torch.randn(6)
    for p in (4, 2, 8):
        torch.testing.assert_close(both(x, y, torch.tensor(p)), (x[:p] + y[:p]) * x[:p])


def test_a_part_may_be_taken_in_a_helper_and_in_a_host_loop() -> None:
    def head(x: torch.Tensor, n: int) -> torch.Tensor:
        return x[:n]

    @helion.kernel
    def doubled_heads(xs: list[torch.Tensor], at: torch.Tensor) -> None:
        p = int(at)
        for x in xs:
            for t in hl.tile(head(x, p).size(0)):
                x[t] = x[t] * 2

    xs = [torch.ones(6), torch.ones(7)]
    doubled_heads(xs, torch.tensor(4))
    assert [x.tolist() for x in xs] == [[2.0] * 4 + [1.0] * 2, [2.0] * 4 + [1.0] * 3]


def selected(x: torch.Tensor, fits: bool) -> torch.Tensor:
    y = x[x > 1]
    z = torch.zeros_like(x)
    z[: y.size(0)] = y
    out = torch.zeros_like(x)
    for t in hl.tile(x.size(0)):
        out[t] = (z if fits else y)[t]
    return out


def test_a_selection_that_is_shorter_than_the_loop_is_refused_with_what_works() -> None:
    x = torch.tensor([2.0, 0.0, 3.0])
    with pytest.raises(exc.InvalidAPIUsage, match="put into one that is long enough"):
        helion.kernel(selected, config=helion.Config())(x, False)
    assert helion.kernel(selected, config=helion.Config())(x, True).tolist() == [2.0, 3.0, 0.0]
