"""Shape rules agree with eager rules, and never look at the value of a symbolic size."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import helion.language as hl
from helion import exc
from helion.language.eager_tile import EagerTile
from helion.language.op import ALL_OPS
from helion.language.op import handler
from helion.runtime.eager.handler import EagerHandler

CPU = torch.device("cpu")


def tile(begin: int, end: int, axis: str = "m") -> EagerTile:
    return EagerTile(axis, begin, end, end - begin, 0, end)


def add(a: Any, b: Any) -> Any:
    return a + b


F, I, B = torch.randn(6, 8), torch.randint(0, 6, (5,)), torch.rand(5) < 0.5  # noqa: E741
#: Op -> argument lists (complete, in signature order).
ARGUMENTS: dict[str, list[tuple[Any, ...]]] = {
    "tile_index": [(tile(2, 6),)],
    "load": [
        (F, [tile(1, 4), slice(None)], None, None),
        (F, [I, 3], B, ""),
        (F, [I, slice(1, 8, 3)], None, None),
        (F, [None, tile(0, 6), None, I[:2]], None, None),
        (F.bool(), [0, 0], None, "evict_last"),
    ],
    "store": [(F.clone(), [tile(1, 4), 0], 1.0, None), (F.clone(), [I, slice(None)], torch.ones(8).half(), None)],
    "subscript": [(F, [slice(None), None, slice(None)]), (F, [None]), (F, [Ellipsis, None])],
    "full": [
        ([3, tile(0, 4)], 2.5, torch.float16, None),
        ([], True, torch.bool, None),
        ([2], torch.tensor(3.0), torch.int32, None),
    ],
    "iota": [(3, 5, 2, torch.int64), (torch.tensor(1), 4, 1, torch.int32)],
    "dot": [
        (F, F.T, None, None),
        (F.half(), F.T.half(), torch.ones(6), torch.float16),
        (torch.ones(2, 3, 4).to(torch.int8), torch.ones(2, 4, 5).to(torch.int8), None, None),
        (F.double(), F.T.double(), None, None),
    ],
    "dot_scaled": [
        (
            torch.ones(4, 32).to(torch.float8_e4m3fn),
            torch.full((4, 2), 127, dtype=torch.uint8)[:, :1],
            "e4m3",
            torch.ones(16, 5).to(torch.uint8),
            None,
            "e2m1",
            None,
            torch.float16,
        )
    ],
    "reduce": [
        (add, F, -1, 0, False),
        (add, F, 0, 0, True),
        (lambda a, b, c, d: (a, b), (F, F.int()), 1, (0, 1), False),
    ],
    "associative_scan": [(add, F, 0, True), (lambda a, b: a, (F, F.bool()), 1, False)],
    "cumsum": [(F, 1, False), (F.int(), 0, True), (F.half(), -1, False)],
    "cumprod": [(F.bool(), 1, False)],
    "philox_rand": [(3, torch.arange(12).reshape(3, 4))],
    "philox_rand4x": [(torch.tensor(3), torch.arange(5, dtype=torch.int32))],
    "philox_bits": [(3, torch.arange(5))],
    "lanes_of": [(F, [6, 8]), (F, [tile(0, 6), 8])],
    "split": [(F.reshape(6, 4, 2),)],
    "take_along_dim": [(F, torch.randint(0, 8, (6, 3)), 1), (F, torch.zeros(2, 8, dtype=torch.int32), -2)],
    "sort_keys": [(torch.randint(0, 9, (6, 8)),), (torch.arange(4),)],
    "join": [(F, F[:1].int())],
    "device_print": [("x", (F, 1))],
    "breakpoint": [()],
    "atomic_add": [(F.clone(), [I, 2], torch.ones(5), "relaxed", None)],
    "atomic_and": [(torch.ones(4, dtype=torch.int32), [tile(0, 3)], 1, "acquire", None)],
    "atomic_or": [(torch.ones(4, dtype=torch.int64), [2], 1, "release", None)],
    "atomic_xor": [(torch.ones(4, dtype=torch.int64), [I % 4], 1, "acq_rel", B)],
    "atomic_max": [(F.clone(), [tile(1, 3), slice(None)], 0.0, "relaxed", None)],
    "atomic_min": [(F.clone(), [0, 0], 0.0, "relaxed", None)],
    "atomic_xchg": [(F.clone(), [0, tile(0, 8)], 0.0, "relaxed", None)],
    "atomic_cas": [(torch.ones(4), [tile(0, 4)], 1.0, 2.0, "relaxed", None)],
    "signal": [(torch.zeros(4, dtype=torch.int32), [tile(0, 3)], 1, None)],
    "wait": [(torch.ones(4, dtype=torch.int64), [I % 4], 1, None)],
    "stack_load": [(torch.ones(4), torch.tensor([torch.ones(4).data_ptr()] * 2), [tile(0, 3)], None)],
    "stack_store": [],
    "inline_asm_elementwise": [],
    "inline_triton": [],
    "triton_kernel": [],
}
CASES = [(name, i) for name, cases in ARGUMENTS.items() for i in range(len(cases))]


def test_every_op_is_listed():
    assert set(ARGUMENTS) == set(ALL_OPS)


class FakeHandler(EagerHandler):
    """Runs shape rules, the way a tracer does."""

    def call_op(self, op: Any, args: tuple[Any, ...]) -> Any:
        return op.shape_rule(*args)


def described(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(int(getattr(s, "extent", lambda s=s: s)()) for s in value.shape), value.dtype
    return tuple(described(v) for v in value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_shape_rule_gives_the_eager_rules_shape_and_dtype(name, case, monkeypatch, capsys):
    monkeypatch.setattr("sys.breakpointhook", lambda *a: None)
    args = ARGUMENTS[name][case]
    op = ALL_OPS[name]
    with handler(EagerHandler(CPU)):
        eager = described(op.eager_rule(*args))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes = torch.utils._pytree.tree_map(lambda v: mode.from_tensor(v) if isinstance(v, torch.Tensor) else v, args)
    with mode, handler(FakeHandler(CPU)):
        assert described(op.shape_rule(*fakes)) == eager


@contextlib.contextmanager
def symbolic(*hints: int) -> Any:
    """Symbolic sizes under a FakeTensorMode, as a tracer has them."""
    env = ShapeEnv()
    mode = FakeTensorMode(shape_env=env)
    sizes = [env.create_unbacked_symint() for _ in hints]
    with mode, handler(FakeHandler(CPU)):
        yield (env, *sizes)


def test_rules_do_not_guard_on_symbolic_sizes():
    with symbolic(1, 1, 1) as (env, m, n, k):
        a, b = torch.empty(m, k), torch.empty(k, n)
        product = hl.dot(a, b, torch.empty(m, n))
        assert product.shape[0] is m or product.shape[0] == m
        value = hl.load(torch.empty(n, m), [slice(None), torch.empty(m, dtype=torch.int32)])
        hl.store(torch.empty(n, m), [slice(None), slice(None)], value)
        hl.reduce(add, (product, product), 1)
        hl.cumsum(product, 0)
        hl.join(product, torch.empty(m, 1))
        hl.full([m, 4, n], 0.0)
        assert not env.guards


def test_different_symbolic_sizes_do_not_broadcast():
    with symbolic(1, 1) as (_, m, n), pytest.raises(exc.ShapeMismatch, match="do not broadcast"):
        hl.join(torch.empty(m), torch.empty(n))


def test_different_symbolic_inner_sizes_do_not_multiply():
    with symbolic(1, 1) as (_, m, n), pytest.raises(exc.ShapeMismatch, match="inner sizes differ"):
        hl.dot(torch.empty(16, m), torch.empty(n, 16))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: hl.load("x", [0]), exc.InvalidAPIUsage),
        (lambda: hl.load(F, [0, 0], eviction_policy="soon"), exc.InvalidAPIUsage),
        (lambda: hl.load(F, [0, slice(None)], extra_mask=torch.ones(8)), exc.InvalidAPIUsage),
        (lambda: hl.load(F, [0, slice(None)], extra_mask=torch.ones(3, dtype=torch.bool)), exc.ShapeMismatch),
        (lambda: hl.store(F, [0, slice(None)], torch.ones(3)), exc.ShapeMismatch),
        (lambda: hl.store(F, [0, 0], "x"), exc.InvalidAPIUsage),
        (lambda: hl.full([2.5], 0.0), exc.InvalidAPIUsage),
        (lambda: hl.full([2], torch.ones(2)), exc.ShapeMismatch),
        (lambda: hl.full([2], 0.0, device="meta"), exc.InvalidAPIUsage),
        (lambda: hl.arange(), exc.InvalidAPIUsage),
        (lambda: hl.arange(1.5), exc.InvalidAPIUsage),
        (lambda: hl.arange(0, 5, 0), exc.InvalidAPIUsage),
        (lambda: hl.reduce(add, F, 2), exc.InvalidAPIUsage),
        (lambda: hl.reduce(add, (F, F[:1]), 1), exc.ShapeMismatch),
        (lambda: hl.reduce(add, F, 1, other=(0, 1)), exc.InvalidAPIUsage),
        (lambda: hl.reduce(3, F, 1), exc.InvalidAPIUsage),
        (lambda: hl.associative_scan(add, (), 1), exc.InvalidAPIUsage),
        (lambda: hl.dot_scaled(F, None, "e9m9", F, None, "e4m3"), exc.InvalidAPIUsage),
        (lambda: hl.dot_scaled(F, None, "e4m3", F, None, "e4m3"), exc.UnsupportedDtype),
        (lambda: hl.inline_asm_elementwise("", "", [1], torch.int32, True, 1), exc.InvalidAPIUsage),
        (lambda: hl.inline_triton("", [], None), exc.InvalidAPIUsage),
        (lambda: hl.triton_kernel(3, [], None), exc.InvalidAPIUsage),
        (lambda: hl.stacktensor_like(F, F), exc.UnsupportedDtype),
        (lambda: hl.device_print(F), exc.InvalidAPIUsage),
        (lambda: hl.tile_begin(3), exc.InvalidAPIUsage),
    ],
)
def test_wrong_arguments_are_errors(call, error):
    with FakeTensorMode(allow_non_fake_inputs=True), handler(FakeHandler(CPU)), pytest.raises(error):
        call()
