"""One registered block size for a tile and for the loops inside of it: what is carried and what is reduced."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import chunks


def kernel(x0: torch.Tensor, x1: torch.Tensor):
    n0 = x0.size(0)
    n1 = x0.size(1)
    block0 = hl.register_block_size(64)
    out0 = torch.zeros([n0], dtype=torch.float32, device=x0.device)
    out1 = torch.zeros([n0, n1], dtype=torch.float32, device=x0.device)
    for t1 in hl.tile(n0, block_size=block0):
        total = hl.zeros([t1], dtype=torch.float32)
        for t2 in hl.tile(n1, block_size=block0):
            total = total + x0[t1, t2].sum(1) + hl.full([t2], 2.0).sum(0) * torch.ones([t2, t1]).sum(1).sum(0)
        out0[t1] = total
    for t3 in hl.tile(n0, block_size=block0):
        row = x1[t3]
        for t4 in hl.tile(n1, block_size=block0):
            out1[t3, t4] = (
                row[:, None]
                + (row[:, None] + 1).expand(t3, t4).sum(0)[None, :]
                + (torch.ones_like(x0[t3, t4]).reshape([1, t3, t4]).sum(1))
            )
    return out0, out1


def reference(x0, x1):
    n0 = x0.size(0)
    n1 = x0.size(1)
    out0 = x0.double().sum(1)
    out1 = torch.zeros([n0, n1], dtype=torch.float64)
    for t1 in chunks(0, n0, 8):
        rows = t1.stop - t1.start
        for t2 in chunks(0, n1, 8):
            out0[t1] += 2 * (t2.stop - t2.start) * (t2.stop - t2.start) * rows
        out1[t1] = x1.double()[t1, None] + (x1.double()[t1] + 1).sum() + rows
    return (out0, out1)


def arguments():
    return (
        tensor([13, 21], torch.float32, -8, 8, seed=1),
        tensor([13], torch.float32, -8, 8, seed=2),
    )


SETTINGS = {}
CONFIG = {"block_sizes": [8]}
WRITTEN = []
ERRORS = {"out0": 0.0, "out1": 0.0}
