"""What it takes until 28 kernels have run once in a new process: nothing cached, from the caches, from a bundle.

The caches are those of an earlier process that called each kernel three times: with its plans, and (as where a call is
no plan) with the compiler's binaries alone, which takes tracing.

    python benchmarks/startup.py [--kernels 28] [--json FILE]

Each way is a process of its own, on the GPU, or without one on the software GPU with launches that do nothing
(compilers run as they do for a GPU). In ms: `import` of helion after torch's, import of the `modules` of these kernels,
`load` of the bundle, and of the first calls the sum, the median and the longest. Ratios are to the way with nothing
cached.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import child as child_process  # noqa: E402

WAYS = ("nothing cached", "binaries", "plans", "bundle")


def _gpu(with_triton: bool) -> Any:
    """Where tensors go; installs the software GPU where there is no other."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    from tests import softgpu

    softgpu.install(90, execute=False, ptxas=with_triton, triton=with_triton)
    return torch.device("cpu")


def _arguments(names: list[str], device: Any) -> list[tuple[Any, Any, tuple[Any, ...]]]:
    from examples.catalog import EXAMPLES

    found = []
    for name in names:
        example = EXAMPLES[name]
        found.append((name, example.kernel, example.make_args(*example.small, dtype=example.dtype, device=device)))
    return found


def choose(count: int, path: Path) -> tuple[list[str], list[str]]:
    """Put the first examples that can be in a bundle into one; returns their names, and the kernels' modules."""
    import helion
    from examples.catalog import EXAMPLES

    device = _gpu(True)
    names: list[str] = []
    examples: dict[Any, list[tuple[Any, ...]]] = {}
    for name, example in EXAMPLES.items():
        if len(names) == count or not isinstance(example.kernel, helion.Kernel) or example.kernel in examples:
            continue
        args = example.make_args(*example.small, dtype=example.dtype, device=device)
        report = helion.bundle(example.kernel, [args], path, capabilities=[_capability()], strict=False)
        if report.plans:
            names.append(name)
            examples[example.kernel] = [args]
    helion.bundle(list(examples), examples, path, capabilities=[_capability()])
    return names, sorted({kernel.fn.__module__ for kernel in examples})


def _capability() -> int:
    import torch

    if not torch.cuda.is_available():
        return 90
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def child(way: str, names: list[str], modules: list[str], bundle: str) -> dict[str, Any]:
    """One process' times, in seconds."""
    import torch

    warnings.simplefilter("ignore")
    start = time.perf_counter()
    import helion

    imported = time.perf_counter()
    device = _gpu(way in ("nothing cached", "binaries"))
    torch.empty(1, device=device)
    begun = time.perf_counter()
    for module in modules:
        importlib.import_module(module)
    defined = time.perf_counter()
    if way == "bundle":
        helion.load_bundle(bundle, on_miss="error")
    loaded = time.perf_counter()
    calls = {}
    for name, kernel, args in _arguments(names, device):
        before = time.perf_counter()
        kernel(*args)
        calls[name] = time.perf_counter() - before
        for _ in range(2):
            kernel(*args)
    if way in ("plans", "bundle") and not torch.cuda.is_available():
        assert "triton" not in sys.modules, "something was compiled"
    return {"import": imported - start, "modules": defined - begun, "load": loaded - defined, "calls": calls}


def _run(way: str, names: list[str], modules: list[str], bundle: Path, cache: Path) -> dict[str, Any]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HELION_CACHE_DIR": str(cache / "helion"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "HELION_AUTOTUNE_EFFORT": "none",
        "HELION_PLAN_CACHE": "0" if way == "binaries" else "1",
    }
    run = [sys.executable, __file__, "--child", way, "--bundle", str(bundle)]
    run += ["--names", ",".join(names), "--modules", ",".join(modules)]
    return child_process.result(run, environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=int, default=28)
    parser.add_argument("--json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--names", help=argparse.SUPPRESS)
    parser.add_argument("--modules", help=argparse.SUPPRESS)
    parser.add_argument("--bundle", help=argparse.SUPPRESS)
    parser.add_argument("--choose", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.choose:
        print(json.dumps(choose(options.choose, Path(options.bundle))))
        return
    if options.child:
        names, modules = options.names.split(","), options.modules.split(",")
        print(json.dumps(child(options.child, names, modules, options.bundle)))
        return
    with tempfile.TemporaryDirectory() as directory:
        bundle, cache = Path(directory) / "kernels.hlb", Path(directory) / "cache"
        run = [sys.executable, __file__, "--choose", str(options.kernels), "--bundle", str(bundle)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HELION_AUTOTUNE_EFFORT": "none"}
        chosen = subprocess.run(run, capture_output=True, text=True, env=environment, check=False)
        if chosen.returncode:
            raise RuntimeError(chosen.stderr)
        names, modules = json.loads(chosen.stdout.splitlines()[-1])
        results = {way: _run(way, names, modules, bundle, cache) for way in WAYS}
        size = bundle.stat().st_size
    print(f"{len(names)} kernels, a bundle of {size / 1e6:.2f} MB; ms")
    titles = "".join(f"{title:>9}" for title in ("import", "modules", "load"))
    print(f"{'way':16}{titles}{'calls':>10}{'median':>9}{'longest':>9}{'all':>10}{'ratio':>9}")
    first = None
    for way, found in results.items():
        calls = [1e3 * seconds for seconds in found["calls"].values()]
        total = 1e3 * (found["import"] + found["modules"] + found["load"]) + sum(calls)
        first = first or total
        begun = "".join(f"{1e3 * found[part]:9.1f}" for part in ("import", "modules", "load"))
        print(
            f"{way:16}{begun}{sum(calls):10.1f}{statistics.median(calls):9.2f}{max(calls):9.1f}{total:10.1f}"
            f"{total / first:9.4f}"
        )
    print("An engine's 28 generated kernels took 4000 to 18000 ms before, compiled where they ran.")
    if options.json:
        Path(options.json).write_text(json.dumps({"names": names, "bytes": size, "ways": results}, indent=1))


if __name__ == "__main__":
    main()
