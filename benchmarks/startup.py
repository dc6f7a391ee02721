"""What it takes until 28 kernels have run once in a new process: nothing cached, from the caches, from a bundle, and
from the bundle in C++ (`startup.cpp`).

The caches are those of an earlier process that called each kernel three times: with its plans, and (as where a call is
no plan) with the compiler's binaries alone, which takes tracing.

    python benchmarks/startup.py [--kernels 28] [--json FILE]

Each way is a process of its own, on the GPU, or without one on the software GPU with launches that do nothing
(compilers run as they do for a GPU). In ms: `import` of helion after torch's, import of the `modules` of these kernels,
`load` of the bundle, and of the first calls the sum, the median and the longest. Ratios are to the way with nothing
cached. The bundle's kernels are those that the C entry takes too.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
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


def describe(kernel: Any, args: tuple[Any, ...]) -> str | None:
    """A call as `startup.cpp` reads it; None for arguments that the C entry does not take."""
    import torch

    bound = inspect.signature(kernel.fn).bind(*args)
    bound.apply_defaults()
    words = [f"{kernel.fn.__module__}.{kernel.fn.__qualname__}", str(len(bound.args))]
    for value in bound.args:
        if isinstance(value, torch.Tensor):
            dtype = str(value.dtype).removeprefix("torch.")
            numbers = [value.dim(), *value.shape, *value.stride(), value.untyped_storage().nbytes()]
            words += ["t", dtype, *map(str, numbers)]
        elif value is None:
            words.append("n")
        elif type(value) in (bool, int, float):
            words += [
                {bool: "b", int: "i", float: "f"}[type(value)],
                repr(int(value) if value in (True, False) else value),
            ]
        else:
            return None
    return " ".join(words)


def build(folder: Path) -> Path:
    """`startup.cpp`, linked with the GPU's driver, or the software GPU's."""
    import torch

    if torch.cuda.is_available():
        from torch.utils.cpp_extension import CUDA_HOME

        include, driver = Path(str(CUDA_HOME)) / "include", ["-lcuda"]
    else:
        from tests.softgpu import native
        from tests.softgpu.build import cuda_include

        include, driver = cuda_include(), [f"{native.directory()}/libcuda.so.1", f"-Wl,-rpath,{native.directory()}"]
    source, program = ROOT / "csrc" / "bundle", folder / "startup"
    command = [
        "g++",
        "-std=c++17",
        "-O2",
        "-isystem",
        str(include),
        f"-I{source}",
        str(ROOT / "benchmarks/startup.cpp"),
    ]
    subprocess.run([*command, str(source / "bundle.cpp"), *driver, "-ldl", "-o", str(program)], check=True)
    return program


def in_c(program: Path, bundle: Path, calls: Sequence[str]) -> dict[str, Any]:
    """What `startup.cpp` prints of some calls."""
    command = [str(program), str(bundle), str(_capability())]
    done = subprocess.run(command, input="\n".join(calls), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def choose(count: int, path: Path, program: Path) -> tuple[list[str], list[str], list[str]]:
    """Put the first examples that can be in a bundle into one; returns their names, the kernels' modules, and the calls
    as `startup.cpp` reads them.
    """
    import helion
    from examples.catalog import EXAMPLES

    device = _gpu(True)
    names: list[str] = []
    calls: list[str] = []
    examples: dict[Any, list[tuple[Any, ...]]] = {}
    for name, example in EXAMPLES.items():
        if len(names) == count or not isinstance(example.kernel, helion.Kernel) or example.kernel in examples:
            continue
        args = example.make_args(*example.small, dtype=example.dtype, device=device)
        call = describe(example.kernel, args)
        report = helion.bundle(example.kernel, [args], path, capabilities=[_capability()], strict=False)
        if report.plans and call is not None and in_c(program, path, [call])["calls"][0] >= 0:
            names.append(name)
            calls.append(call)
            examples[example.kernel] = [args]
    helion.bundle(list(examples), examples, path, capabilities=[_capability()])
    return names, sorted({kernel.fn.__module__ for kernel in examples}), calls


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
    parser.add_argument("--program", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.choose:
        print(json.dumps(choose(options.choose, Path(options.bundle), Path(options.program))))
        return
    if options.child:
        names, modules = options.names.split(","), options.modules.split(",")
        print(json.dumps(child(options.child, names, modules, options.bundle)))
        return
    with tempfile.TemporaryDirectory() as directory:
        bundle, cache = Path(directory) / "kernels.hlb", Path(directory) / "cache"
        program = build(Path(directory))
        run = [sys.executable, __file__, "--choose", str(options.kernels), "--bundle", str(bundle)]
        run += ["--program", str(program)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HELION_AUTOTUNE_EFFORT": "none"}
        chosen = subprocess.run(run, capture_output=True, text=True, env=environment, check=False)
        if chosen.returncode:
            raise RuntimeError(chosen.stderr)
        names, modules, described = json.loads(chosen.stdout.splitlines()[-1])
        results = {way: _run(way, names, modules, bundle, cache) for way in WAYS}
        found = in_c(program, bundle, described)
        times = dict(zip(names, found["calls"], strict=True))
        results["bundle in C++"] = {"import": 0.0, "modules": 0.0, "load": found["load"], "calls": times}
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
