"""What happens when a kernel is called, and the names that generated code imports."""

from __future__ import annotations

from ..config import Config as Config
from .allocation import empty as empty
from .allocation import empty_like as empty_like
from .allocation import new_empty as new_empty
from .allocation import set_triton_allocator as set_triton_allocator
from .broadcast import broadcast_tensors as broadcast_tensors
from .compile_guard import no_compile as no_compile
from .device import get_num_sm as get_num_sm
from .events import Event as Event
from .events import add_event_hook as add_event_hook
from .launch.cute_launcher import cute_launcher as cute_launcher
from .launch.default_launcher import default_launcher as default_launcher
from .prometheus import prometheus_text as prometheus_text
from .reads import check_read as check_read
from .reads import checked_number as checked_number
from .reads import contiguous as contiguous
from .reads import decisions as decisions
from .seeds import torch_seeds as torch_seeds
from .stats import launch_stats as launch_stats
from .stats import reset_launch_stats as reset_launch_stats
from .versions import increment_version as increment_version
