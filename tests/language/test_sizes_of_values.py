"""Host code whose tensors are as large as what others hold says: nonzero, unique, bincount and their like."""

from __future__ import annotations

import math

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere


def double_used(x: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    rows = used.nonzero().squeeze(1)
    out = torch.zeros_like(x)
    for t in hl.tile(rows.size(0)):
        out[rows[t], :] = x[rows[t], :] * 2
    return out


@pytest.mark.parametrize("count", [5, 1, 0, 16])
def test_rows_that_a_mask_names(count: int) -> None:
    args = (torch.randn(16, 8), torch.arange(16) < count)
    run_everywhere(double_used, args, lambda x, u: torch.where(u[:, None], x * 2, 0.0), capabilities=[90])


@pytest.mark.parametrize("static", [True, False])
def test_one_kernel_serves_all_sizes(static: bool) -> None:
    kernel = helion.kernel(double_used, static_shapes=static)
    x = torch.randn(16, 8)
    first = kernel.bind((x, torch.arange(16) < 5))
    for count in (7, 0, 1, 16):
        used = torch.arange(16) < count
        assert kernel.bind((x, used)) is first
        assert torch.equal(kernel(x, used), torch.where(used[:, None], x * 2, 0.0))


@pytest.mark.parametrize("values", [[1, 2, 2, 3], [7, 7, 7, 7], [4, 3, 2, 1]])
def test_several_tensors_of_one_call(values: list[int]) -> None:
    def weighted(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, _, count = torch.unique(x, return_inverse=True, return_counts=True)
        out = torch.zeros(value.size(0), device=x.device)
        for t in hl.tile(value.size(0)):
            out[t] = value[t] * count[t].float()
        return out, value

    def expected(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, count = torch.unique(x, return_counts=True)
        return value.double() * count, value

    run_everywhere(weighted, (torch.tensor(values),), expected, capabilities=[90])


def test_places_of_a_matrix() -> None:
    def positives(x: torch.Tensor) -> torch.Tensor:
        at = (x > 0).nonzero()
        out = x.new_empty(at.size(0))
        for t in hl.tile(at.size(0)):
            out[t] = x[at[t, 0], at[t, 1]]
        return out

    def by_where(x: torch.Tensor) -> torch.Tensor:
        row, column = torch.where(x > 0)
        out = x.new_empty(row.size(0))
        for t in hl.tile(row.size(0)):
            out[t] = x[row[t], column[t]]
        return out

    for kernel in (positives, by_where):
        run_everywhere(kernel, (torch.randn(6, 7),), lambda x: x[x > 0], error_scale=0, capabilities=[90])


@pytest.mark.parametrize("counts", [[1, 2, 3], [0, 0, 1], [0, 0, 0]])
def test_segments_of_counts(counts: list[int]) -> None:
    def repeated(x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        segment = torch.repeat_interleave(torch.arange(counts.size(0), device=x.device), counts)
        out = torch.empty(segment.size(0), device=x.device)
        for t in hl.tile(segment.size(0)):
            out[t] = x[segment[t]]
        return out

    args = (torch.randn(3), torch.tensor(counts))
    run_everywhere(repeated, args, lambda x, c: x.repeat_interleave(c), error_scale=0, capabilities=[90])


@pytest.mark.parametrize("x", [torch.randn(20), -torch.rand(4)], ids=["some", "none"])
def test_such_a_size_may_decide(x: torch.Tensor) -> None:
    def grown(x: torch.Tensor) -> torch.Tensor:
        chosen = torch.masked_select(x, x > 0)
        if chosen.numel() == 0:
            return chosen
        out = torch.empty_like(chosen)
        for t in hl.tile(chosen.size(0)):
            out[t] = chosen[t] + 1
        return out

    run_everywhere(grown, (x,), lambda x: x[x > 0] + 1, capabilities=[90])


def test_experts_with_the_tokens_that_chose_them() -> None:
    def grouped(x: torch.Tensor, w: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        order = torch.argsort(expert, stable=True)
        counts = torch.bincount(expert, minlength=w.size(0))
        starts = torch.cumsum(counts, 0) - counts
        most = int(counts.max())
        out = x.new_zeros(x.size(0), w.size(2))
        for e, tm, tn in hl.tile([w.size(0), most, w.size(2)], block_size=[1, None, None]):
            n = counts[e.begin]
            if tm.begin < n:
                rows = order[torch.where(tm.index < n, starts[e.begin] + tm.index, 0)]
                acc = hl.zeros([tm, tn])
                for tk in hl.tile(x.size(1)):
                    acc = torch.addmm(acc, x[rows, tk], w[e.begin, tk, tn])
                hl.store(out, [rows, tn], acc, extra_mask=(tm.index < n)[:, None])
        return out

    expert = torch.tensor([0, 2, 2, 3, 0, 2, 2, 2, 2, 2, 3, 3, 0])
    args = (torch.randn(13, 24) / 4, torch.randn(4, 24, 20) / 4, expert)  # sums of tf32 products, near 1
    run_everywhere(
        grouped,
        args,
        lambda x, w, e: torch.einsum("td,tdo->to", x, w[e]),
        uses_dot=True,
        error_scale=16,
        capabilities=[90],
    )


@pytest.mark.parametrize(("step", "count"), [(1.0, 0), (3.0, 1), (10.0, 7)])
def test_functions_of_math_take_what_is_read(step: float, count: int) -> None:
    def scaled(x: torch.Tensor, step: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        st, k = step.item(), int(n)
        c = math.sqrt(1 - 0.9**st) + math.log2(k + 1) + math.exp(-float(k)) + 2.0**k
        out = torch.zeros_like(x)
        for t in hl.tile(math.ceil(k / 2) + math.floor(k / 3)):
            out[t] = x[t] * c
        return out

    def expected(x: torch.Tensor, step: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        st, k = float(step), int(n)
        c = math.sqrt(1 - 0.9**st) + math.log2(k + 1) + math.exp(-float(k)) + 2.0**k
        return torch.where(torch.arange(x.size(0)) < math.ceil(k / 2) + math.floor(k / 3), x * c, 0.0)

    args = (torch.randn(20), torch.tensor(step), torch.tensor(count))
    run_everywhere(scaled, args, expected, error_scale=4, capabilities=[90])


def test_what_is_of_unknown_size_in_a_loop_is_an_error() -> None:
    @helion.kernel
    def last(x: torch.Tensor) -> torch.Tensor:
        for i in range(2):
            rows = (x > i).nonzero().squeeze(1)
        out = x.new_empty(rows.size(0))
        for t in hl.tile(rows.size(0)):
            out[t] = x[rows[t]]
        return out

    with pytest.raises(exc.HostTensorRead, match="outside of Python loops"):
        last(torch.randn(8))


def chosen_rows(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    part = x[rows, 1:]
    out = torch.empty_like(part)
    for t in hl.tile(part.size(0)):
        out[t, :] = part[t, :] + 1
    return out


def chosen_twice(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    part = x[rows][:, x[0] > 0]
    out = torch.empty_like(part)
    for t, u in hl.tile(part.shape):
        out[t, u] = part[t, u] + 1
    return out


@pytest.mark.parametrize("static_shapes", [True, False])
def test_a_mask_as_index_of_host_code(static_shapes: bool, seed: int) -> None:
    kernel = helion.kernel(chosen_rows, static_shapes=static_shapes)
    x = torch.randn(9, 7)
    for rows in (torch.arange(9) > 3, torch.zeros(9, dtype=torch.bool), torch.ones(9, dtype=torch.bool)):
        assert torch.equal(kernel(x, rows), x[rows, 1:] + 1)
    run_everywhere(kernel, (x, torch.arange(9) > 3), lambda x, rows: x[rows, 1:] + 1, capabilities=[90])


def test_two_sizes_whose_product_is_not_known_to_be_small(seed: int) -> None:
    """Offsets were taken to need 64 bits, as the numbers do that stand for the sizes, and other calls were refused."""
    x = torch.randn(9, 7)
    x[0, :3] = torch.tensor([1.0, 1.0, -1.0])
    args = (x, torch.arange(9) > 3)
    run_everywhere(chosen_twice, args, lambda x, rows: x[rows][:, x[0] > 0] + 1, capabilities=[90])


def test_a_size_of_values_may_be_one(seed: int) -> None:
    """PyTorch asked whether it is 1, to say what is contiguous, and a call where it is was refused."""
    kernel = helion.kernel(chosen_twice)
    for columns, rows in ((3, 4), (1, 4), (3, 1), (1, 1)):
        x = torch.randn(9, 7).abs()
        x[0, columns:] *= -1
        assert torch.equal(kernel(x, torch.arange(9) < rows), x[:rows, :columns] + 1)


def every_column(x: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    columns = used.nonzero().squeeze(1)
    out = torch.zeros(x.size(0))
    for t in hl.tile(x.size(0)):
        out[t] = x[t, columns[:]].sum(1)
    return out


def first_columns(x: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    count = int(used.sum())
    out = torch.zeros(x.size(0))
    for t in hl.tile(x.size(0)):
        out[t] = x[t, :count].sum(1)
    return out


def other_columns(x: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    count = int(used.sum())
    out = torch.zeros(x.size(0))
    for t in hl.tile(x.size(0)):
        out[t] = x[t, count:].sum(1)
    return out


def ones_in_new_columns(x: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(x.size(0), int(used.sum()))
    for t in hl.tile(x.size(0)):
        out[t, :] = 1.0
    return out


@pytest.mark.parametrize("function", [every_column, first_columns, other_columns, ones_in_new_columns])
def test_a_value_as_long_as_such_a_size_is_an_error(function) -> None:
    """It had the length of the number that stands for the size: longer ones were cut, sums counted padding."""
    with pytest.raises(exc.SizeNotConstant, match=r"reads from a tensor(.|\n)*loop over it: `for c in hl.tile"):
        helion.kernel(function)(torch.randn(4, 6), torch.arange(6) < 3)


def test_what_the_error_says_to_do(seed: int) -> None:
    def columns_in_turn(x: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
        columns = used.nonzero().squeeze(1)
        out = torch.zeros(x.size(0), columns.size(0))
        for t in hl.tile(x.size(0)):
            for c in hl.tile(columns.size(0)):
                out[t, c] = x[t, columns[c]]
        return out

    args = (torch.randn(4, 6), torch.tensor([True, False, True, True, False, True]))
    run_everywhere(columns_in_turn, args, lambda x, used: x[:, used], capabilities=[90])


@pytest.mark.parametrize(
    "flat", [lambda x: x.nonzero().flatten(), lambda x: x.nonzero().view(-1), lambda x: x.nonzero().reshape(-1)]
)
def test_flattened_places_may_be_any_number(flat) -> None:
    def places(used):
        found = flat(used)
        out = torch.full([8], int(not found.size(0)), dtype=torch.int64)
        for t in hl.tile(found.size(0)):
            out[t] = found[t]
        return out

    kernel = helion.kernel(places, ignore_warnings=[exc.TensorOperationInWrapper])
    for count in (3, 1, 0, 2):
        expected = torch.full([8], int(count == 0))
        expected[:count] = torch.arange(count)
        assert torch.equal(kernel(torch.arange(8) < count), expected)


#: PyTorch before 2.13 has to know the size of what is assigned to a part of a tensor.
_ASSIGNS = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13),
    reason="PyTorch before 2.13 refuses it: its sizes must be known (docs/language.md)",
)


def _offsets(row: torch.Tensor) -> torch.Tensor:
    found = torch.zeros(6, dtype=torch.int64, device=row.device)
    found[1:] = torch.cumsum(torch.bincount(row, minlength=5), 0)
    return found


def _at_front(row: torch.Tensor) -> torch.Tensor:
    found = torch.zeros(row.size(0), dtype=row.dtype, device=row.device)
    chosen = row[row > 1]
    found[: chosen.size(0)] = chosen
    return found


@pytest.mark.parametrize(
    "made",
    [
        lambda x: x[x > 1] * 3,
        lambda x: x[x > 1].cumsum(0),
        lambda x: torch.diff(x[x > 1], prepend=x[:1]),
        lambda x: torch.where(x > 1)[0] + 1,
        lambda x: x[x > 1].unsqueeze(0).flatten(),
        pytest.param(_offsets, marks=_ASSIGNS),
        pytest.param(_at_front, marks=_ASSIGNS),
    ],
)
def test_host_operations_on_what_values_choose_take_any_number_of_them(made) -> None:
    def doubled(row):
        y = made(row)
        out = torch.empty_like(y)
        for t in hl.tile(y.size(0)):
            out[t] = y[t] * 2
        return out

    kernel = helion.kernel(doubled, ignore_warnings=[exc.TensorOperationInWrapper])
    for row in ([0, 2, 3, 4], [0, 1, 2], [1, 0, 1], [4, 4, 4, 0]):
        assert torch.equal(kernel(torch.tensor(row)), made(torch.tensor(row)) * 2)


@pytest.mark.parametrize("static_shapes", [True, False])
def test_len_is_the_size_of_each_call(static_shapes: bool) -> None:
    @helion.kernel(static_shapes=static_shapes, ignore_warnings=[exc.TensorOperationInWrapper])
    def starts_of_runs(x):
        starts = torch.cat([x.new_ones(1), x[1:] != x[:-1]]).nonzero().squeeze(1)
        runs = len(starts)
        out = torch.empty(runs + len(x), dtype=torch.int64)
        for t in hl.tile(runs):
            out[t] = starts[t]
        hl.barrier()
        for u in hl.tile(len(x)):
            out[runs + u.index] = x[u]
        return out

    for row in ([1, 1, 2, 2], [3, 3, 3, 3], [1, 2, 3, 4], [1, 1, 2]):
        x = torch.tensor(row)
        starts = torch.tensor([i for i in range(len(row)) if i == 0 or row[i] != row[i - 1]])
        assert torch.equal(starts_of_runs(x), torch.cat([starts, x]))


@pytest.mark.compiles
def test_a_tensor_of_unknown_size_may_be_cut_to_a_known_one(seed: int) -> None:
    def centred(x: torch.Tensor, labels: torch.Tensor, k: hl.constexpr) -> torch.Tensor:
        count = torch.bincount(labels, minlength=k)[:k]
        out = torch.empty([x.size(0), k])
        for t in hl.tile(x.size(0)):
            out[t, :] = x[t, None] / (count[:] + 1)[None, :]
        return out

    def expected(x: torch.Tensor, labels: torch.Tensor, k: int) -> torch.Tensor:
        return x[:, None] / (torch.bincount(labels, minlength=k)[:k] + 1)

    run_everywhere(centred, (torch.randn(9), torch.randint(0, 4, (9,)), 4), expected, capabilities=[90])


@pytest.mark.parametrize("ref_mode", [helion.RefMode.OFF, helion.RefMode.EAGER], ids=str)
def test_a_selection_that_is_shorter_than_the_loop_is_refused_in_every_mode(ref_mode: helion.RefMode) -> None:
    """Ref mode read zeros behind its end."""

    @helion.kernel(ref_mode=ref_mode, config=helion.Config(block_sizes=[4]))
    def moved_up(x: torch.Tensor) -> torch.Tensor:
        chosen, out = x[x > 1], torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = chosen[t]
        return out

    assert torch.equal(moved_up(torch.full([5], 2.0)), torch.full([5], 2.0))
    for x in (torch.arange(5.0), torch.zeros(5)):
        with pytest.raises(exc.InvalidAPIUsage, match="own length"):
            moved_up(x)
