"""docs/examples.md lists every file of examples/ and every kernel of the catalog."""

from __future__ import annotations

import re
from pathlib import Path

from examples.catalog import CUTE_EXAMPLES
from examples.catalog import EXAMPLES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "examples.md").read_text()
#: Files that run the examples.
RUNNERS = {"__init__.py", "bench.py", "catalog.py", "demo.py", "entry.py"}


def test_every_file_is_linked_and_every_link_is_a_file() -> None:
    linked = set(re.findall(r"\(\.\./examples/(\w+\.py)\)", PAGE)) - RUNNERS
    assert linked == {path.name for path in (ROOT / "examples").glob("*.py")} - RUNNERS


def test_every_kernel_has_its_name_on_the_page() -> None:
    names = {
        name.removesuffix("_cute") if name.removesuffix("_cute") in EXAMPLES else name
        for name in (*EXAMPLES, *CUTE_EXAMPLES)
    }
    missing = [name for name in names if f"`{name}`" not in PAGE]
    assert not missing, missing
