"""One Config of an example, run in every way that there is and compiled for a GPU that is not there."""

from __future__ import annotations

from typing import Any

import torch

import helion
from examples.catalog import EXAMPLES
from tests.softgpu.provider import SM_COUNT
from tests.support import CAPABILITIES
from tests.support import compile_for
from tests.support import run_everywhere


def check_config(name: str, config: dict[str, Any], number: int) -> None:
    """Check a Config of an example.

    Args:
        name: of the example.
        config: the Config.
        number: of the test: it runs for one capability and is compiled down to machine code for the next one.
    """
    example = EXAMPLES[name]
    dtype = torch.float16 if example.uses_dot else torch.float32
    args = example.args(dtype=dtype)
    runs_on, compiles_for = (CAPABILITIES[(number + i) % 3] for i in (0, 1))
    # Persistent programs: three multiprocessors are left, so that each of three programs has several tiles.
    kernel = helion.kernel(example.kernel.fn, persistent_reserved_sms=SM_COUNT[runs_on] - 3)
    run_everywhere(
        kernel,
        args,
        example.reference,
        configs=[config],
        error_scale=example.error_scale,
        input_dtype=dtype,
        uses_dot=example.uses_dot,
        capabilities=[runs_on],
    )
    compile_for(kernel, args, config, capabilities=[compiles_for])
