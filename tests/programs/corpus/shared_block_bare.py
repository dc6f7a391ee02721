"""A bare block size that tiles share: of `[block, block]` the last is the innermost tile's, and lanes are no tile's."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import chunks


def kernel(x0: torch.Tensor):
    n0 = x0.size(0)
    n1 = x0.size(1)
    block0 = hl.register_block_size(64)
    out0 = torch.zeros([n0, n1], dtype=torch.float32, device=x0.device)
    out1 = torch.zeros([n0], dtype=torch.float32, device=x0.device)
    for t1, t2 in hl.tile([n0, n1], block_size=[block0, block0]):
        out0[t1, t2] = (x0[t1, t2] + hl.full([block0, block0], 1.0)).sum(0)[None, :] + hl.zeros([t1, t2])
    for t3 in hl.tile(n0, block_size=block0):
        acc = hl.zeros([t3, block0], dtype=torch.float32)
        for t4 in hl.tile(n1, block_size=block0):
            acc = acc + x0[t3, t4]
        out1[t3] = acc.sum(1)
    return out0, out1


def reference(x0):
    x0 = x0.double()
    out0 = torch.zeros_like(x0)
    for t1 in chunks(0, x0.size(0), 8):
        out0[t1] = (x0[t1] + 1).sum(0)
    return (out0, x0.sum(1))


def arguments():
    return (tensor([13, 21], torch.float32, -8, 8, seed=1),)


SETTINGS = {}
CONFIG = {"block_sizes": [8]}
WRITTEN = []
ERRORS = {"out0": 0.0, "out1": 0.0}
