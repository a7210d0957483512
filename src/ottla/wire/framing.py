"""Bytes in, request frames out. Pure: whoever holds the socket feeds it and acts on what comes back.

Each request and response is preceded by its size, a 32-bit integer. Small requests are cut out of one
scratch buffer that all connections share; a large one is received straight into a buffer of its own, so
that its records are copied by nobody but the kernel. How large a request may be depends on its API, whose key
comes first in it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from ottla.env.mapped import untouched
from ottla.types import Buffer
from ottla.wire.apis import APIS, frame_bytes_max

# Requests that fit are cut out of the shared scratch buffer; this is its size too. Any API may send as much.
SCRATCH_BYTES: Final = 64 * 1024
# A large frame's buffer starts small and doubles as bytes arrive: a size on the wire is only a claim, and
# memory is spent on bytes that came.
FRAME_START_BYTES: Final = 4 * 1024
# A connection that has sent large frames before is believed at once, up to this size.
FRAME_TRUSTED_BYTES_MAX: Final = 2 * 1024 * 1024
# Once so much of a frame has come, address space is taken for more of it, which becomes memory, in pieces of
# that size, where bytes arrive: filling it with zeros would take tens of milliseconds. It is so many times
# what has come, which is copied into it: of 100 MB the first 16, in one step, and the first 2 before.
CLAIM_FACTOR: Final = 8

# What ClientHellos begin with, and requests of HTTP: GET and a blank, HEAD, POST, PUT and a blank.
TLS_HANDSHAKE: Final = 0x160301
HTTP_METHODS: Final = (0x47455420, 0x48454144, 0x504F5354, 0x50555420)

_read_size: Final = struct.Struct(">i").unpack_from


def _seems(size: int) -> str:
    """Which other protocol begins with these four bytes, in words to append."""
    if size >> 8 == TLS_HANDSHAKE:
        return "; it seems to speak TLS, which this listener does not"
    return "; it seems to speak HTTP" if size in HTTP_METHODS else ""


class FrameError(ValueError):
    """A size that no request can have: the stream cannot be followed any further."""


class FrameTooLarge(FrameError):
    """It is over a limit, of all requests or of its API."""


class NoMemory(FrameError):
    """There is no memory for it."""


class FrameDecoder:
    """Cuts one connection's stream into frames.

    Use: receive into ``buffer()``, then iterate over ``received(count)``. The frames are only valid until
    the next call of ``buffer()``, except that they may be kept by whoever takes a copy.
    """

    __slots__ = (
        "_by_api", "_frame_got", "_frame_size", "_partial", "_scratch", "_trusted", "large", "size_max",
    )  # fmt: skip

    def __init__(self, scratch: memoryview, size_max: int, *, by_api: bool = True) -> None:
        """``by_api``: the frames are requests, so that their APIs say how large they may be, too."""
        self.size_max = size_max
        self._by_api = by_api
        self._scratch = scratch
        # The start of a small frame (or of its size) that has not fully arrived.
        self._partial = b""
        # A large frame under way, how much of it is there, and its full size.
        self.large: bytearray | memoryview | None = None
        self._frame_got = 0
        self._frame_size = 0
        # How much to set aside for a large frame before any of it is there.
        self._trusted = FRAME_START_BYTES

    @property
    def waiting(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._partial) or self.large is not None

    @property
    def held_bytes(self) -> int:
        """What is kept in memory for a large frame under way."""
        if self.large is None:
            return 0
        size = len(self.large)
        if size <= FRAME_TRUSTED_BYTES_MAX:
            return size
        return min(size, -(-self._frame_got // FRAME_TRUSTED_BYTES_MAX) * FRAME_TRUSTED_BYTES_MAX)

    @property
    def got_bytes(self) -> int:
        """What has come of it."""
        return 0 if self.large is None else self._frame_got

    def buffer(self) -> memoryview:
        """Where the next bytes are to be received. Never empty."""
        frame = self.large
        if frame is None:
            return self._scratch
        if self._frame_got == len(frame):
            try:
                frame = self._grow(frame)
            except MemoryError:
                # It is still as full: `received` says so, to whom it may concern.
                return self._scratch
        return memoryview(frame)[self._frame_got :]

    def received(self, count: int) -> Iterable[Buffer]:
        """The frames that are complete now that ``count`` bytes were put into ``buffer()``.

        FrameError, while they are gone through, when a size is negative or over the limit, of all or of its
        API, or there is no memory for what comes; the frames before it have been given.
        """
        if self.large is None and not self._partial and count <= self.size_max:
            scratch = self._scratch
            if count >= 4 and _read_size(scratch)[0] == count - 4:
                # As most requests come: one, and whole.
                return (bytes(scratch[4:count]),)
        return self._received(count)

    def _received(self, count: int) -> Iterator[Buffer]:
        if self.large is not None:
            if self._frame_got == len(self.large):
                self.large = None
                raise NoMemory(f"there is no memory for a request of {self._frame_size} bytes")
            self._frame_got += count
            if self._frame_got == self._frame_size:
                frame, self.large = self.large, None
                self._trusted = min(max(self._trusted, self._frame_size), FRAME_TRUSTED_BYTES_MAX)
                yield memoryview(frame)
            return
        data = bytes(self._scratch[:count])
        if self._partial:
            data = self._partial + data
            self._partial = b""
        yield from self._cut(data)

    def _cut(self, data: bytes) -> Iterator[Buffer]:
        start, end = 0, len(data)
        while end - start >= 4:
            size = int.from_bytes(data[start : start + 4], signed=True)
            if size < 0 or size > self.size_max:
                what = "socket.request.max.bytes, or sasl.server.max.receive.size before a login"
                message = f"a request of {size} bytes (at most {self.size_max}: {what}{_seems(size)})"
                raise FrameError(message) if size < 0 else FrameTooLarge(message)
            stop = start + 4 + size
            if stop > end:
                if size > SCRATCH_BYTES:
                    if end - start < 6:
                        # The API's key is not there yet.
                        break
                    self._begin_large(size, data[start + 4 :])
                    return
                break
            yield data[start + 4 : stop]
            start = stop
        self._partial = data[start:]

    def _begin_large(self, size: int, head: bytes) -> None:
        key = int.from_bytes(head[:2], signed=True)
        if self._by_api and size > frame_bytes_max(key):
            name = APIS[key].name if key in APIS else f"with key {key}"
            raise FrameTooLarge(f"a request {name} of {size} bytes (at most {frame_bytes_max(key)})")
        self.large = bytearray(max(len(head), min(size, self._trusted)))
        self.large[: len(head)] = head
        self._frame_got = len(head)
        self._frame_size = size

    def _grow(self, full: bytearray | memoryview) -> bytearray | memoryview:
        """Go on in a larger buffer: a new one, since the transport may still hold a view of this."""
        grown: bytearray | memoryview
        if len(full) < FRAME_TRUSTED_BYTES_MAX:
            grown = bytearray(min(self._frame_size, 2 * len(full), FRAME_TRUSTED_BYTES_MAX))
        else:
            grown = untouched(min(self._frame_size, CLAIM_FACTOR * len(full)))
        grown[: len(full)] = full
        self.large = grown
        return grown
