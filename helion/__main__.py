"""The command line: `python -m helion COMMAND`. Each command's module is loaded when the command is given."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from ._version import __version__

#: Command -> the module whose `main` runs it, and what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": ("helion.doctor", "say what is installed, what is off, and how to mend it"),
    "bundle": (
        "helion.bundles.command",
        "compile a program's calls into a file that needs no compiler",
    ),
    "collect": ("helion.autotuner.__main__", "tune a kernel for every call of its collect_fn"),
    "measure": ("helion.autotuner.__main__", "time every collected config on every call"),
    "evaluate": ("helion.autotuner.__main__", "how good the shipped choice would be"),
    "write": ("helion.autotuner.__main__", "write the configs and the decision tree beside the kernel"),
    "coverage": ("helion.autotuner.__main__", "list calls without a measured config, device by device"),
    "report": ("helion.autotuner.__main__", "draw a search log"),
}


def usage() -> str:
    """What `python -m helion` prints."""
    lines = ["usage: python -m helion COMMAND ...", ""]
    lines += [f"  {name:10} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join([*lines, "", "python -m helion COMMAND --help says more of each."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if given else 2
    if given[0] == "--version":
        print(__version__)
        return 0
    if given[0] not in COMMANDS:
        print(f"there is no command {given[0]!r}\n\n{usage()}", file=sys.stderr)
        return 2
    status: int = importlib.import_module(COMMANDS[given[0]][0]).main(given)
    return status


if __name__ == "__main__":
    sys.exit(main())
