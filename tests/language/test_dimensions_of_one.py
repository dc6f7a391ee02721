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

pytestmark = pytest.mark.slow


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


def increments(ps: tuple[torch.Tensor, ...], n: int) -> tuple[torch.Tensor, ...]:
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
    for ps in ((torch.zeros(1), torch.zeros(70)), (torch.zeros(1), torch.zeros(1))):
        with pytest.raises((exc.LoopDependencyError, exc.ShapeMismatch)):
            helion.kernel(increments, **options)(ps, 70)
    with pytest.raises(exc.LoopDependencyError):
        helion.kernel(positions, ref_mode=ref_mode)(torch.zeros(1), 3)  # the lanes of one tile differ


def masked_increments(ps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    n = max(p.size(0) for p in ps)
    for t in hl.tile(n):
        for p in ps:
            inside = t.index < p.size(0)
            hl.store(p, [t], hl.load(p, [t], extra_mask=inside) + 1, extra_mask=inside)
    return ps


def half_masked_increment(p: torch.Tensor, n: int) -> torch.Tensor:
    for t in hl.tile(n):
        hl.store(p, [t], p[t] + 1, extra_mask=t.index < p.size(0))
    return p


def test_a_mask_says_which_lane_stores() -> None:
    ps = (torch.zeros(1), torch.zeros(70), torch.zeros(2))
    run_everywhere(masked_increments, (ps,), lambda ps: tuple(p + 1 for p in ps))
    with pytest.raises(exc.LoopDependencyError, match="one of them stores it"):
        helion.kernel(half_masked_increment)(torch.zeros(1), 70)


def squared_norm(gs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    n = max(g.size(0) for g in gs)
    total = torch.zeros([1], device=gs[0].device)
    for t in hl.tile(n):
        partial = hl.zeros([], dtype=torch.float32)
        for g in gs:
            partial += (g[t] * g[t]).sum()
        hl.atomic_add(total, [0], partial)
    return total


def masked_squared_norm(gs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    n = max(g.size(0) for g in gs)
    total = torch.zeros([1], device=gs[0].device)
    for t in hl.tile(n):
        partial = hl.zeros([], dtype=torch.float32)
        for g in gs:
            values = hl.load(g, [t], extra_mask=t.index < g.size(0))
            partial += (values * values).sum()
        hl.atomic_add(total, [0], partial)
    return total


def norm_of_loops(gs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    total = torch.zeros([1], device=gs[0].device)
    for _ in hl.grid(1):
        partial = hl.zeros([], dtype=torch.float32)
        for g in gs:
            for t in hl.tile(g.size(0)):
                partial += (g[t] * g[t]).sum()
        total[0] = partial
    return total


def three(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(a)
    for t in hl.tile(a.size(0)):
        out[t] = a[t] + b[t] + c[t]
    return out


def picked(p: torch.Tensor, i: Any, j: Any) -> torch.Tensor:
    return p[i, j]


def biased(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for i, j in hl.tile([x.size(0), x.size(1)]):
        out[i, j] = picked(x, i, j) + picked(bias, i, j) + bias[i, :].sum(1)[:, None]
    return out


@pytest.mark.parametrize("static_shapes", [True, False])
@pytest.mark.parametrize("sizes", [(3, 70, 2), (3, 70, 0), (1, 70), (3, 70, 1), (1, 1)])
def test_one_expression_does_not_broadcast_some_and_cut_others(sizes: tuple[int, ...], static_shapes: bool) -> None:
    gs = tuple(torch.ones(n) for n in sizes)

    def reference(gs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return sum(g.square().sum() for g in gs).reshape(1)  # type: ignore[union-attr]

    for kernel in (masked_squared_norm, norm_of_loops):
        run_everywhere(kernel, (gs,), reference, static_shapes=static_shapes)
    if 1 not in sizes or max(sizes) == 1:
        run_everywhere(squared_norm, (gs,), reference, static_shapes=static_shapes)
        return
    said = []
    for ref_mode in (helion.RefMode.OFF, helion.RefMode.EAGER):
        with pytest.raises(exc.ShapeMismatch, match="would broadcast along") as error:
            helion.kernel(squared_norm, ref_mode=ref_mode, static_shapes=static_shapes)(gs)
        said.append(str(error.value))
    assert said[0] == said[1] and f"extra_mask=t.index < gs[{sizes.index(1)}].size(0)" in said[0]


def test_a_tile_that_is_longer_than_a_tensor_broadcasts_none(seed: int) -> None:
    a = torch.randn(70)
    for ref_mode in (helion.RefMode.OFF, helion.RefMode.EAGER):
        with pytest.raises(exc.ShapeMismatch, match="ends before the tile's range"):
            helion.kernel(three, ref_mode=ref_mode)(a, torch.randn(2), torch.randn(1))
    run_everywhere(three, (a, torch.randn(70), torch.randn(1)), lambda a, b, c: a + b + c)
    run_everywhere(biased, (torch.randn(5, 7), torch.randn(1, 7)), lambda x, b: x + b + b.sum(), error_scale=20)


def rows_of_blocks(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    block = hl.register_block_size(x.size(0))
    doubled = torch.empty_like(x)
    sums = torch.empty([helion.cdiv(x.size(0), block), x.size(1)])
    for outer in hl.tile(x.size(0), block_size=block):
        acc = hl.zeros([x.size(1)])
        for t in hl.tile(outer.begin, outer.end):
            doubled[t, :] = x[t, :] * 2
            acc = acc + x[t, :].sum(0)
        sums[outer.id, :] = acc
    return doubled, sums


@pytest.mark.parametrize("mode", list(helion.RefMode))
@pytest.mark.parametrize("static_shapes", [True, False])
def test_rows_of_a_block_may_be_one_row(static_shapes: bool, mode: helion.RefMode) -> None:
    """Every number of rows was taken but one: a tile of the inner loop was said to store over the others'."""
    kernel = helion.kernel(
        rows_of_blocks, static_shapes=static_shapes, ref_mode=mode, config=helion.Config(block_sizes=[4, 2])
    )
    for rows in (1, 5, 1):
        x = torch.randn(rows, 3)
        doubled, sums = kernel(x)
        assert torch.equal(doubled, 2 * x)
        torch.testing.assert_close(sums.sum(0), x.sum(0))


def maxima_of_matrices(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([4, x.size(0)], dtype=x.dtype, device=x.device)
    for b in hl.tile(x.size(0), block_size=1):
        values = x[b, :, :]
        out[0, b] = values.squeeze(0).amax(0).sum()
        out[1, b] = (values > 0).squeeze().sum(0).amax()
        out[2, b] = values.reshape([4, 5]).amax(1).sum()
        out[3, b] = values[:, None].squeeze((0, 1))[2].sum()
    return out


def test_a_tiles_dimension_of_one_is_squeezed():
    def reference(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.amax(1).sum(1), (x > 0).sum(1).amax(1), x.amax(2).sum(1), x[:, 2].sum(1)])

    run_everywhere(maxima_of_matrices, (torch.randn(3, 4, 5),), reference, configs=[{}], capabilities=[90])


def sums_of_rows(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    for b, t in hl.tile(x.shape):
        value = x[b, t].unsqueeze(0).squeeze(0)
        out[b, t] = value + value[:, :, None].amax(-1, keepdim=True).squeeze()
    return out


def test_a_last_tile_of_one_element_keeps_its_dimension():
    configs = [{"block_sizes": [2, 4]}, {"block_sizes": [4, 16]}]
    run_everywhere(sums_of_rows, (torch.randn(5, 9),), lambda x: 2 * x, configs=configs, capabilities=[90])


@pytest.mark.parametrize("ref_mode", [helion.RefMode.OFF, helion.RefMode.EAGER], ids=str)
def test_a_dimension_whose_size_the_config_says_is_not_squeezed(ref_mode: helion.RefMode):
    @helion.kernel(ref_mode=ref_mode, config=helion.Config(block_sizes=[2]))
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t, None].squeeze(0)
        return out

    with pytest.raises(exc.TorchOpTracingError, match="dimension 0 is a tile's"):
        kernel(torch.randn(3))


def rows_one_by_one(x: torch.Tensor) -> torch.Tensor:
    k = x.size(1)
    out = torch.empty([x.size(0), 8, k], dtype=x.dtype, device=x.device)
    for b in hl.tile(x.size(0), block_size=1):
        v, places = x[b, :], hl.arange(k)
        out[b, 0, :] = (v + places[:, None]).sum(0)[None]
        out[b, 1, :] = torch.where(places[:, None] > 1, v, 1.0).sum(0)[None]
        out[b, 2, :] = v.expand(3, k).sum(0)[None]
        flat = v.reshape(-1)
        out[b, 3, :] = torch.cumsum(flat, 0)[None]
        out[b, 4, :] = flat.reshape(b, k) + v
        out[b, 5, :] = torch.cat([v, v * 2], 0).sum(0)[None]
        out[b, 6, :] = v.repeat(2, 1).sum(0)[None]
        for c in hl.tile(k):
            out[b, 7, c] = x[b, c].flatten() * x[b, 0]
    return out


def test_a_dimension_of_a_tile_of_one_is_of_size_1(seed: int) -> None:
    def reference(x: torch.Tensor) -> torch.Tensor:
        parts = [5 * x + 10, 3 * x + 2, 3 * x, x.cumsum(1), 2 * x, 3 * x, 2 * x, x * x[:, :1]]
        return torch.stack(parts, 1)

    run_everywhere(rows_one_by_one, (torch.randn(3, 5),), reference, error_scale=16)


def squeezed_rows(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0)], dtype=x.dtype, device=x.device)
    for b in hl.tile(x.size(0)):
        out[b] = x[b, :].squeeze().amax(0).sum(0)
    return out


@pytest.mark.parametrize("ref_mode", [helion.RefMode.OFF, helion.RefMode.EAGER], ids=str)
def test_a_block_size_of_one_that_the_config_gives_is_no_dimension_of_size_1(ref_mode: helion.RefMode, seed: int):
    """Ref mode squeezed it, and took the largest of the row."""
    kernel = helion.kernel(squeezed_rows, ref_mode=ref_mode, config=helion.Config(block_sizes=[1]))
    x = torch.randn(3, 5)
    torch.testing.assert_close(kernel(x), x.sum(1))


def test_flattening_nothing_but_tiles_of_one_leaves_one() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t, u in hl.tile(x.shape, block_size=[1, 1]):
            out[t, u] = x[t, u].flatten()[:, None] + x[t, u] * 2
        return out

    run_everywhere(fn, (torch.randn(3, 4),), lambda x: x * 3)
