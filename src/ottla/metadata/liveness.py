"""Notices at once when the process of a node has ended, long before its lease does.

Nodes hold connections to the controller, and the controller to every node. When one breaks, the other side is
connected to again: if its machine *refuses*, nobody listens there any more, and the registration is deleted,
comparing its epoch: by the controller, or where the controller itself is gone, by whoever notices first. Any
other failure says nothing about the process, and is left to the lease. A wrong guess costs a registration.
"""

from __future__ import annotations

import asyncio
import logging

from ottla.env.network import Network
from ottla.metadata import keys
from ottla.metadata.image import BrokerImage, ClusterImage
from ottla.metadata.service import Metadata
from ottla.metadata.store import Compare, Delete, MetadataStore, StoreError

log = logging.getLogger(__name__)

# How long one attempt to connect may take.
CONNECT_MS_MAX = 3_000
# Pauses between attempts to reach a node that is registered and does not answer.
BACKOFF_MS_MIN, BACKOFF_MS_MAX = 50, 1_000
# A connection that ended sooner is not followed by another one at once.
LASTED_MS_MIN = 1_000
# A node that was never reached, and has refused for this long, is gone as well: it died before we looked.
REFUSED_MS_MAX = 1_000


class _Line(asyncio.BufferedProtocol):
    """A connection on which nothing is said."""

    def __init__(self, ended: asyncio.Future[None]) -> None:
        self._ended = ended
        self._nothing = bytearray(1)
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._nothing


class Liveness:
    """``start`` once the node has joined; ``close`` at any time."""

    def __init__(
        self, store: MetadataStore, metadata: Metadata, network: Network, node_id: int, listener: str
    ) -> None:
        self._store = store
        self._metadata = metadata
        self._network = network
        self._node_id = node_id
        # The listener that nodes use among themselves.
        self._listener = listener
        # Registrations that are watched.
        self._watched: dict[tuple[int, int], asyncio.Task[None]] = {}
        # Nodes that were given up without ever having been reached: their address may be wrong.
        self._unreachable: dict[int, None] = {}
        # Registrations, by node, of which it was said that they are to be ended.
        self._said: dict[int, int] = {}
        self._closed = False

    def start(self) -> None:
        self._metadata.subscribe(self._on_image)
        self._watch(self._metadata.image)

    async def close(self) -> None:
        self._closed = True
        tasks, self._watched = list(self._watched.values()), {}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _on_image(self, old: ClusterImage, new: ClusterImage) -> None:
        if old.brokers is not new.brokers or old.controller_id != new.controller_id:
            self._watch(new)

    def _watch(self, image: ClusterImage) -> None:
        """Watch whom this node is to watch, and nobody else."""
        if self._closed:
            return
        wanted = {(n, image.brokers[n].epoch): image.brokers[n] for n in self._concerns(image)}
        for key in [key for key in self._watched if key not in wanted]:
            self._watched.pop(key).cancel()
        for key, broker in wanted.items():
            if key not in self._watched:
                self._watched[key] = asyncio.create_task(
                    self._watch_one(broker), name=f"liveness-{broker.node_id}"
                )

    def _concerns(self, image: ClusterImage) -> list[int]:
        if image.controller_id == self._node_id:
            return [node_id for node_id in image.brokers if node_id != self._node_id]
        return [image.controller_id] if image.controller_id in image.brokers else []

    async def _watch_one(self, broker: BrokerImage) -> None:
        """Until the process behind a registration has ended, or nobody asks any more."""
        host, port = broker.endpoint(self._listener) or (broker.host, broker.port)
        loop = asyncio.get_running_loop()
        reached = False
        backoff_ms = BACKOFF_MS_MIN
        refused_since: float | None = None
        said = ""
        while True:
            ended: asyncio.Future[None] = loop.create_future()
            line = _Line(ended)
            try:
                async with asyncio.timeout(CONNECT_MS_MAX / 1000):
                    await self._network.connect(lambda line=line: line, host, port)  # type: ignore[misc]
                reached, backoff_ms, refused_since = True, BACKOFF_MS_MIN, None
                self._unreachable.pop(broker.node_id, None)
                since = loop.time()
                await ended
                if (loop.time() - since) * 1000 >= LASTED_MS_MIN:
                    continue
            except ConnectionRefusedError:
                now = loop.time()
                refused_since = now if refused_since is None else refused_since
                if await self._is_gone(broker, reached, (now - refused_since) * 1000):
                    return
            except (OSError, TimeoutError):
                refused_since = None
            except Exception as error:
                # Such as a host that cannot be a name: asyncio encodes it before it looks for it.
                refused_since = None
                if said != repr(error):
                    said = repr(error)
                    log.exception("node %d, at %s:%d, cannot be watched for now", broker.node_id, host, port)
            finally:
                if line.transport is not None:
                    line.transport.close()
            await asyncio.sleep(backoff_ms / 1000)
            backoff_ms = min(backoff_ms * 2, BACKOFF_MS_MAX)

    async def _is_gone(self, broker: BrokerImage, reached: bool, refused_ms: float) -> bool:
        """End the registration of a node whose machine refuses connections, if that tells that it is gone."""
        node_id = broker.node_id
        if not reached:
            if refused_ms < REFUSED_MS_MAX or node_id in self._unreachable:
                return False
            self._unreachable[node_id] = None
        image = self._metadata.image
        compares = [
            Compare(keys.broker(node_id), broker.epoch),
            Compare(keys.CONTROLLER, image.controller_epoch),
        ]
        operations = [Delete(keys.broker(node_id)), Delete(keys.stopping(node_id))]
        if image.controller_id == node_id:
            operations.append(Delete(keys.CONTROLLER))
        elif image.controller_id != self._node_id:
            return False
        if self._said.get(node_id) != broker.epoch:
            # Not afterwards: the image may end this watch before the answer comes.
            self._said[node_id] = broker.epoch
            log.warning("node %d is being fenced: its machine refuses connections to it", node_id)
        try:
            done = await self._store.txn(compares, operations)
        except StoreError as error:
            log.info("node %d is not fenced yet, its registration could not be ended: %s", node_id, error)
            return False
        return done.succeeded
