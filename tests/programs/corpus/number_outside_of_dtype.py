"""A number that its dtype does not hold wraps, in where() and in a constant."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor


def kernel(x0: torch.Tensor, x1: torch.Tensor):
    n0 = x1.size(0)
    out0 = torch.empty([n0], dtype=torch.uint8, device=x1.device)
    for t1 in hl.tile(n0):
        out0[t1] = torch.where(x0[t1], -2, x1[t1]) // 2 + hl.full([t1], -253, dtype=torch.uint8)
    return (out0,)


def reference(x0, x1):
    return (torch.where(x0, torch.tensor(254, dtype=torch.uint8), x1) // 2 + 3,)


def arguments():
    return (
        tensor([17], torch.bool, 0, 1, seed=1),
        tensor([17], torch.uint8, 0, 10, seed=2),
    )


SETTINGS = {}
CONFIG = {"block_sizes": [4]}
WRITTEN = []
ERRORS = {"out0": 0}
