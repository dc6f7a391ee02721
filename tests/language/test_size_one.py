"""Dimensions of size 1 under a tile: they broadcast along a longer loop, are like any other under a loop of their own,
and are stored to by one lane only.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


def differences(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    for t in hl.tile(1, x.size(0)):
        out[t] = x[t] - x[t - 1]
    return out


def lu(a: torch.Tensor) -> torch.Tensor:
    for b in hl.grid(a.size(0)):
        for k in hl.grid(a.size(1)):
            for i in hl.tile(k + 1, a.size(1)):
                a[b, i, k] = a[b, i, k] / a[b, k, k]
            for i, j in hl.tile([k + 1, k + 1], [a.size(1), a.size(1)]):
                a[b, i, j] = a[b, i, j] - a[b, i, k][:, None] * a[b, k, j][None, :]
    return a


def _lu_by_pytorch(a: torch.Tensor) -> torch.Tensor:
    for k in range(a.size(1)):
        a[:, k + 1 :, k] /= a[:, k, k, None]
        a[:, k + 1 :, k + 1 :] -= a[:, k + 1 :, k, None] * a[:, k, None, k + 1 :]
    return a


@pytest.mark.parametrize("static_shapes", [True, False])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_loops_over_the_interior(size: int, static_shapes: bool, seed: int) -> None:
    def reference(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x[:1]), x.diff()])

    run_everywhere(differences, (torch.randn(size),), reference, static_shapes=static_shapes)
    matrix = torch.randn(2, size, size) + 4 * torch.eye(size)
    run_everywhere(lu, (matrix,), _lu_by_pytorch, static_shapes=static_shapes, error_scale=64)


def grouped(x: torch.Tensor, w: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    for e in hl.grid(w.size(0)):
        for t in hl.tile(offsets[e], offsets[e + 1]):
            out[t] = x[t] * w[e]
    return out


def leading(x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    for _ in hl.grid(1):
        for t in hl.tile(count[0]):
            out[t] = x[t] * 2
    return out


@pytest.mark.parametrize("offsets", [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 1, 2], [0, 1, 1, 3]])
def test_loaded_ranges_of_few_rows(offsets: list[int], seed: int) -> None:
    x, w, rows = torch.randn(offsets[-1]), torch.randn(3), torch.tensor(offsets)
    scales = w.repeat_interleave(rows.diff())
    for static_shapes in (True, False):
        run_everywhere(grouped, (x, w, rows), lambda x, *_: x * scales.double(), static_shapes=static_shapes)
        run_everywhere(leading, (x, rows[-1:]), lambda x, *_: x * 2, static_shapes=static_shapes)


def racing(x: torch.Tensor, w: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    for e in hl.grid(w.size(0)):
        for t in hl.tile(count[0]):
            out[t] = x[t] * w[e]
    return out


@pytest.mark.parametrize("rows", [1, 2])
def test_a_loaded_end_keeps_no_tiles_apart(rows: int) -> None:
    with pytest.raises(exc.LoopDependencyError):
        helion.kernel(racing)(torch.randn(rows), torch.randn(3), torch.tensor([rows]))


def increments(ps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    n = max(p.size(0) for p in ps)
    for t in hl.tile(n):
        for p in ps:
            p[t] += 1
    return ps


def positions(x: torch.Tensor, n: int) -> torch.Tensor:
    for t in hl.tile(n, block_size=4):
        x[t] = t.index.to(x.dtype)
    return x


@pytest.mark.parametrize("ref_mode", [helion.RefMode.OFF, helion.RefMode.EAGER])
def test_a_longer_tile_does_not_store_to_one_element(ref_mode: helion.RefMode) -> None:
    options: dict[str, Any] = {"ref_mode": ref_mode, "config": helion.Config(block_sizes=[16])}
    with pytest.raises(exc.LoopDependencyError):
        helion.kernel(increments, **options)((torch.zeros(1), torch.zeros(70)))
    with pytest.raises(exc.LoopDependencyError):
        helion.kernel(positions, ref_mode=ref_mode)(torch.zeros(1), 3)  # the lanes of one tile differ


def masked_increments(ps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    n = max(p.size(0) for p in ps)
    for t in hl.tile(n):
        for p in ps:
            inside = t.index < p.size(0)
            hl.store(p, [t], hl.load(p, [t], extra_mask=inside) + 1, extra_mask=inside)
    return ps


def half_masked_increments(ps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    n = max(p.size(0) for p in ps)
    for t in hl.tile(n):
        for p in ps:
            hl.store(p, [t], p[t] + 1, extra_mask=t.index < p.size(0))
    return ps


def test_a_mask_says_which_lane_stores() -> None:
    ps = (torch.zeros(1), torch.zeros(70), torch.zeros(2))
    run_everywhere(masked_increments, (ps,), lambda ps: tuple(p + 1 for p in ps))
    with pytest.raises(exc.LoopDependencyError, match="one of them stores it"):
        helion.kernel(half_masked_increments)(ps)
