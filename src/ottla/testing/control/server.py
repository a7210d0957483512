"""The control port of one broker: opened on its event loop, closed before the broker ends."""

from __future__ import annotations

import logging
from functools import partial
from uuid import UUID

from ottla.config.node import StartError
from ottla.env.clock import Clock, SystemClock
from ottla.env.network import Network, TcpNetwork, show_address
from ottla.errors import KafkaError
from ottla.node import Node
from ottla.observe.hosts import is_this_machine
from ottla.observe.http import TAKEN_MS_MAX, HttpServer, Manner, Response
from ottla.observe.request import Accepted, Request
from ottla.testing.control.asked import WAIT_MS_MAX, Asked
from ottla.testing.control.endpoints import METHODS, endpoints, find
from ottla.testing.control.errors import ControlError, from_kafka, timed_out, without_endpoint
from ottla.testing.control.faults import FaultEndpoints
from ottla.testing.control.fields import from_body, from_query
from ottla.testing.control.guard import TOKEN_LENGTH_MIN, check
from ottla.testing.faults import Faults
from ottla.testing.running import RunningNodes

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 1024 * 1024
# A longer body is read in a thread.
READ_AT_ONCE_BYTES_MAX = 64 * 1024
CONNECTIONS_MAX = 64


class Control:
    """``bind`` it before the node starts, so that an address that cannot be had is known at once; ``start``
    it with the node; ``close`` it."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        faults: Faults | None = None,
        token: str | None = None,
        network: Network | None = None,
        clock: Clock | None = None,
    ) -> None:
        """StartError where the token is too short."""
        if token is not None and len(token) < TOKEN_LENGTH_MIN:
            raise StartError(
                f"the token of the control port has {len(token)} characters: give {TOKEN_LENGTH_MIN} or more"
            )
        # Where it is to listen; once it is bound, where it does.
        self.address = address
        self._token = token
        # What the node is to meet.
        self.faults = faults or Faults(self.topic_name)
        self._endpoints = endpoints(FaultEndpoints())
        # The one that is driven, once it is started.
        self._nodes = RunningNodes()
        manner = Manner(
            Accepted(METHODS, BODY_BYTES_MAX),
            fallback=self._answer,
            connections_max=CONNECTIONS_MAX,
            answer_ms_max=WAIT_MS_MAX + TAKEN_MS_MAX,
            failed=without_endpoint,
        )
        self._server = HttpServer(network or TcpNetwork(), clock or SystemClock(), {}, manner)

    async def bind(self) -> None:
        """Reserve the address. StartError where it cannot be had, or where others would reach it who need no
        token."""
        host, port = self.address
        if self._token is None and not is_this_machine(show_address(host, port)):
            raise StartError(
                f"other machines would reach the control port at {show_address(host, port)}: give it a port "
                "of 127.0.0.1, or set a token that programs must send, with OTTLA_CONTROL_TOKEN"
            )
        try:
            self.address = await self._server.bind(host, port)
        except OSError as error:
            reason = error.strerror or str(error)
            where = show_address(host, port)
            raise StartError(f"the control port cannot be opened at {where}: {reason}") from error

    async def start(self, node: Node) -> None:
        """Answer."""
        self._nodes.add(node)
        await self._server.start()
        log.warning(
            "the control port is open: its clients can read, change and delete all data "
            "without a login: http://%s/v1",
            show_address(*self.address),
        )

    def topic_name(self, topic_id: UUID) -> str | None:
        """The name of a topic, for faults that are about it."""
        topic = self._nodes.image.topics_by_id.get(topic_id)
        return None if topic is None else topic.name

    def close(self) -> None:
        self._server.close()

    async def _answer(self, request: Request) -> Response:
        try:
            check(request, self._token)
            handler, path = find(self._endpoints, request.method, request.path)
            if request.method != "POST":
                fields = from_query(request.query)
            elif len(request.body) <= READ_AT_ONCE_BYTES_MAX:
                fields = from_body(request.body)
            else:
                fields = await self._nodes.any.services.disk.run(partial(from_body, request.body))
            return await handler(Asked(self._nodes, self.faults, path, fields))
        except ControlError as error:
            return error.response()
        except KafkaError as error:
            return from_kafka(error).response()
        except TimeoutError as error:
            return timed_out(str(error)).response()
