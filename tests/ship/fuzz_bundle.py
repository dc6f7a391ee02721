"""Bundles that are damaged, cut off, mixed up or lie: each is refused by an error of ours, or means what it meant.

`python -m tests.ship.fuzz_bundle --mutations 100000 --seed 1` (`make fuzz-bundles`); some hundreds are in the suite.

Two kinds. *Bytes*: flipped, zeroed, cut, moved or taken from another bundle; whatever is still accepted must hold the
same manifest and binaries. *Structure*: a value of the manifest is replaced by a hostile one and the hashes are made
anew, as somebody would who means harm; what is accepted must become plans that `helion._C` takes or refuses with an
exception. A crash ends the process, and so the run.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import random
import struct
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import helion
from helion import exc
from helion.bundles import container
from helion.bundles.load import LoadedBundle
from tests import softgpu
from tests.ship import bundled_model as model

#: What a field may be replaced by.
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 17, 64, 255, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63), 2**64,
    10**30, 0.5, 1e300, "", "float", "here", "cpu", "cuda:7", "float32", "int4", "os", "__class__", "nan", "inf",
    "*fp32", "i32", "x" * 5000, "\0", "tensor", "aten", "save", "from_file", "default", [], [[]], [0], [True, 0],
    [True, 99], [False, 0], [False, 99], ["tensor", True, 0], ["object", ["plain", 1]], ["container", True, []],
    ["dict", [["plain", "a"]], [["tensor", True, 0]]], ["dict", [["plain", 1]], []],
    ["address", [True, 0], 1 << 40], ["number", 0], ["constant", 1], {}, {"offset": 0},
)  # fmt: skip


def parts_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in a JSON document."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from parts_of(item, (*path, key))


def replaced(manifest: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A copy of a manifest with one to three values that are others, gone, doubled, or from elsewhere in it."""
    found = copy.deepcopy(manifest)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(parts_of(found))
        *way, last = rng.choice(places)
        parent = found
        for key in way:
            parent = parent[key]
        kind = rng.random()
        if kind < 0.15:
            del parent[last]
        elif kind < 0.25 and isinstance(parent, list):
            parent.insert(last, copy.deepcopy(parent[last]))
        elif kind < 0.4:
            other: Any = found
            for key in rng.choice(places):
                if not isinstance(other, (dict, list)) or (isinstance(other, list) and key >= len(other)):
                    break
                if isinstance(other, dict) and key not in other:
                    break
                other = other[key]
            parent[last] = copy.deepcopy(other)
        elif kind < 0.6 and type(parent[last]) is int:
            parent[last] += rng.choice((-1, 1, 16, -16, 1 << 20))
        else:
            parent[last] = copy.deepcopy(rng.choice(HOSTILE))
    return found


def damaged(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A file with other bytes."""
    found = bytearray(data)
    kind = rng.randrange(6)
    # As often in the header and its neighbourhood as elsewhere.
    at = rng.randrange(min(128, len(found)) if rng.random() < 0.3 else len(found))
    if kind == 0:
        found[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        found[at : at + rng.randrange(1, 64)] = b""
    elif kind == 2:
        del found[at:]
    elif kind == 3:
        found[at:at] = rng.randbytes(rng.randrange(1, 64))
    elif kind == 4:
        length = rng.randrange(1, 256)
        found[at : at + length] = other[at : at + length]
    else:
        size = struct.calcsize("<8sI4xQQ32s")
        field = rng.choice(((8, "<I"), (16, "<Q"), (24, "<Q")))
        if size <= len(found):
            value = rng.choice((0, 1, 63, 64, len(found), len(found) + 1, 2**31, 2**32 - 1))
            struct.pack_into(field[1], found, field[0], value)
    return bytes(found)


def signed(manifest: dict[str, Any], blobs: bytes) -> bytes:
    """A file of a manifest that says what it likes, with hashes that fit."""
    text = json.dumps(manifest, separators=(",", ":")).encode()
    start = -(-(64 + len(text)) // 64) * 64
    header = struct.pack(
        "<8sI4xQQ32s", container.MAGIC, container.FORMAT, len(text), start + len(blobs), hashlib.sha256(text).digest()
    )
    return (header + text).ljust(start, b"\0") + blobs


def contents(loaded: LoadedBundle) -> tuple[Any, ...]:
    box = loaded._container
    return json.dumps(box.manifest, sort_keys=True), [box.blob(i) for i in range(box.blob_count)]


def use(loaded: LoadedBundle) -> None:
    """Make every plan, as a call of each kernel would."""
    for kernel in loaded._kernels.values():
        for plans in kernel.plans.values():
            for specialization in plans.values():
                loaded._plan(specialization, 0)


def run(mutations: int, seed: int, directory: Path) -> Counter[str]:
    """Try so many files; returns how often what came of it. The software GPU must be installed.

    Raises:
        AssertionError: one was accepted that means something else.
        Exception: one was refused by an error that is not ours.
    """
    rng = random.Random(seed)
    path, other_path = directory / "k.hlb", directory / "other.hlb"
    examples = model.examples()
    helion.bundle(list(examples), examples, path, capabilities=[90])
    helion.bundle(model.softmax, [(torch.ones(4, 16),)], other_path, capabilities=[90])
    data, other = path.read_bytes(), other_path.read_bytes()
    original = LoadedBundle(path, "error")
    expected = contents(original)
    size = struct.unpack_from("<Q", data, 16)[0]
    manifest = json.loads(data[64 : 64 + size])
    blobs = data[-(-(64 + size) // 64) * 64 :]
    outcomes: Counter[str] = Counter()
    candidate = directory / "candidate.hlb"
    for number in range(mutations):
        structural = rng.random() < 0.5
        try:
            candidate.write_bytes(signed(replaced(manifest, rng), blobs) if structural else damaged(data, other, rng))
            loaded = LoadedBundle(candidate, "error")
            if not structural:
                assert contents(loaded) == expected, f"mutation {number} of seed {seed} was accepted"
                outcomes["bytes without meaning"] += 1
                continue
            outcomes["accepted"] += 1
            use(loaded)
        except exc.InvalidBundle:
            outcomes["refused"] += 1
        except (ValueError, TypeError, IndexError, RuntimeError, OverflowError) as error:
            # What C or the driver says of a plan that is well-formed and cannot be.
            assert structural, error
            outcomes[f"refused by {type(error).__name__}"] += 1
    return outcomes


def candidates(data: bytes, other: bytes, rng: random.Random) -> Iterator[tuple[bytes, bool]]:
    """Files without end: damaged ones, and ones that lie with hashes that fit; and whether it is one of the latter."""
    size = struct.unpack_from("<Q", data, 16)[0]
    manifest = json.loads(data[64 : 64 + size])
    blobs = data[-(-(64 + size) // 64) * 64 :]
    while True:
        lies = rng.random() < 0.5
        yield (signed(replaced(manifest, rng), blobs) if lies else damaged(data, other, rng)), lies


def sanitized_reader(directory: Path) -> Path:
    """The C reader with a main of its own, linked with the software GPU's driver under the sanitizers."""
    from tests.softgpu import native
    from tests.softgpu.build import cuda_include

    sources, driver = Path(__file__).resolve().parents[2] / "csrc" / "bundle", native.directory()
    path = directory / "read_many"
    command = [
        "g++", "-std=c++17", "-g1", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined", "-isystem", str(cuda_include()), str(sources / "read_many.cpp"),
        str(sources / "bundle.cpp"), f"{driver}/libcuda.so.1", f"-Wl,-rpath,{driver}", "-o", str(path),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return path


def run_in_c(mutations: int, seed: int, directory: Path) -> dict[str, int]:
    """As `run`, with the C reader under ASAN and UBSAN: each file is opened and looked up in, and those that are only
    damaged are launched from.

    Raises:
        AssertionError: a sanitizer said something, or the reader crashed: with the file that it was given.
    """
    rng = random.Random(seed)
    path, other_path, candidate = directory / "k.hlb", directory / "other.hlb", directory / "candidate.hlb"
    add = [(torch.zeros(100), torch.zeros(100), 1.0)]
    helion.bundle(model.add, add, path, capabilities=[90])
    helion.bundle(model.softmax, [(torch.ones(4, 16),)], other_path, capabilities=[90])
    files = candidates(path.read_bytes(), other_path.read_bytes(), rng)
    command = [str(sanitized_reader(directory)), "90"]
    # The driver is one for the life of a process, and so is what it allocates.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    said = ""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as reader:
        assert reader.stdin is not None and reader.stdout is not None and reader.stderr is not None
        for number, (content, lies) in zip(range(mutations), files):
            candidate.write_bytes(content)
            try:
                reader.stdin.write(f"{candidate} tests.ship.bundled_model.add {int(not lies)}\n")
                reader.stdin.flush()
                line = reader.stdout.readline()
            except BrokenPipeError:
                line = ""
            assert line, f"mutation {number} of seed {seed}, {candidate}: {reader.stderr.read()}"
            said = line
        reader.stdin.close()
        assert reader.wait() == 0, reader.stderr.read()
    return dict(zip(("refused", "no plan", "not launched", "launched"), map(int, said.split())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--c", action="store_true", help="the C reader, under sanitizers")
    options = parser.parse_args()
    softgpu.install(90)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        outcomes = (run_in_c if options.c else run)(options.mutations, options.seed, Path(directory))
    print(f"{options.mutations} mutations in {time.monotonic() - started:.0f} s: {dict(outcomes)}")


if __name__ == "__main__":
    main()
