"""Shared by the language tests: a seeded generator whose seed is printed, and ref mode as a one-liner."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from helion.frontend.carried import carried_names
from helion.runtime.eager.ref_mode import run_ref


@pytest.fixture
def rng() -> torch.Generator:
    """A generator; set HELION_TEST_SEED to repeat a failure."""
    seed = int(os.environ.get("HELION_TEST_SEED", "") or int.from_bytes(os.urandom(4), "little"))
    print(f"HELION_TEST_SEED={seed}")
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=[None, 7, 64], ids=lambda b: f"block{b}")
def blocks(request: pytest.FixtureRequest) -> dict[str, Any] | None:
    """Configs with every loop of a kernel at one block size (None: ref mode's own choice)."""
    return None if request.param is None else {"block_sizes": [request.param] * 8}


@pytest.fixture
def ref() -> Callable[..., Any]:
    """Run a kernel function in ref mode: `ref(fn, *args, config=...)`."""

    def call(fn: Callable[..., Any], *args: Any, config: dict[str, Any] | None = None) -> Any:
        return run_ref(fn, args, config=config, carried_by=carried_names)

    return call
