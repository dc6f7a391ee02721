"""Computed defaults of kernels with several products: as much as a multiprocessor has room for, and no more."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import helion
import helion.language as hl
from benchmarks import sass
from examples.attention_backward import attention_backward
from examples.attention_backward import attention_forward
from helion.backends.triton.backend import TritonBackend
from helion.cross_compile import record_launches
from helion.target import Target

HALF = torch.bfloat16
CAPABILITIES = (80, 89, 90, 100)
#: Of shared memory that a program may use.
SHARED_BYTES = {80: 163 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10}


@helion.kernel
def gated(x: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Two products of one left operand."""
    out = x.new_empty([x.size(0), gate.size(1)])
    for rows, columns in hl.tile(out.shape):
        opened = hl.zeros([rows, columns], dtype=torch.float32)
        let_through = hl.zeros([rows, columns], dtype=torch.float32)
        for inner in hl.tile(x.size(1)):
            opened = hl.dot(x[rows, inner], gate[inner, columns], acc=opened)
            let_through = hl.dot(x[rows, inner], up[inner, columns], acc=let_through)
        out[rows, columns] = opened * torch.sigmoid(opened) * let_through
    return out


@helion.kernel
def taps(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A convolution of x [batch, channels, length] with weight [out, channels, 3]: three products, one sum."""
    batch, channels, length = x.shape
    out = x.new_empty([batch, weight.size(0), length - 2])
    for one, rows, places in hl.tile(out.shape, block_size=[1, None, None]):
        acc = hl.zeros([rows, places], dtype=torch.float32)
        for inner in hl.tile(channels):
            for tap in range(3):
                acc = hl.dot(weight[rows, inner, tap], x[one.begin, inner, places.index + tap], acc=acc)
        out[one.begin, rows, places] = acc
    return out


@helion.kernel
def carried_state(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal linear attention, with a state of [head, head] from one tile to the next."""
    head = hl.specialize(q.size(-1))
    out = torch.empty_like(v)
    for one in hl.grid(q.size(0)):
        state = hl.zeros([head, head], dtype=torch.float32)
        for rows in hl.tile(q.size(1)):
            query, key, value = q[one, rows, :], k[one, rows, :], v[one, rows, :]
            scores = torch.where(rows.index[:, None] >= rows.index[None, :], hl.dot(query, key.t()), 0.0)
            out[one, rows, :] = hl.dot(scores.to(v.dtype), value) + hl.dot(query, state.to(q.dtype))
            state = hl.dot(key.t(), value, acc=state)
    return out


def empty(*size: int, dtype: torch.dtype = HALF) -> torch.Tensor:
    return torch.empty(*size, dtype=dtype, device="meta")


def backward_args(length: int = 4096, head: int = 128) -> tuple[torch.Tensor, ...]:
    q, k = empty(2, 16, length, head), empty(2, 4, length, head)
    number = empty(2, 16, length, dtype=torch.float32)
    return q, q, k, k, number, number


def forward_args(head: int = 128) -> tuple[torch.Tensor, ...]:
    return empty(2, 16, 4096, head), empty(2, 4, 4096, head), empty(2, 4, 4096, head)


def gated_args(rows: int = 4096) -> tuple[torch.Tensor, ...]:
    return empty(rows, 4096), empty(4096, 8192), empty(4096, 8192)


def taps_args() -> tuple[torch.Tensor, ...]:
    return empty(8, 128, 4096), empty(256, 128, 3)


def backend_of(kernel: helion.Kernel, args: tuple[Any, ...], capability: int) -> TritonBackend:
    bound = kernel.bind(args)
    return TritonBackend(bound.ir, bound.settings, Target("nvidia", capability))


def chosen(kernel: helion.Kernel, args: tuple[Any, ...], capability: int = 90) -> tuple[list[int], int, int]:
    default = backend_of(kernel, args, capability).spec.default_config()
    return default.block_sizes, default.num_warps, default.num_stages


def test_a_program_that_is_alone_on_its_multiprocessor_has_twice_the_rows_and_warps() -> None:
    assert chosen(attention_backward, backward_args()) == ([128, 64, 128, 64], 8, 4)
    assert chosen(attention_forward, forward_args(256)) == ([128, 64], 8, 2)


def test_programs_of_which_two_fit_keep_their_tiles() -> None:
    assert chosen(attention_backward, backward_args(head=64)) == ([64, 64, 64, 64], 4, 3)
    assert chosen(attention_forward, forward_args()) == ([64, 64], 4, 3)
    assert chosen(attention_forward, forward_args(), 80)[0] == [128, 64]  # of less shared memory


def test_rows_stay_as_they_are_where_fewer_programs_would_leave_multiprocessors_idle() -> None:
    assert chosen(attention_backward, backward_args(length=128)) == ([64, 64, 64, 64], 4, 3)


def test_kept_operands_and_several_results_count_among_the_registers() -> None:
    for capability in (80, 89):
        sizes, warps, _ = chosen(attention_backward, backward_args(), capability)
        assert (sizes, warps) == ([64, 64, 64, 64], 8)


def test_products_of_one_loop_share_the_tile_of_one_product() -> None:
    assert chosen(gated, gated_args()) == ([128, 128, 64], 8, 3)
    assert chosen(gated, gated_args(), 80)[:2] == ([128, 64, 64], 8)  # operands are in registers too
    assert chosen(gated, gated_args(rows=16))[0][0] == 16
    assert chosen(taps, taps_args()) == ([128, 256, 32], 8, 3)  # one accumulator, six loads


def test_each_product_has_a_part_of_tensor_memory() -> None:
    spec = backend_of(taps, taps_args(), 100).spec
    wide = spec.normalize(helion.Config(block_sizes=[128, 256, 32], num_warps=8, num_stages=2))
    # 3 x 256 columns of 512: Triton makes a kernel of it that only traps.
    assert any("tensor memory" in (check(dict(wide)) or "") for check in spec.unpromising)
    assert chosen(taps, taps_args(), 100)[0][1] <= 64
    hopper = backend_of(taps, taps_args(), 90).spec
    assert not any(check(dict(wide)) for check in hopper.unpromising)


@pytest.mark.compiles
@pytest.mark.parametrize(
    ("kernel", "args", "capability"),
    [
        *((attention_backward, backward_args(), capability) for capability in CAPABILITIES),
        (attention_forward, forward_args(), 89),
        (gated, gated_args(), 80),
        (gated, gated_args(), 90),
        (taps, taps_args(), 80),
        (taps, taps_args(), 100),
        (carried_state, (empty(64, 2048, 128),) * 3, 80),
        (carried_state, (empty(64, 2048, 128),) * 3, 90),
    ],
    ids=lambda value: value.name if isinstance(value, helion.Kernel) else str(value) if isinstance(value, int) else "",
)
def test_it_fits_shared_memory_and_registers(kernel: helion.Kernel, args: tuple[Any, ...], capability: int) -> None:
    backend = backend_of(kernel, args, capability)
    (launch,) = record_launches(backend.generate(backend.spec.default_config()), args)
    binary = backend.binary(launch)
    stats = sass.statistics(binary.cubin)
    assert binary.shared <= SHARED_BYTES[capability]
    # Eight registers once a head in the backward pass, outside of the loop over rows; twenty of a state of 128 x 128.
    assert stats.stack_bytes <= 80
    assert stats.instructions > 100  # more than a trap


def test_eight_warps_do_not_share_64_rows() -> None:
    bound = carried_state.bind((empty(256, 2048, 128),) * 3)
    for capability, warps in ((80, 8), (90, 4)):
        spec = TritonBackend(bound.ir, bound.settings, Target("nvidia", capability)).spec
        assert spec.default_config().num_warps == warps


@helion.kernel
def softmax_of_product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    out = x.new_empty([x.size(0), weight.size(1)])
    for rows in hl.tile(x.size(0)):
        acc = hl.zeros([rows, weight.size(1)])
        for inner in hl.tile(x.size(1)):
            acc = torch.addmm(acc, x[rows, inner], weight[inner, :])
        out[rows, :] = torch.softmax(acc, 1)
    return out


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_product_of_long_rows_leaves_registers_for_addresses(capability: int) -> None:
    bound = softmax_of_product.bind((empty(8192, 64), empty(64, 1024)))
    spec = TritonBackend(bound.ir, bound.settings, Target("nvidia", capability)).spec
    config = spec.default_config()
    assert config.block_sizes[0] * 1024 <= 64 * 32 * config.num_warps  # of 128: with all of them it did not compile


@helion.kernel
def residual_gelu(x: torch.Tensor, y: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(residual)
    for rows, columns in hl.tile(out.shape):
        acc = hl.zeros([rows, columns])
        for inner in hl.tile(x.size(1)):
            acc = torch.addmm(acc, x[rows, inner], y[inner, columns])
        out[rows, columns] = torch.nn.functional.gelu(acc) + residual[rows, columns]
    return out


def test_a_slow_epilogue_beside_a_residual_is_done_in_quarters() -> None:
    bound = residual_gelu.bind((empty(4096, 4096),) * 3)
    spec = TritonBackend(bound.ir, bound.settings, Target("nvidia", 90)).spec
    assert spec.default_config().epilogue_subtile == 4  # in halves 12 registers were spilled
