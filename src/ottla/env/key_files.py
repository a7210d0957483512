"""Files with keys and certificates: read, lent to whoever takes only paths, and watched for changes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from ottla.env.small_files import read_regular

# A file that is larger is no key and no list of certificates.
FILE_BYTES_MAX: Final = 8 * 1024 * 1024

# When a file was changed, its size, and which one it is; None where there is none.
Mark = tuple[int, int, int] | None


def read_key_file(path: str) -> bytes:
    """What is in a file. OSError or ValueError, in words for users, where it cannot be read or is large."""
    try:
        return read_regular(path, FILE_BYTES_MAX).data
    except OSError as error:
        raise OSError((error.strerror or str(error)).lower()) from error


def marks(paths: Iterable[str]) -> tuple[Mark, ...]:
    """What changes when one of the files does."""
    found: list[Mark] = []
    for path in paths:
        try:
            state = os.stat(path)
        except (OSError, ValueError):
            found.append(None)
        else:
            found.append((state.st_mtime_ns, state.st_size, state.st_ino))
    return tuple(found)


@contextmanager
def as_file(data: bytes) -> Iterator[str]:
    """A path under which there is ``data`` for a moment: in memory where the system can, else in a file that
    nobody else may read."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("ottla-tls")
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.name
