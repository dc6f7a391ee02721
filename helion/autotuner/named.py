"""Parts of the tuner by name: a row of a table, or `module:Class` of one's own."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from .. import exc


def load_named(table: Mapping[str, str], name: str, what: str) -> Any:
    """What a table, or `module:Class`, names.

    Args:
        table: name -> `module:Class`.
        name: a name of the table, or `module:Class`.
        what: what it is, for the message.

    Raises:
        exc.InvalidAPIUsage: there is none.
    """
    where = table.get(name, name)
    module, _, attribute = where.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise exc.InvalidAPIUsage(
            f"there is no {what} {name!r}: {error}", fix=f"valid are {', '.join(table)}, or module:Class of your own."
        ) from None
