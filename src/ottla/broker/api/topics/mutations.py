"""What a client's quota of changes to the metadata lets one request do (KIP-599).

Partitions that are made and deleted count. Versions whose clients know THROTTLING_QUOTA_EXCEEDED are refused
what is too much; of older ones it is done, and they wait. Kafka counts topics once they are found to be
valid; here those count, too, that turn out to be none, as long as one request may make so many partitions.
"""

from __future__ import annotations

from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.topics import PARTITIONS_PER_REQUEST_MAX


class Mutations:
    """Of one request. ``make`` or ``take`` for each topic, ``finish`` at the end."""

    def __init__(self, ctx: RequestContext, *, strict_since: int) -> None:
        """``strict_since``: the first version whose clients know how to be refused."""
        self._ctx = ctx
        # Partitions that it is to make, those left out that it must not.
        self._made = 0
        services = ctx.services
        quotas = services.quotas.made
        self._quota = None
        if quotas is not None:
            self._quota = quotas.mutations.of(
                ctx.client.principal.name,
                ctx.client_id,
                services.clock.monotonic_ms(),
                strict=ctx.api_version >= strict_since,
            )

    @property
    def are_limited(self) -> bool:
        """Whether there is a quota for the client at all."""
        return self._quota is not None

    def make(self, partitions: int) -> KafkaError | None:
        """Count partitions that are to be made; why they must not be.

        What is too much for one request is refused elsewhere: were it counted, who asks for two thousand
        million would keep all that share the quota from making any for years.
        """
        if self._made + partitions <= PARTITIONS_PER_REQUEST_MAX:
            error = self.take(partitions)
            if error is not None:
                return error
        self._made += partitions
        return None

    def take(self, partitions: int) -> KafkaError | None:
        """Count partitions that are deleted; why they must not be."""
        quota = self._quota
        if quota is None or quota.take(partitions, self._ctx.services.clock.monotonic_ms()):
            return None
        return KafkaError(ErrorCode.throttling_quota_exceeded)

    def finish(self) -> int:
        """For how many milliseconds the client is not listened to from now on."""
        if self._quota is None:
            return 0
        # Loaded where there are quotas.
        from ottla.broker.throttling import mute

        clock = self._ctx.services.clock
        throttle_ms = self._quota.throttle_ms(clock.monotonic_ms())
        self._ctx.services.quotas.note("mutation", throttle_ms)
        mute(self._ctx.client, throttle_ms, clock)
        return throttle_ms
