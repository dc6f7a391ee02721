"""The extension in tests: there, or the test fails; left out only where HELION_NO_EXTENSION says so."""

from __future__ import annotations

import os
from types import ModuleType

import pytest

from helion import _extension


def required_extension() -> ModuleType:
    """``helion._C``. Fails the test if it is not there for any other reason than ``HELION_NO_EXTENSION``."""
    if _extension.C is not None:
        return _extension.C
    if os.environ.get("HELION_NO_EXTENSION", "0") not in ("", "0"):
        pytest.skip(_extension.why_not)
    pytest.fail(f"{_extension.why_not} (HELION_NO_EXTENSION=1 leaves such tests out)")
