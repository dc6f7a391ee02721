"""Index vectors of different tiles make the product, those of one tile pair: loads, stores and atomics."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import permutation
from tests.programs.inputs import tensor


def kernel(x0: torch.Tensor, x1: torch.Tensor, i0: torch.Tensor, i1: torch.Tensor, i2: torch.Tensor, m0: torch.Tensor):
    n0 = i0.size(0)
    n1 = i1.size(0)
    out0 = torch.zeros([n0, n1], dtype=torch.float32, device=x0.device)
    out1 = torch.zeros([n0, 4, n1], dtype=torch.float32, device=x0.device)
    out2 = torch.zeros([n1, n0], dtype=torch.float32, device=x0.device)
    out3 = torch.zeros([n1, 3, n0], dtype=torch.float32, device=x0.device)
    out4 = torch.zeros([n0, n1, 4], dtype=torch.float32, device=x0.device)
    out5 = torch.zeros([n0], dtype=torch.float32, device=x0.device)
    block0 = hl.register_block_size(16)
    for t1, t2 in hl.tile([n0, n1], block_size=[block0, block0]):
        r = i0[t1]
        c = i1[t2]
        out0[t1, t2] = hl.load(x0, [r, c], extra_mask=m0[t1, t2])
        out1[t1, :, t2] = x1[r, :, c]
        out2[c, r] = x0[i0[t1], c].transpose(0, 1)
        hl.atomic_add(out3, [c, slice(None), t1.index], x1[c, :3, r] + 1)
        out4[t1, t2, :] = x1[r, hl.arange(4), c].transpose(1, 2)
    for t3 in hl.tile(n0):
        out5[t3] = x0[i0[t3], i2[t3] + 0]
    return out0, out1, out2, out3, out4, out5


def reference(x0, x1, i0, i1, i2, m0):
    x0 = x0.double()
    x1 = x1.double()
    product = x0[i0][:, i1]
    out2 = torch.zeros([i1.size(0), i0.size(0)], dtype=torch.float64)
    out2[i1[:, None], i0[None, :]] = product.t()
    out3 = torch.zeros([i1.size(0), 3, i0.size(0)], dtype=torch.float64)
    out3[i1] = x1[i1][:, :3][:, :, i0] + 1
    planes = x1[i0][:, :, i1]
    return (torch.where(m0, product, 0), planes, out2, out3, planes.transpose(1, 2), x0[i0, i2])


def arguments():
    return (
        tensor([13, 13], torch.float32, -8, 8, seed=1),
        tensor([13, 4, 13], torch.float32, -8, 8, seed=2),
        permutation(13, torch.int32, seed=3),
        permutation(9, torch.int64, seed=4),
        permutation(13, torch.int32, seed=5),
        tensor([13, 9], torch.bool, 0, 1, seed=6),
    )


SETTINGS = {}
CONFIG = {"block_sizes": [8, 4]}
WRITTEN = []
ERRORS = {"out0": 0.0, "out1": 0.0, "out2": 0.0, "out3": 0.0, "out4": 0.0, "out5": 0.0}
