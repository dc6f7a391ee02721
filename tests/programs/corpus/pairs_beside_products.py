"""A product pads dimensions of two, also of pairs that are split and joined."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor


def kernel(x0: torch.Tensor, x1: torch.Tensor):
    n0 = x0.size(0)
    out0 = torch.zeros([n0], dtype=torch.float32, device=x0.device)
    out1 = torch.zeros([n0, 2], dtype=torch.float32, device=x0.device)
    for t1 in hl.tile(n0):
        even, odd = hl.split(hl.dot(x0[t1, :], x1[:, :]))
        out0[t1] = even - odd
        out1[t1, :] = hl.join(odd, even)
    return out0, out1


def reference(x0, x1):
    product = x0.double() @ x1.double()
    return (product[:, 0] - product[:, 1], product.flip(1))


def arguments():
    return (
        tensor([17, 33], torch.float32, -8, 8, seed=1),
        tensor([33, 2], torch.float32, -8, 8, seed=2),
    )


SETTINGS = {}
CONFIG = {"block_sizes": [16]}
WRITTEN = []
ERRORS = {"out0": 0.0, "out1": 0.0}
