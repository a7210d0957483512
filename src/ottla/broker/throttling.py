"""Quotas enforced: a client over its quota is told, and is not read from until its throttle time ends.

Kafka's ``ClientQuotaManager`` and ``ClientRequestQuotaManager``: Produces count by their bytes, Fetches of
consumers by those of their answers, each request by the time that its handling takes. The answer goes out at
once, with ``throttle_time_ms``, and what the client sends within that time waits (KIP-219). A Fetch over its
quota has its records, too: the time that follows makes up for them.

While there is no quota of these kinds nothing of it is asked: the gate has none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from functools import partial

from ottla.broker.pending import Pending, Pieces
from ottla.broker.pipeline import Handle
from ottla.broker.request import Client
from ottla.env.clock import Clock, thread_cpu_ms
from ottla.metadata.image import ClusterImage
from ottla.security.acl_bindings import CLUSTER_NAME, Operation, ResourceType
from ottla.security.quotas import Quotas
from ottla.types import Buffer
from ottla.wire.apis import (
    ADD_PARTITIONS_TO_TXN,
    FETCH,
    PRODUCE,
    SASL_AUTHENTICATE,
    SASL_HANDSHAKE,
    WRITE_TXN_MARKERS,
)
from ottla.wire.messages import RequestHeader, read_header
from ottla.wire.throttle_time import with_throttle_time

_LOGIN = frozenset((SASL_AUTHENTICATE, SASL_HANDSHAKE))
# What nodes ask of each other, since these versions: of who may not, it counts (``RequestHandlerHelper``).
OF_NODES = {ADD_PARTITIONS_TO_TXN: 4, WRITE_TXN_MARKERS: 0}

_SIZE = struct.calcsize(">i")


class Throttling:
    """Of one node. ``follow`` the quotas of the image."""

    def __init__(
        self,
        quotas: Quotas,
        clock: Clock,
        switch: Callable[[Throttling | None], None],
        note: Callable[[str, int], None] = lambda kind, throttle_ms: None,
    ) -> None:
        """``switch`` is told of this once there is a quota to look after, and of None while there is none;
        ``note`` how long a client has to wait for each kind of quota."""
        self._note = note
        self._quotas = quotas
        self._clock = clock
        self._switch = switch
        self._is_on = False

    def follow(self, old: ClusterImage | None, new: ClusterImage) -> Generator[None, None, None]:
        """Put the quotas of the new image in force, in pieces."""
        before = {} if old is None else old.quotas
        if before is new.quotas:
            return
        yield from self._quotas.follow(before, new.quotas)
        quotas = self._quotas
        is_on = quotas.producers.is_set or quotas.consumers.is_set or quotas.requests.is_set
        if is_on is not self._is_on:
            self._is_on = is_on
            self._switch(self if is_on else None)

    def answer(self, client: Client, frame: Buffer, handle: Handle) -> Pieces | Pending | None:
        """Handle a request, and charge its client."""
        if client.is_node:
            return handle(client, frame)
        begun_ms = thread_cpu_ms()
        answer = handle(client, frame)
        header = read_header(frame)
        if client.is_node or _is_exempt(client, header):
            return answer
        request_ms, produce_ms = self._charge(client, header, frame, thread_cpu_ms() - begun_ms)
        if isinstance(answer, Pending):
            answer.charge = partial(self._finish_later, client, header, request_ms, produce_ms)
            return answer
        self._note("request", request_ms)
        throttle_ms = max(request_ms, produce_ms)
        if answer is None:
            self._mute(client, throttle_ms)
            return None
        return self._finish(client, header, throttle_ms, answer)

    def meter(self, client: Client, header: RequestHeader) -> Callable[[float], None] | None:
        """Charges a client for the later pieces of a request, as they are done: it may go away before it is
        answered, and come again."""
        requests, clock = self._quotas.requests, self._clock
        if not requests.is_set or client.is_node or _is_exempt(client, header):
            return None
        user, client_id = client.principal.name, header.client_id or ""

        def spent(used_ms: float) -> None:
            # A Fetch says of itself that it is a node's.
            if not client.is_node:
                requests.record(user, client_id, used_ms / 10, clock.monotonic_ms())

        return spent

    def _finish_later(
        self, client: Client, header: RequestHeader, request_ms: int, produce_ms: int, pieces: Pieces
    ) -> Pieces:
        """As ``_finish``, of a request whose later pieces may have cost as much as the first."""
        user, client_id, now_ms = client.principal.name, header.client_id or "", self._clock.monotonic_ms()
        request_ms = max(request_ms, self._quotas.requests.throttle_ms(user, client_id, now_ms))
        self._note("request", request_ms)
        return self._finish(client, header, max(request_ms, produce_ms), pieces)

    def _charge(
        self, client: Client, header: RequestHeader, frame: Buffer, used_ms: float
    ) -> tuple[int, int]:
        """What the request itself costs: for how long its client has to wait for its time, and its bytes."""
        now_ms, user, client_id = self._clock.monotonic_ms(), client.principal.name, header.client_id or ""
        # 100 percent is one core's whole second.
        request_ms = self._quotas.requests.record(user, client_id, used_ms / 10, now_ms)
        produce_ms = 0
        if header.api_key == PRODUCE:
            produce_ms = self._quotas.producers.record(user, client_id, _SIZE + len(frame), now_ms)
            self._note("produce", produce_ms)
        return request_ms, produce_ms

    def _finish(self, client: Client, header: RequestHeader, throttle_ms: int, pieces: Pieces) -> Pieces:
        """The answer as it goes out."""
        if header.api_key == FETCH:
            user, client_id = client.principal.name, header.client_id or ""
            size, now_ms = sum(map(len, pieces)), self._clock.monotonic_ms()
            fetch_ms = self._quotas.consumers.record(user, client_id, size, now_ms)
            self._note("fetch", fetch_ms)
            throttle_ms = max(throttle_ms, fetch_ms)
        if throttle_ms <= 0:
            return pieces
        self._mute(client, throttle_ms)
        if header.codec is None:
            # An ApiVersions of a version that is not served, whose answer is of version 0.
            return pieces
        return with_throttle_time(pieces, header.api_key, header.api_version, throttle_ms)

    def _mute(self, client: Client, throttle_ms: int) -> None:
        mute(client, throttle_ms, self._clock)


def _is_exempt(client: Client, header: RequestHeader) -> bool:
    if header.api_key in _LOGIN or (client.login is not None and not client.login.is_complete):
        # It is not known who asks: strangers would have all wait that come.
        return True
    since, permissions = OF_NODES.get(header.api_key), client.permissions
    if since is None or header.api_version < since:
        return False
    return permissions is None or permissions.allows(
        Operation.CLUSTER_ACTION, ResourceType.CLUSTER, CLUSTER_NAME
    )


def mute(client: Client, throttle_ms: int, clock: Clock) -> None:
    """Do not listen to a client for so long, once it has its answer."""
    line = client.line
    if line is None or throttle_ms <= 0:
        return

    def end() -> None:
        client.mutes.remove(timer)
        line.unmute()

    line.mute()
    client.throttled_ms += throttle_ms
    timer = clock.call_later(throttle_ms, end)
    client.mutes.append(timer)
