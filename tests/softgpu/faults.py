"""What the software GPU reports when a kernel does something that a GPU would not forgive, or worse, would."""

from __future__ import annotations

import json
from dataclasses import dataclass

from .native import library


@dataclass(frozen=True)
class FaultReport:
    """One fault of a launch.

    Attributes:
        kind: ``misaligned_access``, ``out_of_bounds``, ``uninitialised_read``, ``read_before_async_copy_done``,
            ``deadlock``, ``unknown_opcode``, ``bad_ptx``, ``trap``, ``device_assert``, ``illegal_instruction``,
            ``unsupported``, ``instruction_limit`` or ``sync_misuse``.
        message: what happened.
        kernel: name of the entry function.
        opcode: the instruction, with its modifiers.
        ptx: the text of its line.
        line: its line in the PTX, from 1; 0 if the fault has none.
        cta: block index.
        warp: warp in the block, -1 if not of one warp.
        lane: lane in the warp, -1 if not of one lane.
        address: the address that was touched, where there is one.
        report: for a deadlock, who waits where: one line per diverged part of each warp.
        code: the ``CUresult`` that the launch returned.
    """

    kind: str
    message: str
    kernel: str
    opcode: str
    ptx: str
    line: int
    cta: tuple[int, int, int]
    warp: int
    lane: int
    address: int
    report: str
    code: int


def faults() -> list[FaultReport]:
    """All faults since the last ``reset``, oldest first."""
    records = json.loads(library().softgpu_faults())
    return [FaultReport(**{**record, "cta": tuple(record["cta"])}) for record in records]


def last_fault() -> FaultReport | None:
    """The latest fault, or None."""
    found = faults()
    return found[-1] if found else None
