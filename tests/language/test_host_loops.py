"""Host loops around device loops: `for x in (p, q): for t in hl.tile(...)`, unrolled into one launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


def scaled_lists(xs: list[torch.Tensor], ws: list[torch.Tensor], s: float) -> list[torch.Tensor]:
    outs = [torch.empty_like(x) for x in xs]
    for i, (x, w, out) in enumerate(zip(xs, ws, outs)):
        n = x.size(1)
        for t in hl.tile(x.size(0)):
            out[t, :] = x[t, :] * w[:] + i * s + n
    return outs


@pytest.mark.parametrize("static_shapes", [True, False])
def test_tensors_of_lists(static_shapes: bool, seed: int) -> None:
    def reference(xs: list[torch.Tensor], ws: list[torch.Tensor], s: float) -> list[torch.Tensor]:
        return [x * w + i * s + x.size(1) for i, (x, w) in enumerate(zip(xs, ws))]

    xs, ws = [torch.randn(5, 7), torch.randn(40, 3)], [torch.randn(7), torch.randn(3)]
    run_everywhere(
        scaled_lists, (xs, ws, 0.5), reference, configs=[{"block_sizes": [4, 16]}], static_shapes=static_shapes
    )


def rebound(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loop's variable is that of a tensor made before it, which generated code must reach by another name."""
    x, y = torch.zeros_like(a), torch.zeros_like(b)
    pairs = [(x, a), (y, b)]
    for x, source in pairs:
        for t in hl.tile(source.size(0)):
            x[t] = source[t] + 1
    return pairs[0][0], y


def swapped(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = a, b
    for i in range(3):
        for t in hl.tile(a.size(0)):
            b[t] = a[t] * 2 + i
        hl.barrier()
        a, b = b, a
    return first, second


def jumps(xs: list[torch.Tensor], stop: int) -> list[torch.Tensor]:
    met = 0
    for i, x in enumerate(xs):
        if x.numel() < 4:
            continue
        if i == stop:
            break
        met = met + 1
        for r in hl.grid(x.size(0)):
            if x[r] < 0:
                continue
            x[r] = x[r] * 2 + met
    return xs


def jumped(xs: list[torch.Tensor], stop: int) -> list[torch.Tensor]:
    met = 0
    for i, x in enumerate(xs[:stop]):
        if x.numel() >= 4:
            met += 1
            x.copy_(torch.where(x < 0, x, x * 2 + met))
    return xs


def nested(rows: list[list[torch.Tensor]]) -> list[list[torch.Tensor]]:
    for row in rows:
        for x in row:
            if x.dim() == 1:
                for t in hl.tile(x.size(0)):
                    x[t] = x[t] + 1
            else:
                for t in hl.tile(x.shape):
                    x[t] = x[t] + 2
    return rows


def test_a_variable_of_the_loop_that_was_there_before(seed: int) -> None:
    run_everywhere(rebound, (torch.randn(30), torch.randn(4)), lambda a, b: (a + 1, b + 1))


def test_arguments_that_change_places(seed: int) -> None:
    def reference(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for i in range(3):
            b = a * 2 + i
            a, b = b, a
        return (a - 2) / 2, a

    run_everywhere(swapped, (torch.randn(9), torch.randn(9)), reference)


@pytest.mark.parametrize("stop", [2, 3, 9])
def test_jumps_of_the_host_loop_and_of_the_device_loop_in_it(stop: int, seed: int) -> None:
    xs = [torch.randn(n) for n in (9, 2, 5, 8)]
    run_everywhere(jumps, (xs, stop), jumped)


def test_loops_in_loops_and_branches(seed: int) -> None:
    def reference(rows: list[list[torch.Tensor]]) -> list[list[torch.Tensor]]:
        return [[x + x.dim() for x in row] for row in rows]

    run_everywhere(nested, ([[torch.randn(2), torch.randn(2, 3)], [torch.randn(9)]],), reference)


def test_a_loop_over_nothing_launches_nothing() -> None:
    y = torch.randn(3)
    kernel = helion.kernel(plus_one)
    assert kernel([], y) is y
    assert torch.equal(kernel([torch.ones(3)], y), y)


def plus_one(xs: list[torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    for x in xs:
        for t in hl.tile(x.size(0)):
            x[t] = x[t] + 1
    return y


def rows_of_one(xs: list[torch.Tensor]) -> torch.Tensor:
    out = torch.zeros([len(xs), 9], device=xs[0].device)
    for i in range(len(xs)):
        for t in hl.tile(xs[i].size(0)):
            out[i, t] = xs[i][t] + i
    return out


def test_each_part_writes_its_own_row(seed: int) -> None:
    def reference(xs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([torch.nn.functional.pad(x + i, (0, 9 - x.size(0))) for i, x in enumerate(xs)])

    run_everywhere(rows_of_one, ([torch.randn(4), torch.randn(9)],), reference, capabilities=[90])


def running_sum(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    a, b = torch.empty_like(x), torch.empty_like(x)
    for t in hl.tile(x.size(0)):
        a[t] = x[t]
    hl.barrier()
    step = 1
    while step < x.size(0):
        for t in hl.tile(x.size(0)):
            b[t] = a[t] + a[t - step]
        hl.barrier()
        a, b = b, a
        step *= 2
    for t in hl.tile(x.size(0)):
        b[t] = a[t] + 1
    return a, b, step


@pytest.mark.parametrize("static_shapes", [True, False])
def test_buffers_that_change_places_are_read_behind_the_loop(static_shapes: bool) -> None:
    def reference(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        return x.cumsum(0), x.cumsum(0) + 1, 16

    x = torch.arange(9.0)
    run_everywhere(running_sum, (x,), reference, static_shapes=static_shapes, capabilities=[90])


def first_long(xs: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, int]:
    found = xs[0]
    for i in range(len(xs)):
        for x in xs[i:]:
            flat = x.view(-1)
            for t in hl.tile(flat.numel()):
                flat[t] = flat[t] + 1
            if x.size(0) > 3:
                found = flat
                break
        break
    return x, found, i


def test_what_a_break_leaves_behind_a_loop() -> None:
    def reference(xs: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, int]:
        return xs[1] + 1, xs[1].view(-1) + 1, 0

    run_everywhere(first_long, ([torch.ones(n, 2) for n in (2, 4, 5)],), reference, capabilities=[90])


# -- what is refused


def same_row(xs: list[torch.Tensor]) -> torch.Tensor:
    out = torch.zeros([len(xs), 9], device=xs[0].device)
    for i in range(len(xs)):
        for t in hl.tile(xs[i].size(0)):
            out[-1 if i == 0 else 1, t] = xs[i][t]
    return out


def makes(xs: list[torch.Tensor]) -> list[torch.Tensor]:
    outs = []
    for x in xs:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t] + 1
        outs.append(out)
    return outs


def takes_a_copy(xs: list[torch.Tensor]) -> list[torch.Tensor]:
    for x in xs:
        part = x[:2].clone()
        for t in hl.tile(2):
            x[t] = part[t] + 1
    return xs


def reshapes_a_copy(xs: list[torch.Tensor]) -> list[torch.Tensor]:
    for x in xs:
        flat = x.expand(2, -1).reshape(-1)
        for t in hl.tile(flat.numel()):
            flat[t] = 1.0
    return xs


def pops(xs: list[torch.Tensor]) -> list[torch.Tensor]:
    for _ in range(2):
        x = xs.pop()
        for t in hl.tile(x.size(0)):
            x[t] = x[t] + 1
    return xs


def decides(xs: list[torch.Tensor]) -> list[torch.Tensor]:
    for x in xs:
        if x[0] > 0:
            for t in hl.tile(x.size(0)):
                x[t] = x[t] + 1
    return xs


def ends_tiles(xs: list[torch.Tensor]) -> list[torch.Tensor]:
    for x in xs:
        for i in hl.grid(x.size(0)):
            if x[i] < 0:
                break
            x[i] = x[i] + 1
    return xs


def read_behind(xs: list[torch.Tensor]) -> torch.Tensor:
    for x in xs:
        pair = x, x
        for t in hl.tile(x.size(0)):
            x[t] = x[t] + 1
    return pair[0]


def depends(xs: list[torch.Tensor]) -> list[torch.Tensor]:
    for _ in range(2):
        for t in hl.tile(xs[0].size(0)):
            xs[0][t] = xs[0][t] + 1
    return xs


def too_many(xs: list[torch.Tensor]) -> list[torch.Tensor]:
    for _ in range(1000):
        for t in hl.tile(xs[0].size(0)):
            xs[0][t] = 1.0
        hl.barrier()
    return xs


REFUSED = {
    makes: (exc.NestedGridLoop, "may only give names"),
    takes_a_copy: (exc.NestedGridLoop, "may only give names"),
    reshapes_a_copy: (exc.NestedGridLoop, "may only give names"),
    pops: (exc.NestedGridLoop, "may only give names"),
    decides: (exc.NestedGridLoop, "'x\\[0\\] > 0' stands in"),
    ends_tiles: (exc.StatementNotSupported, "break"),
    read_behind: (exc.CannotReadDeviceVariableOnHost, "variable 'pair' of a host loop"),
    same_row: (exc.LoopDependencyError, "is stored to here and stored to"),
    depends: (exc.LoopDependencyError, "is read here and stored to"),
    too_many: (exc.NestedGridLoop, "more than 256"),
}


@pytest.mark.parametrize("fn", REFUSED, ids=lambda fn: fn.__name__)
def test_what_an_unrolled_loop_cannot_do_is_refused(fn: Callable[..., Any]) -> None:
    expected, text = REFUSED[fn]
    with pytest.raises(expected, match=text):
        helion.kernel(fn)([torch.ones(4), torch.ones(3)])


def makes_pasted(xs: list[torch.Tensor]) -> list[torch.Tensor]:
    outs = [torch.empty_like(x) for x in xs]
    for x, out in zip(xs, outs):
        for t in hl.tile(x.size(0)):
            out[t] = x[t] + 1
    return outs


def test_the_advice_works_when_it_is_pasted(seed: int) -> None:
    with pytest.raises(exc.NestedGridLoop) as error:
        helion.kernel(makes)([torch.ones(4)])
    assert "outs = [torch.empty_like(x) for x in xs]" in str(error.value)
    assert "for x, out in zip(xs, outs):" in str(error.value)
    run_everywhere(makes_pasted, ([torch.randn(4), torch.randn(30)],), lambda xs: [x + 1 for x in xs])


def views(ps: list[torch.Tensor], gs: list[torch.Tensor], n: int) -> list[torch.Tensor]:
    for i, (p, g) in enumerate(zip(ps, gs)):
        p, flat = p.view(-1), g.t().unsqueeze(0)[0].reshape(g.shape[::-1])
        part = p[i : n + i]
        for t in hl.tile(part.numel()):
            part[t] = part[t] - flat[0, t]
    return ps


def views_in_place(ps: list[torch.Tensor], gs: list[torch.Tensor], n: int) -> list[torch.Tensor]:
    for i, (p, g) in enumerate(zip(ps, gs)):
        part = p.view(-1)[i : n + i]
        part -= g.t()[0, : part.numel()]
    return ps


@pytest.mark.parametrize("static_shapes", [True, False])
def test_views_have_names(static_shapes: bool, seed: int) -> None:
    args = ([torch.randn(3, 4), torch.randn(6, 4)], [torch.randn(5, 4), torch.randn(5, 7)], 5)
    run_everywhere(views, args, views_in_place, static_shapes=static_shapes)


def flattened(xs: list[torch.Tensor]) -> list[torch.Tensor]:
    for x in [x.view(-1) for x in xs]:
        for t in hl.tile(x.numel()):
            x[t] = x[t] * 2
    return xs


def test_a_loop_over_views(seed: int) -> None:
    args = ([torch.randn(3, 4), torch.randn(5), torch.randn(2, 2, 2)],)
    run_everywhere(flattened, args, lambda xs: [x.mul_(2) for x in xs])


@pytest.mark.compiles
@pytest.mark.softgpu(capability=80)
def test_views_are_those_of_each_call(softgpu: Any, seed: int) -> None:
    kernel = helion.kernel(flattened)
    for _ in range(4):
        xs = [torch.randn(3, 4, device=softgpu.device), torch.randn(5, device=softgpu.device)]
        expected = [x * 2 for x in xs]
        for found, wanted in zip(kernel(xs), expected):
            assert torch.equal(found, wanted)


def first_row_beside(x: torch.Tensor) -> torch.Tensor:
    for i in range(2):
        row = x[i]
        for t in hl.tile(row.size(0)):
            row[t] = row[t] + x[0, t]
    return x


def mosaic(xs: list[torch.Tensor], h: int, w: int) -> torch.Tensor:
    out = torch.zeros(2 * h, 2 * w, device=xs[0].device)
    for i, x in enumerate(xs):
        part = out[(i // 2) * h : (i // 2 + 1) * h, (i % 2) * w : (i % 2 + 1) * w]
        for t in hl.tile([h, w]):
            part[t] = x[t]
    return out


def test_parts_of_one_tensor_whose_bounds_are_numbers_of_each_call(seed: int) -> None:
    def reference(xs: list[torch.Tensor], h: int, w: int) -> torch.Tensor:
        return torch.cat([torch.cat(xs[:2], 1), torch.cat(xs[2:], 1)])

    run_everywhere(mosaic, ([torch.randn(5, 7) for _ in range(4)], 5, 7), reference, capabilities=[90])


def with_halves_below(x: torch.Tensor, above: hl.constexpr) -> torch.Tensor:
    h = x.size(0)
    out = torch.empty([h + h // 2, 4], device=x.device)
    below = out[h - above :]
    for t in hl.tile(h):
        out[t, :] = x[t, :]
    for t in hl.tile(h // 2):
        below[t, :] = x[t.index * 2, :]
    return out


def test_rows_of_a_tensor_beside_a_view_of_the_others(seed: int) -> None:
    run_everywhere(with_halves_below, (torch.randn(6, 4), 0), lambda x, _: torch.cat([x, x[::2]]), capabilities=[90])
    for static, advice in ((True, r"the two loops\."), (False, "constants, by the annotation hl.constexpr")):
        with pytest.raises(exc.LoopDependencyError, match=advice):
            helion.kernel(with_halves_below, static_shapes=static)(torch.randn(6, 4), 1)


def test_views_of_one_tensor_depend_on_each_other() -> None:
    with pytest.raises(exc.LoopDependencyError, match=r"'row_\d', which overlaps it"):
        helion.kernel(first_row_beside)(torch.ones(2, 4))
