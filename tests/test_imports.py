"""Every import of the package, also in functions and under TYPE_CHECKING: floors, cycles, and imports made late.

Nothing is imported in this process: the syntax trees say it all.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

_BASE = (
    "exc numbers _environment _annotations _locks _parsing _version _logging _extension _C _compat_torch _compat_sympy "
    "_compat_tracing _compat_triton _compat_triton_abi"
)
_SCHEDULES = "settings setting_values config config_advice config_keys config_spec fragments"
_COMPILER = f"{_BASE} {_SCHEDULES} target language ir"

#: What each room of the package may import: a file beside `kernel.py`, or a folder. docs/design.md draws it.
MAY_IMPORT = {
    "_errors": "",
    "exc": "_errors",
    "_version": "",
    "__main__": "_version",
    "_logging": "",
    "_environment": "",
    "_annotations": "",
    "_locks": "",
    "_parsing": "_locks",
    "_C": "runtime",  # types only
    "_extension": "_C _compat_torch _environment",
    "_compat_torch": "_version",
    "_compat_sympy": "",
    "_compat_tracing": "",
    "_compat_triton": "_compat_triton_abi _locks _parsing _version",
    "_compat_triton_abi": "",
    "numbers": "",
    "target": "",
    "setting_values": "_environment",
    "settings": "exc setting_values",
    "config_keys": "",
    "config": "exc config_keys config_spec",
    "config_advice": "fragments",  # types only
    "config_spec": "exc _locks config config_advice config_keys fragments",
    "fragments": "",
    "language": "_annotations exc",
    "ir": "exc numbers _locks _compat_torch _compat_sympy _compat_tracing language",
    "frontend": _COMPILER,
    "runtime": _COMPILER,
    "backends": f"{_COMPILER} runtime",
    "autotuner": f"{_COMPILER} runtime backends",
    "repro": f"{_COMPILER} frontend",
    "families": "exc config ir backends bound_kernel kernel",
    "arguments": "exc language frontend kernel",
    "outcomes": "exc arguments frontend runtime ir kernel",
    "ref_calls": f"{_COMPILER} frontend runtime bound_kernel kernel",
    "bound_kernel": f"{_COMPILER} arguments frontend backends runtime autotuner ref_calls repro families "
    "outcomes kernel",
    "kernel": f"{_COMPILER} frontend runtime autotuner families bound_kernel",
    "cross_compile": f"{_COMPILER} backends runtime bound_kernel",
    "aot": f"{_COMPILER} autotuner kernel",
    "tuned": f"{_COMPILER} autotuner kernel",
    "experimental": "aot",
    "bundles": f"{_COMPILER} _version frontend backends runtime kernel",
    "explain": "_extension runtime kernel",
    "doctor": "_extension _environment _version runtime settings",
    "__init__": "exc _version _logging settings config language runtime bundles bound_kernel kernel aot explain "
    "numbers tuned",
}

#: Imports (module, imported) that break a floor, each with what will end it. Only ever shorter.
BREAKS = {
    ("helion.autotuner.bound", "helion.bound_kernel"): "is to be told what it needs of a BoundKernel",
}

#: How many imports there may be within functions.
LATE = 15

#: Names with an underscore that PyTorch's own guides to extending it have, or its public API returns: used as they are.
#: All others of PyTorch and Triton stand in the `_compat_*` files.
GUIDES = (
    "torch._dynamo",
    "torch._ops",
    "torch._subclasses.fake_tensor.FakeTensor",
    "torch._subclasses.fake_tensor.FakeTensorMode",
    "torch.utils._python_dispatch",
    "torch.utils._pytree",
)


@dataclass(frozen=True)
class Import:
    """One imported module.

    Attributes:
        module: that which imports.
        imported: a module of the package, or the name of another.
        names: names that it takes from there, if it takes any, each after the module's as it is written.
        line: where.
        late: whether it stands in a function.
        typing: whether it is for annotations only.
        reason: the comment on its line, if it is more than a linter's.
    """

    module: str
    imported: str
    names: tuple[str, ...]
    line: int
    late: bool
    typing: bool
    reason: str

    def __str__(self) -> str:
        return f"{self.module.replace('.', '/')}.py:{self.line}: import of {self.imported}"


@functools.cache
def modules() -> dict[str, Path]:
    """Files of the package by the name of their module."""
    found = {}
    for path in sorted((ROOT / "helion").rglob("*.py*")):
        if path.suffix in (".py", ".pyi"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imported(node: ast.Import | ast.ImportFrom, package: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    above = package[: len(package) - node.level + 1] if node.level else ()
    name = ".".join((*above, *filter(None, [node.module])))
    for alias in node.names:
        yield f"{name}.{alias.name}" if f"{name}.{alias.name}" in modules() else name


def _reason(line: str) -> str:
    comment = line.partition("#")[2].strip()
    return "" if comment.startswith(("noqa", "type:")) else comment


#: What may be a private name of PyTorch or Triton, in code or in a comment.
_PRIVATE = re.compile(r"\b(?:torch|triton)[\w.]*\._")


@functools.cache
def _read(module: str) -> tuple[list[Import], list[str]]:
    """Imports of a module, and private attributes as they are written where one of PyTorch's or Triton's may be among
    them.
    """
    path = modules()[module]
    text = path.read_text()
    tree = ast.parse(text)
    attributes = (n for n in ast.walk(tree) if isinstance(n, ast.Attribute)) if _PRIVATE.search(text) else ()
    return list(_imports_of(module, tree, text)), [ast.unparse(n) for n in attributes if n.attr.startswith("_")]


def _imports_of(module: str, tree: ast.Module, text: str) -> Iterator[Import]:
    """Statements alone hold imports, so expressions are left out."""
    path = modules()[module]
    package = tuple(module.split(".")) if path.name == "__init__.py" else tuple(module.split(".")[:-1])
    lines = text.splitlines()
    todo: list[tuple[ast.AST, bool, bool]] = [(tree, False, False)]
    while todo:
        node, late, typing = todo.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = tuple(alias.name for alias in node.names)
            if isinstance(node, ast.ImportFrom):
                names = tuple(f"{'.' * node.level}{node.module}.{name}" for name in names)
            for imported in _imported(node, package):
                yield Import(module, imported, names, node.lineno, late, typing, _reason(lines[node.lineno - 1]))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            late = True
        elif isinstance(node, ast.If):
            typing = typing or "TYPE_CHECKING" in ast.unparse(node.test)
        for field in ("body", "orelse", "handlers", "finalbody", "cases"):
            within = getattr(node, field, None)
            if isinstance(within, list):  # the body of a lambda is an expression
                todo += [(child, late, typing) for child in within]


@functools.cache
def imports() -> tuple[Import, ...]:
    """Every import of every module of the package."""
    return tuple(i for module in modules() for i in _read(module)[0])


def room(module: str) -> str:
    """The file or folder right below `helion` that a module is in."""
    return (module.split(".") + ["__init__"])[1]


def is_ours(imported: str) -> bool:
    return imported.split(".")[0] == "helion"


@functools.cache
def loaded_by(module: str) -> frozenset[str]:
    """Modules of the package that are loaded where this one is: it, and all it imports at its top, and so on."""
    edges: dict[str, set[str]] = {}
    for i in imports():
        if not i.late and not i.typing and is_ours(i.imported):
            edges.setdefault(i.module, set()).add(i.imported)
    found, todo = {module}, [module]
    while todo:
        new = edges.get(todo.pop(), set()) - found
        found |= new
        todo += new
    return frozenset(found)


def broken_floors() -> set[tuple[str, str]]:
    return {
        (i.module, i.imported)
        for i in imports()
        if is_ours(i.imported)
        and room(i.imported) != room(i.module)
        and room(i.imported) not in MAY_IMPORT[room(i.module)].split()
    }


def test_no_import_breaks_a_floor() -> None:
    new = broken_floors() - set(BREAKS)
    assert not new, "\n".join(str(i) for i in imports() if (i.module, i.imported) in new)


def test_no_break_is_listed_that_is_gone() -> None:
    assert set(BREAKS) <= broken_floors()


def test_every_room_has_its_row() -> None:
    assert {room(module) for module in modules()} == set(MAY_IMPORT)


def test_no_room_imports_the_whole_package() -> None:
    """`import helion` in a room would load all others, whatever the table says."""
    assert not [str(i) for i in imports() if i.imported == "helion" and room(i.module) not in ("__init__", "__main__")]


def test_there_is_no_cycle_of_imports_at_the_top() -> None:
    assert not [
        str(i)
        for i in imports()
        if not i.late and not i.typing and is_ours(i.imported) and i.module in loaded_by(i.imported)
        if i.module != i.imported
    ]


def test_every_late_import_says_why() -> None:
    unexplained = [str(i) for i in imports() if i.late and not i.reason]
    assert not unexplained, "import it at the top, or say on its line why not"


def private_names() -> Iterator[tuple[str, str]]:
    """Names of PyTorch and Triton with an underscore, and the files that use them."""
    for module in modules():
        found, attributes = _read(module)
        for name in [name for i in found for name in i.names] + attributes:
            first, *parts = name.split(".")
            if first in ("torch", "triton") and any(p.startswith("_") and not p.endswith("__") for p in parts):
                yield module, name


def test_private_names_of_torch_and_triton_stand_in_the_files_for_them() -> None:
    assert not [
        f"{module}: {name}"
        for module, name in private_names()
        if not module.startswith("helion._compat_") and not f"{name}.".startswith(tuple(f"{g}." for g in GUIDES))
    ]


def test_late_imports_are_few() -> None:
    assert len({(i.module, i.line) for i in imports() if i.late}) <= LATE


def test_a_late_import_saves_more_than_its_module() -> None:
    """What is loaded already by whoever imports it late need not be waited for."""
    ours = [i for i in imports() if i.late and is_ours(i.imported)]
    assert not [str(i) for i in ours if len(loaded_by(i.imported) - loaded_by(i.module)) < 3]


def test_a_late_import_that_claims_a_cycle_would_make_one() -> None:
    claims = [i for i in imports() if i.late and "cycle" in i.reason]
    assert not [str(i) for i in claims if i.module not in loaded_by(i.imported)], "it can be imported at the top"


def test_importing_the_package_loads_no_compiler() -> None:
    """Half a second of sympy and Triton, which a process can do without that has not called a kernel yet."""
    loaded = loaded_by("helion")
    assert "helion.kernel" in loaded
    heavy = [i for i in imports() if i.module in loaded and not i.late and not i.typing]
    assert not [str(i) for i in heavy if i.imported.split(".")[0] in ("sympy", "triton", "cutlass", "sklearn", "numpy")]


@pytest.mark.spawns
def test_what_reads_the_ir_loads_no_tracer() -> None:
    """Processes that run what was compiled, and the tuner's workers, would wait seconds for torch._dynamo."""
    program = "import helion.bound_kernel, sys; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_names_of_typing_are_those_of_the_oldest_python() -> None:
    """Python 3.10 imports the package too: what is newer is for type checkers, from typing_extensions."""
    newer = {"Self", "Never", "LiteralString", "assert_never", "assert_type", "Unpack", "NotRequired", "override"}
    assert not [str(i) for i in imports() if not newer.isdisjoint(n.removeprefix("typing.") for n in i.names)]
