"""A large batch on its way into a log: written in a thread, while the log is as it was before.

Nobody finds what is not written: where the log ends, its indexes, epochs and producers change afterwards, on
the event loop. Until then nothing else is appended. Whatever else would change the log's end waits for the
write first, in place (``Log.settle``), and so does whatever changes who leads; that is at most what it would
have waited if the write had been made there.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import final

from ottla.env.disk import Begun, File
from ottla.errors import KafkaError
from ottla.log.files import Background
from ottla.log.markers import EndMarker
from ottla.log.segments import Segments
from ottla.types import Buffer
from ottla.wire.records import BatchHeader

logger = logging.getLogger(__name__)

# Told once a batch is in the log, or of why it is not.
Then = Callable[[KafkaError | None], object]
Headers = tuple[BatchHeader, ...]
Markers = Mapping[int, EndMarker | None]
# Told of batches that have been written: what they are, where the log ended before, and the time.
Note = Callable[[Headers, Markers, int, int], None]


class Writing:
    """One batch, numbered and checked, that fits into the active segment, whose open ``file`` it goes to.

    What it was begun as, and an error with its frames, lead back to it. So it lets go of all that once it is
    finished, and of its records: in a circle they would stay until the collector of garbage comes by, or,
    where that came by meanwhile, for good (``env/garbage.py``).
    """

    __slots__ = (
        "_begun",
        "_buffers",
        "_error",
        "_told",
        "file",
        "headers",
        "markers",
        "note",
        "now_ms",
        "size",
    )

    def __init__(
        self,
        file: File,
        buffers: Sequence[Buffer],
        headers: Headers,
        markers: Markers,
        now_ms: int,
        note: Note,
        then: Then,
    ) -> None:
        self.file = file
        self.headers = headers
        self.markers = markers
        self.note = note
        self.now_ms = now_ms
        self.size = sum(header.size for header in headers)
        self._buffers = buffers
        self._error: OSError | None = None
        self._begun: Begun | None = None
        self._told: list[Then] = [then]

    def begin(self, background: Background, done: Callable[[], None]) -> None:
        """Have a thread write it; ``done`` is called on the event loop then."""
        self._begun = background.begin_write(self._write, done)

    def _write(self) -> None:
        try:
            self.file.append(self._buffers)
        except OSError as error:
            self._error = error
        except Exception as error:
            # It is refused as any other: nobody would hear of it, nor get past it, otherwise.
            logger.exception("%s cannot be written, unexpectedly", self.file.path)
            self._error = OSError(errno.EIO, f"an unexpected failure: {error}")

    def finish(self) -> OSError | None:
        """Have it written when this returns; or why it could not be. Blocks. To be called once."""
        begun, self._begun = self._begun, None
        assert begun is not None
        begun.finish()
        self._buffers = ()
        error, self._error = self._error, None
        return error

    @property
    def waiting(self) -> int:
        """How many wait for it who did not bring it."""
        return len(self._told) - 1

    def when_done(self, then: Then) -> None:
        """Tell somebody else, too, after those that asked before."""
        self._told.append(then)

    def tell(self, error: KafkaError | None) -> None:
        """It is in the log, or is not. To be called once."""
        told, self._told = self._told, []
        for then in told:
            try:
                then(error)
            except Exception:
                # It belongs to one client; the others must hear of it, and whatever waited goes on.
                logger.exception("%s: whoever waited for a batch could not be told", self.file.path)


@final
class Aside:
    """The one batch of a log that a thread writes, if any, and what becomes of it."""

    __slots__ = ("_background", "_segments", "writing")

    def __init__(self, segments: Segments, background: Background) -> None:
        self._segments = segments
        self._background = background
        self.writing: Writing | None = None

    def begin(
        self,
        buffers: Sequence[Buffer],
        headers: Headers,
        markers: Markers,
        now_ms: int,
        note: Note,
        then: Then,
    ) -> None:
        """Have a batch written that fits into the active segment. KafkaError where it cannot be begun.

        ``note`` is the log's own, ``then`` whoever brought it: told afterwards, and of a failure, too.
        """
        try:
            file = self._segments.active.file
        except OSError as error:
            raise self._segments.write_failed(error, now_ms) from error
        writing = self.writing = Writing(file, buffers, headers, markers, now_ms, note, then)
        writing.begin(self._background, partial(self._settle, writing))

    def settle(self) -> None:
        """Have it in the log, or refused, when this returns. Blocks for that one write."""
        if self.writing is not None:
            self._settle(self.writing)

    def _settle(self, writing: Writing) -> None:
        if self.writing is not writing:
            return
        error = writing.finish()
        self.writing = None
        refusal: KafkaError | None = None
        if error is not None:
            refusal = self._segments.write_failed(error, writing.now_ms)
        else:
            before = self._segments.end_offset
            self._segments.written(writing.file, writing.headers, writing.size)
            writing.note(writing.headers, writing.markers, before, writing.now_ms)
        writing.tell(refusal)

    def give_up(self, why: KafkaError) -> None:
        """Whatever becomes of it: it is not in this log."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.finish()
            writing.tell(why)
