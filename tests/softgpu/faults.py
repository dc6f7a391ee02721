"""What the software GPU reports when a kernel does something that a GPU would not forgive, or worse, would."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .native import library


@dataclass(frozen=True)
class OtherAccess:
    """The earlier one of the two accesses of a race.

    Attributes:
        access: ``read``, ``write`` or ``update`` (an atomic operation).
        opcode, ptx, line, location, cta, warp, lane: as of a `FaultReport`; warp -1 for an asynchronous copy, lane -1
            for all the warp's lanes or several.
    """

    access: str
    opcode: str
    ptx: str
    line: int
    location: str
    cta: tuple[int, int, int]
    warp: int
    lane: int


@dataclass(frozen=True)
class FaultReport:
    """One fault of a launch.

    Attributes:
        kind: ``misaligned_access``, ``out_of_bounds``, ``uninitialised_read``, ``read_before_async_copy_done``,
            ``deadlock``, ``unknown_opcode``, ``bad_ptx``, ``trap``, ``device_assert``, ``illegal_instruction``,
            ``unsupported``, ``instruction_limit``, ``sync_misuse`` or ``data_race``.
        message: what happened.
        kernel: name of the entry function.
        opcode: the instruction, with its modifiers.
        ptx: the text of its line.
        line: its line in the PTX, from 1; 0 if the fault has none.
        location: its line in the source, ``file.py:12:5``, if the PTX says; else empty.
        cta: block index.
        warp: warp in the block, -1 if not of one warp.
        lane: lane in the warp, -1 if not of one lane.
        address: the address that was touched, where there is one.
        other: for a data race, the access that this one races with.
        report: for a deadlock, who waits where: one line per diverged part of each warp.
        code: the ``CUresult`` that the launch returned.
    """

    kind: str
    message: str
    kernel: str
    opcode: str
    ptx: str
    line: int
    location: str
    cta: tuple[int, int, int]
    warp: int
    lane: int
    address: int
    other: OtherAccess | None
    report: str
    code: int


def faults() -> list[FaultReport]:
    """All faults since the last ``reset``, oldest first."""
    records = json.loads(library().softgpu_faults())
    return [_report(record) for record in records]


def _report(record: dict[str, Any]) -> FaultReport:
    other = record.pop("other")
    if other is not None:
        other = OtherAccess(**{**other, "cta": tuple(other["cta"])})
    return FaultReport(**{**record, "cta": tuple(record["cta"]), "other": other})


def last_fault() -> FaultReport | None:
    """The latest fault, or None."""
    found = faults()
    return found[-1] if found else None
