"""Memory: the C library's allocator, told what a broker does with it."""

from __future__ import annotations

import ctypes

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
