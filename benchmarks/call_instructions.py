"""Instructions of a call, counted by valgrind: the same figures on an idle and on a loaded machine.

    python benchmarks/call_instructions.py                       # all cases of launch_overhead.py that need no Triton
    python benchmarks/call_instructions.py --only "^2 tensors" --tree ../other

Runs on the software GPU with launches that do nothing. The environment chooses the layer, as for a program:
HELION_OUTPUT_POOL=1, HELION_NO_EXTENSION=1. Needs valgrind with its headers, and g++: the software GPU is compiled
anew, without instructions that valgrind does not know.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

#: Makes valgrind's requests callable. They do nothing outside of it.
REQUESTS = """\
#include <valgrind/callgrind.h>
void start(void) { CALLGRIND_START_INSTRUMENTATION; }
void stop(void) { CALLGRIND_STOP_INSTRUMENTATION; }
void zero(void) { CALLGRIND_ZERO_STATS; }
void dump(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
"""
#: A compiler whose code for "the machine at hand" is for valgrind's.
COMPILER = '#!/bin/bash\nexec g++ "${@/#-march=native/-march=x86-64-v3}"\n'
CALLS = 200


def count_cases(folder: str, only: str) -> None:
    """In valgrind: writes one file of counts for each case."""
    from benchmarks import launch_overhead

    valgrind = ctypes.CDLL(str(Path(folder) / "requests.so"))
    with launch_overhead.device() as (name, _):
        cases = launch_overhead.make_cases(name, folder, with_triton=False)
        gc.collect()
        gc.disable()
        for case, (function, calls) in cases.items():
            if not re.search(only, case):
                continue
            launch_overhead.run_loop(function, calls, 12)  # compiles, records, and fills the interpreter's caches
            valgrind.start()
            for _ in itertools.repeat(None, 12):
                function()
            valgrind.zero()
            for _ in itertools.repeat(None, CALLS):
                function()
            valgrind.dump(f"{case}|{CALLS * abs(calls)}".encode())
            valgrind.stop()


def counts(folder: Path) -> dict[str, int]:
    """Case -> instructions of one call."""
    found = {}
    for path in sorted(folder.glob("counts.*"), key=lambda path: int(path.suffix[1:])):
        text = path.read_text()
        named = re.search(r"^desc: Trigger: Client Request: (.*)\|(\d+)$", text, re.MULTILINE)
        total = re.search(r"^(?:summary|totals): (\d+)", text, re.MULTILINE)
        if named and total:
            found[named[1]] = int(total[1]) // int(named[2])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=".", help="regular expression of the cases")
    parser.add_argument("--tree", type=Path, default=Path(__file__).resolve().parent.parent, help="another checkout")
    parser.add_argument("--in-valgrind", help=argparse.SUPPRESS)
    options = parser.parse_args()
    tree = options.tree.resolve()
    sys.path.insert(0, str(tree))
    if options.in_valgrind:
        count_cases(options.in_valgrind, options.only)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "requests.c").write_text(REQUESTS)
        subprocess.run(["gcc", "-shared", "-fPIC", "requests.c", "-o", "requests.so"], cwd=folder, check=True)
        compiler = folder / "g++"
        compiler.write_text(COMPILER)
        compiler.chmod(0o755)
        environment = {**os.environ, "CXX": str(compiler), "HELION_CACHE_DIR": name, "PYTHONPATH": str(tree)}
        environment |= {"HELION_IGNORE_WARNINGS": "ManySizes", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "tests.softgpu.build"], cwd=tree, env=environment, check=True)
        tool = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/counts"]
        tool += ["--smc-check=all-non-file", "--quiet"]
        script = [sys.executable, __file__, "--tree", str(tree), "--only", options.only, "--in-valgrind", name]
        subprocess.run([*tool, *script], cwd=tree, env=environment, check=True)
        for case, instructions in counts(folder).items():
            print(f"{instructions:8}  {case}")


if __name__ == "__main__":
    main()
