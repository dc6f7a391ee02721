"""`python -m helion bundle`: run a program, and compile the calls that it makes into a bundle; or list them."""

from __future__ import annotations

import argparse
import importlib.util
import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import exc
from ..kernel import Kernel
from ..runtime.launch import bundled
from . import signature as calls
from .build import bundle
from .build import capability_here

__all__ = ["main"]


class _Record:
    """The calls that were made: each kernel with descriptions of arguments, without the tensors."""

    def __init__(self) -> None:
        self.found: dict[tuple[Kernel, str], list[Any]] = {}
        self.problems: dict[str, None] = {}

    def __call__(self, kernel: Any, args: tuple[Any, ...]) -> None:
        try:
            described = calls.describe(args)
        except calls.Unsupported as why:
            self.problems[f"{kernel.stats.name}: called with {why}"] = None
            return
        self.found.setdefault((kernel, json.dumps(described)), described)

    def as_json(self) -> dict[str, Any]:
        return {"calls": [{"kernel": kernel.stats.name, "args": args} for (kernel, _), args in self.found.items()]}


def _run(program: str, arguments: list[str]) -> _Record:
    """Run a script or a module as `python` would, and note what kernels it calls with what."""
    record = _Record()
    bundled.recorders = (*bundled.recorders, record)
    before = sys.argv, list(sys.path)
    sys.argv = [program, *arguments]
    try:
        if Path(program).is_file():
            sys.path.insert(0, str(Path(program).resolve().parent))
            runpy.run_path(program, run_name="__main__")
        else:
            sys.path.insert(0, "")
            if not _is_module(program):
                raise exc.InvalidAPIUsage(
                    f"there is no script or module {program}", fix="name one as `python` runs it."
                )
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code not in (None, 0):
            raise
    finally:
        sys.argv, sys.path = before[0], before[1]
        bundled.recorders = tuple([other for other in bundled.recorders if other is not record])
    return record


def _is_module(name: str) -> bool:
    if name.endswith(".py"):  # of a package too
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # of its package
        return False


def _kernel_named(name: str) -> Kernel:
    """The kernel that `launch_stats()` calls so."""
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise exc.InvalidAPIUsage(
            f"kernel {name} cannot be imported: {error}", fix="run `python -m helion bundle SCRIPT` itself."
        ) from None
    if not isinstance(found, Kernel):
        raise exc.InvalidAPIUsage(
            f"{name} is no kernel at the top of its module", fix="run `python -m helion bundle SCRIPT` itself."
        )
    return found


def _read(path: Path) -> _Record:
    """A list that `--record` wrote."""
    record = _Record()
    before = list(sys.path)
    sys.path.insert(0, "")
    try:
        for call in json.loads(path.read_text())["calls"]:
            record.found[_kernel_named(call["kernel"]), json.dumps(call["args"])] = call["args"]
    except (ValueError, KeyError, TypeError) as error:
        raise exc.InvalidAPIUsage(f"{path} is no list of calls: {error}", fix="make one with --record.") from None
    finally:
        sys.path = before
    return record


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m helion bundle",
        description="Run a program and compile every call of a kernel that it makes into one file, which "
        "helion.load_bundle serves them from. No GPU is needed: on CPU tensors kernels run by PyTorch.",
    )
    parser.add_argument("command", choices=["bundle"], help=argparse.SUPPRESS)
    parser.add_argument("program", help="a script, a module, or a list of calls (.json)")
    parser.add_argument("arguments", nargs="*", help="of the program; put -- before those that begin with -")
    parser.add_argument("-o", "--output", default="kernels.hlb", help="the bundle (default: kernels.hlb)")
    parser.add_argument("--capability", type=int, action="append", help="80, 89, 90, 100, ...; may be repeated")
    parser.add_argument(
        "--sms",
        type=int,
        action="append",
        help="multiprocessors of the GPU, if it is none of those that are known (a part of one, say); may be repeated",
    )
    parser.add_argument("--keep-going", action="store_true", help="leave out what cannot be in a bundle")
    parser.add_argument("--record", metavar="FILE", help="write the list of calls there, and compile nothing")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        # Before the program has run for nothing.
        capabilities = () if options.record else options.capability or capability_here()
        if options.program.endswith(".json"):
            record = _read(Path(options.program))
        else:
            record = _run(options.program, options.arguments)
        for problem in record.problems:
            print(f"not recorded: {problem}", file=sys.stderr)
        if options.record:
            Path(options.record).write_text(json.dumps(record.as_json(), indent=1))
            print(f"{len(record.found)} calls in {options.record}")
            return 0
        examples: dict[Kernel, list[tuple[Any, ...]]] = {}
        for (kernel, _), described in record.found.items():
            examples.setdefault(kernel, []).append(calls.example(described))
        if not examples:
            print("error: the program called no kernel", file=sys.stderr)
            return 1
        sms = dict.fromkeys(capabilities, options.sms) if options.sms else None
        made = bundle(
            list(examples),
            examples,
            options.output,
            capabilities=capabilities,
            sms=sms,
            strict=not options.keep_going,
        )
        print(made)
    except exc.BaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
