"""helion._extension: when the extension is used, when it is refused, and what is said about it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from helion import _extension


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


def test_build_tag_is_the_torch_it_was_compiled_against() -> None:
    if _extension.C is None:
        pytest.skip(_extension.why_not)
    path = _extension._find()
    assert path is not None
    assert _extension.built_for_torch(path) == torch.__version__ == _extension.C.built_for_torch


def test_extension_of_another_torch_is_refused_without_loading_it(tmp_path, monkeypatch) -> None:
    other = tmp_path / "_C.so"
    other.write_bytes(b"\x7fELF not loadable helion-extension-built-for-torch=1.2.3+cu99;\0")
    monkeypatch.setattr(_extension, "_find", lambda: str(other))
    monkeypatch.delenv("HELION_NO_EXTENSION", raising=False)
    module, reason = _extension.load()
    assert module is None
    assert "built for torch 1.2.3+cu99" in reason
    assert torch.__version__ in reason
    assert "\n" not in reason


def test_missing_extension_names_the_command_that_builds_it(monkeypatch) -> None:
    monkeypatch.setattr(_extension, "_find", lambda: None)
    monkeypatch.delenv("HELION_NO_EXTENSION", raising=False)
    module, reason = _extension.load()
    assert module is None
    assert "pip install --no-build-isolation ." in reason


def test_no_extension_variable_is_honoured_silently() -> None:
    done = run_python(
        "import helion._extension as e, sys; assert e.C is None; assert 'helion._C' not in sys.modules",
        HELION_NO_EXTENSION="1",
    )
    assert done.returncode == 0, done.stderr
    assert "helion" not in done.stderr


def test_module_state_survives_reimport() -> None:
    """Multi-phase initialisation: a second module object works and dies without touching the first."""
    if _extension.C is None:
        pytest.skip(_extension.why_not)
    done = run_python(
        "import torch, sys, gc, helion._C as first\n"
        "del sys.modules['helion._C']\n"
        "import helion, importlib\n"
        "second = importlib.import_module('helion._C')\n"
        "assert second is not first\n"
        "x = torch.zeros(2)\n"
        "assert first.tensor_key(None, x) == second.tensor_key(None, x)\n"
        "del second, sys.modules['helion._C'], helion._C\n"
        "gc.collect()\n"
        "assert first.tensor_key(None, x)[1] == (2,)\n"
    )
    assert done.returncode == 0, done.stderr
