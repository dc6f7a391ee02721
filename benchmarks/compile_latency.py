"""What compiling costs on the host: import, tracing and code generation, Triton's own compile, the first call.

    python benchmarks/compile_latency.py [--json FILE]

In milliseconds, in a process that has compiled another kernel before: `bind` traces the function, `generate` prints the
source (medians of both), `first_call_cpu` is a whole first call on CPU tensors.  `triton_compile` is Triton's compile
of the same kernel for sm_90, in the same run, with an empty Triton cache; `ours/triton` is what helion's part of a
first call on a GPU, bind and generate, adds to it.
"""

from __future__ import annotations

import argparse
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

_IMPORT = """
import time, torch
start = time.perf_counter()
import helion
print(time.perf_counter() - start)
"""


def import_seconds(runs: int = 5) -> float:
    """Seconds that `import helion` takes after `import torch`."""
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": root}
    results = [
        float(
            subprocess.run(
                [sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True, env=environment
            ).stdout
        )
        for _ in range(runs)
    ]
    return statistics.median(results)


def kernel_seconds(name: str, runs: int = 9) -> dict[str, float]:
    """Seconds to bind, generate and compile one example, warm."""
    import helion
    from examples.catalog import EXAMPLES
    from helion.cross_compile import cross_compile

    example = EXAMPLES[name]
    args = example.args()
    bind, generate = [], []
    for _ in range(runs):
        kernel = helion.Kernel(example.kernel.fn, configs=example.kernel.configs, settings=example.kernel.settings)
        start = time.perf_counter()
        bound = kernel.bind(args)
        middle = time.perf_counter()
        bound.to_triton_code()
        end = time.perf_counter()
        bind.append(middle - start)
        generate.append(end - middle)
    start = time.perf_counter()
    cross_compile(bound, args, capability=90)
    triton_compile = time.perf_counter() - start
    kernel = helion.Kernel(example.kernel.fn, configs=example.kernel.configs, settings=example.kernel.settings)
    start = time.perf_counter()
    kernel(*args)
    return {
        "bind": statistics.median(bind),
        "generate": statistics.median(generate),
        "triton_compile": triton_compile,
        "first_call_cpu": time.perf_counter() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    results: dict[str, Any] = {"import": import_seconds()}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = os.environ["HELION_CACHE_DIR"] = folder
        kernel_seconds("exp", runs=1)  # warm up: the first kernel of a process imports the compiler
        for name in ("add", "softmax", "matmul", "attention"):
            results[name] = kernel_seconds(name)
    print(f"import helion, beyond torch: {results['import'] * 1e3:.0f} ms\n")
    columns = ("bind", "generate", "triton_compile", "first_call_cpu")
    print(f"{'ms':<12}" + "".join(f"{c:>16}" for c in columns) + f"{'ours/triton':>14}")
    for name, row in results.items():
        if name == "import":
            continue
        share = (row["bind"] + row["generate"]) / row["triton_compile"]
        print(f"{name:<12}" + "".join(f"{row[c] * 1e3:>16.1f}" for c in columns) + f"{share:>14.2f}")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
