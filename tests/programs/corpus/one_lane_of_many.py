"""A partial tile of one element went with all lanes of a full one in ref mode, as PyTorch broadcasts it."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import whole


def kernel(x3: torch.Tensor):
    n0 = x3.size(0)
    block0 = hl.register_block_size(n0)
    out0 = torch.zeros([n0, n0], dtype=torch.float32, device=x3.device)
    out1 = torch.zeros([n0, n0], dtype=torch.int32, device=x3.device)
    for t1 in hl.tile(n0):
        acc3 = hl.zeros([t1, block0], dtype=torch.float32)
        for k2 in hl.tile(n0, block_size=block0):
            acc3 = acc3 + hl.full([t1, k2], 1.0, dtype=torch.float32)
        acc3 = acc3.sum(1)
        for i4 in hl.grid(n0):
            out0[i4, t1] = acc3
            out1[t1, i4] = hl.load(x3, [t1], extra_mask=torch.isfinite(hl.full([t1], 1.0, dtype=torch.float32)))
    return out0, out1


def reference(x3):
    n0 = x3.size(0)
    out0 = torch.zeros([n0, n0], dtype=torch.float64)
    out1 = torch.zeros([n0, n0], dtype=torch.int32)
    for t1 in whole(0, n0):
        acc3 = torch.zeros([t1.stop - t1.start], dtype=torch.float64)
        for k2 in whole(0, n0):
            acc3 = acc3 + torch.full([t1.stop - t1.start, k2.stop - k2.start], 1.0, dtype=torch.float64).sum(-1)
        for i4 in range(n0):
            out0[i4, t1] = acc3
            out1[t1, i4] = (
                torch.where(torch.isfinite(torch.full([t1.stop - t1.start], 1.0, dtype=torch.float64)), x3[t1], 0)
            ).to(out1.dtype)
    return (
        out0,
        out1,
    )


def arguments():
    return (tensor([9], torch.int32, 0, 9, seed=157),)


ERRORS = {"out0": 0.0, "out1": 0.0}  # the largest error of each result; 0: equal
SETTINGS = {}
CONFIG = {"block_sizes": [4, 16]}
WRITTEN = []
CALLS = []
