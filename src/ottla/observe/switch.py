"""Has a node observed as ``metrics.listener``, ``otlp.endpoint`` and ``slow.request.ms`` say, and processes
of the same user answered at a socket in the data directory.

Nothing is loaded until one of them is asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ottla.addresses import parse_address
from ottla.broker.entrances import Entrances
from ottla.broker.gate import Gate
from ottla.broker.listeners import Listeners
from ottla.broker.services import Services
from ottla.config import BrokerConfig
from ottla.config.node import StartError
from ottla.config.observing import LISTENER, OTLP_ENDPOINT, SLOW_REQUEST
from ottla.env.lag import LoopLag
from ottla.env.network import Network
from ottla.metadata.measured import MeasuredStore
from ottla.observe.local import LocalSocket

if TYPE_CHECKING:
    from ottla.metadata.membership import Membership
    from ottla.observe.exporter import Exporter
    from ottla.observe.http import HttpServer
    from ottla.observe.observer import Observer
    from ottla.observe.slow import SlowRequests
    from ottla.observe.watching import Watching

log = logging.getLogger(__name__)


class Observed(NamedTuple):
    """The parts of a node that may be looked at."""

    services: Services
    gate: Gate
    listeners: Listeners
    entrances: Entrances
    store: MeasuredStore
    # How late the loop is, where that is measured.
    lag: LoopLag | None
    # In a cluster.
    membership: Membership | None


class Switch:
    """``start``, then ``close``."""

    def __init__(
        self,
        config: BrokerConfig,
        network: Network,
        observed: Callable[[], Observed],
        *,
        by_socket: bool = False,
    ) -> None:
        """``observed`` is asked once the node is composed. ``by_socket``: whether there is to be one."""
        self._config = config
        self._network = network
        self._observed = observed
        self._watched: Watching | None = None
        self._slow: SlowRequests | None = None
        self._exporter: Exporter | None = None
        self._local = LocalSocket(config.data_dir, self._make_local) if by_socket else None
        self.observer: Observer | None = None
        self._moving: asyncio.Task[None] | None = None
        self._closed = False
        config.subscribe(self._changed)

    @property
    def address(self) -> tuple[str, int] | None:
        """Where metrics are served; None where they are not."""
        return None if self.observer is None else self.observer.address

    async def start(self) -> None:
        """Open what is to be open. StartError where the address of server.properties cannot be had; one that
        was set while a node ran can only be changed by a node that runs."""
        config = self._config
        try:
            await self._open()
        except OSError as error:
            reason = f"metrics cannot be served at {config.get(LISTENER)}: {error.strerror or error}"
            if LISTENER not in config.dynamic_broker and LISTENER not in config.dynamic_cluster:
                raise StartError(reason) from error
            log.error("%s", reason)
        self._log_slow(self._config.get(SLOW_REQUEST))
        self._export()
        if self._local is not None:
            self._local.open()

    def _make_local(self) -> HttpServer:
        """What answers at the socket: all that is told by HTTP, and traces, which are for nobody else."""
        from ottla.observe.http import HttpServer
        from ottla.observe.trace import Traces

        observer, clock = self._look(), self._observed().services.clock
        traces = Traces(self._config.node_id, self._watching(), clock)
        return HttpServer(self._network, clock, observer.routes | {"/trace": traces.answer})

    async def _open(self) -> None:
        address = parse_address(self._config.get(LISTENER))
        if address is not None and not self._closed:
            await self._look().open(*address)

    def _look(self) -> Observer:
        """What tells of the node, once anybody wants to know."""
        if self.observer is None:
            from ottla.observe.observer import Observer
            from ottla.observe.parts import Parts

            found, watching = self._observed(), self._watching()
            parts = Parts(
                found.services,
                found.listeners,
                found.entrances,
                found.store,
                found.lag,
                found.membership,
                watching.watcher,
            )
            found.services.replicas.left.forgotten = parts.keep_left
            self.observer = Observer(parts, self._network, watching)
        return self.observer

    def _watching(self) -> Watching:
        """Who has requests watched, once anybody wants to."""
        if self._watched is None:
            from ottla.observe.watching import Watching

            found = self._observed()
            self._watched = Watching(found.gate, found.services.turn)
        return self._watched

    def _export(self) -> None:
        """Send metrics to where they are to go."""
        if self._exporter is not None:
            self._exporter.close()
        if endpoint := self._config.get(OTLP_ENDPOINT):
            if self._exporter is None:
                from ottla.observe.exporter import Exporter

                observer = self._look()
                self._exporter = Exporter(observer.parts, observer.scrape, self._watching())
            self._exporter.start(endpoint)

    def _log_slow(self, limit_ms: int) -> None:
        """Have requests logged that are so slow; 0: none any more."""
        if not limit_ms:
            slow, self._slow = self._slow, None
            if slow is not None:
                self._watching().leave(slow)
                slow.close()
        elif self._slow is not None:
            self._slow.limit_ms = limit_ms
        else:
            from ottla.observe.slow import SlowRequests

            self._slow = SlowRequests(self._observed().services.clock, limit_ms)
            self._watching().listen(self._slow)

    def _changed(self, names: frozenset[str]) -> None:
        if SLOW_REQUEST in names and not self._closed:
            self._log_slow(self._config.get(SLOW_REQUEST))
        if OTLP_ENDPOINT in names and not self._closed:
            self._export()
        # One move at a time: each looks at what is configured by then.
        if LISTENER in names and not self._closed:
            self._moving = asyncio.ensure_future(self._move(self._moving))

    async def _move(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait((before,))
        if self.observer is not None:
            self.observer.close()
        try:
            await self._open()
        except OSError as error:
            reason = error.strerror or error
            log.error("metrics cannot be served at %s: %s", self._config.get(LISTENER), reason)
        if self.address is None:
            log.info("metrics are not served any more")

    async def close(self) -> None:
        self._closed = True
        self._log_slow(0)
        if self._exporter is not None:
            self._exporter.close()
        if self._local is not None:
            await self._local.close()
        if self._moving is not None:
            await asyncio.wait((self._moving,))
        if self.observer is not None:
            self.observer.close()
