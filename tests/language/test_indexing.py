"""Index semantics: shapes and elements of an access, against a loop over single elements."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from helion import exc
from helion.language.eager_access import EagerAccess
from helion.language.eager_tile import EagerTile
from helion.language.indexing import indexed_shape


def tile(begin: int, end: int, offset: int = 0) -> EagerTile:
    return EagerTile("axis", begin, end, max(end - begin, 1), begin, end, offset)


def expected_elements(x: np.ndarray, index: list) -> np.ndarray:
    """`x[index]` by the rules of the module docstring, one element at a time; 0 outside for tiles."""
    tensors = [np.asarray(e) for e in index if isinstance(e, torch.Tensor) and e.dim() > 0]
    gathered = np.broadcast_shapes(*(t.shape for t in tensors)) if tensors else ()
    # For each index element: the result dimensions it uses, and the position for given coordinates there.
    sizes: list[int] = []
    sources = []
    gather_at = None
    dim = 0
    for e in index:
        if e is None:
            sizes.append(1)
            continue
        if isinstance(e, EagerTile):
            sources.append((len(sizes), lambda c, e=e: int(e.begin) + c))
            sizes.append(int(e.end) - int(e.begin))
        elif isinstance(e, slice):
            positions = range(*e.indices(x.shape[dim]))
            sources.append((len(sizes), lambda c, p=positions: p[c]))
            sizes.append(len(positions))
        elif isinstance(e, torch.Tensor) and e.dim() > 0:
            if gather_at is None:
                gather_at = len(sizes)
                sizes.extend(gathered)
            sources.append(("gather", np.broadcast_to(np.asarray(e), gathered)))
        else:
            value = int(e)
            if type(e) is int and value < 0:
                value += x.shape[dim]
            sources.append((None, value))
        dim += 1
    result = np.zeros(sizes, dtype=x.dtype)
    for coordinates in itertools.product(*(range(s) for s in sizes)):
        at = []
        for place, how in sources:
            if place is None:
                at.append(how)
            elif place == "gather":
                at.append(int(how[coordinates[gather_at : gather_at + len(gathered)]]))
            else:
                at.append(how(coordinates[place]))
        if all(0 <= p < n for p, n in zip(at, x.shape, strict=True)):
            result[coordinates] = x[tuple(at)]
    return result


@st.composite
def accesses(draw):
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    gathered = draw(st.sampled_from([(3,), (2, 3), (1,), (2, 1)]))
    index = []
    for n in sizes:
        kind = draw(st.sampled_from(["tile", "int", "slice", "all", "tensor", "scalar", "shifted"]))
        if kind in ("tile", "shifted"):
            begin = draw(st.integers(0, n - 1))
            end = draw(st.integers(begin, n))
            index.append(tile(begin, end, draw(st.integers(-3, 3)) if kind == "shifted" else 0))
        elif kind == "int":
            index.append(draw(st.integers(-n, n - 1)))
        elif kind == "slice":
            index.append(slice(draw(st.integers(-n, n)), draw(st.integers(-n, n)), draw(st.integers(1, 3))))
        elif kind == "all":
            index.append(slice(None))
        elif kind == "scalar":
            index.append(torch.tensor(draw(st.integers(0, n - 1))))
        else:
            count = int(np.prod(gathered))
            values = draw(st.lists(st.integers(0, n - 1), min_size=count, max_size=count))
            index.append(
                torch.tensor(values, dtype=draw(st.sampled_from([torch.int32, torch.int64]))).reshape(gathered)
            )
        if draw(st.booleans()) and draw(st.booleans()):
            index.append(None)
    return sizes, index


@settings(max_examples=300, deadline=None)
@given(accesses())
@pytest.mark.slow
def test_reading_any_index_gives_the_elements_it_names(case):
    sizes, index = case
    x = torch.arange(1, 1 + int(np.prod(sizes))).reshape(sizes)
    got = EagerAccess(x, index, None, "load").read()
    np.testing.assert_array_equal(got.numpy(), expected_elements(x.numpy(), index))


@settings(max_examples=100, deadline=None)
@given(accesses())
def test_the_shape_rule_agrees_with_the_elements(case):
    sizes, index = case
    x = torch.zeros(sizes)
    shape = [getattr(s, "extent", lambda s=s: s)() for s in indexed_shape(x, index)]
    assert shape == list(EagerAccess(x, index, None, "load").shape)


@settings(max_examples=200, deadline=None)
@given(accesses(), st.integers(0, 2**32 - 1))
@pytest.mark.slow
def test_writing_any_index_changes_those_elements_and_no_others(case, seed):
    sizes, index = case
    x = torch.arange(1, 1 + int(np.prod(sizes))).reshape(sizes)
    access = EagerAccess(x, index, None, "store")
    mask = torch.rand(access.shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    touched = set(expected_elements(x.numpy(), index)[mask.numpy()].flatten().tolist()) - {0}
    before = x.clone()
    EagerAccess(x, index, mask, "store").write(-1)
    changed = set(before[x == -1].tolist())
    assert changed == touched
    assert torch.equal(x[x != -1], before[x != -1])


def test_a_tile_and_a_tensor_index_give_an_outer_product():
    x = torch.arange(20).reshape(4, 5)
    got = EagerAccess(x, [tile(1, 3), torch.tensor([0, 4, 0])], None, "load").read()
    assert got.tolist() == [[5, 9, 5], [10, 14, 10]]


def test_tensor_indices_separated_by_a_slice_stand_at_the_first():
    x = torch.arange(24).reshape(2, 3, 4)
    got = EagerAccess(x, [torch.tensor([1, 0]), slice(None), torch.tensor([3, 2])], None, "load").read()
    assert torch.equal(got, torch.stack([x[1, :, 3], x[0, :, 2]]))


def test_positions_of_a_shifted_tile_outside_the_tensor_read_zero_and_are_not_written():
    x = torch.ones(4)
    assert EagerAccess(x, [tile(0, 4, -1)], None, "load").read().tolist() == [0, 1, 1, 1]
    EagerAccess(x, [tile(0, 4, 2)], None, "store").write(torch.tensor([5.0, 6.0, 7.0, 8.0]))
    assert x.tolist() == [1, 1, 5, 6]


def test_masked_positions_may_point_anywhere():
    x = torch.ones(4)
    index = torch.tensor([0, 100, -7, 3])
    mask = torch.tensor([True, False, False, True])
    assert EagerAccess(x, [index], mask, "load").read().tolist() == [1, 0, 0, 1]
    EagerAccess(x, [index], mask, "store").write(9.0)
    assert x.tolist() == [9, 1, 1, 9]


def test_an_unmasked_position_outside_is_an_error_that_names_the_range():
    with pytest.raises(exc.IndexOutOfRange, match=r"dimension 0 has size 4.*from 100 to 100"):
        EagerAccess(torch.ones(4), [torch.tensor([0, 100])], None, "load")


def test_an_index_into_an_empty_tensor_reads_nothing_where_masked():
    x = torch.empty(0, 3)
    got = EagerAccess(x, [torch.tensor([0, 1]), slice(None)], torch.tensor([[False], [False]]), "load").read()
    assert got.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_reading_copies():
    x = torch.zeros(4)
    value = EagerAccess(x, [tile(0, 4)], None, "load").read()
    x += 1
    assert value.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.bool])
def test_dtypes_with_few_kernels_are_moved_bit_for_bit(dtype):
    x = torch.tensor([0, 1, 2, 1]).to(dtype)
    got = EagerAccess(x, [torch.tensor([3, 1, 0])], torch.tensor([True, True, False]), "load").read()
    assert got.dtype is dtype and got.to(torch.float32).tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("index", "error", "text"),
    [
        ([0], exc.RankMismatch, "expected 2 indices, got 1"),
        ([0, 0, 0], exc.RankMismatch, "expected 2 indices, got 3"),
        ([True, 0], exc.InvalidAPIUsage, "boolean is not an index"),
        ([torch.tensor([True, False]), 0], exc.DataDependentOutputShapeNotSupported, "boolean index"),
        ([torch.tensor([0.5]), 0], exc.InvalidAPIUsage, "float32 is not an index"),
        (["a", 0], exc.InvalidAPIUsage, "str is not an index"),
        ([slice(None, None, -1), 0], exc.InvalidAPIUsage, "positive"),
        ([Ellipsis, Ellipsis], exc.InvalidAPIUsage, "only one"),
        ([torch.tensor([0, 1]), torch.tensor([0, 1, 2])], exc.ShapeMismatch, "do not broadcast"),
    ],
)
def test_wrong_indices_are_errors(index, error, text):
    with pytest.raises(error, match=text):
        indexed_shape(torch.zeros(4, 5), index)
