"""Bytes in, request frames out. Pure: whoever holds the socket feeds it and acts on what comes back.

Each request and response is preceded by its size, a 32-bit integer. Small requests are cut out of one
scratch buffer that all connections share; a large one is received straight into a buffer of its own, so
that its records are copied by nobody but the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

from ottla.types import Buffer

# Requests that fit are cut out of the shared scratch buffer; this is its size too.
SCRATCH_BYTES = 64 * 1024
# A large frame's buffer starts small and doubles as bytes arrive: a size on the wire is only a claim, and
# memory is spent on bytes that came.
FRAME_START_BYTES = 4 * 1024
# A connection that has sent large frames before is believed at once, up to this size.
FRAME_TRUSTED_BYTES_MAX = 2 * 1024 * 1024


class FrameError(ValueError):
    """A size that no request can have: the stream cannot be followed any further."""


class FrameDecoder:
    """Cuts one connection's stream into frames.

    Use: receive into ``buffer()``, then iterate over ``received(count)``. The frames are only valid until
    the next call of ``buffer()``, except that they may be kept by whoever takes a copy.
    """

    __slots__ = ("_frame", "_frame_got", "_frame_size", "_partial", "_scratch", "_trusted", "size_max")

    def __init__(self, scratch: memoryview, size_max: int) -> None:
        self.size_max = size_max
        self._scratch = scratch
        # The start of a small frame (or of its size) that has not fully arrived.
        self._partial = b""
        # A large frame under way, how much of it is there, and its full size.
        self._frame: bytearray | None = None
        self._frame_got = 0
        self._frame_size = 0
        # How much to set aside for a large frame before any of it is there.
        self._trusted = FRAME_START_BYTES

    @property
    def waiting(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._partial) or self._frame is not None

    def buffer(self) -> memoryview:
        """Where the next bytes are to be received. Never empty."""
        frame = self._frame
        if frame is None:
            return self._scratch
        if self._frame_got == len(frame):
            # Grown into a new object: the transport may still hold a view of the old one.
            grown = bytearray(min(self._frame_size, 2 * len(frame)))
            grown[: self._frame_got] = frame
            self._frame = frame = grown
        return memoryview(frame)[self._frame_got :]

    def received(self, count: int) -> Iterator[Buffer]:
        """The frames that are complete now that ``count`` bytes were put into ``buffer()``.

        FrameError when a size is negative or over the limit; the frames before it have been given.
        """
        if self._frame is not None:
            self._frame_got += count
            if self._frame_got == self._frame_size:
                frame, self._frame = self._frame, None
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
                raise FrameError(f"a request of {size} bytes (socket.request.max.bytes is {self.size_max})")
            stop = start + 4 + size
            if stop > end:
                if size > SCRATCH_BYTES:
                    self._begin_large(size, data[start + 4 :])
                    return
                break
            yield data[start + 4 : stop]
            start = stop
        self._partial = data[start:]

    def _begin_large(self, size: int, head: bytes) -> None:
        self._frame = bytearray(max(len(head), min(size, self._trusted)))
        self._frame[: len(head)] = head
        self._frame_got = len(head)
        self._frame_size = size
