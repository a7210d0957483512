"""A node's listeners: where each was bound, where its clients are told to connect, and when they come in."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping

from ottla.broker.connection_counts import ConnectionCounts
from ottla.broker.memory import Memory
from ottla.broker.quotas import NodeQuotas
from ottla.broker.server import Server, ServerLimits
from ottla.broker.turn import Turn
from ottla.config import BrokerConfig, Endpoint
from ottla.config.node import StartError
from ottla.config.rules import parse_connection_overrides
from ottla.env.clock import Clock
from ottla.env.disk import open_files_max
from ottla.env.network import Network, SharedSocket, addresses_of, machine_name
from ottla.numbers import INT_MAX
from ottla.security.acl_bindings import address_of, canonical_host

log = logging.getLogger(__name__)

# Addresses to listen on that nobody can connect to.
WILDCARDS = ("", "0.0.0.0", "::")

_OF_THE_NODE = frozenset(("max.connections", "max.connections.per.ip", "max.connections.per.ip.overrides"))

# The network that speaks a listener's protocol over another one.
Speaking = Callable[[str, Network], Network]


class Listeners:
    """``bind``, then ``serve``, then ``start``."""

    def __init__(
        self,
        config: BrokerConfig,
        clock: Clock,
        network: Network,
        turn: Turn,
        memory: Memory,
        *,
        speaking: Speaking,
        quotas: NodeQuotas,
        refuses: Callable[[], bool] | None = None,
    ) -> None:
        """``speaking``: given a listener and the network below. ``refuses``: a test's wish that
        nobody be let in."""
        self._config = config
        self._clock = clock
        self._network = network
        self._turn = turn
        self._memory = memory
        self._speaking = speaking
        self._refuses = refuses
        # Among them how many connections may come a second; addresses' limits are set by whoever knows them.
        self._quotas = quotas
        names = {endpoint.listener for endpoint in config.listeners()}
        self._protected = config.inter_broker_listener if len(names) > 1 else None
        self._counts = ConnectionCounts(clock, self._protected)
        self._naming: asyncio.Task[None] | None = None
        self._set_rates()
        self._own: list[Server] = []
        # Those of the sockets that are shared with other nodes.
        self._shared: list[Server] = []
        config.subscribe(self._apply_limits)

    @property
    def servers(self) -> tuple[Server, ...]:
        """All of them."""
        return (*self._own, *self._shared)

    @property
    def connection_count(self) -> int:
        """How many clients are connected."""
        return sum(len(server.connections) for server in self.servers)

    async def bind(self, shared: Iterable[tuple[str, int]]) -> dict[str, tuple[str, int]]:
        """Reserve every listener's address, and say where each was bound. ``shared``: sockets that others
        listen at, too, as listeners and file descriptors. StartError where one cannot be had."""
        self._set_counts()
        bound = {endpoint.listener: await self._bind(endpoint) for endpoint in self._config.listeners()}
        for listener, fd in shared:
            server = self._make(listener, SharedSocket(fd))
            self._shared.append(server)
            await server.bind("", 0)
        return bound

    def _make(self, listener: str, network: Network) -> Server:
        return Server(
            self._limits(listener),
            self._clock,
            self._speaking(listener, network),
            self._turn,
            self._memory,
            listener=listener,
            refuses=self._refuses,
            quotas=self._quotas,
            files_max=open_files_max(),
            node_counts=self._counts,
        )

    async def _bind(self, endpoint: Endpoint) -> tuple[str, int]:
        server = self._make(endpoint.listener, self._network)
        self._own.append(server)
        try:
            return await server.bind(endpoint.host, endpoint.port)
        except OSError as error:
            where = f"{endpoint.host}:{endpoint.port}"
            # asyncio repeats the address in its own words; the bare reason says enough.
            reason = (
                os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
            )
            raise StartError(f"cannot listen on {where}: {reason.lower()}") from error

    def advertised(self, bound: Mapping[str, tuple[str, int]]) -> dict[str, tuple[str, int]]:
        """Where clients of each listener are told to connect."""
        advertised = {e.listener: (e.host, e.port) for e in self._config.advertised_listeners()}
        found = {}
        for listener, (bound_host, bound_port) in bound.items():
            host, port = advertised.get(listener, (bound_host, bound_port))
            port = port or bound_port
            if host in WILDCARDS:
                # As Kafka does. A container's name, for one, is not known outside.
                host = machine_name()
                log.info(
                    "listener %s advertises the name of this machine: %s:%d; if clients cannot "
                    "resolve this name, give --advertise (advertised.listeners)",
                    listener,
                    host,
                    port,
                )
            found[listener] = (host, port)
        return found

    def serve(self, guard: Callable[[Server], None]) -> None:
        """Have each listener's clients come in as ``guard`` arranges it."""
        for server in self.servers:
            guard(server)

    async def start_own(self) -> None:
        """Take connections at the addresses that are this node's alone; requests wait until ``open``."""
        for server in self._own:
            await server.start()

    def open(self) -> None:
        """Handle requests from now on."""
        for server in self.servers:
            server.serve()

    async def start_shared(self) -> None:
        """Take connections at those that it shares with other nodes."""
        for server in self._shared:
            await server.start()

    async def stop(self) -> None:
        """As ``Server.stop``, all at once."""
        self._close_counts()
        await asyncio.gather(*(server.stop() for server in self.servers))

    def abort(self) -> None:
        """As ``Server.abort``."""
        self._close_counts()
        for server in self.servers:
            server.abort()

    def disconnect(self) -> None:
        """Close every client's connection at once; they may come back."""
        for server in self.servers:
            server.disconnect()

    def _apply_limits(self, changed: frozenset[str]) -> None:
        self._set_rates()
        for server in self.servers:
            server.limit(self._limits(server.listener))
        if changed & _OF_THE_NODE:
            self._set_counts()
            self._counts.make_room()

    def _set_counts(self) -> None:
        """Put the limits in force that the node's listeners share."""
        counts, get = self._counts, self._config.get
        counts.connections_max = get("max.connections")
        counts.per_host_max = get("max.connections.per.ip")
        limits = parse_connection_overrides(get("max.connections.per.ip.overrides"))
        addresses = {one: address_of(one) for one in limits}
        counts.per_host_overrides = {
            address: limits[one] for one, address in addresses.items() if address is not None
        }
        if self._naming is not None:
            self._naming.cancel()
        named = {one: limit for one, limit in limits.items() if addresses[one] is None}
        if named:
            self._naming = asyncio.get_running_loop().create_task(self._find(named), name="overrides")

    async def _find(self, named: Mapping[str, int]) -> None:
        """Put limits in force of hosts that have names, by the addresses that these stand for now."""
        for host, limit in named.items():
            try:
                found = await addresses_of(host)
            except OSError as error:
                log.error(
                    "max.connections.per.ip.overrides: no limit for host %s, its address "
                    "cannot be resolved: %s",
                    host,
                    error.strerror or error,
                )
                continue
            ours = {canonical_host(address): limit for address in found}
            # What is given for an address itself goes before that.
            self._counts.per_host_overrides = ours | dict(self._counts.per_host_overrides)

    def _close_counts(self) -> None:
        self._counts.close()
        if self._naming is not None:
            self._naming.cancel()

    def _set_rates(self) -> None:
        """Put ``max.connection.creation.rate`` in force, the node's and those of listeners."""
        name = "max.connection.creation.rate"
        node_limit = _limit(self._config.get(name))
        listeners = [endpoint.listener for endpoint in self._config.listeners()]
        owns = {listener: self._config.for_listener(listener).own(name) for listener in listeners}
        if self._protected is not None and owns[self._protected] is None:
            # It does not share the node's limit, but has the same for itself.
            owns[self._protected] = self._config.get(name)
        limits = {one: own for one, own in owns.items() if own is not None and own < INT_MAX}
        if node_limit is not None or limits or self._quotas.made is not None:
            rates = self._quotas.make().connections
            rates.node_limit, rates.listener_limits = node_limit, limits

    def _limits(self, listener: str) -> ServerLimits:
        get = self._config.for_listener(listener).get
        return ServerLimits(
            request_bytes_max=get("socket.request.max.bytes"),
            idle_ms_max=get("connections.max.idle.ms"),
            connections_max=get("max.connections"),
        )


def _limit(rate: int) -> float | None:
    return None if rate >= INT_MAX else rate
