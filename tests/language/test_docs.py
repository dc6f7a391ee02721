"""Every example of docs/language.md runs: in the tile executor, in ref mode, as Triton source, and on the software
GPU.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

import helion

_PAGE = Path(__file__).parents[2] / "docs" / "language.md"
_BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _examples() -> tuple[str, dict[str, tuple[str, str]]]:
    """The shared header, and each example as name -> (kind, source)."""
    header, examples = "", {}
    for kind, source in _BLOCK.findall(_PAGE.read_text()):
        if kind.strip() == "header":
            header = source
            continue
        name = re.findall(r"^@helion\.kernel.*?^def (\w+)", source, re.MULTILINE | re.DOTALL)[-1]
        assert name not in examples, f"two examples are called {name}"
        examples[name] = (kind.strip(), source)
    return header, examples


HEADER, EXAMPLES = _examples()
EAGER = [name for name, (kind, _) in EXAMPLES.items() if kind == ""]
TRITON = [name for name, (kind, _) in EXAMPLES.items() if kind == "triton"]


def run(name: str, directory: Path) -> object:
    """Import an example as a module of its own, so that its source has a file."""
    path = directory / f"example_{name}.py"
    path.write_text(f"{HEADER}\n{EXAMPLES[name][1]}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[path.stem]
    return module


@pytest.mark.filterwarnings("ignore::helion.exc.NoConfigGiven")
@pytest.mark.parametrize("name", EAGER)
def test_example_in_the_tile_executor(name, tmp_path, monkeypatch):
    monkeypatch.delenv("HELION_INTERPRET", raising=False)
    run(name, tmp_path)


@pytest.mark.parametrize("name", EAGER)
def test_example_in_ref_mode(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HELION_INTERPRET", "1")
    run(name, tmp_path)


@pytest.mark.filterwarnings("ignore::helion.exc.NoConfigGiven")
@pytest.mark.parametrize("name", EAGER)
def test_example_as_triton_source(name, tmp_path, monkeypatch):
    """The source that a GPU would run is generated from what the example's calls have traced."""
    monkeypatch.delenv("HELION_INTERPRET", raising=False)
    module = run(name, tmp_path)
    kernel = getattr(module, name)
    bound = [b for entries in kernel._bound.values() for b in entries]
    if kernel.settings.ref_mode is helion.RefMode.EAGER:
        return
    assert bound
    for specialization in bound:
        if not specialization.ir.device.roots:
            continue  # host code returns before the loops
        assert "@triton.jit" in specialization.to_triton_code()


#: Examples with fp8 operands, which Triton supports from compute capability 8.9 on.
FP8 = ["scaled_matmul"]


def run_on_the_software_gpu(name: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HELION_INTERPRET", raising=False)
    monkeypatch.setenv("HELION_DOT_PRECISION", "ieee")  # the examples compare with float32 products
    run(name, directory)


@pytest.mark.filterwarnings("ignore::helion.exc.NoConfigGiven")
@pytest.mark.softgpu(capability=80, software_only=True)
@pytest.mark.parametrize("name", [name for name in EAGER if name not in FP8])
@pytest.mark.compiles
def test_example_on_the_software_gpu(name, tmp_path, monkeypatch, softgpu):
    run_on_the_software_gpu(name, tmp_path, monkeypatch)


@pytest.mark.filterwarnings("ignore::helion.exc.NoConfigGiven")
@pytest.mark.softgpu(capability=90, software_only=True)
@pytest.mark.parametrize("name", FP8)
@pytest.mark.compiles
def test_fp8_example_on_the_software_gpu(name, tmp_path, monkeypatch, softgpu):
    run_on_the_software_gpu(name, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", TRITON)
def test_triton_example(name, tmp_path):
    run(name, tmp_path)


@pytest.mark.parametrize("name", TRITON)
def test_triton_examples_say_so_in_eager_modes(name, tmp_path):
    module = run(name, tmp_path)
    with pytest.raises(helion.exc.BackendUnsupported):
        getattr(module, name)(torch.randn(100))
