"""What a call costs on the host: helion's layers beside Triton's and PyTorch's.

    python benchmarks/launch_overhead.py                   # on a GPU, or on the software GPU where there is none
    python benchmarks/launch_overhead.py --json out.json --quick
    python benchmarks/launch_overhead.py --summary         # only the table of README.md, with the aims

On a GPU the queue is drained between repeats, so that only host time counts. On the software GPU launches do nothing
(``execute=False``) and the questions for device and stream, C functions of PyTorch on a GPU, are answered by C
functions too. Each layer runs in a process of its own, as the extension is chosen when helion is imported; every
process times ``torch.add`` of two 4-element CPU tensors right before each case, round after round. A ratio is the
median over the rounds of a case's time by that of the ``torch.add`` before it, so that a slow phase of the machine hits
both.

Kernels: ``out[tile] = t0[tile] + t1[tile] + ...`` of 2, 8 and 16 float32 tensors of 4096 elements, and a broadcasting
    add of a bfloat16 [1024, 1024] and [1024].
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import itertools
import json
import operator
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import bare_launch

#: name -> (what it is, environment).
LAYERS: dict[str, tuple[str, dict[str, str]]] = {
    "extension": ("the call in C", {}),
    "extension+pool": ("the call in C, outputs from the pool", {"HELION_OUTPUT_POOL": "1"}),
    "python": ("no extension: Python guards, Triton's C launch function", {"HELION_NO_EXTENSION": "1"}),
    "default": (
        "no extension, no fast launcher: Triton's kernel[grid]",
        {"HELION_NO_EXTENSION": "1", "HELION_SKIP_FAST_LAUNCHER": "1"},
    ),
}

BASELINE = "torch.add, 4 elements, CPU"
#: The least that a launch costs.
BARE = "cuLaunchKernel in a C loop"

KERNELS = """\
import torch

import helion
import helion.language as hl

CONFIG = helion.Config(block_sizes=[128])

{adds}

@helion.kernel(config=CONFIG, key=lambda x0, x1: x0.dim())
def add2_key(x0: torch.Tensor, x1: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x0)
    for tile in hl.tile(x0.size(0)):
        out[tile] = x0[tile] + x1[tile]
    return out


@helion.kernel(config=CONFIG)
def add2_in_place(x0: torch.Tensor, x1: torch.Tensor) -> torch.Tensor:
    for tile in hl.tile(x0.size(0)):
        x0[tile] = x0[tile] + x1[tile]
    return x0


@helion.kernel(config=helion.Config(block_sizes=[32, 128]))
def broadcast_add(x0: torch.Tensor, x1: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x0)
    for tile_m, tile_n in hl.tile(x0.size()):
        out[tile_m, tile_n] = x0[tile_m, tile_n] + x1[tile_n]
    return out
"""

ADD = """\
@helion.kernel(config=CONFIG)
def add{n}({parameters}) -> torch.Tensor:
    out = torch.empty_like(x0)
    for tile in hl.tile(x0.size(0)):
        out[tile] = {total}
    return out

"""

# -- instructions
# ---------------------------------------------------------------------------------------------------------


class InstructionCounter:
    """User-mode instructions of this thread, through perf_event_open; ``None`` where the machine cannot count them."""

    def __init__(self) -> None:
        self.file = -1
        if sys.platform != "linux" or os.uname().machine != "x86_64":
            return
        # struct perf_event_attr: type HARDWARE, size 112, config INSTRUCTIONS; exclude_kernel and exclude_hv.
        attributes = struct.pack("<IIQQQQQ", 0, 112, 1, 0, 0, 0, (1 << 5) | (1 << 6)).ljust(112, b"\0")
        libc = ctypes.CDLL(None, use_errno=True)
        self.file = libc.syscall(298, attributes, 0, -1, -1, 0)

    def read(self) -> int | None:
        """Instructions since the counter was opened."""
        return struct.unpack("<Q", os.read(self.file, 8))[0] if self.file >= 0 else None


# -- one process
# ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def device() -> Iterator[tuple[str, Callable[[], None]]]:
    """Puts the process on a device; gives torch's name of it, and a function that waits for it."""
    import torch

    if torch.cuda.is_available():
        yield "cuda", torch.cuda.synchronize
        return
    from helion.runtime import device as helion_device
    from tests import softgpu

    softgpu.install(capability=90, execute=False)
    provider = helion_device.get_provider()
    provider.current_device = itertools.repeat(0).__next__
    provider.current_stream = {0: 0}.__getitem__
    provider.device_tag = torch.Tensor.get_device
    try:
        yield "cpu", lambda: None
    finally:
        softgpu.uninstall()


def load_kernels(folder: str) -> Any:
    """The kernels of ``KERNELS`` as a module."""
    import importlib.util

    adds = []
    for n in (2, 8, 16):
        names = [f"x{i}" for i in range(n)]
        adds.append(
            ADD.format(
                n=n,
                parameters=", ".join(f"{name}: torch.Tensor" for name in names),
                total=" + ".join(f"{name}[tile]" for name in names),
            )
        )
    path = Path(folder) / "overhead_kernels.py"
    path.write_text(KERNELS.format(adds="\n".join(adds)))
    spec = importlib.util.spec_from_file_location("overhead_kernels", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def triton_kernel(kernel: Any, args: list[Any], out: Any) -> tuple[Any, Any]:
    """The @triton.jit function of a kernel, and what Triton compiles of it for a launch with 32 programs."""
    host = kernel.bind(args).traced_host_function()
    jit = next(v for v in host.__globals__.values() if type(v).__name__ == "JITFunction")
    return jit, jit[(32,)](*args, out, num_warps=4, num_stages=1)


def make_cases(name: str, folder: str, with_triton: bool) -> dict[str, tuple[Callable[[], object], int]]:
    """Case -> (function, calls it makes); a negative count is a function that takes the number of calls."""
    import torch

    def kernel_named(kernel: str) -> Any:
        # A kernel of its own for every case: what other cases left in its tables would count.
        return getattr(load_kernels(folder), kernel)

    def tensors(n: int, size: int = 4096) -> list[torch.Tensor]:
        return [torch.randn(size, device=name) for _ in range(n)]

    small = [torch.randn(4), torch.randn(4)]
    x, y = tensors(2)
    out = torch.empty_like(x)
    cases: dict[str, tuple[Callable[[], object], int]] = {
        BASELINE: (lambda: torch.add(*small), 1),
        "torch.add": (lambda: torch.add(x, y), 1),
        "torch.add(out=)": (lambda: torch.add(x, y, out=out), 1),
        "torch.empty_like": (lambda: torch.empty_like(x), 1),
    }
    for n in (2, 8, 16):
        args = tensors(n)
        kernel = kernel_named(f"add{n}")
        cases[f"{n} tensors"] = (lambda kernel=kernel, args=args: kernel(*args), 1)
        run = kernel.bind(args).runner(tuple(args))
        cases[f"{n} tensors, host function only"] = (lambda run=run, args=args: run(*args), 1)
    in_place, keywords, with_key = kernel_named("add2_in_place"), kernel_named("add2"), kernel_named("add2_key")
    cases["2 tensors, in place"] = (lambda: in_place(x, y), 1)
    if name == "cuda":
        # In every process, so that what is compared with it was measured in the same minute on the same core.
        _, compiled = triton_kernel(kernel_named("add2"), [x, y], out)
        cases |= bare_launch.cases(folder, compiled, 32, [x, y, out])
    of_bound = kernel_named("add2")
    bound = of_bound.bind((x, y))
    bound(x, y)
    cases["2 tensors, bound kernel"] = (lambda: bound(x, y), 1)
    cases["2 tensors, bind(args)(*args)"] = (lambda: of_bound.bind((x, y))(x, y), 1)
    under_config = kernel_named("add2").bind((x, y)).compile_config()
    cases["2 tensors, compiled Config"] = (lambda: under_config(x, y), 1)
    cases["2 tensors, keywords"] = (lambda: keywords(x0=x, x1=y), 1)
    cases["2 tensors, key="] = (lambda: with_key(x, y), 1)
    broadcast_add = kernel_named("broadcast_add")
    wide, row = torch.randn(1024, 1024, device=name).bfloat16(), torch.randn(1024, device=name).bfloat16()
    cases["broadcasting add, bf16 1024x1024"] = (lambda: broadcast_add(wide, row), 1)
    shapes = [tensors(2, 4096 - 128 * i) for i in range(8)]

    def rotate(pairs: list[list[torch.Tensor]]) -> Callable[[], object]:
        add2 = kernel_named("add2")

        def calls() -> None:
            for a, b in pairs:
                add2(a, b)

        return calls

    cases["2 tensors, alternating 2 shapes"] = (rotate(shapes[:2]), 2)
    cases["2 tensors, rotating 8 shapes"] = (rotate(shapes), 8)
    shifted = torch.randn(4097, device=name)[1:]
    cases["2 tensors, alternating alignment"] = (rotate([[x, y], [shifted, y]]), 2)
    if with_triton:
        for n in (2, 8, 16):
            args = tensors(n)
            result = torch.empty_like(args[0])
            jit, compiled = triton_kernel(kernel_named(f"add{n}"), args, result)
            constants = [p.default for p in jit.params if p.is_constexpr]
            launch = compiled[(32, 1, 1)]
            cases[f"{n} tensors, Triton kernel[grid]"] = (
                lambda jit=jit, args=args, out=result: jit[(32,)](*args, out, num_warps=4, num_stages=1),
                1,
            )
            cases[f"{n} tensors, Triton kernel[grid] + empty_like"] = (
                lambda jit=jit, args=args: jit[(32,)](*args, torch.empty_like(args[0]), num_warps=4, num_stages=1),
                1,
            )
            cases[f"{n} tensors, Triton compiled[grid]"] = (
                lambda launch=launch, args=args, out=result, constants=constants: launch(*args, out, *constants),
                1,
            )
    return cases


def time_cases(
    cases: dict[str, tuple[Callable[..., object], int]], wait: Callable[[], None], repeats: int, seconds: float
) -> dict[str, dict[str, Any]]:
    """Median CPU time of each case, in us per call, and the median of its ratios to the baseline's, timed right before;
    `rounds` are all times.

    Cases take turns. Every window is warmed up first; time that other processes had the CPU does not count.
    """
    counter = InstructionCounter()
    loops: dict[str, int] = {}
    for name, (function, calls) in cases.items():
        run_loop(function, calls, 10)  # compiles and primes
        n = 10
        while True:
            start = time.perf_counter()
            run_loop(function, calls, n)
            elapsed = time.perf_counter() - start
            if elapsed > seconds / 4:
                break
            n *= 2
        loops[name] = max(1, int(n * seconds / elapsed))
        wait()
    gc.collect()
    gc.disable()  # as timeit does
    times: dict[str, list[float]] = {name: [] for name in cases}
    ratios: dict[str, list[float]] = {name: [] for name in cases}
    baseline, few = cases[BASELINE][0], max(1, loops[BASELINE] // 4)
    instructions: dict[str, float] = {}
    for _ in range(repeats):
        for name, (function, calls) in cases.items():
            n = loops[name]
            run_loop(baseline, 1, few // 2)
            start = time.thread_time()
            run_loop(baseline, 1, few)
            base = (time.thread_time() - start) / few * 1e6
            times[BASELINE].append(base)
            run_loop(function, calls, n // 8)
            before = counter.read()
            start = time.thread_time()
            run_loop(function, calls, n)
            elapsed = time.thread_time() - start
            after = counter.read()
            wait()
            times[name].append(elapsed / (n * abs(calls)) * 1e6)
            ratios[name].append(times[name][-1] / base)
            if before is not None and after is not None:
                instructions[name] = (after - before) / (n * abs(calls))
    found = {}
    for name, values in times.items():
        ratio = 1.0 if name == BASELINE else statistics.median(ratios[name])
        found[name] = {"us": statistics.median(values), "us_min": min(values), "ratio": ratio, "rounds": values}
        if name in instructions:
            found[name]["instructions"] = instructions[name]
    return found


def run_loop(function: Callable[..., object], calls: int, n: int) -> None:
    if calls < 0:
        function(n)
        return
    for _ in itertools.repeat(None, n):
        function()


def run_layer(layer: str, repeats: int, seconds: float) -> dict[str, Any]:
    """All cases of one layer, in this process."""
    import torch

    import helion
    from helion import _extension

    with tempfile.TemporaryDirectory() as folder, device() as (name, wait):
        os.environ["HELION_CACHE_DIR"] = folder
        results = time_cases(make_cases(name, folder, with_triton=layer == "default"), wait, repeats, seconds)
        helion.runtime.reset_launch_stats()
        x, y = torch.randn(4096, device=name), torch.randn(4096, device=name)
        add2 = load_kernels(folder).add2
        for _ in range(101):
            add2(x, y)
        taken = [row.layers for row in helion.runtime.launch_stats().values() if row.layers]
    return {
        "device": torch.cuda.get_device_name() if name == "cuda" else "software GPU, execute=False",
        "torch": torch.__version__,
        "extension": _extension.C is not None,
        "layers": taken[0] if taken else {},
        "results": results,
    }


# -- all of them
# ------------------------------------------------------------------------------------------------------------


def table(report: dict[str, dict[str, Any]]) -> str:
    """All layers side by side: us per call and the ratio to ``torch.add`` of the same process."""
    names = list(dict.fromkeys(name for layer in report.values() for name in layer["results"]))
    width = max(map(len, names))
    lines = [f"{'us per call (times ' + BASELINE + ')':{width}}" + "".join(f"  {layer:>16}" for layer in report)]
    for name in names:
        rows = [layer["results"].get(name) for layer in report.values()]
        cells = [f"{row['us']:8.2f} ({row['ratio']:5.2f})" if row else "" for row in rows]
        lines.append(f"{name:{width}}" + "".join(f"  {cell:>16}" for cell in cells))
        if any("instructions" in layer["results"].get(name, {}) for layer in report.values()):
            counts = [layer["results"].get(name, {}).get("instructions") for layer in report.values()]
            lines.append(
                f"{'    instructions':{width}}" + "".join(f"  {'' if c is None else round(c):>16}" for c in counts)
            )
    for layer, (what, _) in LAYERS.items():
        if layer in report:
            lines.append(f"{layer}: {what}; 101 calls ran as {report[layer]['layers']}")
    return "\n".join(lines)


#: Rows of the summary: (call, layer, case, what the ratio is to, most it is to be). A ratio to another case is the
#: median over the rounds, in which the cases took turns.
SUMMARY: tuple[tuple[str, str, str, str, float | None], ...] = (
    ("2 tensors, new output", "extension", "2 tensors", BASELINE, 0.65),
    ("2 tensors, output from the pool", "extension+pool", "2 tensors", BASELINE, 0.30),
    ("8 tensors, new output", "extension", "8 tensors", BASELINE, 0.8),
    ("16 tensors, new output", "extension", "16 tensors", BASELINE, 1.0),
    ("in-place kernel", "extension", "2 tensors, in place", BASELINE, 0.25),
    ("`bound(x, y)`", "extension", "2 tensors, bound kernel", "2 tensors", 1.3),
    ("`kernel.bind((x, y))(x, y)`", "extension", "2 tensors, bind(args)(*args)", "2 tensors", None),
    ("`bound.compile_config(config)(x, y)`", "extension", "2 tensors, compiled Config", "2 tensors", 1.1),
    ("keyword arguments", "extension", "2 tensors, keywords", "2 tensors", 1.3),
    ("`key=` function", "extension", "2 tensors, key=", BASELINE, None),
    ("broadcasting add, bf16 1024x1024", "extension", "broadcasting add, bf16 1024x1024", BASELINE, None),
    ("2 shapes in turn", "extension", "2 tensors, alternating 2 shapes", "2 tensors", 1.1),
    ("8 shapes in turn", "extension", "2 tensors, rotating 8 shapes", "2 tensors", 1.3),
    ("aligned and unaligned in turn", "extension", "2 tensors, alternating alignment", "2 tensors", None),
    ("2 tensors, without the extension", "python", "2 tensors", BASELINE, 3.0),
    ("2 shapes in turn, without the extension", "python", "2 tensors, alternating 2 shapes", "2 tensors", 1.2),
    (
        "Triton's `kernel[grid]` with `empty_like`",
        "default",
        "2 tensors, Triton kernel[grid] + empty_like",
        BASELINE,
        None,
    ),
    ("Triton's `compiled[grid]`, no output", "default", "2 tensors, Triton compiled[grid]", BASELINE, None),
    ("`torch.empty_like` alone", "extension", "torch.empty_like", BASELINE, None),
    ("`torch.add` of the 2 tensors", "extension", "torch.add", BASELINE, None),
    ("`torch.add(out=)` of the 2 tensors", "extension", "torch.add(out=)", BASELINE, None),
)


#: Rows of the summary on a GPU: (call, layer, case, cases of its process that it is beside, most us over their sum).
#: There the launch itself is most of a call, so that aims are differences to it.
ON_GPU: tuple[tuple[str, str, str, tuple[str, ...], float | None], ...] = (
    ("`cuLaunchKernelEx` in a C loop", "extension", "cuLaunchKernelEx in a C loop", (BARE,), None),
    ("`cuLaunchKernel`, called from Python", "extension", "cuLaunchKernel, called from Python", (BARE,), None),
    (
        "`cuLaunchKernelEx` without the GIL, called from Python",
        "extension",
        "cuLaunchKernelEx without the GIL, called from Python",
        (BARE,),
        None,
    ),
    ("in-place kernel", "extension", "2 tensors, in place", (BARE,), 0.6),
    ("in-place kernel, in the process with the pool", "extension+pool", "2 tensors, in place", (BARE,), 0.6),
    ("2 tensors, new output", "extension", "2 tensors", ("2 tensors, in place", "allocation in a C loop"), 0.2),
    ("2 tensors, output from the pool", "extension+pool", "2 tensors", ("2 tensors, in place",), 0.2),
    ("2 tensors, new output", "extension", "2 tensors", ("torch.add",), 0.0),
)


def _median(of: Callable[[float, float], float], row: dict[str, Any], other: dict[str, Any]) -> float:
    """Of what two cases of one process make in each round."""
    return statistics.median(map(of, row["rounds"], other["rounds"]))


def summary(report: dict[str, dict[str, Any]]) -> str:
    """The table of README.md, with the aims that a ratio is to stay below; on a GPU those of a GPU after it."""
    found = {layer: part["results"] for layer, part in report.items()}
    on_gpu = any("software" not in part["device"] for part in report.values())
    lines = ["| call | us | ratio | to | aim |", "|---|---|---|---|---|"]
    for call, layer, case, relative, aim in SUMMARY:
        row = found.get(layer, {}).get(case)
        if row is None:
            continue
        other = found[layer][relative]
        ratio = row["ratio"] if relative == BASELINE else _median(operator.truediv, row, other)
        to = "`torch.add`" if relative == BASELINE else "one shape" if "turn" in call else "by position"
        # A ratio to an operation of the CPU says nothing where most of the time is the GPU driver's.
        asked = aim is not None and not (on_gpu and relative == BASELINE)
        wanted = f"<= {aim:g}{'' if ratio <= aim else ' (missed)'}" if asked else ""
        lines.append(f"| {call} | {row['us']:.2f} | {ratio:.2f} | {to} | {wanted} |")
    extension, default = found.get("extension", {}), found.get("default", {})
    if (mine := extension.get("2 tensors")) is not None:
        if (triton := default.get("2 tensors, Triton kernel[grid] + empty_like")) is not None:
            times = triton["ratio"] / mine["ratio"]
            # The aim is of the CPU's share of a call, as the ratios above are.
            aim = "" if on_gpu else " (aim: at least 7)"
            lines.append(f"\nTriton's `kernel[grid]` with `empty_like` takes {times:.1f} times as long{aim}.")
    return "\n".join([*lines, *(["", *gpu_summary(found)] if on_gpu else [])])


def gpu_summary(found: dict[str, dict[str, Any]]) -> list[str]:
    """The table of what calls cost beside the launch, and its aims."""
    lines = ["| call | us | more than | by | aim |\n|---|---|---|---|---|"]
    for case in (BARE, "allocation in a C loop"):
        rows = [found[layer][case]["us"] for layer in ("extension", "extension+pool") if case in found.get(layer, {})]
        lines += [f"| {case} | {' and '.join(f'{us:.2f}' for us in rows)} | | | |"] if rows else []
    for call, layer, case, beside, aim in ON_GPU:
        results = found.get(layer, {})
        if not {case, *beside} <= results.keys():
            continue
        first, *others = beside
        over = _median(operator.sub, results[case], results[first]) - sum(results[other]["us"] for other in others)
        wanted = "" if aim is None else f"<= {aim:g}{'' if over <= aim else ' (missed)'}"
        lines.append(f"| {call} | {results[case]['us']:.2f} | {' + '.join(beside)} | {over:+.2f} | {wanted} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--layers", nargs="+", choices=list(LAYERS), default=None)
    parser.add_argument("--repeats", type=int, default=31, help="timed rounds over all cases")
    parser.add_argument("--seconds", type=float, default=0.004, help="time per case and round")
    parser.add_argument("--quick", action="store_true", help="11 rounds of 2 ms")
    parser.add_argument("--summary", action="store_true", help="print only the summary")
    parser.add_argument("--in-process", choices=list(LAYERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.seconds = 11, 0.002
    if options.in_process:
        json.dump(run_layer(options.in_process, options.repeats, options.seconds), sys.stdout)
        return
    report: dict[str, dict[str, Any]] = {}
    for layer in options.layers or LAYERS:
        command = [sys.executable, __file__, "--in-process", layer]
        command += ["--repeats", str(options.repeats), "--seconds", str(options.seconds)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HELION_")} | LAYERS[layer][1]
        environment["HELION_IGNORE_WARNINGS"] = "ManySizes"  # some rows are about many sizes
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"layer {layer} failed")
        found = json.loads(done.stdout.strip().splitlines()[-1])
        if layer.startswith("extension") and not found["extension"]:
            print(f"{layer}: helion._C is not there; build it to measure this layer", file=sys.stderr)
            continue
        report[layer] = found
    if report:
        first = next(iter(report.values()))
        print(
            f"{first['device']}, torch {first['torch']}, `torch.add` of two 4-element CPU tensors: "
            f"{first['results'][BASELINE]['us']:.2f} us\n"
        )
        if not options.summary:
            print(table(report), end="\n\n")
        print(summary(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
