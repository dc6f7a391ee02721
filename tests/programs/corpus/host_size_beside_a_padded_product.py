"""A size that the host knows, as long as a dimension that a product pads: it is padded as that is."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import index
from tests.programs.whole import whole


def combine_larger(a, b):
    return torch.maximum(a, b)


def kernel(
    x0: torch.Tensor,
    x1: torch.Tensor,
    x2: torch.Tensor,
    x3: torch.Tensor,
    x4: torch.Tensor,
    x5: torch.Tensor,
    x6: torch.Tensor,
    x7: torch.Tensor,
    x8: torch.Tensor,
    x9: torch.Tensor,
    x10: torch.Tensor,
):
    n0 = hl.specialize(x0.size(0))
    n1 = hl.specialize(x5.size(0))
    n2 = hl.specialize(x7.size(0))
    n3 = x8.size(1)
    s0 = (n0 + 2) % 5
    out0 = torch.full([n0, n0, n0], 7, dtype=torch.int64, device=x0.device)
    out1 = torch.full([n0, n0], 7, dtype=torch.bfloat16, device=x0.device)
    out2 = torch.empty([n2, n0], dtype=torch.float32, device=x0.device)
    out3 = torch.empty([n0], dtype=torch.int64, device=x0.device)
    for t1 in hl.tile(n0):
        for t2 in hl.tile(1, n0):
            _v3 = (
                hl.dot(torch.clamp(x0[t2, :], -8, 8).to(torch.int8), torch.clamp(x0[:, t1], -8, 8).to(torch.int8))
                >= (5 + x1[t2, t1])
            ).T
            hl.store(
                out0,
                [t1, slice(None), t2],
                torch.sort(
                    ((-2) + hl.full([1, n0, 1], 1, dtype=torch.int32).expand([t1, n0, t2])), dim=1, stable=True
                ).indices,
                extra_mask=torch.baddbmm(
                    x3[t1, :, t2],
                    torch.clamp(x2[t1, :, :], -8, 8).to(torch.float32),
                    hl.full([t1, n0, t2], 0.5, dtype=torch.float32),
                )
                >= torch.floor(x4[t1, :, None]),
            )
            out1[t1, t2] = hl.reduce(
                combine_larger,
                torch.cumsum(torch.sum((x5[:, t1, t2, :] + x6[:, t1, t2, :]), dim=0, keepdim=False), dim=2),
                dim=2,
                other=-1000,
            )
        out2[:, t1] = torch.floor(torch.roll(torch.mm((x7[:, :] + x8[:, 0 : n3 // 2]), x9[:, t1].permute(0, 1)), 2, 0))
        hl.store(
            out3,
            [t1],
            hl.tile_index(t1)
            + torch.sum(((x10[:, t1] + torch.full([n1, t1], 0, dtype=torch.int32)) - s0), dim=-2, keepdim=False),
        )
    return out0, out1, out2, out3


def reference(x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10):
    n0 = x0.size(0)
    n2 = x7.size(0)
    n3 = x8.size(1)
    s0 = (n0 + 2) % 5
    out0 = torch.full([n0, n0, n0], 7, dtype=torch.int64)
    out1 = torch.full([n0, n0], 7, dtype=torch.float64)
    out2 = torch.zeros([n2, n0], dtype=torch.float64)
    out3 = torch.zeros([n0], dtype=torch.int64)
    for t1 in whole(0, n0):
        for t2 in whole(1, n0):
            _v3 = (
                (
                    torch.clamp(x0[t2, :], -8, 8).to(torch.int8).int()
                    @ torch.clamp(x0[:, t1], -8, 8).to(torch.int8).int()
                )
                >= (5 + x1[t2, t1])
            ).T
            out0[t1, :, t2] = torch.where(
                (
                    x3[t1, :, t2].double()
                    + (
                        torch.clamp(x2[t1, :, :].double(), -8, 8).double()
                        @ torch.full([t1.stop - t1.start, 4, t2.stop - t2.start], 0.5, dtype=torch.float64)
                    )
                )
                >= torch.floor(x4[t1, :, None].double()),
                (
                    torch.sort(
                        (
                            (-2)
                            + torch.full([1, 4, 1], 1, dtype=torch.int32).expand(
                                [t1.stop - t1.start, 4, t2.stop - t2.start]
                            )
                        ),
                        dim=1,
                        stable=True,
                    ).indices
                ).to(out0.dtype),
                out0[t1, :, t2],
            )
            out1[t1, t2] = torch.amax(
                torch.cumsum(
                    torch.sum((x5[:, t1, t2, :].double() + x6[:, t1, t2, :].double()), dim=0, keepdim=False), dim=2
                ),
                2,
            )
        out2[:, t1] = torch.floor(
            torch.roll(((x7[:, :].double() + x8[:, 0 : n3 // 2].double()) @ x9[:, t1].double().permute(0, 1)), 2, 0)
        )
        out3[t1] = (
            index(t1)
            + torch.sum(
                ((x10[:, t1] + torch.full([9, t1.stop - t1.start], 0, dtype=torch.int32)) - s0), dim=-2, keepdim=False
            )
        ).to(out3.dtype)
    return (
        out0,
        out1,
        out2,
        out3,
    )


def arguments():
    return (
        tensor([4, 4], torch.int64, -100, 100, seed=809, layout="strided"),
        tensor([4, 4], torch.int16, 1, 7, seed=311),
        tensor([4, 4, 4], torch.float16, -20, 20, step=2, seed=568, layout="strided"),
        tensor([4, 4, 4], torch.float32, -8, 8, step=0.5, seed=791),
        tensor([4, 4], torch.float32, -3, 3, seed=302),
        tensor([9, 4, 4, 4], torch.float16, -8, 8, step=0.5, seed=133, layout="overlapping"),
        tensor([9, 4, 4, 4], torch.float32, -8, 8, step=0.5, seed=497, layout="overlapping"),
        tensor([17, 9], torch.float16, 1, 8, step=0.5, seed=160),
        tensor([17, 18], torch.float32, -8, 8, step=0.5, seed=928),
        tensor([9, 4], torch.float32, -8, 8, step=0.5, seed=460),
        tensor([9, 4], torch.int64, 1, 7, seed=161),
    )


ERRORS = {"out0": 0.0, "out1": 1.12, "out2": 0.0, "out3": 0.0}  # the largest error of each result; 0: equal
SETTINGS = {"static_shapes": False}
CONFIG = {"range_num_stages": [0, 2], "static_ranges": [False], "block_sizes": [16, 16]}
WRITTEN = []
CALLS = []
