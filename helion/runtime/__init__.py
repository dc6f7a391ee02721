"""What happens when a kernel is called, and the names that generated code imports."""

from __future__ import annotations

from .device import get_num_sm as get_num_sm
