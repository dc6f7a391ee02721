"""`Kernel.bind` of calls that have a plan, and calls of what it gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import helion
import helion.language as hl
from helion import _extension

pytestmark = [
    pytest.mark.softgpu(capability=90, software_only=True),
    pytest.mark.usefixtures("softgpu"),
    pytest.mark.compiles,
    pytest.mark.skipif(_extension.C is None, reason="needs helion._C"),
]

CONFIG = helion.Config(block_sizes=[64])


def make_scale(**settings: Any) -> Any:
    @helion.kernel(config=CONFIG, **settings)
    def scale(x, factor: hl.constexpr = 2):
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t] * factor
        return out

    return scale


class Watching(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


def test_bind_finds_what_the_plan_is_of() -> None:
    scale = make_scale()
    x, y = torch.randn(128), torch.randn(192)
    assert scale.find_bound((x,)) is None
    bound, other = scale.bind((x,)), scale.bind((y, 3))
    for _ in range(3):
        scale(x)
        scale(y, 3)
    assert scale.find_bound((x,)) is scale.find_bound([x, 2]) is scale.bind((x,)) is bound
    assert scale.find_bound((y, 3)) is scale.bind([y, 3]) is other
    assert scale.find_bound((x, 3)) is None
    assert scale.find_bound((x[1:],)) is None
    assert scale.find_bound((x, 2, 3)) is None
    with pytest.raises(TypeError, match="scale"):
        scale.bind((x, 2, 3))
    with Watching():
        assert scale.find_bound((x,)) is None
        assert scale.bind((x,)) is bound


def test_bind_after_reset_and_after_a_new_config() -> None:
    scale = make_scale()
    x = torch.randn(128)
    for _ in range(3):
        scale(x)
    bound = scale.bind((x,))
    bound.set_config(helion.Config(block_sizes=[32]))
    assert scale.find_bound((x,)) is None
    assert scale.bind((x,)) is bound
    scale.reset()
    assert scale.find_bound((x,)) is None
    anew = scale.bind((x,))
    assert anew is not bound
    for _ in range(3):
        assert torch.equal(scale(x), x * 2)
    assert scale.find_bound((x,)) is anew


def test_bind_of_sizes_that_share_a_specialization_gives_the_first() -> None:
    scale = make_scale(static_shapes=False)
    tensors = [torch.randn(n) for n in (128, 1, 192)]
    for x in [x for x in tensors for _ in range(3)]:
        scale(x)
    assert {scale.find_bound((x,)) for x in tensors} == {scale.bind((tensors[0],))}


def test_calls_of_a_bound_kernel_are_the_kernels(seed: int) -> None:
    scale = make_scale()
    x, y = torch.randn(128), torch.randn(192)
    bound = scale.bind((x,))
    for _ in range(4):
        assert torch.equal(bound(x), x * 2)
        assert torch.equal(bound(factor=2, x=x), x * 2)
    assert scale.plan_hits == 6
    assert torch.equal(bound(y, 3), y * 3)  # of another specialization


def test_a_bound_kernel_that_was_forgotten_runs_with_its_own_config(seed: int) -> None:
    scale = make_scale()
    x = torch.randn(128)
    bound = scale.bind((x,))
    for _ in range(3):
        bound(x)
    scale.reset()
    hits = scale.plan_hits
    for _ in range(3):
        assert torch.equal(bound(x), x * 2)
        assert torch.equal(bound(x=x), x * 2)
    assert scale.plan_hits == hits
    assert bound.forward_to is None


def test_what_a_call_is_forwarded_to_is_checked() -> None:
    forwarder = _extension.C.Forwarder()
    with pytest.raises(TypeError, match="callable"):
        forwarder.forward_to = 3
    with pytest.raises(AttributeError, match="_call_python"):
        forwarder(1)
    forwarder.forward_to = lambda *args, **keywords: (args, keywords)
    assert forwarder(1, 2, a=3) == ((1, 2), {"a": 3})
    assert forwarder(*[1], a=3) == ((1,), {"a": 3})
    assert list(map(forwarder, [1])) == [((1,), {})]
    forwarder.forward_to = None
    assert forwarder.forward_to is None
