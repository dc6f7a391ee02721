"""helion._C.broadcast_tensors: the arguments themselves where there is nothing to broadcast, torch's views
otherwise.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from helion import _extension

pytestmark = pytest.mark.usefixtures("C")

shapes = st.lists(st.integers(1, 3), min_size=0, max_size=3)


@settings(max_examples=100, deadline=None)
@given(st.lists(shapes, min_size=1, max_size=3))
def test_equals_torch(all_shapes: list[list[int]]) -> None:
    tensors = [torch.randn(shape) for shape in all_shapes]
    try:
        expected = torch.broadcast_tensors(*tensors)
    except RuntimeError as error:
        with pytest.raises(RuntimeError) as raised:
            _extension.C.broadcast_tensors(*tensors)
        assert str(raised.value) == str(error)
        return
    found = _extension.C.broadcast_tensors(*tensors)
    assert type(found) is tuple and len(found) == len(expected)
    for a, b in zip(found, expected):
        assert torch.equal(a, b) and a.stride() == b.stride()


def test_equal_shapes_give_the_arguments_themselves() -> None:
    x, y = torch.randn(2, 3), torch.randn(3, 2).t()
    a, b = _extension.C.broadcast_tensors(x, y)
    assert a is x and b is y


def test_subclass_goes_to_torch() -> None:
    class Sub(torch.Tensor):
        pass

    x = torch.randn(2).as_subclass(Sub)
    (found,) = _extension.C.broadcast_tensors(x)
    assert type(found) is Sub


def test_host_code_uses_it() -> None:
    from helion import runtime

    assert runtime.broadcast_tensors is _extension.C.broadcast_tensors
