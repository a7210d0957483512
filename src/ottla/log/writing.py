"""A large batch on its way into a log: written in a thread, while the log is as it was before.

Nobody finds what is not written: where the log ends, its indexes, epochs and producers change afterwards, on
the event loop. Until then nothing else is appended: producers stand in line, and are let in some at a time,
in the order of their coming. Other changes of the log's end wait for the write first, in place
(``Log.settle``), and so does whatever changes who leads; that is at most what it would have waited if the
write had been made there.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, final

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
# So many are let in, in one turn of the event loop: each of them appends a small batch, and is answered.
LET_IN_AT_ONCE_MAX: Final = 100

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
        "_then",
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
        self._then: Then | None = then

    def begin(self, background: Background, done: Callable[[], None]) -> None:
        """Have a thread write it; ``done`` is called on the event loop then."""
        self._begun = background.begin_write(self._write, done)

    def _write(self) -> None:
        try:
            self.file.append(self._buffers)
        except OSError as failure:
            self._error = failure
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

    def tell(self, error: KafkaError | None) -> None:
        """It is in the log, or is not. To be called once."""
        then, self._then = self._then, None
        assert then is not None
        try:
            then(error)
        except Exception:
            # It belongs to one client; whatever waits for the log goes on.
            logger.exception("%s: whoever waited for a batch could not be told", self.file.path)


@final
class Aside:
    """The one batch of a log that a thread writes, if any, what becomes of it, and who is to append next."""

    __slots__ = ("_background", "_letting_in", "_line", "_segments", "taken", "writing")

    def __init__(self, segments: Segments, background: Background) -> None:
        self._segments = segments
        self._background = background
        self.writing: Writing | None = None
        # Whether whoever has something to append is to stand in line: a batch is being written, or others
        # have waited for that, and have not all appended.
        self.taken = False
        # Who stands in line, and whether a batch is large: a thread may have to write it.
        self._line: deque[tuple[Callable[[None], object], bool]] = deque()
        # Whether some have been let in, who append in this turn of the event loop.
        self._letting_in = False

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def wait(self, let_in: Callable[[None], object], *, is_large: bool) -> None:
        """Stand in line, while it is ``taken``: ``let_in`` is called, once, when everybody before has had
        their turn, and who is let in appends in the next callback of the event loop, or not at all."""
        self._line.append((let_in, is_large))

    def _let_in(self) -> None:
        """Let in who is next: several with small batches, or one with a large one and some before it."""
        self._letting_in = False
        if self.writing is not None:
            # One who was let in has begun it. The others are next when it is written.
            return
        left, line = LET_IN_AT_ONCE_MAX, self._line
        self.taken = bool(line)
        while line and left:
            left -= 1
            let_in, is_large = line.popleft()
            try:
                let_in(None)
            except Exception:
                # It belongs to one client; the others must have their turn.
                logger.exception("%s: whoever waited could not be let in", self._segments.directory)
            if is_large:
                break
        if self.taken:
            self._letting_in = True
            # Behind those that are let in.
            asyncio.get_running_loop().call_soon(self._let_in)

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
        self.taken = True
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
        self._tell(writing, refusal)

    def _tell(self, writing: Writing, refusal: KafkaError | None) -> None:
        writing.tell(refusal)
        if not self._letting_in:
            self._let_in()

    def give_up(self, why: KafkaError) -> None:
        """Whatever becomes of it: it is not in this log."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.finish()
            self._tell(writing, why)
