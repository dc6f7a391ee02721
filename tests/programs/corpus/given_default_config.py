"""A Config that was given counted as none where it was the default one, and the tile executor took tiles of its own."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import chunks


def combine_larger(a, b):
    return torch.maximum(a, b)


def kernel(x10: torch.Tensor):
    n0 = x10.size(1)
    n1 = x10.size(0)
    y0 = x10.unsqueeze(0)[0]
    out0 = torch.zeros([n1, n0, n0], dtype=torch.int64, device=x10.device)
    for t1, t2 in hl.tile([n0, n1], block_size=[32, None]):
        out0[t2, t1, :] = hl.reduce(combine_larger, (y0[t2, None, :, None] - hl.tile_id(t2)), dim=3, other=-1000)
    return out0


def reference(x10):
    n0 = x10.size(1)
    n1 = x10.size(0)
    y0 = x10.unsqueeze(0)[0]
    BLOCK_t1 = 32
    BLOCK_t2 = 1
    out0 = torch.zeros([n1, n0, n0], dtype=torch.int64)
    for t1 in chunks(0, n0, BLOCK_t1):
        for t2 in chunks(0, n1, BLOCK_t2):
            out0[t2, t1, :] = (torch.amax((y0[t2, None, :, None] - (t2.start // BLOCK_t2)), 3)).to(out0.dtype)
    return (out0,)


def arguments():
    return (tensor([2, 1], torch.int32, 0, 9, seed=488),)


SETTINGS = {}
CONFIG = {"block_sizes": [1]}
WRITTEN = []
ERRORS = {"out0": 0.0}  # the largest error of each result; 0: equal
