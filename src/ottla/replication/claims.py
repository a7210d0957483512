"""Checks that a request in the name of a replica is from that node (KIP-903; Kafka leaves a part to its
authorizer).

A fetch in a follower's name moves the high watermark and decides who is in sync, so its name and epoch are a
claim, to be checked against the image: docs/decisions/0011-who-a-follower-is.md.
"""

from __future__ import annotations

import logging

from ottla.env.clock import Clock
from ottla.errors import ErrorCode, KafkaError
from ottla.metadata.image import ClusterImage

log = logging.getLogger(__name__)

# The epoch of no registration.
NOBODY = -1
# So many refusals are a matter of timing: a node's new registration comes to it before it comes to others.
REFUSALS_UNSAID_MAX = 10
# Refusals are told of once in this time, and counted anew.
SAID_MS_MIN = 60_000


class Claims:
    """Checks what requests claim to be from. Its own listener and whether there are others is the node's."""

    def __init__(self, clock: Clock, listener: str, *, several: bool) -> None:
        """``listener``: what this node uses among nodes; ``several``: it has others besides."""
        self._clock = clock
        self._listener = listener
        self._several = several
        # Refusals since the last time that they were told of, or that nobody was refused for long.
        self._refused = 0
        self._since_ms = -SAID_MS_MIN
        self._said = False

    def follower_epoch(
        self, image: ClusterImage | None, node_id: int, claim: int, listener: str, host: str
    ) -> int:
        """The broker epoch of the registration that a fetch claims to be from; NOBODY where that is not the
        one which the image has: it has ended, or the image is yet to show it, or somebody guesses.

        KafkaError as ``check_listener``.
        """
        self.check_listener(image, node_id, listener, host)
        broker = image.brokers.get(node_id) if image is not None else None
        if broker is None or broker.claim != claim:
            self._refuse(node_id, host, "it is not from the node's present registration")
            return NOBODY
        return broker.epoch

    def check_listener(self, image: ClusterImage | None, node_id: int, listener: str, host: str) -> None:
        """KafkaError TOPIC_AUTHORIZATION_FAILED, as for one without Kafka's ClusterAction, where there are
        several listeners and this one is not for nodes. A node that has been told of another one among nodes,
        as happens while all are changed one after the other, says so in its registration."""
        if not self._several or listener == self._listener:
            return
        broker = image.brokers.get(node_id) if image is not None else None
        if broker is None or broker.peer_listener != listener:
            self._refuse(node_id, host, f"nodes do not use the listener {listener}")
            raise KafkaError(ErrorCode.topic_authorization_failed, "a replica's request, not on its listener")

    def is_for_nodes(self, image: ClusterImage | None, listener: str) -> bool:
        """Whether nodes ask on this listener what is for them alone, as far as anybody has said."""
        if not self._several or listener == self._listener:
            return True
        brokers = image.brokers.values() if image is not None else ()
        return any(broker.peer_listener == listener for broker in brokers)

    def _refuse(self, node_id: int, host: str, why: str) -> None:
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._since_ms >= SAID_MS_MIN:
            self._since_ms, self._refused, self._said = now_ms, 0, False
        self._refused += 1
        if self._refused > REFUSALS_UNSAID_MAX and not self._said:
            self._said = True
            log.warning(
                "requests in the name of replicas are refused, more than %d within %d s, the last one from "
                "%s in the name of node %d: %s",
                REFUSALS_UNSAID_MAX, SAID_MS_MIN // 1000, host, node_id, why,
            )  # fmt: skip
