"""Lines of standard input as they come: as many at once as are there, and none held back to fill a buffer."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator

from ottla.cli.errors import CliError, ExitCode

READ_BYTES = 64 * 1024
# The longest message that librdkafka takes, so the longest line that is worth keeping.
LINE_BYTES_MAX = 1_000_000_000


def read_lines(descriptor: int, wait_s: Callable[[], float | None]) -> Iterator[list[bytes]]:
    """The lines of a file, pipe or terminal, without their "\\n" or "\\r\\n".

    An empty list comes if no input came for ``wait_s()`` seconds (None: wait for input without a limit).
    CliError (usage) if a line is longer than LINE_BYTES_MAX.
    """
    pending = bytearray()
    while True:
        ready, _, _ = select.select([descriptor], [], [], wait_s())
        if not ready:
            yield []
            continue
        try:
            piece = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            # Another process that has the same pipe was faster.
            continue
        if not piece:
            break
        whole, newline, rest = piece.rpartition(b"\n")
        if not newline:
            pending += piece
            if len(pending) > LINE_BYTES_MAX:
                raise CliError(
                    f"a line is longer than {LINE_BYTES_MAX} bytes, the most that a message can have",
                    ExitCode.USAGE,
                )
            continue
        if pending:
            pending += whole
            whole = bytes(pending)
            pending = bytearray()
        pending += rest
        yield _split(whole)
    if pending:
        yield _split(bytes(pending))


def _split(text: bytes) -> list[bytes]:
    lines = text.split(b"\n")
    return [line.removesuffix(b"\r") for line in lines] if b"\r" in text else lines
