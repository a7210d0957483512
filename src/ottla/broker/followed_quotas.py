"""The image's quotas, in force at a node from the first one on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from ottla.broker.quotas import NodeQuotas
from ottla.env.clock import Clock
from ottla.metadata.image import ClusterImage
from ottla.metadata.service import Metadata

if TYPE_CHECKING:
    from ottla.broker.throttling import Throttling


def follow_quotas(
    quotas: NodeQuotas, metadata: Metadata, clock: Clock, switch: Callable[[Throttling | None], None]
) -> None:
    """Have the image's quotas in force, now and at each change. ``switch`` is told of what has clients wait
    who use more than they may, while there are quotas of that kind, and of None while there are not."""
    throttling: Throttling | None = None

    def follow(old: ClusterImage | None, new: ClusterImage) -> Generator[None, None, None] | None:
        nonlocal throttling
        if throttling is None:
            if not new.quotas:
                return None
            # A node without quotas starts without it.
            from ottla.broker.throttling import Throttling

            throttling = Throttling(quotas.make(), clock, switch, quotas.note)
        return throttling.follow(old, new)

    deque(follow(None, metadata.image) or (), 0)
    metadata.subscribe(follow)
