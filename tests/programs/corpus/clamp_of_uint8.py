"""A number beside 8 bits widened the result, and with it a carried variable."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor


def kernel(x0: torch.Tensor):
    n0 = x0.size(0)
    out0 = torch.empty([n0], dtype=torch.uint8, device=x0.device)
    for t1 in hl.tile(n0):
        c2 = x0[t1]
        for i3 in hl.grid(3):
            c2 = torch.clamp(c2 + x0[t1], 0, 60)
        out0[t1] = c2
    return out0


def reference(x0):
    c = x0
    for _ in range(3):
        c = torch.clamp(c + x0, 0, 60)
    return (c,)


def arguments():
    return (tensor([9], torch.uint8, 0, 9, seed=1),)


SETTINGS = {}
CONFIG = {"block_sizes": [4]}
WRITTEN = []
ERRORS = {"out0": 0}
