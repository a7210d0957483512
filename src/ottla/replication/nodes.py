"""Requests to other nodes: one connection to each for one purpose, made when there is something to ask.

Callbacks, as `peer` has them. Whoever asks repeats what fails: nothing is kept once a connection is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ottla.env.clock import Clock, Timer
from ottla.env.network import Network
from ottla.replication.peer import Peer

log = logging.getLogger(__name__)

# A connection that is not made within this time is given up.
CONNECT_MS_MAX = 5_000
# An answer that has not come within this time does not come any more: the connection is closed. Others wait
# up to request.timeout.ms (30 seconds) for what they are asked.
ANSWER_MS_MAX = 40_000

# Given a response, or None where there is none to come.
Answered = Callable[[Any], None]
Endpoint = Callable[[int], tuple[str, int] | None]


class Nodes:
    """``ask`` at any time; ``close`` at the end."""

    def __init__(self, client_id: str, network: Network, clock: Clock, endpoint: Endpoint) -> None:
        """``endpoint``: where a node listens for others; None while it does not live."""
        self._client_id = client_id
        self._network = network
        self._clock = clock
        self._endpoint = endpoint
        self._lines: dict[int, _Line] = {}
        self._closed = False

    def ask(
        self, node_id: int, api_key: int, version: int, fields: dict[str, Any], answered: Answered
    ) -> None:
        """Ask a node. ``answered`` gets the response, or None where the node cannot be asked or its
        connection is lost before: it may have done what was asked all the same."""
        line = self._lines.get(node_id)
        if line is None:
            line = self._lines[node_id] = _Line(self, node_id)
        line.ask((api_key, version, fields), answered)

    def leave(self, node_ids: Iterable[int]) -> None:
        """Give up the connections to nodes whose registrations have ended: where a machine lost its power,
        nobody else says that what it was asked is not answered any more."""
        for node_id in node_ids:
            line = self._lines.get(node_id)
            if line is not None:
                line.leave()

    def close(self) -> None:
        """Ask nobody any more, and tell nobody."""
        self._closed = True
        lines, self._lines = self._lines, {}
        for line in lines.values():
            line.close()

    # What lines ask.

    async def connect(self, node_id: int, peer: Peer) -> str:
        """Connect; why it cannot be done, empty where it is."""
        try:
            endpoint = self._endpoint(node_id)
            if endpoint is None:
                return "it is not registered"
            async with asyncio.timeout(CONNECT_MS_MAX / 1000):
                await self._network.connect(lambda: peer, *endpoint)
        except asyncio.CancelledError:
            peer.close()
            raise
        except Exception as error:  # noqa: BLE001 - a name that is none, for one, is no OSError; it is said
            return str(error) or type(error).__name__
        return "" if peer.connected else "it hangs up"

    def peer(self, node_id: int, lost: Callable[[Peer], None]) -> Peer:
        return Peer(f"{self._client_id}-{node_id}", lost)

    def later(self, callback: Callable[[], object]) -> Timer:
        return self._clock.call_later(ANSWER_MS_MAX, callback)

    def ended(self, node_id: int, line: _Line) -> None:
        """The line's connection is over; the next request begins another."""
        if self._lines.get(node_id) is line:
            del self._lines[node_id]


class _Line:
    """A connection to one node, and what waits for it."""

    __slots__ = ("_closed", "_connecting", "_node_id", "_nodes", "_patience", "_peer", "_unsent", "_waiting")

    def __init__(self, nodes: Nodes, node_id: int) -> None:
        self._nodes = nodes
        self._node_id = node_id
        self._closed = False
        self._unsent: list[tuple[int, int, dict[str, Any]]] = []
        self._waiting: deque[Answered] = deque()
        self._patience: Timer | None = None
        self._peer = nodes.peer(node_id, self._lost)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def ask(self, request: tuple[int, int, dict[str, Any]], answered: Answered) -> None:
        self._waiting.append(answered)
        if self._peer.connected:
            self._send(request)
        else:
            self._unsent.append(request)

    def _send(self, request: tuple[int, int, dict[str, Any]]) -> None:
        if self._patience is None:
            self._patience = self._nodes.later(self._impatient)
        self._peer.send(*request, self._answered)

    async def _connect(self) -> None:
        failure = await self._nodes.connect(self._node_id, self._peer)
        if failure:
            log.info("node %d cannot be asked: %s", self._node_id, failure)
            self._peer.close()
            self._end()
            return
        unsent, self._unsent = self._unsent, []
        for request in unsent:
            self._send(request)

    def _answered(self, response: Any) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        answered = self._waiting.popleft()
        if self._waiting:
            self._patience = self._nodes.later(self._impatient)
        _tell(answered, response)

    def _impatient(self) -> None:
        self._patience = None
        log.warning("node %d does not answer", self._node_id)
        self._peer.close()

    def leave(self) -> None:
        self._peer.close()

    def _lost(self, peer: Peer) -> None:
        self._end()

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._patience is not None:
            self._patience.cancel()
        self._nodes.ended(self._node_id, self)
        waiting, self._waiting = self._waiting, deque()
        for answered in waiting:
            _tell(answered, None)

    def close(self) -> None:
        self._closed = True
        if self._patience is not None:
            self._patience.cancel()
        self._connecting.cancel()
        self._peer.close()


def _tell(answered: Answered, response: Any) -> None:
    try:
        answered(response)
    except Exception:
        # It belongs to one request; the others must hear of theirs.
        log.exception("a response of another node could not be processed")
