"""Static statistics of a cubin's machine code: instructions, sites by opcode, registers, stack.

Used by `cute_static.py`. Everything is counted in the disassembly of ``nvdisasm`` (from the Triton wheel) and in the
ELF sections of the cubin itself; *sites* are places in the code, not executions.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Opcode classes by the beginning of the SASS mnemonic.
CLASSES: dict[str, tuple[str, ...]] = {
    "UTMALDG": ("UTMALDG",),
    "UTMASTG": ("UTMASTG",),
    "MMA": ("UTCQMMA", "UTCHMMA", "UTCIMMA", "QGMMA", "HGMMA"),
    "SYNCS": ("SYNCS",),
    "LDTM": ("LDTM",),
    "LDL": ("LDL",),
    "STL": ("STL",),
    "LDG": ("LDG",),
    "STG": ("STG",),
    "STS": ("STS",),
    "BAR": ("BAR.",),
}

_INSTRUCTION = re.compile(
    r"/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(?:@!?U?P[T0-9]+\s+)?([A-Z][A-Z0-9_]*(?:\.[A-Za-z0-9_]+)*)\b"
)
# Attributes of the .nv.info section (CUDA binary utilities print them by these names).
_REGCOUNT, _FRAME_SIZE = 0x2F, 0x11


@dataclasses.dataclass(frozen=True)
class SassStats:
    """One kernel's statistics.

    Args:
        name: its symbol.
        instructions: without the NOPs that pad the code.
        registers: a thread.
        stack_bytes: a thread; spills live there.
        sites: number of instructions of each class of `CLASSES`.
        ptxas: the assembler's version, as the cubin notes it.
    """

    name: str
    instructions: int
    registers: int
    stack_bytes: int
    sites: dict[str, int]
    ptxas: str


def tool(name: str) -> str:
    """Path of one of NVIDIA's binary utilities: from PATH, else from the Triton wheel."""
    found = shutil.which(name)
    if found:
        return found
    import triton

    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    if not bundled.exists():
        raise FileNotFoundError(f"{name} is neither on PATH nor in the Triton wheel ({bundled})")
    return str(bundled)


def assemble(ptx: str, arch: str, ptxas: str) -> bytes:
    """The cubin that an assembler makes of ``ptx``."""
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "kernel.ptx", Path(scratch) / "kernel.cubin"
        source.write_text(ptx)
        subprocess.run([ptxas, "-O3", "-arch", arch, str(source), "-o", str(target)], check=True)
        return target.read_bytes()


def disassemble(cubin: bytes) -> str:
    """The listing of ``nvdisasm -c``."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool("nvdisasm"), "-c", file.name], check=True, capture_output=True, text=True)
    return done.stdout


def statistics(cubin: bytes) -> SassStats:
    """Statistics of the one kernel in ``cubin``."""
    opcodes: collections.Counter[str] = collections.Counter()
    name = ""
    for line in disassemble(cubin).splitlines():
        section = re.match(r'\s*\.section\s+\.text\.([^,\s"]+)', line)
        if section:
            if name:
                raise ValueError(f"more than one kernel: {name}, {section.group(1)}")
            name = section.group(1)
        instruction = _INSTRUCTION.search(line)
        if instruction:
            opcodes[instruction.group(1)] += 1
    facts = dict(_kernel_facts(cubin, name))
    version = re.search(rb"Cuda compilation tools, release ([\d.]+)", cubin)
    return SassStats(
        name=name,
        instructions=sum(n for op, n in opcodes.items() if op != "NOP"),
        registers=facts.get(_REGCOUNT, 0),
        stack_bytes=facts.get(_FRAME_SIZE, 0),
        sites={
            label: sum(n for op, n in opcodes.items() if op.startswith(prefixes)) for label, prefixes in CLASSES.items()
        },
        ptxas=version.group(1).decode() if version else "unknown",
    )


def _kernel_facts(cubin: bytes, kernel: str) -> Iterator[tuple[int, int]]:
    """(attribute, value) of ``kernel`` in the .nv.info section: records of format, attribute, size; 4-byte symbol,
    value.
    """
    sections = _sections(cubin)
    symbols = _symbol_names(cubin, sections)
    for name, _, offset, size, _ in sections:
        if name != ".nv.info":
            continue
        at = offset
        while at < offset + size:
            form, attribute, length = struct.unpack_from("<BBH", cubin, at)
            at += 4
            if form == 4:
                if attribute in (_REGCOUNT, _FRAME_SIZE) and length == 8:
                    symbol, value = struct.unpack_from("<II", cubin, at)
                    if symbols[symbol] == kernel:
                        yield attribute, value
                at += length


def _sections(cubin: bytes) -> list[tuple[str, int, int, int, int]]:
    """(name, type, offset, size, link) of the sections of a 64-bit ELF file."""
    start, entry, count, names_index = (
        struct.unpack_from("<Q", cubin, 0x28)[0],
        *struct.unpack_from("<HHH", cubin, 0x3A),
    )
    raw = [struct.unpack_from("<IIQQQQIIQQ", cubin, start + i * entry) for i in range(count)]
    names = raw[names_index][4]
    return [(_text(cubin, names + r[0]), r[1], r[4], r[5], r[6]) for r in raw]


def _symbol_names(cubin: bytes, sections: list[tuple[str, int, int, int, int]]) -> list[str]:
    for _, kind, offset, size, link in sections:
        if kind == 2:
            strings = sections[link][2]
            return [
                _text(cubin, strings + struct.unpack_from("<I", cubin, at)[0])
                for at in range(offset, offset + size, 24)
            ]
    return []


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
