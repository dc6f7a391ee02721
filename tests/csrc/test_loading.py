"""helion._extension: when the extension is used, when it is refused, and what is said about it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helion import _extension


def run_python(code: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


def test_build_tag_is_the_torch_and_the_interface_it_was_compiled_against(C) -> None:
    path = _extension._find()
    assert path is not None
    assert _extension.build_tag(path) == (torch.__version__, _extension.interface())
    assert C.built_for_torch == torch.__version__


def fake_extension(folder, content: bytes) -> str:
    """A file that cannot be loaded, so that a loader that tries fails."""
    path = folder / "_C.so"
    path.write_bytes(content)
    return str(path)


def test_extension_of_another_torch_is_refused_without_loading_it(tmp_path, monkeypatch) -> None:
    tag = b"\x7fELF helion-extension-built-for-torch=1.2.3+cu99;interface=" + _extension.interface().encode() + b";\0"
    other = fake_extension(tmp_path, tag)
    monkeypatch.setattr(_extension, "_find", lambda: str(other))
    monkeypatch.delenv("HELION_NO_EXTENSION", raising=False)
    module, reason = _extension.load()
    assert module is None
    assert "built for torch 1.2.3+cu99" in reason
    assert torch.__version__ in reason
    assert "\n" not in reason


@pytest.mark.parametrize("interface", [b"", b"interface=0123456789abcdef;"], ids=["before there was one", "another"])
def test_extension_of_other_sources_is_refused_without_loading_it(tmp_path, monkeypatch, interface) -> None:
    tag = b"\x7fELF helion-extension-built-for-torch=" + torch.__version__.encode() + b";" + interface + b"\0"
    other = fake_extension(tmp_path, tag)
    monkeypatch.setattr(_extension, "_find", lambda: other)
    monkeypatch.delenv("HELION_NO_EXTENSION", raising=False)
    module, reason = _extension.load()
    assert module is None
    assert "built from other sources of helion" in reason and "pip install --no-build-isolation ." in reason
    assert "\n" not in reason


@pytest.mark.parametrize("content", [b"", b"not an extension"])
def test_damaged_extension_is_refused(tmp_path, monkeypatch, content) -> None:
    other = fake_extension(tmp_path, content)
    monkeypatch.setattr(_extension, "_find", lambda: other)
    monkeypatch.delenv("HELION_NO_EXTENSION", raising=False)
    module, reason = _extension.load()
    assert module is None and reason


@pytest.mark.spawns
def test_stale_extension_leaves_kernels_to_python(tmp_path) -> None:
    """A whole package with an extension beside it that was built for another text of _C.pyi."""
    package = Path(_extension.__file__).parent
    shutil.copytree(package, tmp_path / "helion", ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "helion" / "_C.pyi", "a") as stub:
        stub.write("\ndef something_new() -> None: ...\n")
    done = run_python(
        "import torch, helion, helion.language as hl, helion._extension as e\n"
        f"assert e.__file__.startswith({str(tmp_path)!r}), e.__file__\n"
        "assert e.C is None and 'other sources' in e.why_not\n"
        "from tests.csrc.stale_kernel import twice\n"
        "x = torch.randn(100)\n"
        "torch.testing.assert_close(twice(x), 2 * x)\n",
        cwd=tmp_path,
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(package.parent)]),
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "helion._C" in line]
    assert len(said) == 1 and "Python launch path" in said[0], done.stderr


def test_missing_extension_names_the_command_that_builds_it(monkeypatch) -> None:
    monkeypatch.setattr(_extension, "_find", lambda: None)
    monkeypatch.delenv("HELION_NO_EXTENSION", raising=False)
    module, reason = _extension.load()
    assert module is None
    assert "pip install --no-build-isolation ." in reason


@pytest.mark.spawns
def test_no_extension_variable_is_honoured_silently() -> None:
    done = run_python(
        "import helion._extension as e, sys; assert e.C is None; assert 'helion._C' not in sys.modules",
        HELION_NO_EXTENSION="1",
    )
    assert done.returncode == 0, done.stderr
    assert "helion" not in done.stderr


@pytest.mark.spawns
def test_module_state_survives_reimport(C) -> None:
    """Multi-phase initialisation: a second module object works and dies without touching the first."""
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


@pytest.mark.spawns
@pytest.mark.usefixtures("C")
def test_classes_that_are_imported_with_the_first_call_are_the_extensions_too() -> None:
    done = run_python(
        "import helion\n"
        "from helion import _extension\n"
        "C, _extension.C = _extension.C, None\n"  # as a test may, while it has the first call of the process
        "from helion.bound_kernel import BoundKernel\n"
        "from helion.runtime.launch.configured import Configured\n"
        "print(issubclass(helion.Kernel, C.Dispatcher), issubclass(Configured, C.Dispatcher))\n"
        "print(issubclass(BoundKernel, C.Forwarder))\n",
        HELION_NO_EXTENSION="",
    )
    assert done.stdout == "True True\nTrue\n", done.stderr
