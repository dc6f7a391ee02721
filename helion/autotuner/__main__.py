"""The tuner's commands: `python -m helion collect|measure|evaluate|write|coverage|report`.

`python -m helion.autotuner` has them too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import exc
from .aot import build
from .coverage import coverage
from .coverage import lines_of
from .progress import format_ms
from .report import write_report


def _data_file(options: argparse.Namespace) -> Path:
    if options.data is not None:
        return Path(options.data)
    return Path(f"helion_aot_{options.kernel.rpartition(':')[2]}.json")


def _say(text: str) -> None:
    print(text, flush=True)


def _search_options(options: argparse.Namespace) -> dict[str, Any]:
    names = ("effort", "budget_seconds", "search", "devices", "log")
    found = {name: getattr(options, name) for name in names if getattr(options, name, None) is not None}
    if options.no_isolation:
        found["isolate"] = False
    return found


def _collect(options: argparse.Namespace) -> None:
    path = _data_file(options)
    data = build.collect(options.kernel, path, _say, evaluations=options.evaluations, **_search_options(options))
    _say(f"{len(data.configs)} configs in {path}")


def _measure(options: argparse.Namespace) -> None:
    path = _data_file(options)
    data = build.measure(options.kernel, path, _say, **_search_options(options))
    _say(f"{len(data.times)} shapes x {len(data.configs)} configs in {path}")


def _evaluate(options: argparse.Namespace) -> None:
    data = build.Measurements.load(_data_file(options))
    found = build.evaluate(data, options.configs)
    for call, best, slow in found.shapes:
        _say(f"  {slow:6.3f}x of {format_ms(best)}  {call}")
    if len({tuple(shape.items()) for shape in data.shapes}) < len(data.shapes):
        _say("  (calls that differ in batched dimensions alone get the same config)")
    _say(f"slow-down against each shape's best config (geometric mean), {found.configs} configs shipped:")
    _say(f"  decision tree            {found.shipped:.3f}x")
    if found.unseen is not None:
        _say(f"  on a shape not measured  {found.unseen:.3f}x (each shape by a tree learned from the others)")
    _say(f"  best single config       {found.single:.3f}x")


def _write(options: argparse.Namespace) -> None:
    path, table = build.write(options.kernel, _data_file(options), options.configs)
    _say(f"wrote {len(table.configs)} configs to {path}")


def _report(options: argparse.Namespace) -> None:
    output = options.output or Path(options.file).with_suffix(".html")
    write_report(options.file, output)
    _say(f"wrote {output}")


def _coverage(options: argparse.Namespace) -> None:
    for line in lines_of(coverage(options.kernels, options.device), options.all):
        _say(line)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m helion", description="Tune kernels ahead of time, and look at searches."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def kernel_command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument("kernel", help="file.py:kernel, a @helion.aot_kernel")
        command.add_argument("--data", help="working file (default: helion_aot_<kernel>.json)")
        return command

    collect = kernel_command("collect", _collect, "tune the kernel for every call of its collect_fn")
    measure = kernel_command("measure", _measure, "time every collected config on every call")
    for command in (collect, measure):
        command.add_argument("--effort", choices=("quick", "full"))
        command.add_argument("--budget-seconds", type=float, help="for each call")
        command.add_argument("--devices", help="comma-separated, for example cuda:0,cuda:1")
        command.add_argument("--log", help="record every trial in this .csv or .json file")
        command.add_argument("--no-isolation", action="store_true", help="run candidates in this process")
    collect.add_argument("--search", help="name of a search")
    collect.add_argument("--evaluations", type=int, help="configs measured for each call")
    for command in (
        kernel_command("evaluate", _evaluate, "how good the shipped choice would be"),
        kernel_command("write", _write, "write the configs and the decision tree beside the kernel"),
    ):
        command.add_argument("--configs", type=int, default=8, help="most configs to ship")
    text = "list the calls of collect_fn without a measured config, device by device"
    covered = commands.add_parser("coverage", help=text, description=text)
    covered.set_defaults(run=_coverage)
    covered.add_argument("kernels", nargs="+", help="file.py:kernel, a @helion.aot_kernel")
    covered.add_argument("--device", action="append", default=[], help="a model besides those that are known")
    covered.add_argument("--all", action="store_true", help="those with a measured config too")
    report = commands.add_parser(
        "report", help="draw a search log", description="Draw the log of a search as PNG or HTML."
    )
    report.set_defaults(run=_report)
    report.add_argument("file", help="what autotune_log / HELION_AUTOTUNE_LOG named")
    report.add_argument("-o", "--output", help=".png or .html (default: the log's name with .html)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except exc.BaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
