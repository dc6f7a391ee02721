"""Fixtures of the autotuner's tests: a cache directory of their own, and the synthetic landscapes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from . import gpu_kernels

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """HELION_CACHE_DIR in a temporary directory, and no variable of the caller's."""
    for name in (
        "HELION_SKIP_CACHE",
        "HELION_AUTOTUNE_EFFORT",
        "HELION_FORCE_AUTOTUNE",
        "HELION_AUTOTUNE_LOG",
        "HELION_AUTOTUNE_WORKER",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path / "cache"))
    from helion.autotuner import api
    from helion.autotuner import session

    monkeypatch.setattr(api, "_caches", {})
    monkeypatch.setattr(session, "_said", set())
    return tmp_path / "cache"


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the caller's that says whether and how to tune, and kernels of which nothing is known."""
    for name in ("HELION_AUTOTUNER", "HELION_DISALLOW_AUTOTUNING", "HELION_ASSERT_CACHE_HIT"):
        monkeypatch.delenv(name, raising=False)
    gpu_kernels.double.reset()
    gpu_kernels.row_sum.reset()
