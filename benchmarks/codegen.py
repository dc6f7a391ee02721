"""What Triton and ptxas make of the kernels: instructions, registers, spills, widths of global accesses. No GPU needed.

    python benchmarks/codegen.py                  the whole table against `codegen.txt`; three minutes on four cores
    python benchmarks/codegen.py softmax bmm      some rows of it
    python benchmarks/codegen.py --write          write `codegen.txt` anew; `git diff` shows what became different

Each kernel has its computed default Config at the size of the catalog, for compute capabilities 9.0 and 10.0, compiled
for meta tensors; the forms of one computation (`forms.py`) have a Config of theirs, and should have lines alike.
`instr` is without the NOPs that pad the code; `regs` of a thread; `stack` bytes of a thread, where spills live;
`loads` and `stores` say how many instructions of which width there are: `128x4` are four of 16 bytes a thread,
`a128` goes to shared memory directly (cp.async), `tma` is a box of a tensor.  They are places in the code, not
executions.  Another version of ptxas or Triton gives another table: the first line says which made it.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import re
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import triton

from benchmarks import sass
from benchmarks.forms import FAMILIES
from benchmarks.forms import FORMS
from benchmarks.forms import config_of
from examples.catalog import EXAMPLES
from helion import Config
from helion.cross_compile import cross_compile
from helion.kernel import Kernel
from helion.target import Target

TABLE = Path(__file__).with_name("codegen.txt")
CAPABILITIES = (90, 100)
KERNELS = (
    *("add", "broadcast_add", "exp", "swiglu", "swiglu_backward", "geglu", "rope", "dropout", "embedding"),
    *("softmax", "softmax_online", "sum_rows", "rms_norm", "rms_norm_backward", "layer_norm", "layer_norm_backward"),
    *("cross_entropy", "cross_entropy_backward", "kl_div", "matmul", "matmul_epilogue", "bmm", "attention"),
    *("attention_causal", "fp8_matmul", *FORMS),
)
_ACCESS = re.compile(r"\b(LDG|STG|LDGSTS|UTMALDG|UTMASTG|UBLKCP)((?:\.[A-Z0-9_]+)*)\b")
_WIDTHS = {"U8": 8, "S8": 8, "U16": 16, "S16": 16, "64": 64, "128": 128, "256": 256}


def accesses(listing: str) -> tuple[str, str]:
    """Global loads and stores in a disassembly, by width."""
    found: dict[str, collections.Counter[str]] = {"loads": collections.Counter(), "stores": collections.Counter()}
    for op, modifiers in _ACCESS.findall(listing):
        width = next((_WIDTHS[m] for m in modifiers.split(".") if m in _WIDTHS), 32)
        kind = "tma" if op.startswith("U") else f"a{width}" if op == "LDGSTS" else str(width)
        found["stores" if op in ("STG", "UTMASTG") else "loads"][kind] += 1
    loads, stores = (" ".join(f"{kind}x{n}" for kind, n in sorted(c.items())) or "-" for c in found.values())
    return loads, stores


def rows_of(kernel: Kernel, args: tuple[object, ...], name: str, capability: int, config: Config | None) -> list[str]:
    """One line for each kernel that a call launches."""
    bound = kernel.bind(args)
    if config is None:
        config = bound.backend(Target("nvidia", capability)).spec.default_config()
    lines = []
    for stages in cross_compile(bound, args, config, capability):
        stats = sass.statistics(stages["cubin"])
        loads, stores = accesses(sass.disassemble(stages["cubin"]))
        lines.append(
            f"{name:28} sm_{capability:<4} {stats.instructions:6} {stats.registers:5} {stats.stack_bytes:6}  "
            f"{loads:24} {stores}".rstrip()
        )
    return lines


def example_rows(task: tuple[str, int]) -> list[str]:
    """The lines of one example, or form of a computation, at one capability."""
    name, capability = task
    torch.set_num_threads(1)
    if name in FORMS:
        form = FORMS[name]
        family = FAMILIES[form.family]
        args = family.make_args(family.size, torch.float16, "meta")
        return rows_of(form.kernel, args, name, capability, config_of(form))
    example = EXAMPLES[name]
    return rows_of(example.kernel, example.args(example.size, device="meta"), name, capability, None)


def heading() -> list[str]:
    """The first lines of a table."""
    stats = f"{'kernel':28} {'arch':7} {'instr':>6} {'regs':>5} {'stack':>6}  {'loads':24} stores"
    return [f"# Triton {triton.__version__}", stats]


def table(names: Iterable[str], workers: int) -> list[str]:
    """All lines."""
    tasks = [(name, capability) for name in names for capability in CAPABILITIES]
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        return [*heading(), *(line for lines in pool.map(example_rows, tasks) for line in lines)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="examples and forms (default: those of the table)")
    parser.add_argument("--write", action="store_true", help="write the table")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    lines = table(options.names or KERNELS, options.workers)
    if options.write:
        TABLE.write_text("\n".join(lines) + "\n")
    known = TABLE.read_text().splitlines() if TABLE.exists() else []
    before = {line[:37]: line for line in known}
    for line in lines:
        print(line, "" if line in known else f"   <- was {before[line[:37]][37:]}" if line[:37] in before else "  new")


if __name__ == "__main__":
    main()
