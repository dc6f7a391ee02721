"""A dimension that expand() made was taken for zero past its end, as the load before it is."""

from __future__ import annotations

import torch

import helion.language as hl
from tests.programs.inputs import tensor
from tests.programs.whole import whole


def kernel(x5: torch.Tensor):
    n0 = x5.size(1)
    n1 = x5.size(0)
    n3 = 1
    block0 = hl.register_block_size(n1)
    out2 = torch.zeros([n1, n3, n0, n0], dtype=torch.int64, device=x5.device)
    for t1, t2, t3 in hl.tile([n0, n0, n1], block_size=[None, None, block0]):
        for i4 in hl.grid(n3):
            out2[t3, i4, t2, t1] = torch.sum(x5[None, t3, t2, None].expand([9, t3, t2, t1]), dim=0, keepdim=False)
    return out2


def reference(x5):
    n0 = x5.size(1)
    n1 = x5.size(0)
    n3 = 1
    out2 = torch.zeros([n1, n3, n0, n0], dtype=torch.int64)
    for t1 in whole(0, n0):
        for t2 in whole(0, n0):
            for t3 in whole(0, n1):
                for i4 in range(n3):
                    out2[t3, i4, t2, t1] = (
                        torch.sum(
                            x5[None, t3, t2, None].expand(
                                [9, t3.stop - t3.start, t2.stop - t2.start, t1.stop - t1.start]
                            ),
                            dim=0,
                            keepdim=False,
                        )
                    ).to(out2.dtype)
    return (out2,)


def arguments():
    return (tensor([3, 1], torch.int32, 1, 7, seed=403),)


SETTINGS = {}
CONFIG = {"block_sizes": [4, 2, 16]}
WRITTEN = []
ERRORS = {"out2": 0.0}  # the largest error of each result; 0: equal
