"""Some hundreds of damaged and hostile bundles, and the cases by name that they are made of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from helion import _extension
from helion import exc
from helion.bundles import container
from helion.bundles.load import LoadedBundle
from tests.ship import fuzz_bundle

pytestmark = pytest.mark.skipif(_extension.C is None, reason="plans are the extension's")


@pytest.mark.compiles
@pytest.mark.softgpu(capability=90, software_only=True)
def test_hundreds_of_mutations_are_refused_or_mean_the_same(softgpu, seed, tmp_path) -> None:
    outcomes = fuzz_bundle.run(800, seed, tmp_path)
    assert outcomes["refused"] > 500, outcomes


@pytest.fixture
def path(tmp_path) -> Path:
    container.write(tmp_path / "k.hlb", {"binaries": [], "kernels": {}}, [b"one", b"", b"three" * 100])
    return tmp_path / "k.hlb"


def refused(path: Path) -> str:
    with pytest.raises(exc.InvalidBundle) as error:
        LoadedBundle(path, "error")
    return str(error.value)


def test_blobs_come_back_as_they_were(path: Path) -> None:
    opened = container.Container(path)
    assert [opened.blob(i) for i in range(3)] == [b"one", b"", b"three" * 100]
    assert opened.manifest == {"binaries": [], "kernels": {}}


def test_a_damaged_binary_is_refused_when_it_is_used(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"three")] ^= 1
    path.write_bytes(data)
    opened = container.Container(path)
    with pytest.raises(exc.InvalidBundle, match="binary 2 is damaged"):
        opened.blob(2)


@pytest.mark.parametrize("size", [0, 10, 63, 64, 100, -1])
def test_a_file_that_was_cut_off_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    refused(path)


def test_files_of_other_kinds_are_refused(tmp_path) -> None:
    other = tmp_path / "other"
    for data in (b"\x7fELF" * 100, b"PK\x03\x04" * 100, b"{}" * 100, bytes(1000)):
        other.write_bytes(data)
        assert "does not begin as one" in refused(other)
    assert "not a plain file" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a plain file" in refused(tmp_path / "pipe")


def test_another_format_is_refused_with_its_number(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8] = 99
    path.write_bytes(data)
    assert "its format is 99" in refused(path)


def test_operations_that_write_files_cannot_be_named() -> None:
    from helion.bundles import manifest  # the decoder by itself

    plan = {"leaves": 1, "buffers": [], "result": ["object", ["plain", None]], "written": [], "distinct": False}
    leaves = [("tensor", "float32", (4,), (1,), False)]
    arguments = ["container", True, [["tensor", True, 0], ["object", ["plain", "/etc/passwd"]]]]
    for name, overload in (("save", "default"), ("from_file", "default"), ("__class__", "mro"), ("add", "__init__")):
        step = ["op", name, overload, arguments, [], [], False]
        with pytest.raises(manifest.Malformed):
            manifest.decode_plan({**plan, "steps": [step]}, leaves, lambda number: (), torch.device("cpu"))
