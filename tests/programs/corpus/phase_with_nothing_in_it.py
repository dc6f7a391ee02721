"""A phase with nothing in it, in programs that go through many tiles each: no tensor said which device that was for."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import whole


def kernel(x0: torch.Tensor):
    n0 = x0.size(0)
    n1 = 2
    block0 = hl.register_block_size(n0)
    block1 = hl.register_block_size(n1)
    out1 = torch.zeros([n0], dtype=torch.float64, device=x0.device)
    for t1 in hl.tile(n0):
        out1[t1] = x0[t1]
    hl.barrier()
    for t2, t3 in hl.tile([n0, n1], block_size=[block0, block1]):
        hl.full([], 2.0, dtype=torch.float32)
    return out1


def reference(x0):
    n0 = x0.size(0)
    n1 = 2
    out1 = torch.zeros([n0], dtype=torch.float64)
    for t1 in whole(0, n0):
        out1[t1] = x0[t1].double()
    for t2 in whole(0, n0):
        for t3 in whole(0, n1):
            pass
    return (out1,)


def arguments():
    return (tensor([1], torch.float32, -8, 8, seed=139),)


ERRORS = {"out1": 0.0}  # the largest error of each result; 0: equal
SETTINGS = {}
CONFIG = {"block_sizes": [1, 2, 4]}
WRITTEN = []
CALLS = []
