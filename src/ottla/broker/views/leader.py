"""Telling a client who leads instead, beside the error that says we do not (KIP-951), or that it is no
node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from ottla.broker.request import RequestContext
from ottla.errors import ErrorCode, KafkaError

Fields = dict[str, Any]

_LED_ELSEWHERE = (ErrorCode.not_leader_or_follower, ErrorCode.fenced_leader_epoch)


def leader_fields(ctx: RequestContext, topic: str | UUID, index: int, error: KafkaError) -> Fields | None:
    """``current_leader`` for a partition that was refused with ``error``, None where it says nothing new."""
    if error.code not in _LED_ELSEWHERE:
        return None
    image = ctx.services.metadata.image
    found = image.topics.get(topic) if isinstance(topic, str) else image.topics_by_id.get(topic)
    if found is None or not 0 <= index < len(found.partitions):
        return None
    state = found.partitions[index]
    return {"leader_id": state.leader, "leader_epoch": state.leader_epoch}


def leader_nodes(ctx: RequestContext, answers: Iterable[Fields]) -> list[Fields]:
    """Where the leaders that ``answers`` name are to be found."""
    brokers = ctx.services.metadata.image.brokers
    nodes = []
    for node_id in dict.fromkeys(a["current_leader"]["leader_id"] for a in answers if "current_leader" in a):
        broker = brokers.get(node_id)
        endpoint = broker.endpoint(ctx.listener) if broker is not None else None
        if broker is not None and endpoint is not None:
            nodes.append({"node_id": node_id, "host": endpoint[0], "port": endpoint[1], "rack": broker.rack})
    return nodes


def replica_refusal(ctx: RequestContext, replica_id: int) -> KafkaError | None:
    """Why a request that names a replica as its sender, and changes nothing, is not answered; None: it is."""
    if replica_id >= 0:
        try:
            ctx.services.replicas.check_replica(replica_id, ctx.listener, ctx.client_host)
        except KafkaError as error:
            return error
    return None


def believed(current_leader_epoch: int) -> int:
    """The leader epoch that a client believes in, -1 for none; FENCED_LEADER_EPOCH for what is no epoch.

    RequestUtils.getLeaderEpoch: only a Fetch may say "none" by any other negative number.
    """
    if current_leader_epoch < -1:
        raise KafkaError(ErrorCode.fenced_leader_epoch)
    return current_leader_epoch
