"""Triton made a dot, in TF32, of a sum over a product that is broadcast, whichever dimension is summed."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor


def kernel(x0: torch.Tensor, x1: torch.Tensor):
    n0 = x0.size(0)
    n1 = x1.size(1)
    out0 = torch.zeros([n0, n1], dtype=torch.float32, device=x0.device)
    out1 = torch.zeros([n0, n1], dtype=torch.float32, device=x0.device)
    out2 = torch.zeros([n0, x0.size(1)], dtype=torch.float32, device=x0.device)
    for t1, t2 in hl.tile([n0, n1]):
        products = x0[t1, :][:, :, None] * x1[:, t2][None]
        out0[t1, t2] = products.sum(1)
        out1[t1, t2] = hl.reduce(lambda a, b: a + b, x0[t1, :][:, :, None] * x1[:, t2][None], 1)
        hl.atomic_add(out2, [t1, slice(None)], (x0[t1, :][:, :, None] * x1[:, t2][None]).sum(2))
    return out0, out1, out2


def reference(x0, x1):
    product = x0.double() @ x1.double()
    return (product, product, x0.double() * x1.double().sum(1))


def arguments():
    return (
        tensor([32, 4], torch.float32, -30000, 30000, step=1 / 4096, seed=1),
        tensor([4, 32], torch.float32, -30000, 30000, step=1 / 4096, seed=2),
    )


SETTINGS = {}
CONFIG = {"block_sizes": [16, 16]}
WRITTEN = []
ERRORS = {"out0": 1e-4, "out1": 1e-4, "out2": 1e-3}
