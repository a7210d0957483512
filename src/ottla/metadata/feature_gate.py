"""Whether the nodes of a cluster support the levels that its features are at: looked at with each change of
the metadata (Kafka's ``ClusterControlManager.registerBroker``, and what its brokers do with a record that
they do not support).

UpdateFeatures asks every registered node before a level moves, and a node that joins compares the levels with
its own. What is left are stores that were written by hand or restored, and nodes of releases that ask nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ottla.metadata.features import Supported, beyond, obstacle, supported_by
from ottla.metadata.image import BrokerImage, ClusterImage

log = logging.getLogger(__name__)


class FeatureGate:
    """Subscribes to the metadata of a node; ``fail`` is told why the node cannot go on."""

    def __init__(self, node_id: int, supported: Supported, fail: Callable[[str], None]) -> None:
        self._node_id = node_id
        self._supported = supported
        self._fail = fail

    def follow(self, old: ClusterImage, new: ClusterImage) -> None:
        """Look at what has changed."""
        moved = new.features is not old.features
        if moved:
            why = obstacle(new.features, self._supported)
            if why is not None:
                self._fail(why)
                return
            self._say(old, new)
        if not moved and new.brokers is old.brokers:
            return
        for node_id, broker in new.brokers.items():
            if node_id != self._node_id and (moved or broker is not old.brokers.get(node_id)):
                self._look_at(broker, new)

    def _say(self, old: ClusterImage, new: ClusterImage) -> None:
        for name in dict.fromkeys((*old.features.levels, *new.features.levels)):
            before, after = old.features.level(name), new.features.level(name)
            if before != after:
                log.info("feature %s: finalized level %d, before %d", name, after, before)

    def _look_at(self, broker: BrokerImage, image: ClusterImage) -> None:
        found = beyond(image.features, supported_by(broker.features, self._supported))
        if found:
            log.warning(
                "node %d does not support the finalized features of the cluster: %s; stop it, "
                "and start it with the release of the other nodes",
                broker.node_id,
                ", ".join(f"{name} at level {level}" for name, level in found),
            )
