"""Stores whose place is computed from the loop's: `out[i % 2]`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


def summed(out, x):
    for i in hl.grid(x.size(0)):
        out[i % 2] += x[i]


def last_of_four(out, x):
    for i in hl.grid(x.size(0)):
        out[i // 4] = x[i]


def lanes(out, x):
    for t in hl.tile(x.size(0)):
        out[t.index % 4] = x[t]


def rows_too_long(out, x):
    for i, j in hl.grid([3, 4]):
        out[i * 3 + j] = x[i] + j


def inner_loop_too_long(out, x):
    for i in hl.grid(3):
        for j in hl.grid(5):
            out[i * 4 + j] = x[i] + j


def of_an_argument(out, x, n: int = 2):
    for i in hl.grid(x.size(0)):
        out[(i + n) % n] = x[i]


def window(out, x):
    for i in hl.grid(x.size(0) // 4):
        out[i * 4 + hl.arange(8)] = x[i] + hl.zeros([8])


def window_of_a_tile(out, x):
    for t in hl.tile(x.size(0), block_size=4):
        out[t.begin // 2 + hl.arange(4)] = x[t].sum() + hl.zeros([4])


def rows_of_windows(out, x):
    for t in hl.tile(x.size(0)):
        out[t.index[:, None] * 2 + hl.arange(3)[None, :]] = x[t][:, None] + hl.zeros([t, 3])


def slices_of_a_place(out, x):
    for i in hl.grid(x.size(0) // 4):
        out[i : i + 2] = x[i]


def halos(out, x):
    for t in hl.tile(x.size(0) // 2):
        out[t.begin : t.begin + t.block_size + 2] = x[t.begin : t.begin + t.block_size + 2]


RACES = [
    (slices_of_a_place, "out[1] is stored for i = 0 and for i = 1"),
    (halos, "out[1] is stored for t = 0 and for t = 1"),
    (window, "out[4] is stored for i = 0 and for i = 1"),
    (window_of_a_tile, "out[2] is stored for t = 0 and for t = 4"),
    (rows_of_windows, "out[2] is stored for t = 0 and for t = 1"),
    (summed, "out[0] is stored for i = 0 and for i = 2"),
    (last_of_four, "out[0] is stored for i = 0 and for i = 1"),
    (lanes, "out[0] is stored for t = 0 and for t = 4"),
    (rows_too_long, "out[3] is stored for i = 0 and j = 3 and for i = 1 and j = 0"),
    (inner_loop_too_long, "out[4] is stored for i = 0 and for i = 1"),
    (of_an_argument, "out[0] is stored for i = 0 and for i = 2"),
]


@pytest.mark.parametrize("mode", ["static", "dynamic", "ref"])
@pytest.mark.parametrize(("function", "message"), RACES, ids=lambda v: getattr(v, "__name__", None))
def test_places_that_two_programs_compute_are_refused(function: Callable[..., object], message: str, mode: str) -> None:
    ref_mode = helion.RefMode.EAGER if mode == "ref" else helion.RefMode.OFF
    kernel = helion.kernel(function, config=helion.Config(), static_shapes=mode != "dynamic", ref_mode=ref_mode)
    out = torch.zeros(20)
    with pytest.raises(exc.LoopDependencyError) as caught:
        kernel(out, torch.ones(12))
    assert message in str(caught.value)
    assert not out.any()


def unflattened(out, x):
    n = x.size(0) // 3
    for i in hl.grid(x.size(0)):
        out[i // n, i % n] = x[i]


def flattened(out, x):
    for i in hl.grid(3):
        for j in hl.grid(4):
            out[0, i * 4 + j] = x[i * 4 + j]


def same_value(out, x):
    for i in hl.grid(x.size(0)):
        out[0, i // 4] = x[i // 4] * 2


def strided(out, x):
    for t in hl.tile(x.size(0)):
        out[0, t.index * 2] = x[t]
        out[0, t.index * 2 + 1] = -x[t]


def by_atomics(out, x):
    for i in hl.grid(x.size(0)):
        hl.atomic_add(out, [0, i % 2], x[i])


def put(reference: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    def stored(out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        value = reference(x)
        value = value if value.dim() == 2 else value[None]
        out[: value.size(0), : value.size(1)] = value
        return out

    return stored


@pytest.mark.parametrize("static", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize(
    ("function", "reference"),
    [
        (unflattened, lambda x: x.reshape(3, 4)),
        (flattened, lambda x: x),
        (same_value, lambda x: x[:3] * 2),
        (strided, lambda x: torch.stack([x, -x], 1).flatten()),
        (by_atomics, lambda x: x.reshape(6, 2).sum(0)),
    ],
)
def test_places_of_their_own_are_accepted(function: Callable[..., object], reference, static: bool) -> None:
    kernel = helion.kernel(function, config=helion.Config(), static_shapes=static)
    expected, out, x = torch.zeros(3, 24), torch.zeros(3, 24), torch.randn(12)
    kernel(out, x)
    torch.testing.assert_close(out, put(reference)(expected, x))


def sums_of_parts(x):
    parts = torch.zeros(2, device=x.device)
    for t in hl.tile(x.size(0)):
        parts[t.id % 2] = x[t].sum()
    return parts.sum()


def test_block_sizes_are_raised_until_tiles_have_places_of_their_own() -> None:
    kernel = helion.kernel(sums_of_parts, ignore_warnings=[exc.TensorOperationInWrapper])
    run_everywhere(
        kernel, (torch.randn(16),), torch.sum, error_scale=8, configs=[{"block_sizes": [2]}, {"block_sizes": [8]}]
    )


def test_a_longer_loop_under_dynamic_shapes_is_judged_anew() -> None:
    kernel = helion.kernel(last_of_four, config=helion.Config(), static_shapes=False)
    out = torch.zeros(20)
    with pytest.raises(exc.LoopDependencyError):
        kernel(out, torch.ones(2))

    kernel = helion.kernel(summed, config=helion.Config(), static_shapes=False)
    kernel(out, torch.ones(2))
    assert out[:3].tolist() == [1, 1, 0]
    with pytest.raises(exc.LoopDependencyError):
        kernel(out, torch.ones(3))


def windows_side_by_side(x):
    out = torch.zeros([2 * x.size(0)], device=x.device)
    for t in hl.tile(x.size(0), block_size=4):
        out[t.begin * 2 + hl.arange(8)] = x[t].sum() + hl.arange(8)
    return out


def slices_side_by_side(x):
    out = torch.zeros([2 * x.size(0)], device=x.device)
    for t in hl.tile(x.size(0), block_size=4):
        out[t.begin * 2 : t.begin * 2 + t.block_size + 4] = x[t.begin : t.begin + 4].sum() + hl.arange(t.block_size + 4)
    return out


def side_by_side_reference(x):
    return (x.view(-1, 4).sum(1)[:, None] + torch.arange(8)).flatten()


@pytest.mark.parametrize("function", [windows_side_by_side, slices_side_by_side])
def test_windows_that_do_not_meet_are_accepted(function, seed: int) -> None:
    run_everywhere(function, (torch.randn(16),), side_by_side_reference, capabilities=[90])


@pytest.mark.parametrize("step", [1, 2])
def test_views_that_overlap_themselves_are_refused(step: int) -> None:
    @helion.kernel
    def stored(out, x):
        windows = out.unfold(0, 4, step)
        for t in hl.tile(windows.size(0)):
            windows[t, :] = x[t][:, None] + hl.zeros([t, 4])

    with pytest.raises(exc.LoopDependencyError, match="several indices for one element"):
        stored(torch.zeros(20), torch.ones(17))
