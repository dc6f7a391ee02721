"""A bundle of examples: made, and run in a process that can import no compiler, against PyTorch.

    python -m tests.ship.bundle_examples make examples.hlb     # on the GPU, else for the software GPU
    python -m tests.ship.bundle_examples run examples.hlb

of the whole catalog (`make bundle-examples` does both), or of the examples that are named after the path. `make` says
what is left out, with the reason; `run` fails if a call is compiled, or differs from its reference.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch

#: What nothing may import; the toolkit's own package is not among them, as its .pth file imports that, and nothing of
#: the toolkit, in every process.
FORBIDDEN = ("triton", "cutlass")

#: Their host code reads what a function that was passed captured.
NO_PLAN = {"matmul_epilogue", "attention_flex"}

#: One example for each kind of plan: its results, steps and parameters, and what its binaries use.
OF_EACH_KIND = (
    "add_8",  # tensors in a row
    "add_all",  # tensors in a tuple
    "embedding",  # a view of what was allocated
    "sum_all",  # a fill, then atomics
    "long_sum",  # an operation of PyTorch's after the launch
    "rms_norm",  # a number that is passed on
    "dropout",  # a number that counts by value
    "layer_norm",  # several results
    "welford",  # an argument that is written
    "batch_norm",  # all programs at the same time, and a grid for the GPU at hand
    "fp8_matmul",  # tensor cores, bytes as floats
    "jagged_mean",  # sizes that are data
)


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


def chosen(names: Sequence[str]) -> dict[str, Any]:
    """The examples of these names, or all of them, that are one kernel."""
    import helion
    from examples.catalog import EXAMPLES

    found = {name: EXAMPLES[name] for name in names} if names else EXAMPLES
    return {name: example for name, example in found.items() if isinstance(example.kernel, helion.Kernel)}


def make(path: str, names: Sequence[str] = ()) -> int:
    import helion

    device = _device(triton=True)
    examples: dict[Any, list[Any]] = {}
    for example in chosen(names).values():
        args = arguments(example, device)
        examples.setdefault(example.kernel, []).append(args)
    report = helion.bundle(list(examples), examples, path, strict=False)
    print(report)
    return 0 if report.plans else 1


def run(path: str, names: Sequence[str] = ()) -> int:
    if torch.cuda.is_available():
        torch.cuda.init()  # asks whether there is a Triton, without importing it
    assert not any(name in sys.modules for name in FORBIDDEN), "a compiler is loaded before anything was called"
    sys.meta_path.insert(0, Forbidden())  # type: ignore[arg-type]  # all that is asked of it
    device = _device(triton=False)
    import helion
    from helion import exc

    loaded = helion.load_bundle(path, on_miss="error")
    ran, absent, wrong = 0, [], []
    with helion.runtime.no_compile():
        for name, example in chosen(names).items():
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
    expected_absent = NO_PLAN if not names else set()
    return 1 if wrong or {line.partition(":")[0] for line in absent} - expected_absent else 0


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
    parser.add_argument("names", nargs="*")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    return {"make": make, "run": run}[options.what](options.path, options.names)


if __name__ == "__main__":
    sys.exit(main())
