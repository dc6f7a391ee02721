"""Seeds of random numbers that device code draws with torch's functions."""

from __future__ import annotations

import torch

from .. import _compat_torch


def torch_seeds(count: int, device: torch.device) -> torch.Tensor:
    """Seeds for `count` places that draw, from torch's generator of a device (`torch.manual_seed` repeats them).

    They are those that `torch.compile` draws for a function with as many random ops, and stay on the device: nothing is
    waited for, and a CUDA graph draws new ones at each replay.

    Returns:
        int64 tensor [count].
    """
    return _compat_torch.inductor_seeds(count, device)
