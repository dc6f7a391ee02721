"""Lines of generated code: definitions are added where they are first needed."""

from __future__ import annotations

from ...ir.names import Names
from ..text import Text


class Scope:
    """A block of statements.

    Args:
        parent: the block around it, whose definitions are seen here; the names of a function's outermost block.
    """

    def __init__(self, parent: Scope | Names) -> None:
        self._parent = parent if isinstance(parent, Scope) else None
        self._names: Names = parent._names if isinstance(parent, Scope) else parent
        self._shared: dict[Text, Text] = {}
        self._defined: set[str] = set()
        self.head: list[str] = []
        self.body: list[str] = []

    def define(self, name: str, text: Text) -> Text:
        """Make a name available here, defining it at the head unless it is visible already."""
        if not any(name in scope._defined for scope in self._chain()):
            self._defined.add(name)
            self.head.append(f"{name} = {text}")
        return Text(name)

    def share(self, wanted: str, text: Text) -> Text:
        """A variable, called `wanted` if that is free, with the value of `text`: one for all who ask for that text."""
        for scope in self._chain():
            if text in scope._shared:
                return scope._shared[text]
        return self._shared.setdefault(text, self.define(self._names.unique(wanted), text))

    def _chain(self) -> list[Scope]:
        return [self, *(self._parent._chain() if self._parent is not None else ())]

    def add(self, line: str) -> None:
        self.body.append(line)

    def nest(self, header: str, inner: Scope) -> None:
        """Append `header` with an indented block."""
        self.body.append(header)
        self.body.extend(f"    {line}" for line in (inner.lines() or ["pass"]))

    def lines(self) -> list[str]:
        return [*self.head, *self.body]
