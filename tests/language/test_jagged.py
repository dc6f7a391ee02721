"""A jagged dimension is as long in each row as the row: what is in no row is not counted, in any mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from tests.support import compile_for
from tests.support import run_everywhere
from tests.support import ways

pytestmark = pytest.mark.gpu

LENGTHS = torch.tensor([3, 17, 50, 1, 32, 9], dtype=torch.int32)
CONFIG = {"block_sizes": [4, 64]}  # one jagged tile holds the longest row


def rows_of(x: torch.Tensor, lengths: torch.Tensor, f: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    return torch.stack([f(row[:n]) for row, n in zip(x, lengths.tolist())])


REDUCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda v: v.sum(-1),
    "mean": lambda v: v.mean(-1),
    "amax": lambda v: (v - 3).amax(-1),
    "max": lambda v: (v - 3).max(-1).values,
    "amin": lambda v: v.amin(-1),
    "prod": lambda v: (v / 2).prod(-1),
    "argmax": lambda v: (-v).argmax(-1),
    "argmin": lambda v: v.argmin(-1),
    "any": lambda v: (v < 0).any(-1),
    "all": lambda v: (v > 0.99).all(-1),
    "var": lambda v: v.var(-1, correction=0),
    "logsumexp": lambda v: torch.logsumexp(v, -1),
    "softmax": lambda v: (torch.softmax(v, -1) * v).sum(-1),
    "reverse scan": lambda v: (hl.cumsum(v, v.dim() - 1, reverse=True)).amax(-1),
    "reduce": lambda v: hl.reduce(lambda a, b: a + b, v, v.dim() - 1),
    "scan": lambda v: v.cumsum(-1).amax(-1),
    "count": lambda v: torch.linalg.vector_norm(v, ord=0, dim=-1),
    "smallest": lambda v: torch.linalg.vector_norm(v, ord=float("-inf"), dim=-1),
    "norm": lambda v: torch.norm(v, dim=-1),
    "aminmax": lambda v: torch.aminmax(v, dim=-1).max - torch.aminmax(v, dim=-1)[0],
    "view": lambda v: v.reshape([*v.shape[:-1], 1, v.shape[-1]]).sum(-1).sum(-1),
    "transposed": lambda v: v.T.sum(0) if v.dim() == 2 else v.sum(0),
}
PLAIN = {
    "reverse scan": lambda v: v.flip(0).cumsum(0).amax(),
    "reduce": lambda v: v.sum(),
    "transposed": lambda v: v.sum(),
}


def reduced(x: torch.Tensor, lengths: torch.Tensor, f: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    out = torch.zeros([x.size(0)], dtype=torch.float32, device=x.device)
    for rows in hl.tile(x.size(0)):
        for columns in hl.jagged_tile(lengths[rows]):
            out[rows] = f(x[rows, columns] + 1).to(torch.float32)
    return out


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_of_derived_values_count_what_is_inside(name: str, seed: int) -> None:
    x = torch.rand(len(LENGTHS), 60)
    f = REDUCTIONS[name]
    run_everywhere(
        reduced,
        (x, LENGTHS, f),
        lambda x, lengths, f: rows_of(x + 1, lengths, PLAIN.get(name, f)),
        reference_args=(x.double(), LENGTHS, f),
        configs=[CONFIG],
        error_scale=100,
        capabilities=(90,),
    )


def column_sums(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Along the rows' dimension, and along both."""
    out = torch.zeros([x.size(1) + 1], device=x.device)
    for rows in hl.tile(x.size(0)):
        for columns in hl.jagged_tile(lengths[rows]):
            value = x[rows, columns] + 1
            hl.atomic_add(out, [columns.index], value.sum(0), extra_mask=columns.index < x.size(1))
            hl.atomic_add(out, [x.size(1)], value.sum())
    return out


def test_sums_over_rows_and_over_all_count_what_is_inside(seed: int) -> None:
    def reference(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        value = torch.where(torch.arange(x.size(1)) < lengths[:, None], x + 1, 0.0)
        return torch.cat([value.sum(0), value.sum()[None]])

    run_everywhere(
        column_sums, (torch.rand(6, 60), LENGTHS), reference, configs=[{"block_sizes": [4, 16]}], error_scale=100
    )


def product(x: torch.Tensor, lengths: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty([x.size(0), y.size(1)], device=x.device)
    for rows in hl.tile(x.size(0)):
        acc = hl.zeros([rows, y.size(1)])
        for columns in hl.jagged_tile(lengths[rows]):
            inside = columns.index < y.size(0)
            other = hl.load(y, [columns.index, slice(None)], extra_mask=inside[:, None])
            acc = hl.dot(x[rows, columns] + 1, other, acc=acc)
        out[rows, :] = acc
    return out


def test_products_take_what_is_inside(seed: int) -> None:
    def reference(x: torch.Tensor, lengths: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.arange(x.size(1)) < lengths[:, None], x + 1, 0.0) @ y

    args = (torch.rand(6, 60), LENGTHS, torch.rand(60, 16) / 8)
    run_everywhere(product, args, reference, configs=[{"block_sizes": [16, 32]}], error_scale=100, uses_dot=True)


def in_lanes(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """A value that a loop carries, one lane per column: those outside of their row stay as they are."""
    block = hl.register_block_size(16, 16)
    out = torch.empty([x.size(0)], device=x.device)
    for rows in hl.tile(x.size(0)):
        lanes = hl.zeros([rows, block])
        for columns in hl.jagged_tile(lengths[rows], block_size=block):
            lanes = lanes + x[rows, columns] + 1
        out[rows] = lanes.sum(1)
    return out


def test_lanes_outside_of_a_row_stay_as_they_are(seed: int) -> None:
    args = (torch.rand(6, 60), LENGTHS)
    expected = rows_of(args[0].double() + 1, LENGTHS, torch.sum)
    kernel = helion.kernel(in_lanes)
    config = {"block_sizes": [16, 4]}
    for way in ways(kernel, args, [config], (80,)):
        torch.testing.assert_close(way.run(*args), expected.float())  # in any order of additions


@pytest.mark.compiles
def test_compiles_for_every_gpu() -> None:
    compile_for(helion.kernel(reduced), (torch.rand(6, 60), LENGTHS, REDUCTIONS["var"]), CONFIG)


def at_the_top(x, lengths):
    for columns in hl.jagged_tile(lengths):
        x[0, columns] = 1.0


def of_another_shape(x, lengths):
    for rows in hl.tile(x.size(0)):
        for columns in hl.jagged_tile(lengths[:]):
            x[rows, columns] = 1.0


def of_one_row(x, lengths):
    for i in hl.grid(x.size(0)):
        for columns in hl.jagged_tile(lengths[i]):
            x[i, columns] = 1.0


def without_rows(x, lengths):
    for rows in hl.tile(x.size(0)):
        for columns in hl.jagged_tile(lengths[rows]):
            x[rows, columns] = x[0, columns][None, :] + hl.zeros([rows, columns])


def scanned_back(x, lengths):
    for rows in hl.tile(x.size(0)):
        for columns in hl.jagged_tile(lengths[rows]):
            x[rows, columns] = hl.associative_scan(lambda a, b: a + b, x[rows, columns], 1, reverse=True)


@pytest.mark.parametrize("mode", ["compiled", "ref"])
@pytest.mark.parametrize(
    ("kernel", "match"),
    [
        (at_the_top, "not inside a loop over the rows"),
        (of_another_shape, "dimension 0 of the row lengths is not the tile of a loop"),
        (of_one_row, "needs a tensor of row lengths"),
        (without_rows, "in an index without the rows"),
        (scanned_back, "begins past the ends of rows"),
    ],
)
def test_other_uses_are_refused(kernel: Any, match: str, mode: str) -> None:
    bound_args = (torch.zeros(6, 60), LENGTHS)
    settings = {"ref_mode": helion.RefMode.EAGER} if mode == "ref" else {}
    with pytest.raises(exc.InvalidJaggedTileUsage, match=match):
        helion.kernel(kernel, **settings)(*bound_args)


@pytest.mark.parametrize(
    "f",
    [
        lambda v: torch.einsum("ij,ij->i", v, v),
        lambda v: torch.nn.functional.cosine_similarity(v, v + 1, dim=1),
        lambda v: torch.nn.functional.normalize(v, dim=1).sum(1),
        lambda v: torch.linalg.vecdot(v, v),
        lambda v: v.sum_to_size(v.size(0), 1).sum(1),
    ],
)
def test_ref_mode_refuses_functions_that_would_count_what_is_outside(f: Any) -> None:
    with pytest.raises(exc.BackendUnsupported, match="along a jagged dimension"):
        helion.kernel(reduced, ref_mode=helion.RefMode.EAGER)(torch.rand(6, 60), LENGTHS, f)


EXPANDED: dict[str, Callable[..., torch.Tensor]] = {
    "expand": lambda v, rows, at: v.expand(*at.shape),
    "kept": lambda v, rows, at: v.expand(-1, at.size(dim=1)),
    "broadcast_to": lambda v, rows, at: torch.broadcast_to(v, at.shape),
    "expand_as": lambda v, rows, at: v.expand_as(at),
    "broadcast_tensors": lambda v, rows, at: torch.broadcast_tensors(v, at)[0],
    "zeros": lambda v, rows, at: hl.zeros([rows, at.size(1)]) + v,
}


def repeated(x: torch.Tensor, lengths: torch.Tensor, form: str) -> torch.Tensor:
    out = torch.zeros_like(x)
    for rows in hl.tile(x.size(0)):
        for j in hl.jagged_tile(lengths[rows]):
            at = rows.index[:, None] + j.index[None, :]
            out[rows] = out[rows] + EXPANDED[form](x[rows][:, None], rows, at).sum(1)
    return out


@pytest.mark.parametrize("form", EXPANDED)
def test_a_value_that_is_made_as_long_as_rows_has_their_lengths(form: str) -> None:
    x = torch.randn(len(LENGTHS))
    run_everywhere(
        repeated, (x, LENGTHS, form), lambda x, n, _: x * n, configs=[{"block_sizes": [4, 16]}], capabilities=[90]
    )


def sums_of_rows(data: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    out = torch.zeros([lengths.size(0)], dtype=data.dtype, device=data.device)
    for t in hl.tile(lengths.size(0)):
        for c in hl.jagged_tile(lengths[t]):
            out[t] = out[t] + data[starts[t][:, None] + c.index[None, :]].sum(dim=1)
    return out


def test_lengths_of_a_dtype_that_pytorch_compares_with_no_other() -> None:
    lengths, starts = torch.tensor([3, 0, 7, 9]), torch.tensor([0, 3, 3, 10])
    data = torch.arange(19.0)
    expected = torch.stack([data[s : s + n].sum() for s, n in zip(starts.tolist(), lengths.tolist())])
    args = data, starts, lengths.to(torch.uint16)
    run_everywhere(sums_of_rows, args, lambda *_: expected, reference_args=args, capabilities=[90])
