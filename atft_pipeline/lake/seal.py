"""A Parquet file that vouches for every one of its bytes.

Page checksums cover pages, and the content hash covers values, but a flipped bit in the footer (a statistic, a length)
can escape both. So the footer holds a seal: the SHA-256 of the whole file with the seal's own place filled by zeros.
It is put in as the file is written, needs no second file, and leaves equal content with equal bytes.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from pathlib import Path

SEAL_KEY = b"atft_pipeline.seal"
BLANK = b"0" * 64

_SEAL = re.compile(re.escape(SEAL_KEY) + rb"\x18\x40([0-9a-f]{64})")
"""Key, then the value's field header and length in the footer's encoding, then the value."""

_TAIL = 8
"""A Parquet file ends with the footer's length (4 bytes) and PAR1."""


def filled(footer: bytes, before: hashlib._Hash) -> bytes:
    """The footer with its blank seal filled, given the SHA-256 of everything before it (which is left as it is).

    Raises ValueError when the footer has no blank seal.
    """
    found = _SEAL.search(footer)
    if found is None or found.group(1) != BLANK:
        raise ValueError("a footer without a blank seal to fill")
    digest = before.copy()
    digest.update(footer)
    return footer[: found.start(1)] + digest.hexdigest().encode() + footer[found.end(1) :]


def is_intact(path: Path) -> bool:
    """Whether the file has a seal and every byte is as it was sealed."""
    with path.open("rb") as stream:
        if path.stat().st_size <= _TAIL:
            return False
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            place = _place(data)
            return place is not None and data[place : place + len(BLANK)].decode() == _digest(data, place)


def _place(data: mmap.mmap) -> int | None:
    """Where the seal's value begins; None when the footer has none."""
    end = len(data) - _TAIL
    begin = end - int.from_bytes(data[end : end + 4], "little")
    if not 0 < begin < end:
        return None
    found = _SEAL.search(data[begin:end])
    return begin + found.start(1) if found else None


def _digest(data: mmap.mmap, place: int) -> str:
    whole = memoryview(data)
    try:
        digest = hashlib.sha256()
        digest.update(whole[:place])
        digest.update(BLANK)
        digest.update(whole[place + len(BLANK) :])
    finally:
        whole.release()
    return digest.hexdigest()
