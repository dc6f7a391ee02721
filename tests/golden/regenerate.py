"""The generated source of every example: what a change of the compiler is compared with.

``python -m tests.golden.regenerate`` writes ``tests/golden/sources/`` anew, and `git diff` shows what became different.
Each file holds an example's source for odd sizes under its default Config and two others, and for powers of two under
one more.  The other Configs were drawn once; they stay as long as they are valid.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch

import helion
from examples.catalog import CUTE_EXAMPLES
from examples.catalog import EXAMPLES
from examples.entry import Example
from helion import exc
from helion.autotuner.space import SearchSpace
from helion.bound_kernel import BoundKernel
from helion.target import Target

FOLDER = Path(__file__).parent / "sources"
ALL: dict[str, Example] = {**EXAMPLES, **CUTE_EXAMPLES}
#: The GPU that the sources are made for: pointers, block pointers and descriptors, and both backends, exist there.
TARGET = Target("nvidia", 90)
_HEAD = "# ==== "


def _bind(example: Example, kind: str) -> BoundKernel:
    size = example.small if kind == "odd" else tuple(1 << max(n - 1, 15).bit_length() for n in example.small)
    torch.manual_seed(0)
    return example.kernel.bind(example.args(size))


def _draw(bound: BoundKernel, rng: random.Random) -> helion.Config:
    """A Config that this kernel accepts at `TARGET`."""
    spec = bound.backend(TARGET).spec
    for _ in range(200):
        config = SearchSpace(spec).random(rng)
        assert config is not None
        try:
            bound.generated_source(config, TARGET)
        except exc.BaseError:
            continue
        return config
    raise AssertionError("no valid config in 200 draws")


def _configs_in(text: str) -> list[tuple[str, str]]:
    """The (kind of sizes, Config as JSON) of each section of a golden file."""
    heads = [line.removeprefix(_HEAD) for line in text.splitlines() if line.startswith(_HEAD)]
    return [(head.split(" ", 1)[0], head.split(" ", 1)[1]) for head in heads]


def golden_text(name: str, before: str) -> str:
    """The golden file of an example.

    Args:
        name: the example.
        before: the file as it is, whose Configs are kept; empty for new ones.
    """
    example = ALL[name]
    rng = random.Random(name)
    sections = []
    kinds = (
        ("even",) * 4 if name in CUTE_EXAMPLES else ("odd", "odd", "odd", "even")
    )  # TMA wants rows of whole 16 bytes
    wanted = _configs_in(before) or list(zip(kinds, ("default", "", "", "")))
    for kind, config_text in wanted:
        bound = _bind(example, kind)
        config = None
        if config_text != "default":
            config = helion.Config.from_json(config_text) if config_text else _draw(bound, rng)
        source = bound.generated_source(config, TARGET).text
        title = "default" if config is None else json.dumps(dict(config))
        sections.append(f"{_HEAD}{kind} {title}\n{source}")
    return "\n".join(sections)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.iterdir():
        if path.stem not in ALL:
            path.unlink()
    for name in ALL:
        path = FOLDER / f"{name}.txt"
        path.write_text(golden_text(name, path.read_text() if path.exists() else ""))


if __name__ == "__main__":
    main()
