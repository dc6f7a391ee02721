"""Tests of helion._C need it built: ``python setup.py build_ext --inplace``."""

from __future__ import annotations

import pytest

from helion import _extension
from helion.runtime import code_cache


@pytest.fixture
def C():
    if _extension.C is None:
        pytest.skip(f"without the extension: {_extension.why_not}")
    return _extension.C


@pytest.fixture
def make(C, softgpu, tmp_path, monkeypatch):
    """Class of kernels with a hand-written host function, on the software GPU."""
    from .support import kernel_class

    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))
    code_cache.clear_modules()
    yield kernel_class()
    code_cache.clear_modules()
