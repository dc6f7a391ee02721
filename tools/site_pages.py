"""Pages of the documentation's site that are made of other files: the examples' sources, and the tutorial's notebook.

A hook of mkdocs (mkdocs.yml). In the repository links go to the files themselves; on the site they go to these pages.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its text, its code, and what the code printed when the notebook was run."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        said = "".join("".join(output.get("text", ())) for output in cell["outputs"])
        if said:
            parts.append(f"```text\n{said.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def example_page(path: Path) -> str:
    """A source file as a page."""
    return f"# {path.name}\n\n```python\n{path.read_text()}```\n"


def pages() -> dict[str, str]:
    """Place on the site -> Markdown."""
    found = {f"examples/{path.stem}.md": example_page(path) for path in sorted((ROOT / "examples").glob("*.py"))}
    return {**found, "tutorial.md": notebook_page(ROOT / "docs" / "tutorial.ipynb")}


def relinked(markdown: str) -> str:
    """A page of docs/ with links to the made pages in the place of those to files."""
    markdown = re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples/\1.md)", markdown)
    return markdown.replace("](../examples)", "](examples.md)").replace("](tutorial.ipynb)", "](tutorial.md)")


def on_files(files: Any, config: Any) -> Any:
    """mkdocs asks for the site's files."""
    from mkdocs.structure.files import File

    for place, text in pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs has read a page."""
    return relinked(markdown)
