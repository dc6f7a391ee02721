"""A partial tile of one element went with all lanes of a full one in ref mode, where torch.einsum made it."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import whole


def kernel(x0: torch.Tensor, x1: torch.Tensor):
    n0 = x0.size(0)
    n1 = x0.size(1)
    block0 = hl.register_block_size(n1)
    out0 = torch.zeros([n0], dtype=torch.float32, device=x0.device)
    for t1 in hl.tile(n0):
        acc3 = hl.zeros([t1, block0], dtype=torch.float32)
        for k2 in hl.tile(1, n1, block_size=block0):
            acc3 = acc3 + torch.einsum("bij,bj->bi", x0[t1, k2, :], x1[t1, :])
        acc3 = acc3.sum(1)
        out0[t1] = acc3
    return out0


def reference(x0, x1):
    n0 = x0.size(0)
    n1 = x0.size(1)
    out0 = torch.zeros([n0], dtype=torch.float64)
    for t1 in whole(0, n0):
        for k2 in whole(1, n1):
            out0[t1] = (x0[t1, k2, :].double() * x1[t1, :].double().unsqueeze(-2)).sum(-1).sum(-1)
    return (out0,)


def arguments():
    return (
        tensor([9, 18, 18], torch.float32, -8, 8, seed=456),
        tensor([9, 18], torch.float32, 1, 8, seed=531),
    )


ERRORS = {"out0": 0.0}  # the largest error of each result; 0: equal
SETTINGS = {}
CONFIG = {"block_sizes": [16, 2]}
WRITTEN = []
CALLS = []
