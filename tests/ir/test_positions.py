"""Kernels that store to a tensor and read it through indices which the loop's positions make."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


def rolled(u):
    n = u.size(0)
    for t in hl.tile(n):
        u[t] = u[(t.index + 1) % n]
    return u


def flipped(u):
    n = u.size(0)
    for t in hl.tile(n):
        u[t] = u[n - 1 - t.index]
    return u


def masked(u):
    for t in hl.tile(u.size(0)):
        hl.store(u, [t], hl.load(u, [t.index - 1], extra_mask=t.index > 0))
    return u


def clamped(u):
    for t in hl.tile(u.size(0)):
        u[t, :] = u[(t.index - 1).clamp(min=0), :]
    return u


def rolled_along_rows(u):
    n = u.size(1)
    for t, c in hl.tile(u.size()):
        u[t, c] = u[t, (c.index + 1) % n]
    return u


def rolled_in_two_dimensions(u):
    n = u.size(0)
    for t, c in hl.tile(u.size()):
        u[t, c] = u[(t.index[:, None] + 1) % n, c.index[None, :]]
    return u


def turned_in_two_dimensions(u):
    for t, c in hl.tile(u.size()):
        u[t, c] = u[u.size(0) - 1 - t.index[:, None], u.size(1) - 1 - c.index[None, :]]
    return u


def stored_elsewhere(u):
    n = u.size(0)
    for t in hl.tile(n):
        u[(t.index + 1) % n] = u[t] + 1
    return u


@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize(
    "function",
    [
        rolled,
        flipped,
        masked,
        clamped,
        rolled_along_rows,
        stored_elsewhere,
        rolled_in_two_dimensions,
        turned_in_two_dimensions,
    ],
)
def test_reading_what_another_index_stores_is_refused(function: Callable[..., object], static: bool) -> None:
    kernel = helion.kernel(function, config=None, static_shapes=static, autotune_effort="none")
    u = torch.randn(12) if function in (rolled, flipped, masked, stored_elsewhere) else torch.randn(4, 7)
    before = u.clone()
    with pytest.raises(exc.LoopDependencyError, match=r"which index \d+ stores in the same loop"):
        kernel(u)
    assert torch.equal(u, before)


def own_element(u):
    for t in hl.tile(u.size(0)):
        u[t.index] = u[t] + u[t.index]
    return u


def butterfly(u):
    for t in hl.tile(u.size(0) // 2):
        first = t.index // 2 * 4 + t.index % 2
        x, y = u[first], u[first + 2]
        u[first] = x + y
        u[first + 2] = x - y
    return u


def second_half(u):
    n = u.size(0)
    for t in hl.tile(n):
        upper = t.index >= n // 2
        hl.store(u, [t], hl.load(u, [t.index - n // 2], extra_mask=upper), extra_mask=upper)
    return u


def copied(u):
    n = u.size(0)
    before = u.clone()
    for t in hl.tile(n):
        u[t] = before[(t.index + 1) % n]
    return u


def butterfly_of(u: torch.Tensor) -> torch.Tensor:
    x, y = u.view(-1, 2, 2).unbind(1)
    return torch.stack([x + y, x - y], 1).flatten()


@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (own_element, lambda u: u * 2),
        (butterfly, butterfly_of),
        (second_half, lambda u: torch.cat([u[:6], u[:6]])),
        (copied, lambda u: u.roll(-1)),
    ],
)
def test_elements_that_no_other_index_stores_are_read(
    function: Callable[..., object], expected: Callable[[torch.Tensor], torch.Tensor], static: bool
) -> None:
    u = torch.randn(12)
    for block in (2, 16):
        kernel = helion.kernel(function, config=helion.Config(block_sizes=[block]), static_shapes=static)
        assert torch.equal(kernel(u.clone()), expected(u))


def reversed_in_one_tile(u):
    for t in hl.tile(u.size(0), block_size=16):
        u[t] = u[15 - t.index]
    return u


def test_one_tile_may_read_what_it_stores() -> None:
    u = torch.randn(16)
    assert torch.equal(helion.kernel(reversed_in_one_tile, config=helion.Config())(u.clone()), u.flip(0))


def two_stores_of_a_tile(u):
    for t in hl.tile(u.size(0) - 1):
        u[t] = 1.0
        u[t.index + 1] = 2.0


def two_stores_of_an_index(u):
    for i in hl.grid(u.size(0) - 1):
        u[i] = u[i] + 1.0
        u[i + 1] = 2.0


def two_shifted_tiles(u):
    for t in hl.tile(u.size(0) - 1):
        u[t] = t.index.to(torch.float32)
        u[t + 1] = 2.0


@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("function", [two_stores_of_a_tile, two_stores_of_an_index, two_shifted_tiles])
def test_two_stores_at_places_a_distance_apart_are_refused(function: Callable[..., object], static: bool) -> None:
    u = torch.zeros(12)
    with pytest.raises(exc.LoopDependencyError, match="stored"):
        helion.kernel(function, config=helion.Config(), static_shapes=static)(u)
    assert not u.any()


def two_halves(u):
    half = u.size(0) // 2
    for t in hl.tile(half):
        u[t] = 1.0
        u[t + half] = 2.0
    return u


def pairs(u):
    for i in hl.grid(u.size(0) // 2):
        u[2 * i] = 1.0
        u[2 * i + 1] = 3.0
    return u


def every_other(u):
    for i in hl.grid(u.size(0) - 1):
        if i % 2 == 0:
            u[i] = 1.0
            u[i + 1] = 3.0
    return u


def one_flag(u):
    for t in hl.tile(u.size(0) - 1):
        u[t] = 5.0
        u[t + 1] = 5.0
    return u


def in_turn(u):
    for t in hl.grid(1):
        for i in hl.grid(u.size(0) - 1):
            u[i] = 1.0
            u[i + 1] = 3.0
    return u


@pytest.mark.parametrize("function", [two_halves, pairs, every_other, one_flag, in_turn])
def test_two_stores_that_do_not_meet_are_accepted(function: Callable[..., object]) -> None:
    def plain(u: torch.Tensor) -> torch.Tensor:
        if function is two_halves:
            return torch.cat([torch.ones(6), torch.full([6], 2.0)])
        if function is one_flag:
            return torch.full([12], 5.0)
        return torch.cat([torch.ones(11), torch.tensor([3.0])]) if function is in_turn else torch.tensor([1.0, 3.0] * 6)

    run_everywhere(function, (torch.randn(12),), plain, configs=[{}], capabilities=[90])
