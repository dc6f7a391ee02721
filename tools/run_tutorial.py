"""Run the tutorial's cells one after another, without Jupyter, and put what they print into the notebook.

python -m tools.run_tutorial
"""

from __future__ import annotations

import contextlib
import io
import json
import linecache
import warnings
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "tutorial.ipynb"


def run(notebook: dict[str, Any]) -> list[str]:
    """What each cell of code prints.

    Raises:
        Exception: what a cell raises.
    """
    names: dict[str, Any] = {"__name__": "tutorial"}
    printed = []
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, source in enumerate(cells, 1):
        file = f"<tutorial, cell {number}>"
        # Where a kernel's source is found; Jupyter does the same.
        linecache.cache[file] = (len(source), None, f"{source}\n".splitlines(keepends=True), file)
        said = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(said):
            warnings.simplefilter("ignore")
            exec(compile(f"{source}\n", file, "exec"), names)
        printed.append(said.getvalue())
    return printed


def recorded(notebook: dict[str, Any]) -> list[str]:
    """What the notebook says that each cell prints."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return ["".join("".join(output["text"]) for output in cell["outputs"]) for cell in cells]


def main() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, said) in enumerate(zip(cells, run(notebook)), 1):
        text = said.splitlines(keepends=True)
        cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": text}] if said else []
        cell["execution_count"] = number
    NOTEBOOK.write_text(json.dumps(notebook, indent=1) + "\n")


if __name__ == "__main__":
    main()
