"""What a handler is given: the request's circumstances, and the services of this node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ottla.wire.messages import RequestHeader

if TYPE_CHECKING:
    from ottla.broker.connection import Connection
    from ottla.broker.deferred import Turn
    from ottla.broker.faults import FaultHook
    from ottla.broker.fetch_sessions import FetchSessions
    from ottla.broker.producer_ids import ProducerIds
    from ottla.config import BrokerConfig
    from ottla.coordinators.runtime import GroupCoordinator
    from ottla.env.clock import Clock
    from ottla.env.deadlines import Deadlines
    from ottla.env.disk import Disk
    from ottla.log.manager import LogManager
    from ottla.metadata.service import Metadata
    from ottla.replication.manager import ReplicaManager


class CloseConnection(Exception):
    """The connection cannot go on, and this is what the log says of it. No response is sent."""


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
    log_manager: LogManager
    fetch_sessions: FetchSessions
    producer_ids: ProducerIds
    turn: Turn
    faults: FaultHook | None = None


class RequestContext:
    """One request's circumstances."""

    __slots__ = ("connection", "header", "services")

    def __init__(self, header: RequestHeader, connection: Connection, services: Services) -> None:
        self.header = header
        self.connection = connection
        self.services = services

    @property
    def api_key(self) -> int:
        return self.header.api_key

    @property
    def api_version(self) -> int:
        return self.header.api_version

    @property
    def client_id(self) -> str:
        """Empty where the client gave none."""
        return self.header.client_id or ""

    @property
    def client_host(self) -> str:
        return self.connection.client_host

    @property
    def listener(self) -> str:
        return self.connection.server.listener
