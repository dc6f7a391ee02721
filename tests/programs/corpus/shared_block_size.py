"""Two tiles of one registered block size: each dimension of a new value is as long as its own tile."""

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
    for t1, t2 in hl.tile([n0, n1], block_size=[block0, block0]):
        ones = hl.full([t1, t2], 1.0)
        out0[t1, t2] = x0[t1, t2] + ones.sum(0)[None, :] * 100
    return out0


def reference(x0):
    out0 = x0.double()
    for t1 in chunks(0, 5, 8):
        for t2 in chunks(0, 11, 8):
            out0[t1, t2] += 100 * (t1.stop - t1.start)
    return (out0,)


def arguments():
    return (tensor([5, 11], torch.float32, -8, 8, seed=1),)


SETTINGS = {}
CONFIG = {"block_sizes": [8]}
WRITTEN = []
ERRORS = {"out0": 0.0}
