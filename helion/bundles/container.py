"""The file: a header, a manifest in JSON, and blobs. Made by `write`, read through a read-only mapping by `Container`.

    0   magic   8 bytes
    8   format  u32, then 4 zero bytes
    16  bytes of the manifest  u64
    24  bytes of the file      u64
    32  SHA-256 of the manifest
    64  the manifest; then, from the next multiple of 64, the blobs, each at a multiple of 64

All numbers are little-endian. The manifest has the hash of each blob, so every byte that means something is covered. A
hash shows damage; it does not show who made the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import exc

__all__ = ["FORMAT", "MAGIC", "Container", "encode", "write"]

MAGIC = b"\x89HLB\r\n\x1a\n"
#: What the manifest means. Another number is another meaning, and is refused.
FORMAT = 1

_HEADER = struct.Struct("<8sI4xQQ32s")
_ALIGNMENT = 64
_MOST_MANIFEST = 1 << 28


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def encode(manifest: dict[str, Any], blobs: Sequence[bytes]) -> bytes:
    """The bytes of a bundle.

    Args:
        manifest: JSON-able; "blobs" is added: offset, size and SHA-256 of each blob.
        blobs: in the order that the manifest counts them by.
    """
    offset = 0
    table: list[dict[str, Any]] = []
    for blob in blobs:
        table.append({"offset": offset, "size": len(blob), "sha256": hashlib.sha256(blob).hexdigest()})
        offset += _aligned(len(blob))
    text = json.dumps({**manifest, "blobs": table}, separators=(",", ":"), allow_nan=False).encode()
    start = _aligned(_HEADER.size + len(text))
    header = _HEADER.pack(MAGIC, FORMAT, len(text), start + offset, hashlib.sha256(text).digest())
    body = bytearray(start + offset)
    body[: len(header)] = header
    body[len(header) : len(header) + len(text)] = text
    for row, blob in zip(table, blobs):
        body[start + row["offset"] : start + row["offset"] + len(blob)] = blob
    return bytes(body)


def write(path: Path, manifest: dict[str, Any], blobs: Sequence[bytes]) -> None:
    """Put a bundle at `path`; another process sees all of it, or what was there before. As `encode`."""
    body = encode(manifest, blobs)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(body)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class Container:
    """An open bundle.

    Args:
        path: the file; it is read once.
        content: its bytes, where somebody has read it.

    Raises:
        exc.InvalidBundle: it is no bundle, damaged, cut off, or of another format.
        OSError: it cannot be opened.

    Attributes:
        manifest: as it was given to `write`, less "blobs".
        blob_count: how many blobs there are.
    """

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self.path = path
        self._content = self._read() if content is None else content
        if len(self._content) < _HEADER.size:
            raise self.invalid("it is too short for a header")
        magic, version, size, total, digest = _HEADER.unpack_from(self._content)
        if magic != MAGIC:
            raise self.invalid("it does not begin as one")
        if version != FORMAT:
            raise self.invalid(f"its format is {version}, and this helion reads {FORMAT}; make it again")
        if total != len(self._content):
            raise self.invalid(f"it has {len(self._content)} bytes and says {total}: it was cut off, or grew")
        if size > min(_MOST_MANIFEST, total - _HEADER.size):
            raise self.invalid("its manifest ends outside of it")
        text = self._content[_HEADER.size : _HEADER.size + size]
        if hashlib.sha256(text).digest() != digest:
            raise self.invalid("its manifest is damaged")
        try:
            manifest = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise self.invalid(f"its manifest is not JSON: {error}") from None
        if not isinstance(manifest, dict):
            raise self.invalid("its manifest is not an object")
        self._start = _aligned(_HEADER.size + size)
        self._blobs = self._table(manifest.pop("blobs", None), total - self._start)
        self.manifest: dict[str, Any] = manifest

    def _read(self) -> bytes:
        # Not mapped: who writes over the file, or cuts it off, would end this process. Not blocking: opening a pipe
        # would wait for a writer for ever.
        descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise self.invalid("it is not a plain file")
            with open(descriptor, "rb", closefd=False) as file:
                head = file.read(_HEADER.size)
                return head + file.read() if head.startswith(MAGIC) else head
        finally:
            os.close(descriptor)

    def invalid(self, reason: str) -> exc.InvalidBundle:
        """The error that says why this is no bundle."""
        return exc.InvalidBundle(path=str(self.path), reason=reason)

    def _table(self, rows: object, room: int) -> list[tuple[int, int, str]]:
        if not isinstance(rows, list):
            raise self.invalid("it has no table of binaries")
        found = []
        for row in rows:
            if not isinstance(row, dict):
                raise self.invalid("its table of binaries is malformed")
            offset, size, digest = row.get("offset"), row.get("size"), row.get("sha256")
            if type(offset) is not int or type(size) is not int or not isinstance(digest, str):
                raise self.invalid("its table of binaries is malformed")
            if offset < 0 or size < 0 or offset + size > room:
                raise self.invalid("a binary lies outside of it")
            found.append((offset, size, digest))
        return found

    @property
    def blob_count(self) -> int:
        return len(self._blobs)

    def blob(self, number: int) -> bytes:
        """The bytes of a blob.

        Raises:
            exc.InvalidBundle: they are damaged.
        """
        offset, size, digest = self._blobs[number]
        data = self._content[self._start + offset : self._start + offset + size]
        if hashlib.sha256(data).hexdigest() != digest:
            raise self.invalid(f"binary {number} is damaged")
        return data
