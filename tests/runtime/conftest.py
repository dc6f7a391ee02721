"""The recording driver as a fixture, and the marker that names the guard a test is about."""

from __future__ import annotations

import pytest

from helion import _compat_triton
from helion import _extension
from helion.runtime import code_cache

from .recording_driver import recording_gpu


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "mutation(guard): the test fails when this guard of the launch path is taken out"
    )


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """Calls take the Python launch path, up to a driver that writes down what it is asked for."""
    monkeypatch.setattr(_extension, "C", None)  # the driver is not one that C could call
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("HELION_SKIP_FAST_LAUNCHER", raising=False)
    code_cache.clear_modules()
    with recording_gpu() as gpu:
        yield gpu
    code_cache.clear_modules()


@pytest.fixture(params=["direct", "compiled.run"])
def way_to_launch(request, monkeypatch):
    """Both ways to launch: Triton 3.7's C function, and what is used where that cannot be (Triton 3.6, scratch
    memory).
    """
    if request.param != "direct":
        monkeypatch.setattr(_compat_triton, "_direct_launch", lambda launcher: None)
