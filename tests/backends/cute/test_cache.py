"""The disk cache: hits, what changes the fingerprint, damage, and the missing toolkit."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
import torch

import helion
from examples import fp8_matmul
from helion import exc
from helion.backends.cute import _compat
from helion.backends.cute import cache
from helion.backends.cute.compile import compile_matmul
from helion.cross_compile import cross_compile
from tests import softgpu as software

from .problems import matmul
from .problems import small

SPEC = matmul(128, 128, 64)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the entries that were really compiled."""
    seen: list[str] = []
    real = _compat.compile_entry

    def counted(module, entry, arch):
        seen.append(entry)
        return real(module, entry, arch)

    monkeypatch.setattr(_compat, "compile_entry", counted)
    return seen


@pytest.mark.compiles
def test_a_kernel_is_compiled_once(tmp_path: Path, compilations: list[str]) -> None:
    first = compile_matmul(SPEC, small(), tmp_path)
    second = compile_matmul(SPEC, small(), tmp_path)
    assert compilations == ["matmul"]
    assert second == first


@pytest.mark.compiles
def test_another_schedule_is_another_kernel(tmp_path: Path, compilations: list[str]) -> None:
    compile_matmul(SPEC, small(), tmp_path)
    compile_matmul(SPEC, small(ab_stages=4), tmp_path)
    assert len(compilations) == 2


def test_the_fingerprint_covers_source_architecture_and_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {
        cache.fingerprint("x = 1", "sm_100a"),
        cache.fingerprint("x = 2", "sm_100a"),
        cache.fingerprint("x = 1", "sm_103a"),
    }
    monkeypatch.setattr(_compat, "version", lambda: "4.9.0")
    seen.add(cache.fingerprint("x = 1", "sm_100a"))
    assert len(seen) == 4


@pytest.mark.parametrize("name", ["kernel.cubin", "kernel.json", "kernel.ptx"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
@pytest.mark.compiles
def test_a_damaged_entry_is_compiled_again(name: str, damage: str, tmp_path: Path, compilations: list[str]) -> None:
    first = compile_matmul(SPEC, small(), tmp_path)
    file = first.source_path.parent / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert compile_matmul(SPEC, small(), tmp_path) == first
    assert len(compilations) == 2


@pytest.mark.compiles
@pytest.mark.parametrize("name", ["kernel.cubin", "kernel.json", "kernel.ptx"])
def test_a_binary_that_others_can_have_written_is_compiled_again(
    name: str, tmp_path: Path, compilations: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    cache._said.clear()
    first = compile_matmul(SPEC, small(), tmp_path)
    (first.source_path.parent / name).chmod(0o666)
    assert compile_matmul(SPEC, small(), tmp_path) == first
    assert compile_matmul(SPEC, small(), tmp_path) == first
    assert len(compilations) == 2 and caplog.text.count("compiled again") == 1


@pytest.mark.compiles
def test_an_entry_in_the_place_of_another_is_not_taken(tmp_path: Path, compilations: list[str]) -> None:
    first, second = compile_matmul(SPEC, small(), tmp_path), compile_matmul(SPEC, small(ab_stages=4), tmp_path)
    for file in ("kernel.cubin", "kernel.json", "kernel.ptx"):
        (second.source_path.parent / file).write_bytes((first.source_path.parent / file).read_bytes())
    assert compile_matmul(SPEC, small(ab_stages=4), tmp_path) == second
    assert len(compilations) == 3


@pytest.mark.compiles
@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '{"symbol": 7}', "1" * 5000], ids=lambda text: text[:12])
def test_facts_that_are_none_are_a_miss(tmp_path: Path, compilations: list[str], text: str) -> None:
    first = compile_matmul(SPEC, small(), tmp_path)
    (first.source_path.parent / "kernel.json").write_text(text)
    assert compile_matmul(SPEC, small(), tmp_path) == first
    assert len(compilations) == 2


def test_compiled_files_beside_the_printed_module_do_not_run(tmp_path: Path) -> None:
    place = cache.Entry.of("VALUE = 1\n", "sm_100a", tmp_path)
    for _ in range(2):
        assert place.import_source("VALUE = 1\n").VALUE == 1
    assert not list(tmp_path.rglob("*.pyc"))


@pytest.mark.compiles
def test_where_the_directory_cannot_be_written_a_kernel_is_compiled_all_the_same(
    tmp_path: Path, compilations: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    cache._said.clear()
    (tmp_path / "file").write_text("")  # a file where the directory should be: unwritable for root as well
    first = compile_matmul(SPEC, small(), tmp_path / "file")
    assert compile_matmul(SPEC, small(), tmp_path / "file") == first
    assert len(compilations) == 2 and caplog.text.count("are not kept") == 1


@pytest.mark.compiles
def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    place = compile_matmul(SPEC, small(), tmp_path).source_path.parent
    names = {p.name for p in place.iterdir() if p.is_file()}
    assert names == {"kernel.py", "kernel.cubin", "kernel.ptx", "kernel.json"}


def _without_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def missing(name: str) -> str:
        if name == _compat.DISTRIBUTION:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)


@pytest.mark.compiles
def test_a_cached_kernel_loads_without_the_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compat, "version", lambda: _compat.PINNED_VERSION)
    first = compile_matmul(SPEC, small(), tmp_path)
    monkeypatch.undo()
    _without_toolkit(monkeypatch)
    assert compile_matmul(SPEC, small(), tmp_path) == first


def test_the_missing_toolkit_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_toolkit(monkeypatch)
    with pytest.raises(exc.BackendUnsupported) as caught:
        compile_matmul(SPEC, small(), tmp_path)
    assert "helion[cute]" in str(caught.value)
    assert 'backend="triton"' in str(caught.value)


@pytest.mark.softgpu(capability=90, software_only=True)
@pytest.mark.compiles
def test_a_kernel_compiled_elsewhere_runs_without_the_toolkit(
    softgpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled by a machine without a GPU, run by one without the toolkit; both have the same cache directory."""
    software.uninstall()
    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))
    args = fp8_matmul.make_args(130, 136, 144)
    kernel = helion.kernel(fp8_matmul.fp8_matmul.fn, backend="cute")
    config = helion.Config(block_sizes=[64, 64, 128], tcgen05_ab_stages=3)
    monkeypatch.setattr(_compat, "version", lambda: _compat.PINNED_VERSION)
    (stages,) = cross_compile(kernel.bind(args), args, config, capability=90)
    assert "wgmma.mma_async" in stages["ptx"]
    monkeypatch.undo()

    monkeypatch.setenv("HELION_CACHE_DIR", str(tmp_path))
    _without_toolkit(monkeypatch)
    software.install(90)
    software.register(stages["cubin"], stages["ptx"])
    there = helion.kernel(fp8_matmul.fp8_matmul.fn, backend="cute", config=config)
    torch.testing.assert_close(there(*args), fp8_matmul.reference(*args), rtol=2e-2, atol=2e-2)
    with pytest.raises(exc.BackendUnsupported, match="not installed, and the disk cache has no kernel"):
        there(*fp8_matmul.make_args(130, 136, 160))


def test_cross_compiling_for_a_gpu_that_is_not_served_is_refused() -> None:
    args = fp8_matmul.make_args(128, 128, 128)
    with pytest.raises(exc.BackendUnsupported, match=r"compute capability 8\.0"):
        cross_compile(fp8_matmul.fp8_matmul.bind(args), args, capability=80)


def test_another_minor_version_of_the_toolkit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compat, "version", lambda: "4.2.0")
    with pytest.raises(exc.BackendUnsupported, match=r"4\.2\.0 is installed"):
        compile_matmul(SPEC, small(), tmp_path)


@pytest.mark.compiles
def test_a_compiler_error_names_the_file(tmp_path: Path) -> None:
    place = cache.Entry.of("broken", "sm_100a", tmp_path)
    source = (
        "import cutlass.cute as cute\n\n\n@cute.jit\ndef entry(stream):\n"
        "    cute.make_layout((1, 2), stride=(1,))\n\n\n"
        "def example_arguments():\n    from cutlass.cute.runtime import make_fake_stream\n"
        "    return (make_fake_stream(),)\n"
    )
    module = place.import_source(source)
    with pytest.raises(exc.ErrorCompilingKernel, match=r"kernel\.py"):
        _compat.compile_entry(module, "entry", "sm_100a")
