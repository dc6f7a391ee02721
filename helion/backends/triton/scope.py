"""Lines of generated code, with definitions that are added where they are first needed."""

from __future__ import annotations

import keyword


class Names:
    """Identifiers of one generated function: each is given out once."""

    RESERVED = frozenset({"tl", "triton", "torch", "libdevice", "range", "min", "max", "float", "int", "None"})

    def __init__(self) -> None:
        self._taken: set[str] = set(self.RESERVED)

    def unique(self, wanted: str) -> str:
        """`wanted`, or it with a number when taken."""
        base = "".join(c if c.isalnum() or c == "_" else "_" for c in wanted) or "v"
        if base[0].isdigit() or keyword.iskeyword(base):
            base = f"v_{base}"
        name, n = base, 0
        while name in self._taken:
            n += 1
            name = f"{base}_{n}"
        self._taken.add(name)
        return name


class Scope:
    """A block of statements.  `define` puts a definition at its head, before all of its body."""

    def __init__(self, parent: Scope | None = None) -> None:
        self.parent = parent
        self.head: list[str] = []
        self.body: list[str] = []
        self.defined: set[str] = set()

    def define(self, name: str, text: str) -> str:
        """Make `name` available here, defining it at the head unless it is visible already."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.defined:
                return name
            scope = scope.parent
        self.defined.add(name)
        self.head.append(f"{name} = {text}")
        return name

    def add(self, line: str) -> None:
        self.body.append(line)

    def nest(self, header: str, inner: Scope) -> None:
        """Append `header` with an indented block."""
        self.body.append(header)
        self.body.extend(f"    {line}" for line in (inner.lines() or ["pass"]))

    def lines(self) -> list[str]:
        return [*self.head, *self.body]
