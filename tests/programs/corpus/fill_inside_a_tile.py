"""A fill of a bare block size, made inside of a tile of it, that goes into a loop over other tiles."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import whole


def kernel(x0: torch.Tensor):
    n0 = x0.size(0)
    n2 = 33
    block0 = hl.register_block_size(n0)
    out1 = torch.zeros([n0, n0, n2], dtype=torch.int8, device=x0.device)
    for t1, t2 in hl.tile([n0, n0 // 2], block_size=[None, block0]):
        acc4 = hl.zeros([t1, block0], dtype=torch.float32)
        for k3 in hl.tile(n0, block_size=block0):
            acc4 = acc4 + x0[t1, k3]
        acc4 = acc4.sum(1)
        out1[t1, t2, :] = hl.full([t1, t2, n2], 1, dtype=torch.int8)
    return out1


def reference(x0):
    n0 = x0.size(0)
    n2 = 33
    out1 = torch.zeros([n0, n0, n2], dtype=torch.int8)
    for t1 in whole(0, n0):
        for t2 in whole(0, n0 // 2):
            acc4 = torch.zeros([t1.stop - t1.start], dtype=torch.float64)
            for k3 in whole(0, n0):
                acc4 = acc4 + x0[t1, k3].double().sum(-1)
            out1[t1, t2, :] = (torch.full([t1.stop - t1.start, t2.stop - t2.start, 33], 1, dtype=torch.int8)).to(
                out1.dtype
            )
    return (out1,)


def arguments():
    return (tensor([4, 4], torch.float32, -8, 8, seed=866),)


ERRORS = {"out1": 0.0}  # the largest error of each result; 0: equal
SETTINGS = {}
CONFIG = {"block_sizes": [4, 16]}
WRITTEN = []
CALLS = []
