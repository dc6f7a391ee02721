"""Tests of helion._C need it built: ``python setup.py build_ext --inplace``."""

from __future__ import annotations

import pytest

from helion import _extension


@pytest.fixture
def C():
    if _extension.C is None:
        pytest.skip(f"without the extension: {_extension.why_not}")
    return _extension.C
