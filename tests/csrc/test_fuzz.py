"""Random calls have the same outcome through C and through Python: same values, types, identities and errors.

Each is a call of one of a few host functions, in a random state of the thread (grad mode, autocast, default dtype),
with and without the output pool. ``make fuzz-calls`` goes on for as long as it is told (``HELION_FUZZ_SECONDS``), under
the sanitizers.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from helion.runtime import output_pool

pytestmark = pytest.mark.softgpu(capability=90, software_only=True)

LAUNCHES = """\
def host(x, y, n=2, flag=None, *, _launcher=_default_launcher):
    out = torch.empty_like(x)
    if flag:
        _launcher(_scale_kernel, (x.numel() // BLOCK_0,), x, out, n, num_warps=4, num_stages=1)
        return out, n, x
    _launcher(_add_kernel, (x.numel() // BLOCK_0,), x, y, out, num_warps=4, num_stages=1)
    return [out.view(-1), x]
"""

OPERATIONS = """\
def host(x, y, n=2, flag=None, *, _launcher=_default_launcher):
    z = y.to(x.dtype).contiguous()
    out = torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    rest = torch.empty(x.numel())
    _launcher(_add_kernel, (x.numel() // BLOCK_0,), x, z, out, num_warps=4, num_stages=1)
    _launcher(_scale_kernel, (x.numel() // BLOCK_0,), out, rest, n, num_warps=4, num_stages=1)
    return out, (rest.view(-1), None, flag), x
"""

IN_PLACE = """\
def host(x, y, n=2, flag=None, *, _launcher=_default_launcher):
    if x is y:
        return n, x
    _launcher(_scale_kernel, (x.numel() // BLOCK_0,), x, x, n, num_warps=4, num_stages=1)
    return y, x.shape, x
"""

#: Each returns its first argument last.
HOSTS = {"launches": LAUNCHES, "operations": OPERATIONS, "in place": IN_PLACE}


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


def shown(value: Any) -> str:
    """A value as a message has it: of a tensor what tells it from the others."""
    if isinstance(value, torch.Tensor):
        return f"<{value.dtype} {list(value.shape)} {list(value.stride())} {value.data_ptr():#x}>"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(shown, value))}]"
    return repr(value)


def same_values(left: torch.Tensor, right: torch.Tensor) -> bool:
    return torch.equal(torch.nan_to_num(left.detach()), torch.nan_to_num(right.detach()))


def same(left: Any, right: Any) -> bool:
    if isinstance(left, Exception) or isinstance(right, Exception):
        return type(left) is type(right)
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return (
            left.shape == right.shape and left.stride() == right.stride() and left.dtype == right.dtype
            and same_values(left, right)
        )  # fmt: skip
    if isinstance(left, (tuple, list)):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right))
    return left == right or (left != left and right != right)


@contextlib.contextmanager
def random_state(rng: random.Random, alone: bool) -> Iterator[None]:
    """Mostly the usual one; or one that a call has to notice, or not to mind. What is the whole process's changes only
    where no other thread compares.
    """
    with contextlib.ExitStack() as stack:
        if rng.random() < 0.1:
            stack.enter_context(rng.choice([torch.no_grad, torch.inference_mode])())
        if rng.random() < 0.05:
            stack.enter_context(torch.autocast("cpu"))
        if alone and rng.random() < 0.05:
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(torch.float64)
        if alone and rng.random() < 0.3:
            stack.callback(output_pool.configure, False)
            output_pool.configure(True)
        yield


def disturb(rng: random.Random, kernel: Any, held: list[Any]) -> None:
    """What else a program does between calls: it keeps and changes outputs, and makes plans stale."""
    if held and rng.random() < 0.05:
        out = rng.choice(held)
        with contextlib.suppress(RuntimeError):  # an inference tensor, one whose memory is fixed
            rng.choice([lambda: out.resize_(3), lambda: out.add_(1), lambda: out.numpy(), lambda: out.t_()])()
    if len(held) > 8:
        del held[: rng.randrange(8)]
    if rng.random() < 0.002:
        kernel._invalidate()
    if rng.random() < 0.002:
        output_pool.clear()


def compare_calls(kernel: Any, seed: int, steps: int, alone: bool = True) -> int:
    """Makes random calls both ways, each on contents of its own; returns how many of them ran as plans."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    pool = values(rng)
    tensors = [value for value in pool if isinstance(value, torch.Tensor)]
    held: list[Any] = []
    plans = 0
    for step in range(steps):
        args, kwargs = random_call(rng, pool)
        contents = [tensor.clone() for tensor in tensors]
        hits = kernel.plan_hits
        with random_state(rng, alone):
            fast = outcome(kernel, args, kwargs)
            plans += kernel.plan_hits - hits
            written = [tensor.clone() for tensor in tensors]
            for tensor, content in zip(tensors, contents):
                tensor.data.copy_(content)
            slow = outcome(kernel.python, args, kwargs)
        told = f"seed {seed}, step {step}: {shown(args)} {shown(list(kwargs.items()))}\n{shown(fast)}\n{shown(slow)}"
        assert same(fast, slow), told
        assert [i for i, (a, b) in enumerate(zip(tensors, written)) if not same_values(a, b)] == [], told
        if isinstance(fast, (tuple, list)):
            given = args[0] if args else kwargs["x"]
            assert fast[-1] is given and slow[-1] is given, told
            held += [out for out in fast if isinstance(out, torch.Tensor) and all(out is not t for t in tensors)]
        for tensor, content in zip(tensors, contents):
            tensor.data.copy_(content)
        disturb(rng, kernel, held)
    return plans


#: For each test of this file.
SECONDS = float(os.environ.get("HELION_FUZZ_SECONDS", "0")) / (4 * len(HOSTS))


@pytest.mark.parametrize("asked", [False, True], ids=["", "overlaps asked"])
@pytest.mark.parametrize("host", HOSTS)
def test_random_calls(make, seed, host, asked):
    end = time.monotonic() + SECONDS
    calls = plans = 0
    while not calls or time.monotonic() < end:
        kernel = make(HOSTS[host])
        if asked:
            kernel._assume_apart(frozenset({(0, 1), (1, 2), (3, 3)}))
        plans += compare_calls(kernel, seed, 1000)
        calls += 1000
        seed += 1
    print(f"{host}: {calls} calls, {plans} of them plans")
    assert plans > calls / 50


@pytest.mark.parametrize("pool", [False, True], ids=["fresh", "pool"])
@pytest.mark.parametrize("host", HOSTS)
def test_random_calls_of_one_kernel_in_threads(make, seed, host, pool):
    """Each thread with tensors of its own, while all of them make its plans stale and clear the pool."""
    end = time.monotonic() + SECONDS
    output_pool.configure(pool)
    try:
        calls = plans = 0
        while not calls or time.monotonic() < end:
            kernel = make(HOSTS[host], max_entries=8)
            with ThreadPoolExecutor(4) as threads:
                running = [threads.submit(compare_calls, kernel, seed + i, 300, alone=False) for i in range(4)]
            for thread in running:
                thread.result()
            calls += 4 * 300
            plans += kernel.plan_hits
            seed += 4
        print(f"{host} in threads: {calls} calls, {plans} of them plans")
        assert plans > calls / 50
    finally:
        output_pool.configure(False)
