"""The bundle of all examples: made, and run in a process that can import no compiler, against PyTorch.

    python -m tests.ship.bundle_examples make examples.hlb     # on the GPU, else for the software GPU
    python -m tests.ship.bundle_examples run examples.hlb

`make` names what is left out, with the reason; `run` fails if a call is compiled, or differs from its reference.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch

FORBIDDEN = ("triton", "cutlass", "nvidia_cutlass_dsl")


class Forbidden:
    """A finder that finds no compiler."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError(f"{name} was imported")


def _device(*, triton: bool) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    from tests import softgpu

    softgpu.install(90, triton=triton)
    return torch.device("cpu")


def arguments(example: Any, device: torch.device) -> tuple[Any, ...]:
    """Of the small call; the same in every process, as sizes of jagged ones are random."""
    torch.manual_seed(0)
    found: tuple[Any, ...] = example.make_args(*example.small, dtype=example.dtype, device=device)
    return found


def make(path: str) -> int:
    import helion
    from examples.catalog import EXAMPLES

    device = _device(triton=True)
    examples: dict[Any, list[Any]] = {}
    for name, example in EXAMPLES.items():
        if not isinstance(example.kernel, helion.Kernel):
            print(f"left out: {name} is a function of several kernels")
            continue
        args = arguments(example, device)
        examples.setdefault(example.kernel, []).append(args)
    report = helion.bundle(list(examples), examples, path, strict=False)
    print(report)
    return 0 if report.plans else 1


def run(path: str) -> int:
    if torch.cuda.is_available():
        torch.cuda.init()  # asks whether there is a Triton, without importing it
    assert not any(name in sys.modules for name in FORBIDDEN)
    sys.meta_path.insert(0, Forbidden())  # type: ignore[arg-type]  # all that is asked of it
    device = _device(triton=False)
    import helion
    from examples.catalog import EXAMPLES
    from helion import exc

    loaded = helion.load_bundle(path, on_miss="error")
    ran, absent, wrong = 0, [], []
    with helion.runtime.no_compile():
        for name, example in EXAMPLES.items():
            if not isinstance(example.kernel, helion.Kernel):
                continue
            args = arguments(example, device)
            try:
                result = example.kernel(*args)
                expected = example.reference(*args)
            except exc.BundleMiss as error:
                absent.append(f"{name}: {error.message}")
                continue
            ran += 1
            if not _close(result, expected):
                wrong.append(name)
    print(f"{ran} examples ran from {loaded}")
    print("\n".join([f"absent: {line}" for line in absent] + [f"wrong: {name}" for name in wrong]))
    return 1 if wrong or not ran else 0


def _close(result: Any, expected: Any) -> bool:
    if isinstance(expected, (tuple, list)):
        return len(result) == len(expected) and all(map(_close, result, expected))
    if not isinstance(expected, torch.Tensor):
        return True
    a, b = result.double(), expected.double()
    scale = b.abs().amax().clamp_min(1e-3) if b.numel() else torch.ones(())
    return a.shape == b.shape and bool(((a - b).abs() <= 5e-2 * scale).all())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["make", "run"])
    parser.add_argument("path")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    return make(options.path) if options.what == "make" else run(options.path)


if __name__ == "__main__":
    sys.exit(main())
