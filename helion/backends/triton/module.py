"""The module of generated source: what its functions share, and what they use from elsewhere.

Whoever prints the use of a helper, of libdevice or of a tensor descriptor says so here; nothing is looked for in the
text afterwards.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Sequence
from collections.abc import Set
from typing import Any

import sympy

from ..host import HostPrinter
from .targets import Features

#: Prefix of a function of our own that generated code calls -> the module of `helion.runtime` that has it.
_HELPERS = {"hlt_": "triton_helpers", "hls_": "triton_special", "hlg_": "triton_gamma", "hlp_": "triton_polynomials"}


@dataclasses.dataclass
class Module:
    """One module being printed.

    Attributes:
        features: what code for the target may use.
        host_names: names of the host function, which sizes of blocks are not to have.
        sources: lines of `@triton.jit` functions that the loops call, by name.
        injected: `@triton.jit` functions of the user's, by name.
        scalars: what host values, and numbers computed from them, are called.
        blocks: what block sizes are called, by the block's id.
        descriptors: device code makes tensor descriptors.
    """

    features: Features
    host_names: Set[str] = frozenset()
    sources: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    injected: dict[str, Any] = dataclasses.field(default_factory=dict)
    scalars: dict[sympy.Expr, str] = dataclasses.field(default_factory=dict)
    blocks: dict[int, str] = dataclasses.field(default_factory=dict)
    descriptors: bool = False
    _libdevice: bool = False
    _helpers: set[str] = dataclasses.field(default_factory=set)

    def helper(self, name: str) -> str:
        """A function of our own (`_HELPERS`); imported by its own name, as Inductor copies what a kernel
        calls by name.
        """
        self._helpers.add(name)
        return name

    def libdevice(self, name: str) -> str:
        """A function of Triton's libdevice."""
        self._libdevice = True
        return f"libdevice.{name}"

    def descriptor(self) -> str:
        """The function that makes a tensor descriptor, for which Triton needs an allocator."""
        self.descriptors = True
        return "tl.make_tensor_descriptor"

    def written_by_user(self, tree: ast.AST) -> None:
        """Take note of what device code of the user's own uses."""
        for node in ast.walk(tree):
            self._libdevice |= isinstance(node, ast.Name) and node.id == "libdevice"
            self.descriptors |= isinstance(node, ast.Attribute) and node.attr == "make_tensor_descriptor"

    def text(
        self, kernels: Sequence[list[str]], function: list[str], constants: dict[str, int], host: HostPrinter
    ) -> str:
        """The source.

        Args:
            kernels: lines of each function on the device.
            function: lines of the host function.
            constants: sizes that the host function may read.
            host: printed the function.
        """
        outside, _ = host.imports_and_globals()
        imports = ["import torch", "import triton", "import triton.language as tl"]
        imports += [line for line in outside if line.startswith("import ")]
        if self._libdevice:
            imports.append("from triton.language.extra import libdevice")
        imports.append("from helion.runtime import default_launcher as _default_launcher")
        imports += host.runtime_imports()
        imports += [f"from helion.runtime.{_HELPERS[name[:4]]} import {name}" for name in sorted(self._helpers)]
        if self.descriptors:
            imports.append("from helion.runtime import set_triton_allocator as _set_triton_allocator")
        head = ["from __future__ import annotations", "", *dict.fromkeys(imports)]
        if self.descriptors:
            head += ["", "_set_triton_allocator()"]
        head += ["", *(line for line in outside if not line.startswith("import "))]
        head += [
            f"{name} = {value}"
            for name, value in constants.items()
            if any(re.search(rf"\b{name}\b", line) for line in function)
        ]
        blocks = ["\n".join(head).rstrip(), *("\n".join(lines) for lines in kernels), "\n".join(function)]
        return "\n\n\n".join(blocks) + "\n"
