"""helion._C.tensor_key equals the Python key, or is None."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from helion import _extension
from helion.runtime.launch.specialization import _tensor_key
from helion.settings import Settings

pytestmark = pytest.mark.usefixtures("C")

STATIC = Settings()
DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


class Sub(torch.Tensor):
    pass


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Tensors of every dtype, rank 0 to 4, with permuted, stepped, expanded and shifted views."""
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    tensor = torch.zeros(shape, dtype=draw(st.sampled_from(DTYPES)))
    for _ in range(draw(st.integers(0, 3))):
        if tensor.dim() == 0:
            break
        dim = draw(st.integers(0, tensor.dim() - 1))
        match draw(st.sampled_from(["step", "shift", "permute", "expand", "unsqueeze"])):
            case "step":
                tensor = tensor[(slice(None),) * dim + (slice(None, None, 2),)]
            case "shift":
                tensor = tensor[(slice(None),) * dim + (slice(1, None),)]
            case "permute":
                tensor = tensor.permute(draw(st.permutations(range(tensor.dim()))))
            case "expand":
                tensor = tensor.unsqueeze(0).expand(3, *tensor.shape)
            case "unsqueeze":
                tensor = tensor.unsqueeze(dim)
    return tensor


@settings(max_examples=300, deadline=None)
@given(tensors())
def test_equals_the_python_key(tensor: torch.Tensor) -> None:
    key = _extension.C.tensor_key(STATIC, tensor)
    expected = _tensor_key(STATIC, tensor)
    assert key == expected
    assert hash(key) == hash(expected)
    assert all(type(part) is tuple for part in key[1:3])


def test_parameter_has_the_key_of_its_tensor() -> None:
    tensor = torch.zeros(3, 4)
    assert _extension.C.tensor_key(STATIC, torch.nn.Parameter(tensor)) == _tensor_key(STATIC, tensor)


def test_dimensions_marked_static_are_in_the_key() -> None:
    tensor = torch.zeros(3, 4)
    torch._dynamo.mark_static(tensor, 1)
    assert _extension.C.tensor_key(STATIC, tensor) == _tensor_key(STATIC, tensor)
    assert _extension.C.tensor_key(STATIC, tensor)[3] == frozenset({1})


def test_owner_may_be_a_kernel() -> None:
    class Owner:
        settings = STATIC

    tensor = torch.zeros(3)
    assert _extension.C.tensor_key(Owner(), tensor) == _tensor_key(Owner(), tensor)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(3).as_subclass(Sub),
        lambda: torch.zeros(3, dtype=torch.complex64).conj(),
        lambda: torch.zeros(3, dtype=torch.complex64).conj().imag,
        lambda: torch.zeros(3, 3).to_sparse(),
        lambda: torch.zeros(3, 3).to_mkldnn() if torch.backends.mkldnn.is_available() else torch.zeros(2).to_sparse(),
        lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        lambda: 3,
        lambda: None,
    ],
    ids=["subclass", "conj", "neg", "sparse", "mkldnn", "nested", "int", "none"],
)
def test_what_it_does_not_handle_is_none(make) -> None:
    assert _extension.C.tensor_key(STATIC, make()) is None


def test_fake_tensor_is_none() -> None:
    with FakeTensorMode():
        assert _extension.C.tensor_key(STATIC, torch.zeros(3)) is None


def test_tensor_wrapped_by_a_transform_is_none() -> None:
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(_extension.C.tensor_key(STATIC, x))
        return x

    torch.func.vmap(look)(torch.zeros(2, 3))
    assert seen == [None]


def test_dynamic_shapes_are_the_python_paths() -> None:
    assert _extension.C.tensor_key(Settings(static_shapes=False), torch.zeros(3)) is None


def test_wrong_number_of_arguments() -> None:
    with pytest.raises(TypeError, match="takes 2 arguments"):
        _extension.C.tensor_key(STATIC)
