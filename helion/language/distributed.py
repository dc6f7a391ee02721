"""Multi-GPU signalling: names reserved, not supported yet."""

from __future__ import annotations

from typing import Any
from typing import NoReturn

from .. import exc


def signal(*args: Any, **kwargs: Any) -> NoReturn:
    """Signal another GPU. Not supported yet: raises exc.NotSupportedYet."""
    raise exc.NotSupportedYet(name="hl.signal", fix="use torch.distributed between kernels.")


def wait(*args: Any, **kwargs: Any) -> NoReturn:
    """Wait for a signal of another GPU. Not supported yet: raises exc.NotSupportedYet."""
    raise exc.NotSupportedYet(name="hl.wait", fix="use torch.distributed between kernels.")
