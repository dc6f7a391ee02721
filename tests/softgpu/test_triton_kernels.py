"""Triton kernels compiled for sm_80, sm_90 and sm_100 and run on the software GPU give what PyTorch gives.

Not here: tensor-core kernels (test_triton_matmul.py), atomics and order between programs (test_triton_atomics.py).
"""

from __future__ import annotations

import pytest
import torch

from tests.softgpu import kernels

pytestmark = pytest.mark.compiles

ALL = pytest.mark.softgpu(capability=[80, 90, 100])
SEED = 20240501


@pytest.fixture(autouse=True)
def seed() -> None:
    print(f"torch seed {SEED}")
    torch.manual_seed(SEED)


@ALL
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.int64, torch.int8]
)
def test_add_equals_torch_bit_for_bit(softgpu, dtype):
    x = (torch.randn(3001, device=softgpu.device) * 50).to(dtype)
    y = (torch.randn(3001, device=softgpu.device) * 50).to(dtype)
    out = torch.empty_like(x)
    kernels.add[(3,)](x, y, out, 3001, BLOCK=1024)
    assert torch.equal(out, x + y)


@ALL
@pytest.mark.parametrize("columns", [1, 17, 781, 1024])
def test_softmax(softgpu, columns):
    x = torch.randn(7, columns, device=softgpu.device) * 4
    out = torch.empty_like(x)
    kernels.softmax[(7,)](x, out, columns, columns, BLOCK=1024)
    # exp2.approx and div.full are good to 2 units in the last place of a float
    torch.testing.assert_close(out.double(), x.double().softmax(1), rtol=2e-6, atol=1e-7)


@ALL
@pytest.mark.parametrize("dtype,tolerance", [(torch.bfloat16, 2**-7), (torch.float16, 2**-10), (torch.float32, 3e-6)])
def test_layer_norm(softgpu, dtype, tolerance):
    x, w, b = (torch.randn(shape, device=softgpu.device).to(dtype) for shape in ((5, 1000), (1000,), (1000,)))
    out = torch.empty_like(x)
    kernels.layer_norm[(5,)](x, w, b, out, 1000, 1e-5, BLOCK=1024)
    expected = torch.nn.functional.layer_norm(x.double(), (1000,), w.double(), b.double(), 1e-5)
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)


@ALL
def test_scans_forward_and_backward(softgpu):
    x = torch.randn(512, device=softgpu.device)
    forward, backward = torch.empty_like(x), torch.empty_like(x)
    kernels.scans[(1,)](x, forward, backward, BLOCK=512)
    torch.testing.assert_close(forward.double(), x.double().cumsum(0), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(backward.double(), x.double().flip(0).cumsum(0).flip(0), rtol=1e-5, atol=1e-4)


@ALL
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32])
def test_sort_and_gather(softgpu, dtype):
    x = (torch.randn(256, device=softgpu.device) * 1000).to(dtype)
    index = torch.randint(0, 256, (256,), device=softgpu.device, dtype=torch.int32)
    ordered, gathered = torch.empty_like(x), torch.empty_like(x)
    kernels.sort_and_gather[(1,)](x, index, ordered, gathered, BLOCK=256)
    assert torch.equal(ordered, x.sort().values)
    assert torch.equal(gathered, x[index.long()])


def _philox4x32(counter: list[int], key: list[int], rounds: int) -> list[int]:
    """Philox-4x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), on Python integers."""
    word = 2**32
    c, k = list(counter), list(key)
    for _ in range(rounds):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 // word) ^ c[1] ^ k[0], p1 % word, (p0 // word) ^ c[3] ^ k[1], p0 % word]
        k = [(k[0] + 0x9E3779B9) % word, (k[1] + 0xBB67AE85) % word]
    return c


@ALL
def test_philox_is_philox(softgpu):
    raw = torch.empty(512, dtype=torch.int32, device=softgpu.device)
    uniform, normal = torch.empty(512, device=softgpu.device), torch.empty(512, device=softgpu.device)
    kernels.philox[(2,)](raw, uniform, normal, 42, BLOCK=256)
    expected = [_philox4x32([i, 0, 0, 0], [42, 0], 10)[0] for i in range(512)]
    assert [v % 2**32 for v in raw.tolist()] == expected
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.05
    assert abs(normal.mean()) < 0.15 and abs(normal.std() - 1) < 0.15


@ALL
def test_printf_prints_every_value(softgpu, capfd):
    from tests import softgpu as gpu

    kernels.print_values[(1,)](torch.arange(64, device=softgpu.device) * 0.5, 7, BLOCK=64)
    softgpu.synchronize()
    lines = capfd.readouterr().out.splitlines()
    values = sorted(float(line.split("value:")[1]) for line in lines if "value:" in line)
    # Triton masks nothing here: with fewer elements than threads several threads hold, and print, the same one
    assert sorted(set(values)) == [i * 0.5 for i in range(64)]
    assert any("count" in line and "7" in line for line in lines)
    if softgpu.software:
        assert gpu.printed().count("value:") == len(values)


@pytest.mark.softgpu(capability=[80, 90, 100], software_only=True)
def test_device_assert_stops_the_kernel_with_its_message(softgpu, monkeypatch):
    from tests import softgpu as gpu

    monkeypatch.setenv("TRITON_DEBUG", "1")
    x = torch.arange(128)
    kernels.check_below[(1,)](x, 128, BLOCK=128, debug=True)
    assert gpu.faults() == []
    with pytest.raises(RuntimeError, match=r"device-side assert.*too large"):
        kernels.check_below[(1,)](x, 100, BLOCK=128, debug=True)
    fault = gpu.last_fault()
    assert fault is not None and fault.kind == "device_assert" and "kernels.py" in fault.message and fault.code == 710


def _elementary_references(x: torch.Tensor) -> list[torch.Tensor]:
    two = torch.full_like(x, 2.0)
    return [
        x.exp(), x.log(), x.sin(), x.cos(), x.sqrt(), x.rsqrt(), x.erf(), x.floor(), x.ceil(), x.tanh(), x**1.5, 1 / x,
        x * x + x, x.exp2(), x.log2(), torch.atan2(x, two), x.round(), x.trunc(), x.sigmoid(), torch.lgamma(x),
        x.log1p(), 1 / x,
    ]  # fmt: skip


@ALL
def test_elementary_functions(softgpu):
    x = torch.rand(128, device=softgpu.device) * 3 + 0.1
    out = torch.empty(len(kernels.ELEMENTARY), 128, device=softgpu.device)
    kernels.elementary[(1,)](x, out, 128, BLOCK=128)
    for name, got, expected in zip(kernels.ELEMENTARY, out, _elementary_references(x.double())):
        torch.testing.assert_close(
            got.double(), expected, rtol=2e-6, atol=4e-7, msg=lambda m, name=name: f"{name}: {m}"
        )


FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
FP8 = [torch.float8_e5m2, torch.float8_e4m3fn]
INTEGERS = [torch.int8, torch.int16, torch.int32, torch.int64]


def _values(dtype: torch.dtype) -> torch.Tensor:
    if dtype.is_floating_point:
        return (torch.randn(512, dtype=torch.float64) * torch.logspace(-3, 2, 512, dtype=torch.float64)).to(dtype)
    info = torch.iinfo(dtype)
    return torch.randint(max(info.min, -(2**40)), min(info.max, 2**40), (512,), dtype=torch.int64).to(dtype)


ORDINARY = [*FLOATS, *INTEGERS, torch.uint8]
# Triton converts fp8 from and to floats of at most 32 bits only, and has e4m3 from sm_90 on.
WITH_FP8 = [pair for a in FLOATS[:3] for b in FP8 for pair in ((a, b), (b, a))]


def _check_cast(softgpu, source: torch.dtype, to: torch.dtype) -> None:
    x = _values(source)
    if not to.is_floating_point and source.is_floating_point:
        x = x.double().clamp(-100, 100).to(source)  # out of range is undefined in PyTorch
    if to in FP8:
        limit = torch.finfo(to).max  # beyond, Triton saturates and PyTorch overflows
        x = x.float().clamp(-limit, limit).to(source)
    x, out = x.to(softgpu.device), torch.zeros(512, dtype=to, device=softgpu.device)
    kernels.cast[(1,)](x, out, BLOCK=512)
    if to in FP8 and softgpu.capability < 90 and source is not torch.float32:
        # No instruction for it there: Triton's own sequence rounds ties away from zero and flushes subnormals.
        torch.testing.assert_close(out.double(), x.double(), rtol=2**-3, atol=2**-14)
        return
    assert torch.equal(out.double(), x.to(to).double())


@pytest.mark.softgpu(capability=90)
@pytest.mark.parametrize(
    "source,to", [(a, b) for a in ORDINARY for b in ORDINARY if a is not b and b is not torch.uint8], ids=str
)
def test_casts_round_as_torch_does(softgpu, source, to):
    _check_cast(softgpu, source, to)


@ALL
@pytest.mark.parametrize("source,to", [p for p in WITH_FP8 if torch.float8_e4m3fn not in p], ids=str)
def test_casts_of_e5m2(softgpu, source, to):
    _check_cast(softgpu, source, to)


@pytest.mark.softgpu(capability=[90, 100])
@pytest.mark.parametrize("source,to", [p for p in WITH_FP8 if torch.float8_e4m3fn in p], ids=str)
def test_casts_of_e4m3(softgpu, source, to):
    _check_cast(softgpu, source, to)


@ALL
@pytest.mark.parametrize(
    "source,to",
    [(torch.float32, torch.bfloat16), (torch.float32, torch.float16), (torch.bfloat16, torch.float16)],
    ids=str,
)
def test_casts_of_16_bit_floats(softgpu, source, to):
    _check_cast(softgpu, source, to)


@ALL
@pytest.mark.parametrize("dtype,bits", [(torch.int32, 32), (torch.int64, 64)])
def test_integer_operations(softgpu, dtype, bits):
    high = 2 ** (bits - 1) - 1
    a = torch.randint(-high, high, (128,), dtype=torch.int64).to(dtype)
    b = (torch.randint(1, 1000, (128,)) * (1 - 2 * torch.randint(0, 2, (128,)))).to(dtype)
    out = torch.empty(12, 128, dtype=dtype)
    a, b, out = a.to(softgpu.device), b.to(softgpu.device), out.to(softgpu.device)
    kernels.integer_ops[(1,)](a, b, out, 128, BLOCK=128)
    expected = [
        torch.div(a, b, rounding_mode="trunc"), torch.fmod(a, b), a >> (b & 31), a << (b & 31), a.abs(),
        torch.minimum(a, b),
        torch.maximum(a, b), ~a ^ b,
    ]  # fmt: skip
    for got, want in zip(out, expected):
        assert torch.equal(got, want)
    mod = 2**bits
    ua, ub = [v % mod for v in a.tolist()], [v % mod for v in b.tolist()]
    assert [v % mod for v in out[8].tolist()] == [(x * y) >> bits for x, y in zip(ua, ub)]
    assert out[9].tolist() == [bits - v.bit_length() for v in ua]
    assert out[10].tolist() == [v.bit_count() for v in ua]
    assert [v % mod for v in out[11].tolist()] == [int(f"{v:0{bits}b}"[::-1], 2) for v in ua]


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_small_and_double_float_operations(softgpu, dtype):
    a, b = torch.randn(512).to(dtype).to(softgpu.device), torch.randn(512).to(dtype).to(softgpu.device)
    a[3] = float("nan")
    out = torch.empty(7, 512, dtype=dtype, device=softgpu.device)
    kernels.small_float_ops[(1,)](a, b, out, 512, BLOCK=512)
    number = ~a.isnan()
    maximum = torch.where(number, torch.maximum(a, b), b)  # Triton's default ignores NaN
    expected = [a + b, maximum, torch.minimum(a, b), torch.where(a < b, a, -b), a / b, a.abs()]
    for row, (got, want) in enumerate(zip(out, expected)):
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True, msg=lambda m, row=row: f"row {row}: {m}")
    # a * b - a is contracted to one fma
    fused = (a.double() * b.double() - a.double())[number]
    torch.testing.assert_close(out[6][number].double(), fused, rtol=torch.finfo(dtype).eps, atol=1e-30)


@ALL
def test_reductions_over_both_dimensions(softgpu):
    x = torch.randn(32, 64, device=softgpu.device)
    columns, rows = torch.empty(64, device=softgpu.device), torch.empty(32, device=softgpu.device)
    most, least = (torch.empty(n, dtype=torch.int32, device=softgpu.device) for n in (64, 32))
    kernels.reductions[(1,)](x, columns, rows, most, least, M=32, N=64)
    torch.testing.assert_close(columns.double(), x.double().sum(0), rtol=1e-6, atol=1e-5)
    assert torch.equal(rows, x.max(1).values)
    assert torch.equal(most.long(), x.argmax(0)) and torch.equal(least.long(), x.argmin(1))


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int8])
def test_transpose_through_shared_memory(softgpu, dtype):
    x = (torch.randn(64, 32, device=softgpu.device) * 50).to(dtype)
    out = torch.empty(32, 64, dtype=dtype, device=softgpu.device)
    kernels.transpose[(1,)](x, out, M=64, N=32)
    assert torch.equal(out, x.t())


@ALL
def test_histogram(softgpu):
    x = torch.randint(0, 32, (256,), device=softgpu.device, dtype=torch.int32)
    out = torch.empty(32, dtype=torch.int32, device=softgpu.device)
    kernels.histogram[(1,)](x, out, BLOCK=256, BINS=32)
    assert torch.equal(out, torch.bincount(x, minlength=32).int())


@ALL
def test_programs_that_branch_and_loop_differently(softgpu):
    x = torch.randn(6 * 128, device=softgpu.device)
    out = torch.empty_like(x)
    kernels.uneven_work[(6,)](x, out, BLOCK=128)
    p = torch.arange(6, device=softgpu.device).repeat_interleave(128)
    torch.testing.assert_close(out, torch.where(p % 2 == 0, x * 2, x + p * (p - 1) / 2), rtol=1e-6, atol=1e-5)


@ALL
def test_a_device_function_that_is_not_inlined(softgpu):
    x = torch.randn(128, device=softgpu.device)
    out = torch.empty(2, device=softgpu.device)
    kernels.calls_a_function[(2,)](x, out, BLOCK=128)
    expected = (x.double().sum() * 2 + 1) * 3 + 1
    torch.testing.assert_close(out.double(), expected.expand(2), rtol=1e-5, atol=1e-4)
