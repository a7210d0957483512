"""The metrics of this node's clients (KIP-714): asked for while somebody reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, final
from uuid import UUID, uuid4

from ottla.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from ottla.metadata.image import ClusterImage
    from ottla.telemetry.instances import Instances
    from ottla.telemetry.received import Received

Configs = Mapping[str, Mapping[str, str]]


# Takes what a client has sent, unpacked, and who it is, in pieces.
Forward = Callable[[Mapping[str, str | None], bytes], Generator[None, None, None]]

# What clients have sent, and waits to be read: how many of them, and their bytes as they came. Each is
# unpacked, and read, by itself: a kilobyte may be a megabyte, and its client be gone by then.
WAITING_MAX: Final = 64
WAITING_BYTES_MAX: Final = 16 * 1024 * 1024


@final
class ClientTelemetry:
    """Made once for a node; what it takes is loaded when the first client asks."""

    def __init__(self, new_id: Callable[[], UUID] = uuid4) -> None:
        self._new_id = new_id
        # Those that read what clients send. While there are none, clients are not told that they may.
        self.readers = 0
        # Where it goes besides.
        self.forward: Forward | None = None
        self._turn = asyncio.Lock()
        # What is read, or waits for that.
        self.waiting = self._waiting_bytes = 0
        self._instances: Instances | None = None
        self._received: Received | None = None
        # The subscriptions that are in force.
        self._configs: Configs = {}

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Wait until what others have sent is read. THROTTLING_QUOTA_EXCEEDED where that is too much; where
        nothing waits, any ``size`` in bytes will do."""
        if self.waiting >= WAITING_MAX or (self.waiting and self._waiting_bytes + size > WAITING_BYTES_MAX):
            raise KafkaError(ErrorCode.throttling_quota_exceeded)
        self.waiting += 1
        self._waiting_bytes += size
        try:
            async with self._turn:
                yield
        finally:
            self.waiting -= 1
            self._waiting_bytes -= size

    @property
    def received(self) -> Received:
        """What clients have sent."""
        if self._received is None:
            from ottla.telemetry.received import Received

            self._received = Received()
        return self._received

    def instances(self, image: ClusterImage) -> Instances:
        """The clients, by the subscriptions of this image."""
        if self._instances is None:
            # Few nodes ask their clients.
            from ottla.telemetry.instances import Instances

            self._instances = Instances(self._new_id)
        old, new = self._configs, image.client_metrics
        if new is not old:
            for name in old.keys() | new.keys():
                if old.get(name) != new.get(name):
                    self._instances.change(name, new.get(name))
            self._configs = new
        return self._instances
