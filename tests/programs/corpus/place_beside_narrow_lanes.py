"""The place of a grid whose range is a computed size, added to int32 lanes: its number is int32 there."""

from __future__ import annotations

import torch

import helion
import helion.language as hl
from tests.programs.inputs import tensor


def kernel(x5: torch.Tensor):
    n0 = x5.size(0)
    block0 = hl.register_block_size(n0)
    out1 = torch.zeros([n0, helion.cdiv(n0, block0)], dtype=torch.int64, device=x5.device)
    for i1 in hl.grid(n0):
        for b2 in hl.grid(helion.cdiv(n0, block0)):
            lanes_b2 = b2 * block0 + hl.arange(block0)
            part_b2 = hl.load(x5, [i1, lanes_b2], extra_mask=lanes_b2 < n0)
            out1[i1, b2] = part_b2.sum()
    return out1


def reference(x5):
    n0 = x5.size(0)
    block0 = 4
    out1 = torch.zeros([n0, helion.cdiv(n0, block0)], dtype=torch.int64)
    for i1 in range(n0):
        for b2 in range(helion.cdiv(n0, block0)):
            out1[i1, b2] = x5[i1, b2 * block0 : (b2 + 1) * block0].sum()
    return (out1,)


def arguments():
    return (tensor([3, 3], torch.int32, -10, 10, seed=559),)


ERRORS = {"out1": 0.0}  # the largest error of each result; 0: equal
SETTINGS = {"debug_dtype_asserts": True}
CONFIG = {"block_sizes": [4]}
WRITTEN = []
CALLS = []
