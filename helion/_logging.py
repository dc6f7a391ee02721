"""HELION_LOGS: which parts of helion log, in the style of TORCH_LOGS.

`HELION_LOGS=all` shows what is compiled and where, `HELION_LOGS=+all` every detail; module names select parts of the
package: `HELION_LOGS=kernel,+autotuner`.  A `+` is DEBUG, none is INFO, a `-` only ERROR.
"""

from __future__ import annotations

import logging
import os

_LEVELS = {"+": logging.DEBUG, "-": logging.ERROR}


def configure(spec: str | None = None) -> None:
    """Set levels from `spec`, by default the environment variable; does nothing when there is none."""
    spec = os.environ.get("HELION_LOGS", "") if spec is None else spec
    parts = [part.strip() for part in spec.split(",") if part.strip()]
    if not parts:
        return
    root = logging.getLogger("helion")
    if not root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("[%(name)s] %(message)s"))
        root.addHandler(handler)
        root.propagate = False
    for part in parts:
        name = part.lstrip("+-")
        level = _LEVELS.get(part[0], logging.INFO)
        module = "helion" if name in ("all", "helion") else f"helion.{name.removeprefix('helion.')}"
        logging.getLogger(module).setLevel(level)
