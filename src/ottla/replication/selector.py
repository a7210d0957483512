"""The replica that a consumer should read from (KIP-392; Kafka's ``RackAwareReplicaSelector``)."""

from __future__ import annotations

from ottla.metadata.image import ClusterImage
from ottla.replication.partition import Partition


def preferred_replica(
    image: ClusterImage, partition: Partition, rack: str, offset: int, listener: str
) -> int | None:
    """The follower that a consumer in ``rack`` had better read ``offset`` from; None: from this leader
    (ReplicaManager.findPreferredReadReplica).

    One in sync that has the offset and can be reached by ``listener``: the one that has most, then the
    one that was caught up last, then the one with the largest id.
    """
    leading = partition.leading
    own = image.brokers.get(partition.node_id)
    if leading is None or (own is not None and own.rack == rack):
        return None
    best: tuple[int, int, int] | None = None
    for node_id in partition.state.isr:
        follower = leading.followers.get(node_id)
        broker = image.brokers.get(node_id)
        if follower is None or broker is None or broker.rack != rack or not broker.endpoint(listener):
            continue
        if follower.log_start_offset <= offset <= follower.log_end_offset:
            found = (follower.log_end_offset, follower.caught_up_ms, node_id)
            best = found if best is None else max(best, found)
    return best[2] if best is not None else None
