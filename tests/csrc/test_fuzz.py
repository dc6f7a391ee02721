"""Random calls have the same outcome through C and through Python: same values, types, identities and errors."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.softgpu(capability=90, software_only=True)

HOST = """\
def host(x, y, n=2, flag=None, *, _launcher=_default_launcher):
    out = torch.empty_like(x)
    if flag:
        _launcher(_scale_kernel, (x.numel() // BLOCK_0,), x, out, n, num_warps=4, num_stages=1)
        return out, n, x
    _launcher(_add_kernel, (x.numel() // BLOCK_0,), x, y, out, num_warps=4, num_stages=1)
    return [out.view(-1), x]
"""


class Sub(torch.Tensor):
    pass


def values(rng: random.Random) -> list[Any]:
    """One of each kind of argument; the tensors' contents are set by the caller's seed."""
    base = torch.randn(1024)
    return [
        base[:256], base[256:512], base[1:257], torch.randn(512)[::2], torch.randn(128), torch.randn(2, 128),
        torch.randn(256, dtype=torch.float64), torch.randn(128, 2).t(), torch.randn(0),
        torch.nn.Parameter(torch.randn(256), requires_grad=False), torch.randn(256).as_subclass(Sub),
        torch.randint(0, 9, (256,)), None, True, False, 0, 1, 2, 16, 17, -3, 2**31, 2**70, 0.5, -0.0, float("nan"),
        "text", torch.float32, torch.device("cpu"), (1, 2), [base[:128]], {}, object(), ...,
    ]  # fmt: skip


def random_call(rng: random.Random, pool: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def pick(position: int) -> Any:
        # Mostly calls that make sense: nonsense is refused early.
        if rng.random() < 0.85:
            return rng.choice(pool[:2] if position < 2 else [2, 3, 0.5, 16] if position == 2 else [None, True])
        return rng.choice(pool)

    count = rng.choices([0, 1, 2, 3, 4, 5], [1, 2, 10, 10, 10, 1])[0]
    args = tuple(pick(i) for i in range(count))
    kwargs = {
        name: pick(i)
        for i, name in enumerate(["x", "y", "n", "flag", "z"])
        if rng.random() < (0.02 if i < count else 0.3)
    }
    return args, kwargs


def outcome(call, args, kwargs) -> Any:
    try:
        return call(*args, **kwargs)
    except Exception as error:  # whatever it is, its type is the outcome
        return error


def same(left: Any, right: Any) -> bool:
    if isinstance(left, Exception) or isinstance(right, Exception):
        return type(left) is type(right)
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return (
            left.shape == right.shape and left.stride() == right.stride() and left.dtype == right.dtype
            and torch.equal(torch.nan_to_num(left.detach()), torch.nan_to_num(right.detach()))
        )  # fmt: skip
    if isinstance(left, (tuple, list)):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right))
    return left == right or (left != left and right != right)


@pytest.mark.parametrize("asked", [False, True], ids=["", "overlaps asked"])
def test_random_calls(make, seed, asked):
    rng = random.Random(seed)
    kernel = make(HOST)
    if asked:
        kernel._assume_apart(frozenset({(0, 1), (1, 2), (3, 3)}))
    pool = values(rng)
    plans = 0
    for step in range(1500):
        args, kwargs = random_call(rng, pool)
        hits = kernel.plan_hits
        fast = outcome(kernel, args, kwargs)
        plans += kernel.plan_hits - hits
        slow = outcome(kernel.python, args, kwargs)
        assert same(fast, slow), f"seed {seed}, step {step}: {args} {kwargs}\n{fast!r}\n{slow!r}"
        if isinstance(fast, (tuple, list)):
            given = args[0] if args else kwargs["x"]
            assert fast[-1] is given and slow[-1] is given
    assert plans > 100
