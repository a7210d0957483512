"""What the handlers of this node work with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ottla.broker.telemetry import ClientTelemetry

if TYPE_CHECKING:
    from ottla.broker.api.records.fetch.session_cache import FetchSessions
    from ottla.broker.kept_topics import KeptTopics
    from ottla.broker.memory import Memory
    from ottla.broker.producer_ids import ProducerIds
    from ottla.broker.quotas import NodeQuotas
    from ottla.broker.turn import Turn
    from ottla.config import BrokerConfig
    from ottla.coordinators.groups.coordinator import GroupCoordinator
    from ottla.coordinators.transactions.coordinator import TransactionCoordinator
    from ottla.coordinators.transactions.marker_writer import MarkerWriter
    from ottla.coordinators.transactions.verification import Verification
    from ottla.env.clock import Clock
    from ottla.env.deadlines import Deadlines
    from ottla.env.disk import Disk
    from ottla.env.pulse import Pulse
    from ottla.env.slices import Slices
    from ottla.log.manager import LogManager
    from ottla.metadata.delegation_tokens import Tokens
    from ottla.metadata.service import Metadata
    from ottla.replication.manager import ReplicaManager
    from ottla.security.acl import Authorizer


@dataclass(slots=True)
class Services:
    """What this node's handlers work with. Built once, by the composition root."""

    node_id: int
    config: BrokerConfig
    clock: Clock
    deadlines: Deadlines
    disk: Disk
    metadata: Metadata
    replicas: ReplicaManager
    groups: GroupCoordinator
    transactions: TransactionCoordinator
    marker_writer: MarkerWriter
    verification: Verification
    log_manager: LogManager
    fetch_sessions: FetchSessions
    producer_ids: ProducerIds
    topics: KeptTopics
    turn: Turn
    memory: Memory
    slices: Slices
    quotas: NodeQuotas
    # None where no client can have any.
    tokens: Tokens | None
    # In a cluster: asked before anything is acknowledged that others may decide by now.
    pulse: Pulse | None = None
    # Decides who may do what; None: everybody may do everything.
    authorizer: Authorizer | None = None
    # How often clients were not allowed what they asked for.
    denials: int = 0
    # What clients send of their metrics.
    telemetry: ClientTelemetry = field(default_factory=ClientTelemetry)
