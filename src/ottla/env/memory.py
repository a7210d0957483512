"""Memory: the C library's allocator and Python's collector of garbage, told what a broker does with it."""

from __future__ import annotations

import ctypes
import gc

# mallopt's parameters, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

KEEP_BYTES_MAX = 128 * 1024 * 1024
KEEP_BLOCK_BYTES_MAX = 32 * 1024 * 1024


def keep_freed_memory() -> None:
    """Have glibc keep up to 128 MiB of what is freed, instead of giving it back to the kernel at once.

    A broker takes and frees a buffer of up to a megabyte for each request. By default each of them is given
    back and taken anew, and the kernel fills every page with zeros each time: two thirds of the CPU time of
    serving a consumer. Other C libraries have no such switch and are left alone.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_TRIM_THRESHOLD, KEEP_BYTES_MAX)
        libc.mallopt(_M_MMAP_THRESHOLD, KEEP_BLOCK_BYTES_MAX)


def never_collect_what_is_there() -> None:
    """Spare what exists now from collections of garbage: code and metadata, which stay as long as we do.

    To look through them stops everything for tens of milliseconds each time: what one message in a thousand
    would wait for.
    """
    gc.freeze()
