"""What is said of a launch that Triton refuses."""

from __future__ import annotations

import types

import pytest
from triton.runtime.errors import OutOfResources

from helion import exc
from helion.runtime.launch import launcher


def test_a_config_that_needs_too_much_shared_memory_is_a_clear_error(monkeypatch):
    def refuse(*args, **kwargs):
        raise OutOfResources(270336, 232448, "shared memory")

    monkeypatch.setattr(launcher, "default_launcher", refuse)
    call = launcher.Call(types.SimpleNamespace(__name__="_k_kernel"), (1,), (), 4, 2, {})
    with pytest.raises(exc.InvalidConfig, match="_k_kernel needs 270336 of shared memory, the GPU has 232448"):
        launcher.FastLauncher("k")._default("first call", call)
