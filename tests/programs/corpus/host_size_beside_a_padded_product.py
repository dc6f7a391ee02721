"""A size that the host knows, as long as a dimension that a product pads: it is padded as that is."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import whole


def kernel(x0: torch.Tensor, x1: torch.Tensor, x2: torch.Tensor, x3: torch.Tensor):
    n0 = hl.specialize(x0.size(0))
    out0 = torch.full([n0, n0, n0], 7, dtype=torch.int64, device=x0.device)
    for t1 in hl.tile(n0):
        for t2 in hl.tile(1, n0):
            hl.store(
                out0,
                [t1, slice(None), t2],
                hl.full([1, n0, 1], -1, dtype=torch.int32).expand([t1, n0, t2]),
                extra_mask=torch.baddbmm(
                    x2[t1, :, t2],
                    torch.clamp(x1[t1, :, :], -8, 8).to(torch.float32),
                    hl.full([t1, n0, t2], 0.5, dtype=torch.float32),
                )
                >= torch.floor(x3[t1, :, None]),
            )
    return out0


def reference(x0, x1, x2, x3):
    n0 = x0.size(0)
    out0 = torch.full([n0, n0, n0], 7, dtype=torch.int64)
    for t1 in whole(0, n0):
        for t2 in whole(1, n0):
            halves = torch.full([t1.stop - t1.start, 4, t2.stop - t2.start], 0.5, dtype=torch.float64)
            product = torch.clamp(x1[t1, :, :].double(), -8, 8) @ halves
            mask = (x2[t1, :, t2].double() + product) >= torch.floor(x3[t1, :, None].double())
            out0[t1, :, t2] = torch.where(mask, -1, out0[t1, :, t2])
    return (out0,)


def arguments():
    return (
        tensor([4, 4], torch.int64, -100, 100, seed=809, layout="strided"),
        tensor([4, 4, 4], torch.float16, -20, 20, step=2, seed=568, layout="strided"),
        tensor([4, 4, 4], torch.float32, -8, 8, step=0.5, seed=791),
        tensor([4, 4], torch.float32, -3, 3, seed=302),
    )


ERRORS = {"out0": 0.0}  # the largest error of each result; 0: equal
SETTINGS = {"static_shapes": False}
CONFIG = {"range_num_stages": [0, 2], "static_ranges": [False], "block_sizes": [16, 16]}
WRITTEN = []
CALLS = []
