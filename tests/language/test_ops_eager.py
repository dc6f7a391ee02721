"""Eager rules against PyTorch: memory, creation, reductions, scans, views, debug, stacks."""

from __future__ import annotations

import pytest
import torch

import helion.language as hl
from helion import exc

N = 45


def rows(ref, x, body, config=None):
    """`body` applied to row tiles of `x` in device code; the parts, concatenated."""
    results: list = []

    def kernel(x):
        for t in hl.tile(x.size(0)):
            results.append(body(x[t, :]))
        return x

    ref(kernel, x, config=config)
    if isinstance(results[0], tuple):
        return tuple(torch.cat(parts) for parts in zip(*results, strict=True))
    return torch.cat(results)


def test_load_reads_with_a_mask(ref, blocks, rng):
    def kernel(x, keep):
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = hl.load(x, [t], extra_mask=keep[t], eviction_policy="evict_last")
        return out

    x, keep = torch.randn(N, generator=rng), torch.rand(N, generator=rng) < 0.5
    assert torch.equal(ref(kernel, x, keep, config=blocks), torch.where(keep, x, 0.0))


def test_store_writes_with_a_mask_and_converts(ref, blocks, rng):
    def kernel(x, out, keep):
        for t in hl.tile(x.size(0)):
            hl.store(out, [t], x[t] * 2, extra_mask=keep[t])
        return out

    x, keep = torch.randn(N, generator=rng), torch.rand(N, generator=rng) < 0.5
    got = ref(kernel, x, torch.full((N,), 9.0, dtype=torch.float16), keep, config=blocks)
    assert torch.equal(got, torch.where(keep, (x * 2).half(), torch.tensor(9.0).half()))


def test_a_masked_load_may_point_outside(ref, blocks):
    def kernel(x):
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            at = t.index + 3
            out[t] = hl.load(x, [at], extra_mask=at < x.size(0))
        return out

    x = torch.arange(20.0)
    assert ref(kernel, x, config=blocks).tolist() == [*range(3, 20), 0, 0, 0]


def test_gather_and_scatter_with_index_tensors(ref, blocks, rng):
    def kernel(table, index, out):
        for t in hl.tile(index.size(0)):
            out[index[t], :] = table[index[t], :] + 1
        return out

    table, index = torch.randn(30, 6, generator=rng), torch.randperm(30, generator=rng)[:17]
    got = ref(kernel, table, index, torch.zeros(30, 6), config=blocks)
    expected = torch.zeros(30, 6)
    expected[index] = table[index] + 1
    assert torch.equal(got, expected)


def test_values_loaded_before_a_store_keep_their_value(ref):
    def kernel(x):
        for t in hl.tile(x.size(0)):
            old = x[t]
            x[t] = old + 1
            x[t] = x[t] * 10 + old
        return x

    assert ref(kernel, torch.tensor([1.0, 2.0])).tolist() == [21, 32]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.int64, torch.bool, torch.uint8])
def test_full_and_zeros_have_the_tiles_shape_and_dtype(ref, dtype):
    def kernel(x):
        for t in hl.tile(x.size(0), block_size=4):
            z, f = hl.zeros([t, 3], dtype), hl.full([3, t], 1, dtype)
            assert z.dtype is dtype and f.dtype is dtype
            assert list(z.shape) == [x[t].size(0), 3] and list(f.shape) == [3, x[t].size(0)]
            assert z.sum() == 0 and f.to(torch.float32).sum() == f.numel()
            x[t] = 0
        return x

    ref(kernel, torch.empty(7))


def test_full_takes_a_loaded_scalar(ref):
    def kernel(x, s):
        for t in hl.tile(x.size(0)):
            x[t] = hl.full([t], s[1])
        return x

    assert ref(kernel, torch.empty(3), torch.tensor([1.0, 7.0])).tolist() == [7, 7, 7]


def test_arange_forms(ref):
    def kernel(x):
        for t in hl.tile(x.size(0), block_size=4):
            assert hl.arange(5).tolist() == [0, 1, 2, 3, 4]
            assert hl.arange(2, 5).tolist() == [2, 3, 4]
            assert hl.arange(1, 8, 3).tolist() == [1, 4, 7]
            assert hl.arange(3, dtype=torch.float32).dtype is torch.float32
            assert hl.arange(3).dtype is torch.int32
            assert torch.equal(hl.arange(t.begin, t.begin + t.block_size), t.index)
            assert torch.equal(t.begin + hl.arange(t.block_size), t.index)
            x[t] = 0
        return x

    ref(kernel, torch.empty(6))


@pytest.mark.parametrize("shape", ["zeros", "ones", "new_zeros", "full", "zeros_like"])
def test_torch_creation_functions_take_tiles(ref, shape):
    def kernel(x):
        for t in hl.tile(x.size(0), block_size=4):
            value = {
                "zeros": lambda: torch.zeros([t, 2]),
                "ones": lambda: torch.ones(t, 2),
                "new_zeros": lambda: x[t].new_zeros([t.block_size, 2]),
                "full": lambda: torch.full([t, 2], 3.0),
                "zeros_like": lambda: torch.zeros_like(x[t])[:, None].expand(t, 2),
            }[shape]()
            assert list(value.shape) == [int(t.end) - int(t.begin), 2]
            x[t] = value.sum(1)
        return x

    ref(kernel, torch.empty(6))


@pytest.mark.parametrize("size", [1, 2, 3, 8, 13, 64])
def test_reduce_with_a_sum_is_a_sum(ref, rng, size):
    x = torch.randn(5, size, generator=rng, dtype=torch.float64)
    got = rows(ref, x, lambda v: hl.reduce(lambda a, b: a + b, v, 1))
    torch.testing.assert_close(got, x.sum(1))


def test_reduce_keeps_the_order_of_neighbours(ref):
    """First-element is associative but not commutative."""
    x = torch.arange(21.0).reshape(3, 7)
    got = rows(ref, x, lambda v: hl.reduce(lambda a, b: a, v, -1, keep_dims=True))
    assert got.tolist() == [[0.0], [7.0], [14.0]]


@pytest.mark.parametrize("form", ["flat", "tuples"])
def test_reduce_over_a_tuple_computes_argmax(ref, rng, form):
    def flat(value_a, index_a, value_b, index_b):
        take = (value_b > value_a) | ((value_b == value_a) & (index_b < index_a))
        return torch.where(take, value_b, value_a), torch.where(take, index_b, index_a)

    def tuples(left, right):
        return flat(*left, *right)

    combine = {"flat": flat, "tuples": tuples}[form]
    x = torch.randint(0, 5, (9, 33), generator=rng).float()

    def body(v):
        index = torch.arange(v.size(1)).expand(v.size(0), v.size(1))
        return hl.reduce(combine, (v, index), 1, other=(float("-inf"), 0))

    values, indices = rows(ref, x, body)
    assert torch.equal(values, x.amax(1)) and torch.equal(indices, x.argmax(1))


def test_reduce_over_a_triple_computes_welford(ref, rng):
    def combine(mean_a, m2_a, n_a, mean_b, m2_b, n_b):
        n = n_a + n_b
        delta = mean_b - mean_a
        return mean_a + delta * n_b / n, m2_a + m2_b + delta * delta * n_a * n_b / n, n

    x = torch.randn(6, 50, generator=rng, dtype=torch.float64)
    mean, m2, n = rows(ref, x, lambda v: hl.reduce(combine, (v, torch.zeros_like(v), torch.ones_like(v)), 1))
    torch.testing.assert_close(mean, x.mean(1))
    torch.testing.assert_close(m2 / n, x.var(1, correction=0))


def test_reduce_of_an_empty_dimension_gives_other(ref):
    got = rows(ref, torch.empty(3, 0), lambda v: hl.reduce(torch.maximum, v, 1, other=-5.0))
    assert got.tolist() == [-5, -5, -5]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("size", [1, 2, 7, 32, 33])
def test_associative_scan_with_a_product_is_cumprod(ref, rng, size, reverse):
    x = torch.rand(4, size, generator=rng, dtype=torch.float64) + 0.5
    got = rows(ref, x, lambda v: hl.associative_scan(lambda a, b: a * b, v, -1, reverse=reverse))
    expected = x.flip(1).cumprod(1).flip(1) if reverse else x.cumprod(1)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("reverse", [False, True])
def test_associative_scan_over_a_pair_runs_a_linear_recurrence(ref, rng, reverse):
    """h[i] = a[i] h[i-1] + b[i], which is neither commutative nor symmetric."""

    def combine(a_l, b_l, a_r, b_r):
        return a_l * a_r, b_l * a_r + b_r

    x = torch.rand(3, 20, generator=rng, dtype=torch.float64)
    _, got = rows(ref, x, lambda v: hl.associative_scan(combine, (v, v + 1), 1, reverse=reverse))
    h, expected = torch.zeros(3, dtype=torch.float64), torch.empty(3, 20, dtype=torch.float64)
    for i in reversed(range(20)) if reverse else range(20):
        h = x[:, i] * h + x[:, i] + 1
        expected[:, i] = h
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("op", ["cumsum", "cumprod"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32, torch.bool])
def test_cumulative_ops_equal_torchs(ref, rng, op, dtype):
    x = (torch.rand(4, 19, generator=rng) * 2).to(dtype)
    got = rows(ref, x, lambda v: getattr(hl, op)(v, 1))
    expected = getattr(torch, op)(x.double() if dtype.is_floating_point else x, 1)
    assert got.dtype is (dtype if dtype.is_floating_point else torch.int64)
    tolerance = {torch.bfloat16: 1e-2, torch.float32: 1e-5}.get(dtype, 0)
    torch.testing.assert_close(got.double(), expected.double(), rtol=tolerance, atol=0)


@pytest.mark.parametrize("op", ["cumsum", "cumprod"])
def test_reverse_cumulative_ops_run_from_the_end(ref, rng, op):
    x = torch.rand(4, 19, generator=rng, dtype=torch.float64)
    got = rows(ref, x, lambda v: getattr(hl, op)(v, 1, reverse=True))
    torch.testing.assert_close(got, getattr(torch, op)(x.flip(1), 1).flip(1))


def test_torch_cumsum_takes_a_dtype(ref):
    x = torch.ones(2, 5, dtype=torch.int8)
    got = rows(ref, x, lambda v: torch.cumsum(v, 1, dtype=torch.float32))
    assert got.dtype is torch.float32 and got[0].tolist() == [1, 2, 3, 4, 5]


def test_split_and_join_are_inverse(ref, rng):
    x = torch.randn(5, 8, generator=rng)

    def body(v):
        even, odd = hl.split(v.reshape(v.size(0), 4, 2))
        assert torch.equal(hl.join(even, odd).reshape(v.size(0), 8), v)
        return even, odd

    even, odd = rows(ref, x, body)
    assert torch.equal(even, x[:, ::2]) and torch.equal(odd, x[:, 1::2])


def test_join_broadcasts_and_promotes(ref):
    got = rows(ref, torch.ones(2, 3, dtype=torch.int32), lambda v: hl.join(v, v[:, :].float().sum(1, keepdim=True)))
    assert got.dtype is torch.float32 and got[0].tolist() == [[1, 3]] * 3


def test_split_of_another_size_is_an_error(ref):
    with pytest.raises(exc.ShapeMismatch, match="last dimension of size 2"):
        rows(ref, torch.ones(2, 3), hl.split)


def test_subscript_adds_dimensions(ref):
    x = torch.randn(4, 3)
    got = rows(ref, x, lambda v: hl.subscript(v, [slice(None), None, slice(None)]))
    assert torch.equal(got, x[:, None, :])


def test_device_print_prints_prefix_and_values(ref, capsys):
    def kernel(x):
        for t in hl.tile(x.size(0)):
            hl.device_print("x is", x[t], t.begin)
            print("plain", x[t])
            x[t] = 0
        return x

    ref(kernel, torch.tensor([1.5, 2.5]))
    assert capsys.readouterr().out == "x is tensor([1.5000, 2.5000]) 0\nplain tensor([1.5000, 2.5000])\n"


def test_breakpoint_enters_the_debugger(ref, monkeypatch):
    stopped = []
    monkeypatch.setattr("sys.breakpointhook", lambda *a: stopped.append(1))

    def kernel(x):
        for t in hl.tile(x.size(0)):
            hl.breakpoint()
            breakpoint()
            x[t] = 0
        return x

    ref(kernel, torch.ones(2))
    assert stopped == [1, 1]


def test_a_stack_tensor_reads_every_member(ref, blocks, rng):
    def kernel(like, pointers, out):
        for t in hl.tile(like.size(1)):
            stack = hl.stacktensor_like(like, pointers[:])
            out[:, :, t] = stack[:, t]
        return out

    members = [torch.randn(3, 20, generator=rng) for _ in range(4)]
    pointers = torch.tensor([m.data_ptr() for m in members])
    got = ref(kernel, members[0], pointers, torch.empty(4, 3, 20), config=blocks)
    assert torch.equal(got, torch.stack(members))


def test_a_stack_tensor_writes_every_member_where_the_mask_allows(ref, rng):
    def kernel(like, pointers, values):
        for t in hl.tile(like.size(0)):
            stack = hl.stacktensor_like(like, pointers[:])
            hl.store(stack, [t], values[:, t], extra_mask=(t.index % 2 == 0)[None, :])
        return like

    members = [torch.zeros(9) for _ in range(2)]
    values = torch.randn(2, 9, generator=rng)
    ref(kernel, members[0], torch.tensor([m.data_ptr() for m in members]), values)
    expected = torch.where(torch.arange(9) % 2 == 0, values, 0.0)
    assert torch.equal(torch.stack(members), expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda v: hl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [v], torch.int32, True, 1),
        lambda v: hl.inline_triton("{0} + 1", [v], v),
        lambda v: hl.triton_kernel("def f(x): return x", [v], v),
    ],
)
def test_inline_code_needs_the_triton_backend(ref, call):
    with pytest.raises(exc.BackendUnsupported, match="needs the Triton backend"):
        rows(ref, torch.ones(2, 2), call)


@pytest.mark.parametrize("bad", [lambda a: a, lambda a, b, c: a])
def test_a_combine_function_of_the_wrong_arity_is_an_error(ref, bad):
    with pytest.raises(exc.InvalidAPIUsage, match="combine_fn takes"):
        rows(ref, torch.ones(2, 4), lambda v: hl.reduce(bad, (v, v), 1))


def test_a_combine_function_with_too_few_results_is_an_error(ref):
    with pytest.raises(exc.InvalidAPIUsage, match="must return 2 values"):
        rows(ref, torch.ones(2, 4), lambda v: hl.reduce(lambda a, b, c, d: a, (v, v), 1))
