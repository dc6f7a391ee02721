"""Kernel functions as matrix kernels: what each becomes, and which statement is in the way of those that do not."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from helion import exc
from helion.backends.cute.match import HostExpression
from helion.backends.cute.match import Match
from helion.backends.cute.match import match
from helion.frontend.trace import trace_kernel

FP8 = torch.float8_e4m3fn
BF16 = torch.bfloat16


def matched(function: Any, *args: Any, **settings: Any) -> Match:
    """The matrix kernel that ``function`` is when called with ``args``."""
    names = list(inspect.signature(function).parameters)
    ir = trace_kernel(function, dict(zip(names, args)), helion.Settings(**settings), torch.device("cpu"))
    return match(ir, fast_accumulate=False)


def refused(function: Any, *args: Any, **settings: Any) -> str:
    """The message with which ``function`` is refused."""
    with pytest.raises(exc.BackendUnsupported) as caught:
        matched(function, *args, **settings)
    return str(caught.value)


def texts(found: Match) -> list[Any]:
    return [a.text if isinstance(a, HostExpression) else str(a) for a in found.arguments]


def matrix(*shape: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


# -- accepted
# ------------------------------------------------------------------------------------------------------------


def plain(x, y):
    m, k = x.size()
    _, n = y.size()
    out = torch.empty([m, n], dtype=torch.bfloat16, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = hl.dot(x[tile_m, tile_k], y[tile_k, tile_n], acc=acc)
        out[tile_m, tile_n] = acc.to(torch.bfloat16)
    return out


def test_sizes_strides_and_arguments() -> None:
    found = matched(plain, matrix(512, 256, dtype=FP8), matrix(384, 256, dtype=FP8).t())
    spec = found.spec
    assert (spec.m, spec.n, spec.k, spec.batch) == (512, 384, 256, 1)
    assert (spec.a.dtype, spec.a.outer, spec.a.inner) == (FP8, 256, 1)
    assert (spec.b.outer, spec.b.inner) == (256, 1)
    assert (spec.out.outer, spec.out.inner) == (384, 1)
    assert texts(found) == ["x", "y", "out"]


def test_row_major_b_is_n_major() -> None:
    spec = matched(plain, matrix(512, 256), matrix(256, 384)).spec
    assert (spec.b.outer, spec.b.inner) == (1, 384)
    assert not spec.b.inner_major


def test_an_axis_of_one_element_gets_a_stride_that_can_be_encoded() -> None:
    spec = matched(plain, matrix(72, 1).t(), matrix(72, 8)).spec
    assert spec.m == 1
    spec.check()


@pytest.mark.parametrize("product", ["addmm", "matmul", "mm", "dot"])
def test_every_way_to_write_the_product(product: str) -> None:
    def kernel(x, y):
        m, k = x.size()
        n = y.size(1)
        out = torch.empty([m, n], dtype=torch.bfloat16, device=x.device)
        for tile_m, tile_n in hl.tile([m, n]):
            acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
            for tile_k in hl.tile(k):
                if product == "addmm":
                    acc = torch.addmm(acc, x[tile_m, tile_k], y[tile_k, tile_n])
                elif product == "matmul":
                    acc += torch.matmul(x[tile_m, tile_k], y[tile_k, tile_n])
                elif product == "mm":
                    acc = acc + torch.mm(x[tile_m, tile_k], y[tile_k, tile_n])
                else:
                    acc += hl.dot(x[tile_m, tile_k], y[tile_k, tile_n])
            out[tile_m, tile_n] = acc.to(torch.bfloat16)
        return out

    assert matched(kernel, matrix(128, 64), matrix(64, 128)).spec.k == 64


def test_a_transposed_load_is_an_operand_in_its_own_strides() -> None:
    def kernel(x, w):
        m, k = x.size()
        n = w.size(0)
        out = torch.empty([m, n], dtype=torch.bfloat16, device=x.device)
        for tile_m, tile_n in hl.tile([m, n]):
            acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
            for tile_k in hl.tile(k):
                acc = torch.addmm(acc, x[tile_m, tile_k], w[tile_n, tile_k].t())
            out[tile_m, tile_n] = acc.to(torch.bfloat16)
        return out

    spec = matched(kernel, matrix(128, 64), matrix(256, 64)).spec
    assert (spec.n, spec.b.outer, spec.b.inner) == (256, 64, 1)


def with_everything(x, y, scale_a, scale_b, bias, gain, residual, alpha: float):
    m, k = x.size()
    n = y.size(1)
    out = torch.empty([m, n], dtype=torch.float16, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = torch.addmm(acc, x[tile_m, tile_k], y[tile_k, tile_n])
        scaled = acc * scale_a[tile_m, :] * scale_b[tile_n][None, :] * alpha
        shifted = torch.nn.functional.silu(scaled + bias[tile_n]) * gain[0]
        out[tile_m, tile_n] = (shifted + residual[tile_m, tile_n]).to(torch.float16)
    return out


def test_epilogue_operands_get_their_kind_from_how_they_are_indexed() -> None:
    args = (
        matrix(128, 64),
        matrix(64, 96),
        torch.ones(128, 1),
        torch.ones(96),
        torch.ones(96),
        torch.ones(1),
        torch.ones(128, 96),
        0.5,
    )
    found = matched(with_everything, *args)
    kinds = {aux.name: aux.kind for aux in found.spec.epilogue.aux}
    assert kinds == {
        "scale_a": "column", "scale_b": "row", "alpha": "value", "bias": "row", "gain": "scalar", "residual": "matrix",
    }  # fmt: skip
    assert texts(found)[:3] == ["x", "y", "out"]
    assert found.spec.epilogue.statements[-1].op == "cast"
    assert "test_match.py:" in found.spec.epilogue.statements[0].comment


def test_a_lambda_epilogue_lifts_its_tensors() -> None:
    def kernel(x, y, epilogue):
        m, k = x.size()
        n = y.size(1)
        out = torch.empty([m, n], dtype=torch.bfloat16, device=x.device)
        for tile_m, tile_n in hl.tile([m, n]):
            acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
            for tile_k in hl.tile(k):
                acc = torch.addmm(acc, x[tile_m, tile_k], y[tile_k, tile_n])
            out[tile_m, tile_n] = epilogue(acc, (tile_m, tile_n)).to(torch.bfloat16)
        return out

    bias = torch.ones(96)
    found = matched(kernel, matrix(128, 64), matrix(64, 96), lambda acc, tile: torch.relu(acc + bias[tile[1]]))
    assert [aux.kind for aux in found.spec.epilogue.aux] == ["row"]
    assert "__closure__" in texts(found)[3]


def batched(x, y):
    b, m, k = x.size()
    n = y.size(-1)
    out = torch.empty([b, m, n], dtype=x.dtype, device=x.device)
    for tile_b, tile_m, tile_n in hl.tile([b, m, n]):
        acc = hl.zeros([tile_b, tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = torch.baddbmm(acc, x[tile_b, tile_m, tile_k], y[tile_b, tile_k, tile_n])
        out[tile_b, tile_m, tile_n] = acc.to(x.dtype)
    return out


def batched_by_grid(x, y):
    b, m, k = x.size()
    n = y.size(-1)
    out = torch.empty([b, m, n], dtype=x.dtype, device=x.device)
    for i in hl.grid(b):
        for tile_m, tile_n in hl.tile([m, n]):
            acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
            for tile_k in hl.tile(k):
                acc = torch.addmm(acc, x[i, tile_m, tile_k], y[tile_k, tile_n])
            out[i, tile_m, tile_n] = acc.to(x.dtype)
    return out


def test_a_batch_tile_is_a_batch() -> None:
    spec = matched(batched, matrix(3, 128, 64), matrix(3, 64, 96)).spec
    assert (spec.batch, spec.a.batch, spec.b.batch, spec.out.batch) == (3, 128 * 64, 64 * 96, 128 * 96)


def test_a_grid_loop_is_a_batch_and_a_shared_operand_has_no_batch_stride() -> None:
    spec = matched(batched_by_grid, matrix(3, 128, 64), matrix(64, 96)).spec
    assert (spec.batch, spec.a.batch, spec.b.batch, spec.out.batch) == (3, 128 * 64, 0, 128 * 96)


# -- refused
# -------------------------------------------------------------------------------------------------------------


def elementwise(x):
    out = torch.empty_like(x)
    for tile in hl.tile(x.size()):
        out[tile] = x[tile] + 1
    return out


def two_loops(x, y):
    out = plain_loop(x, y)
    for tile in hl.tile(out.size()):
        out[tile] = out[tile] + 1
    return out


def plain_loop(x, y):
    return torch.empty([x.size(0), y.size(1)], dtype=x.dtype, device=x.device)


def starts_at_one(x, y):
    m, k = x.size()
    n = y.size(1)
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.full([tile_m, tile_n], 1.0, dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = torch.addmm(acc, x[tile_m, tile_k], y[tile_k, tile_n])
        out[tile_m, tile_n] = acc.to(x.dtype)
    return out


def computed_operand(x, y):
    m, k = x.size()
    n = y.size(1)
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = torch.addmm(acc, torch.relu(x[tile_m, tile_k]), y[tile_k, tile_n])
        out[tile_m, tile_n] = acc.to(x.dtype)
    return out


def two_products(x, y):
    m, k = x.size()
    n = y.size(1)
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = torch.addmm(acc, x[tile_m, tile_k], y[tile_k, tile_n])
            acc = torch.addmm(acc, x[tile_m, tile_k], y[tile_k, tile_n])
        out[tile_m, tile_n] = acc.to(x.dtype)
    return out


def row_sum(x, y):
    m, k = x.size()
    n = y.size(1)
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = torch.addmm(acc, x[tile_m, tile_k], y[tile_k, tile_n])
        out[tile_m, tile_n] = (acc - acc.sum(1, keepdim=True)).to(x.dtype)
    return out


def stores_twice(x, y, extra):
    m, k = x.size()
    n = y.size(1)
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = torch.addmm(acc, x[tile_m, tile_k], y[tile_k, tile_n])
        out[tile_m, tile_n] = acc.to(x.dtype)
        extra[tile_m, tile_n] = acc
    return out


def shifted_load(x, y, bias):
    m, k = x.size()
    n = y.size(1)
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = torch.addmm(acc, x[tile_m, tile_k], y[tile_k, tile_n])
        out[tile_m, tile_n] = (acc + bias[tile_n + 1]).to(x.dtype)
    return out


def position(x, y):
    m, k = x.size()
    n = y.size(1)
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = torch.addmm(acc, x[tile_m, tile_k], y[tile_k, tile_n])
        causal = tile_m.index[:, None] >= tile_n.index[None, :]
        out[tile_m, tile_n] = torch.where(causal, acc, 0.0).to(x.dtype)
    return out


def split_k(x, y):
    m, k = x.size()
    n = y.size(1)
    out = torch.zeros([m, n], dtype=torch.float32, device=x.device)
    for tile_m, tile_n, tile_k in hl.tile([m, n, k]):
        hl.atomic_add(out, [tile_m, tile_n], hl.dot(x[tile_m, tile_k], y[tile_k, tile_n]))
    return out


def beside_the_product(x, y):
    m, k = x.size()
    n = y.size(1)
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = torch.addmm(acc * 0.5, x[tile_m, tile_k], y[tile_k, tile_n])
        out[tile_m, tile_n] = acc.to(x.dtype)
    return out


def scaled_in_the_loop(x, y):
    m, k = x.size()
    n = y.size(1)
    out = torch.empty([m, n], dtype=x.dtype, device=x.device)
    for tile_m, tile_n in hl.tile([m, n]):
        acc = hl.zeros([tile_m, tile_n], dtype=torch.float32)
        for tile_k in hl.tile(k):
            acc = torch.add(acc, hl.dot(x[tile_m, tile_k], y[tile_k, tile_n]), alpha=2)
        out[tile_m, tile_n] = acc.to(x.dtype)
    return out


XY = (matrix(128, 128), matrix(128, 128))

REFUSALS = {
    elementwise: ((XY[0],), "no inner loop over k"),
    two_loops: (XY, "no inner loop over k"),
    starts_at_one: (XY, "does not start as fp32 zeros"),
    computed_operand: (XY, "is computed"),
    two_products: (XY, "2 matrix products"),
    row_sum: (XY, "sum"),
    stores_twice: ((*XY, torch.zeros(128, 128)), "stores 2 times"),
    shifted_load: ((*XY, torch.zeros(129)), "not by whole tiles"),
    position: (XY, "tile_index"),
    split_k: (XY, "no inner loop over k"),
    beside_the_product: (XY, "does something else"),
    scaled_in_the_loop: (XY, "does something else"),
}


@pytest.mark.parametrize("function", REFUSALS, ids=lambda f: f.__name__)
def test_a_kernel_it_cannot_map_is_refused_with_the_reason_and_the_way_out(function: Any) -> None:
    args, reason = REFUSALS[function]
    message = refused(function, *args)
    assert reason in message
    assert 'backend="triton"' in message


@pytest.mark.parametrize("function", [starts_at_one, computed_operand, row_sum, stores_twice], ids=lambda f: f.__name__)
def test_the_refusal_points_at_the_statement(function: Any) -> None:
    message = refused(function, *REFUSALS[function][0])
    assert "test_match.py" in message
    assert "^" in message


def test_dynamic_shapes_are_refused() -> None:
    message = refused(plain, *XY, static_shapes=False)
    assert "compile-time constant" in message
    assert "static_shapes=True" in message
