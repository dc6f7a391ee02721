"""The C entry to bundles: its example runs a kernel in a process without Python, and refuses what is damaged."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import pytest
import torch

import helion
from helion import _extension
from tests import softgpu as gpu
from tests.ship import bundled_model as model
from tests.ship import fuzz_bundle
from tests.softgpu import native
from tests.softgpu.build import cuda_include

SOURCES = Path(__file__).resolve().parents[2] / "csrc" / "bundle"
pytestmark = [
    pytest.mark.spawns,
    pytest.mark.xdist_group("bundle_c"),  # one build of the example for all
    pytest.mark.skipif(_extension.C is None, reason="plans are the extension's"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="linked with the software GPU's driver"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The example, linked with the software GPU's driver under address and undefined behaviour sanitizers."""
    path = tmp_path_factory.mktemp("example") / "example"
    driver = native.directory()
    command = [
        "g++", "-std=c++17", "-g1", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined", "-isystem", str(cuda_include()), str(SOURCES / "example.cpp"),
        str(SOURCES / "bundle.cpp"), f"{driver}/libcuda.so.1", f"-Wl,-rpath,{driver}", "-o", str(path),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "kernels.hlb"
    gpu.install(90)
    try:
        examples = {model.add: [(torch.zeros(100), torch.zeros(100), 1.0)], model.of_contiguous: [(torch.zeros(8, 6),)]}
        helion.bundle(list(examples), examples, path, capabilities=[90])
    finally:
        gpu.uninstall()
    return path


def with_binaries(data: bytes, **fields: object) -> bytes:
    """A bundle whose binaries say something else, with hashes that fit."""
    size = struct.unpack_from("<Q", data, 16)[0]
    manifest = json.loads(data[64 : 64 + size])
    for binary in manifest["binaries"]:
        binary.update(fields)
    return fuzz_bundle.signed(manifest, data[-(-(64 + size) // 64) * 64 :])


@pytest.mark.parametrize(
    "fields", [{"cluster": [0, 1, 1]}, {"cluster": [1, 17, 1]}, {"num_warps": 33}, {"shared": 1 << 40}, {"scratch": -1}]
)
def test_a_launch_that_no_gpu_makes_is_refused(program: Path, bundle: Path, tmp_path, fields) -> None:
    (tmp_path / "k.hlb").write_bytes(with_binaries(bundle.read_bytes(), **fields))
    status, said = run(program, tmp_path / "k.hlb")
    assert status == 1 and "a number that no launch has" in said, said


def run(program: Path, bundle: Path, kernel: str = "tests.ship.bundled_model.add") -> tuple[int, str]:
    # The driver is one for the life of a process, and so is what it allocates.
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}
    command = [str(program), str(bundle), kernel, "90"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert "Sanitizer" not in result.stderr, result.stderr
    return result.returncode, result.stdout + result.stderr


def test_a_bundled_kernel_runs_without_python(program: Path, bundle: Path) -> None:
    status, said = run(program, bundle)
    assert (status, said) == (0, "100 elements are right\n")


@pytest.mark.parametrize(("counts", "runs"), [([78, 132], True), ([78], False)])
def test_a_grid_is_for_the_multiprocessors_of_the_gpu(program: Path, tmp_path, counts: list[int], runs: bool) -> None:
    gpu.install(90)
    try:
        arguments = [(torch.zeros(100), torch.zeros(100), 1.0)]
        helion.bundle(model.persistent_add, arguments, tmp_path / "k.hlb", capabilities=[90], sms={90: counts})
    finally:
        gpu.uninstall()
    status, said = run(program, tmp_path / "k.hlb", "tests.ship.bundled_model.persistent_add")
    assert (status, said) == (0, "100 elements are right\n") if runs else "make the bundle with --sms 132" in said


def test_what_the_bundle_does_not_have_is_an_error(program: Path, bundle: Path) -> None:
    status, said = run(program, bundle, "tests.ship.bundled_model.of_contiguous")
    assert status == 1 and "it has no plan of" in said
    status, said = run(program, bundle, "no.such.kernel")
    assert status == 1 and "its manifest has no no.such.kernel" in said


def test_damaged_files_are_refused(program: Path, bundle: Path, tmp_path) -> None:
    data = bundle.read_bytes()
    broken = tmp_path / "broken.hlb"
    cases = {
        "manifest is damaged": data[:100] + b"\0" + data[101:],
        "cut off": data[:-64],
        "does not begin": b"x" + data[1:],
        "too short": data[:10],
        "format is another": data[:8] + b"\x09" + data[9:],
        "a binary is damaged": data.replace(b".visible .entry", b".visible .entrx", 1),
    }
    for reason, content in cases.items():
        broken.write_bytes(content)
        status, said = run(program, broken)
        assert status == 1 and reason in said, (reason, said)
