"""A connection to another node, as a client of it: requests out, responses in the order of the requests.

Callbacks, not futures: a follower's next fetch leaves in the same step in which a response arrived.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from ottla.types import Buffer
from ottla.wire.framing import SCRATCH_BYTES, FrameDecoder, FrameError
from ottla.wire.messages import MalformedMessage, decode_response, frame_request, read_response_header

log = logging.getLogger(__name__)

# Largest response that is believed; a fetch asks for far less, but gets one whole batch at least.
RESPONSE_BYTES_MAX = 2**31 - 1

Answered = Callable[[Any], None]


class Peer(asyncio.BufferedProtocol):
    """One connection to a node. ``lost`` is called with it once, when it has ended, however it ended."""

    def __init__(self, client_id: str, lost: Callable[[Peer], None]) -> None:
        self._client_id = client_id
        self._lost = lost
        # Its own, not one of all connections: a response may be worked on while another connection receives.
        scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._frames = FrameDecoder(scratch, RESPONSE_BYTES_MAX, by_api=False)
        self._transport: asyncio.Transport | None = None
        self._correlation_id = 0
        self._waiting: deque[tuple[int, int, int, Answered]] = deque()

    @property
    def connected(self) -> bool:
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._waiting.clear()
        self._lost(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frames.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for frame in self._frames.received(nbytes):
                self._answer(frame)
        except (FrameError, MalformedMessage) as error:
            log.error("malformed response of another node, closing the connection: %s", error)
            self.close()

    def _answer(self, frame: Buffer) -> None:
        if not self._waiting:
            raise MalformedMessage("a response that nobody asked for")
        correlation_id, api_key, version, answered = self._waiting.popleft()
        got, offset = read_response_header(api_key, version, frame)
        if got != correlation_id:
            raise MalformedMessage(f"a response to request {got}, not to {correlation_id}")
        answered(decode_response(api_key, version, frame, offset))

    def send(self, api_key: int, version: int, fields: dict[str, Any], answered: Answered) -> None:
        """Send a request; ``answered`` gets the response, or nothing where the connection is lost first."""
        transport = self._transport
        if transport is None:
            return
        self._correlation_id = (self._correlation_id + 1) & 0x7FFFFFFF
        frame = frame_request(api_key, version, self._correlation_id, self._client_id, fields)
        self._waiting.append((self._correlation_id, api_key, version, answered))
        transport.write(frame)

    def release(self) -> asyncio.Transport:
        """The connection, for whoever goes on with it: it is none of this peer's any more."""
        transport, self._transport = self._transport, None
        assert transport is not None and not self._waiting
        return transport

    def close(self) -> None:
        """Close at once; ``lost`` is called soon."""
        if self._transport is not None:
            self._transport.abort()
