"""What an op that device code does not have is refused with: the advice, pasted, works."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import helion
import helion.language as hl
from helion import exc
from tests.support import run_everywhere

pytestmark = pytest.mark.slow

CONFIG = helion.Config(block_sizes=[4])


def of_row(function):
    """A kernel that stores what a function makes of each row of its argument."""

    @helion.kernel(config=helion.Config())
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for row in hl.grid(x.size(0)):
            out[row, :] = function(x[row, :])
        return out

    return kernel


#: A refused function, and what its error says to write instead.
ROWS = [
    (
        torch.unique,
        lambda x: torch.roll(torch.sort(x).values, 1, 0) != torch.sort(x).values,
        "torch.roll(s, 1, 0) != s",
    ),
    (torch.unique_consecutive, lambda x: torch.roll(x, 1, 0) != x, "torch.roll(x, 1, 0) != x"),
    (lambda x: torch.masked_select(x, x > 0), lambda x: torch.where(x > 0, x, 0), "torch.where(mask, x, 0)"),
    (torch.nonzero, lambda x: torch.nonzero_static(x, size=8).squeeze(1), "torch.nonzero_static(x, size=n)"),
    (lambda x: x.zero_(), lambda x: torch.zeros_like(x), "torch.zeros_like(x)"),
    (
        lambda x: torch.histogram(x, 8).hist,
        lambda x: torch.zeros(8).scatter_add(0, torch.bucketize(x, torch.arange(7, dtype=torch.float32)), x),
        "torch.zeros(n).scatter_add(0, torch.bucketize(x, bounds), weights)",
    ),
    (
        lambda x: torch.tensor_split(x, torch.tensor([2, 5]))[0],
        lambda x: torch.cat(torch.tensor_split(x, (2, 5))[::-1]),
        "torch.tensor_split(x, (2, 5))",
    ),
]


@pytest.mark.parametrize(("function", "instead", "advice"), ROWS, ids=[row[2] for row in ROWS])
def test_the_advice_works(function, instead, advice, seed):
    x = torch.randint(-3, 4, (3, 8)).float()
    with pytest.raises((exc.TorchOpTracingError, exc.DataDependentOutputShapeNotSupported)) as error:
        of_row(function)(x)
    assert advice in str(error.value)
    expected = torch.stack([instead(row).float() for row in x])
    torch.testing.assert_close(of_row(instead)(x), expected)


def test_a_factorization_is_called_in_host_code(seed):
    @helion.kernel(config=CONFIG)
    def inside(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for _ in hl.grid(1):
            out[:, :] = torch.linalg.qr(x[:, :])[1]
        return out

    @helion.kernel(config=CONFIG)
    def outside(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        _, r = torch.linalg.qr(x)
        for tile in hl.tile(x.size(0)):
            out[tile, :] = r[tile, :] * 2
        return out

    x = torch.randn(6, 6)
    with pytest.raises(exc.TorchOpTracingError, match="call it in host code, before the loops, and index its result"):
        inside(x)
    torch.testing.assert_close(outside(x), torch.linalg.qr(x)[1] * 2)


def test_instance_norm_without_running_statistics(seed):
    @helion.kernel(config=CONFIG)
    def kernel(x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, keep: bool) -> torch.Tensor:
        out = torch.empty_like(x)
        for _ in hl.grid(1):
            if keep:
                out[:, :, :] = F.instance_norm(x[:, :, :], mean[:], var[:])
            else:
                out[:, :, :] = F.instance_norm(x[:, :, :])
        return out

    x = torch.randn(2, 3, 8)
    with pytest.raises(exc.TorchOpTracingError, match="it changes running statistics in place"):
        kernel(x, torch.zeros(3), torch.ones(3), True)
    torch.testing.assert_close(kernel(x, torch.zeros(3), torch.ones(3), False), F.instance_norm(x))


@pytest.mark.parametrize(("source", "message"), [
    ("{w} * 2", r"has \{w\}, and there is no such argument"),
    ("{v} + {", "Single '{'|expected '}'"),
])  # fmt: skip
def test_a_place_of_inline_triton_without_an_argument(source: str, message: str) -> None:
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for tile in hl.tile(x.size(0)):
            out[tile] = hl.inline_triton(source, {"v": x[tile]}, x[tile])
        return out

    with pytest.raises(exc.InvalidAPIUsage, match=message):
        helion.kernel(kernel).bind((torch.randn(8),))


def test_a_view_of_another_width_is_refused_and_one_of_the_host_tensor_works() -> None:
    def inside(w: torch.Tensor) -> torch.Tensor:
        out = torch.empty([w.size(0), 2], dtype=torch.float16, device=w.device)
        for t in hl.tile(w.size(0)):
            out[t, :] = w[t, 4:8].view(torch.float16)
        return out

    def outside(w: torch.Tensor) -> torch.Tensor:
        out = torch.empty([w.size(0), 2], dtype=torch.float16, device=w.device)
        y = w[:, 4:].view(torch.float16)
        for t in hl.tile(w.size(0)):
            out[t, :] = y[t, :]
        return out

    w = torch.cat([torch.zeros(5, 4, dtype=torch.uint8), torch.randn(5, 2).half().view(torch.uint8)], 1)
    for mode in helion.RefMode:
        with pytest.raises(exc.UnsupportedDtype, match="another width") as error:
            helion.kernel(inside, ref_mode=mode)(w)
    assert "`y = x[:, d:].view(torch.float16)`" in str(error.value)
    half = w[:, 4:].contiguous().view(torch.float16)
    run_everywhere(outside, (w,), lambda *_: half.double(), capabilities=[90], error_scale=0)


@pytest.mark.parametrize("ref_mode", [helion.RefMode.OFF, helion.RefMode.EAGER], ids=str)
def test_bools_are_not_subtracted(ref_mode: helion.RefMode) -> None:
    @helion.kernel(ref_mode=ref_mode, config=helion.Config(block_sizes=[8]))
    def kernel(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for t in hl.tile(x.size(0)):
            out[t] = x[t] - (x[t] > 0)
        return out

    with pytest.raises(exc.UnsupportedDtype, match=r"torch\.bool\n(.*\n)*.*to\(torch\.int32\)"):
        kernel(torch.arange(5))
