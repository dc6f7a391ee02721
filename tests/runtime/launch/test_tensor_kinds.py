"""Every kind of tensor that PyTorch has, as the first argument of a kernel and after calls with plain ones."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._C import _functorch
from torch._subclasses import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor

import helion
import helion.language as hl
from helion import _extension
from helion import exc

pytestmark = [
    pytest.mark.softgpu(capability=90, software_only=True),
    pytest.mark.usefixtures("softgpu"),
    pytest.mark.compiles,
]

N = 256


class Labelled(torch.Tensor):
    """A subclass that is a tensor like any other."""


def fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.randn(N)


def freed() -> torch.Tensor:
    x = torch.randn(N)
    x.untyped_storage().resize_(0)
    return x


def inference() -> torch.Tensor:
    with torch.inference_mode():
        return torch.randn(N)


def quiet(make: Callable[[], torch.Tensor]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


#: Kinds that kernels take.
TAKEN: dict[str, Callable[[], torch.Tensor]] = {
    "plain": lambda: torch.randn(N),
    "Parameter": lambda: torch.nn.Parameter(torch.randn(N), requires_grad=False),
    "Buffer": lambda: torch.nn.Buffer(torch.randn(N)),
    "subclass": lambda: torch.randn(N).as_subclass(Labelled),
    "inference": inference,
    "lazily cloned": lambda: torch._lazy_clone(torch.randn(N)),
    "expanded": lambda: torch.randn(1).expand(N),
}

#: Kinds that they refuse, and what the message says of them.
REFUSED: dict[str, tuple[Callable[[], torch.Tensor], str]] = {
    "nested": (lambda: torch.nested.nested_tensor([torch.randn(3), torch.randn(4)]), "nested tensor"),
    "jagged": (
        lambda: torch.nested.nested_tensor([torch.randn(3), torch.randn(4)], layout=torch.jagged),
        "nested tensor",
    ),
    "coo": (lambda: torch.randn(N).to_sparse(), "sparse tensor"),
    "csr": (lambda: torch.eye(16).to_sparse_csr(), "sparse tensor"),
    "csc": (lambda: torch.eye(16).to_sparse_csc(), "sparse tensor"),
    "bsr": (lambda: torch.eye(16).to_sparse_bsr((4, 4)), "sparse tensor"),
    "bsc": (lambda: torch.eye(16).to_sparse_bsc((4, 4)), "sparse tensor"),
    "quantized": (lambda: torch.quantize_per_tensor(torch.randn(N), 0.1, 0, torch.qint8), "quantized tensor"),
    "mkldnn": (lambda: torch.randn(N).to_mkldnn(), "oneDNN"),
    "negated": (lambda: torch._neg_view(torch.randn(N)), "lazily negated"),
    "conjugated": (lambda: torch.randn(N, dtype=torch.complex64).conj(), "lazily conjugated"),
    "zero tensor": (lambda: torch._efficientzerotensor(N), "without memory"),
    "freed": (freed, "without memory"),
    "batched": (lambda: _functorch._add_batch_dim(torch.randn(2, N), 0, 1), "torch.func wrapped"),
    "functional": (lambda: torch._to_functional_tensor(torch.randn(N)), "without memory"),
    "two tensors": (lambda: TwoTensor(torch.randn(N), torch.randn(N)), "TwoTensor, which holds other tensors"),
    "masked": (
        lambda: torch.masked.masked_tensor(torch.randn(N), torch.ones(N, dtype=torch.bool)),
        "MaskedTensor, which holds other tensors",
    ),
}


@pytest.fixture(params=["extension", "python"])
def add(request: pytest.FixtureRequest) -> Any:
    @helion.kernel(config=helion.Config(block_sizes=[128]))
    def add(x, y):
        out = torch.empty_like(y)
        for t in hl.tile(y.size(0)):
            out[t] = x[t] + y[t]
        return out

    if request.param == "extension":
        if _extension.C is None:
            pytest.skip("needs helion._C")
    elif _extension.C is not None:
        add.dispatch_enabled = False
    return add


def warm(add: Any, calls: int) -> torch.Tensor:
    # Two tensors: the front knows no calls with one that is given twice.
    x, y = torch.randn(N), torch.randn(N)
    for _ in range(calls):
        assert torch.equal(add(x, y), x + y)
    return y


@pytest.mark.parametrize("calls", [0, 4], ids=["first", "steady"])
@pytest.mark.parametrize("kind", TAKEN)
def test_kind_that_is_taken(add: Any, kind: str, calls: int) -> None:
    y = warm(add, calls)
    for _ in range(3):
        x = TAKEN[kind]()
        torch.testing.assert_close(add(x, y), x.as_subclass(torch.Tensor) + y)


@pytest.mark.parametrize("calls", [0, 4], ids=["first", "steady"])
@pytest.mark.parametrize("kind", REFUSED)
def test_kind_that_is_refused_with_what_it_is(add: Any, kind: str, calls: int) -> None:
    make, what = REFUSED[kind]
    y = warm(add, calls)
    for _ in range(3):
        with pytest.raises(exc.InvalidAPIUsage, match=what):
            add(quiet(make), y)
    warm(add, 3)


def test_kinds_in_turn(add: Any, seed: int) -> None:
    """Each kind before, between and after plain tensors and others of its own and another kind."""
    x, y = torch.randn(N), torch.randn(N)
    kinds: list[tuple[str, Any, str | None]] = [(kind, make, None) for kind, make in TAKEN.items()]
    kinds += [(kind, make, what) for kind, (make, what) in REFUSED.items()]
    random.seed(seed)
    for kind, make, what in [*kinds, *random.sample(kinds, len(kinds))]:
        for plain in (False, True, False, False, True, True, False):
            if plain or what is None:
                given = x if plain else make()
                torch.testing.assert_close(add(given, y), given.as_subclass(torch.Tensor) + y, msg=kind)
                continue
            for position in (0, 1):
                with pytest.raises(exc.InvalidAPIUsage, match=what):
                    odd = quiet(make)
                    add(odd, y) if position == 0 else add(x, odd)


@pytest.mark.parametrize("calls", [0, 4], ids=["first", "steady"])
def test_fake_tensors_without_their_mode_launch_nothing(add: Any, calls: int) -> None:
    warm(add, calls)
    from tests import softgpu

    before = softgpu.launches()
    x = fake()
    with x.fake_mode:
        y = torch.randn(N)
    try:
        result = add(x, y)
    except exc.InvalidAPIUsage:
        result = None
    assert softgpu.launches() == before
    assert result is None or type(result) is type(x)


@pytest.mark.parametrize("calls", [0, 4], ids=["first", "steady"])
def test_meta_tensors_give_shapes(add: Any, calls: int) -> None:
    y = warm(add, calls)
    x = torch.empty(N, device="meta")
    for _ in range(3):
        result = add(x, x)
        assert result.is_meta and result.shape == x.shape
    with pytest.raises(exc.DeviceMismatch):
        add(x, y)
    warm(add, 3)


@pytest.mark.parametrize("calls", [0, 4], ids=["first", "steady"])
def test_a_parameter_that_is_not_initialised_says_so(add: Any, calls: int) -> None:
    y = warm(add, calls)
    with pytest.raises(ValueError, match="uninitialized parameter"):
        add(torch.nn.UninitializedParameter(), y)


def test_values_of_a_sparse_tensor_are_taken(add: Any) -> None:
    y = torch.randn(N)
    for sparse in (torch.eye(N).to_sparse_csr(), torch.eye(N).to_sparse().coalesce()):
        for _ in range(3):
            assert torch.equal(add(sparse.values(), y), 1 + y)


@pytest.mark.parametrize("calls", [0, 8])
def test_dual_tensors_are_refused_but_inside_an_autograd_function(add: Any, calls: int) -> None:
    from torch.autograd import forward_ad

    class Add(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            return add(x, y)

        @staticmethod
        def jvp(ctx, dx, dy):
            return dx + dy

    x, y = torch.randn(N), warm(add, calls)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones(N))
        with pytest.raises(exc.InvalidAPIUsage, match="tangent"):
            add(dual, y)
        with pytest.raises(exc.InvalidAPIUsage, match="tangent"), torch.no_grad():
            add(y, dual)
        assert torch.equal(add(forward_ad.unpack_dual(dual).primal, y), x + y)
        primal, tangent = forward_ad.unpack_dual(Add.apply(dual, forward_ad.make_dual(y, torch.ones(N))))
    assert torch.equal(primal, x + y)
    assert torch.equal(tangent, torch.full([N], 2.0))
    assert torch.equal(add(dual, y), x + y)
