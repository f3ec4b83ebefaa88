"""Memory of large arrays, kept for the next one.

By default the C library returns every large array to the system when it is freed, and the next one of the same size is
made of fresh pages, which the kernel fills with zeros again: about half of the time of a cheap operator, and most of it
on a virtual machine whose host has to find the pages first. While memory is reused a freed array's serves the next.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameter numbers of mallopt(3)."""
KEEP = 2**31 - 1
DEFAULT_TRIM, DEFAULT_MAPPINGS = 128 * 1024, 65_536


def reuse_memory() -> None:
    """From now on large arrays come from the heap, which keeps what is freed, until `give_memory_back`.

    Does nothing where the C library is not glibc.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, KEEP)


def give_memory_back() -> None:
    """Return everything unused to the system, and large arrays to mappings of their own."""
    library = _glibc()
    if library is not None:
        library.mallopt(M_MMAP_MAX, DEFAULT_MAPPINGS)
        library.mallopt(M_TRIM_THRESHOLD, DEFAULT_TRIM)
        library.malloc_trim(0)


@contextmanager
def reusing_memory() -> Iterator[None]:
    """`reuse_memory` inside, `give_memory_back` on leaving."""
    reuse_memory()
    try:
        yield
    finally:
        give_memory_back()


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
