"""From a frame to a handler and back: header, version, faults, handler, and what errors become."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from ottla.broker.connection import Connection, Pending
from ottla.broker.context import CloseConnection, RequestContext, Services
from ottla.broker.deferred import Deferred
from ottla.broker.error_responses import error_fields
from ottla.broker.faults import run_faulty
from ottla.errors import ErrorCode, KafkaError
from ottla.types import Buffer
from ottla.wire.apis import API_VERSIONS, APIS, PRODUCE
from ottla.wire.messages import RequestHeader, decode_request, frame_response, read_header

log = logging.getLogger(__name__)

Fields = dict[str, Any]
Handler = Callable[[RequestContext, Any], Fields | Awaitable[Fields | None] | None]


def load_handlers() -> dict[int, Handler]:
    """The handler of each API that we serve, by its key."""
    return {api.key: import_module(f"ottla.broker.handlers.{api.schema}").handle for api in APIS.values()}


class Dispatcher:
    """Called by each connection for each frame."""

    __slots__ = ("_handlers", "_services")

    def __init__(self, services: Services) -> None:
        self._services = services
        self._handlers = load_handlers()

    def __call__(self, connection: Connection, frame: Buffer) -> list[Any] | Pending | None:
        """The response's pieces, or a promise of them, or None where no response is due.

        MalformedMessage or CloseConnection: the connection cannot go on.
        """
        header = read_header(frame)
        handler = self._handlers.get(header.api_key)
        if handler is None or not APIS[header.api_key].serves(header.api_version):
            return self._unsupported(connection, header)
        request = decode_request(header.api_key, header.api_version, frame, header.body_offset)
        ctx = RequestContext(header, connection, self._services)
        if self._services.faults is not None:
            fault = self._services.faults.before(ctx, request)
            if fault is not None:
                return self._later(ctx, request, run_faulty(ctx, handler, request, fault), blocks=True)
        return self._run(ctx, handler, request)

    def _run(self, ctx: RequestContext, handler: Handler, request: Any) -> list[Any] | Pending | None:
        try:
            result = handler(ctx, request)
            if type(result) is dict:
                return frame_response(ctx.header, result)
        except CloseConnection:
            raise
        except Exception as error:  # noqa: BLE001 - answered, and logged where it is not expected
            return self._failure(ctx, request, error)
        if result is None:
            return None
        assert not isinstance(result, dict)
        return self._later(ctx, request, result, blocks=ctx.api_key != PRODUCE)

    def _later(
        self,
        ctx: RequestContext,
        request: Any,
        result: Deferred[Fields] | Awaitable[Fields | None],
        *,
        blocks: bool,
    ) -> Pending:
        """A promise of the response to which ``result`` will lead. Where the client goes away, a Deferred
        is cancelled; anything else, which may be about to change something, runs to its end."""
        fields: Deferred[Any]
        if isinstance(result, Deferred):
            fields = result
            pending = Pending(blocks, result.cancel)
        else:
            fields = Deferred()
            fields.follow(result)
            pending = Pending(blocks)
        fields.listen(lambda done: self._answer(ctx, request, done, pending))
        return pending

    def _answer(self, ctx: RequestContext, request: Any, done: Deferred[Any], pending: Pending) -> None:
        """Keep the promise, whatever has happened: a connection waits for it."""
        try:
            pieces = self._pieces(ctx, request, done)
        except CloseConnection as error:
            pending.fail(error)
        else:
            pending.resolve(pieces)

    def _pieces(self, ctx: RequestContext, request: Any, done: Deferred[Any]) -> list[Any] | None:
        try:
            fields = done.result()
            return None if fields is None else frame_response(ctx.header, fields)
        except CloseConnection:
            raise
        except asyncio.CancelledError as error:
            raise CloseConnection("the broker stops") from error
        except Exception as error:  # noqa: BLE001 - answered, and logged where it is not expected
            return self._failure(ctx, request, error)

    @staticmethod
    def _failure(ctx: RequestContext, request: Any, error: Exception) -> list[Any]:
        """The response to a request that failed as a whole. CloseConnection where there can be none.

        What is not a KafkaError is a bug of ours: the log has it whole, and the client hears of it as
        Kafka's would.
        """
        api = APIS[ctx.api_key]
        if not isinstance(error, KafkaError):
            log.error("%s: %s v%d failed", ctx.connection, api.name, ctx.api_version, exc_info=error)
            error = KafkaError(ErrorCode.unknown_server_error, "the broker failed; its log says how")
        if getattr(request, "acks", None) == 0:
            raise CloseConnection(f"a Produce with acks=0 failed: {error}")
        try:
            return frame_response(ctx.header, error_fields(ctx.api_key, request, error))
        except Exception as again:
            log.exception("%s: %s v%d: no response to %s", ctx.connection, api.name, ctx.api_version, error)
            raise CloseConnection("an error could not be put into a response") from again

    def _unsupported(self, connection: Connection, header: RequestHeader) -> list[Any]:
        if header.api_key != API_VERSIONS:
            api = APIS.get(header.api_key)
            name = f"{api.name} (key {api.key})" if api else f"key {header.api_key}"
            raise CloseConnection(f"{name} version {header.api_version} is not served here")
        # KIP-511: whatever version was asked for, the answer is version 0 and names the versions that work.
        api = APIS[API_VERSIONS]
        fields = {
            "error_code": ErrorCode.unsupported_version,
            "api_keys": [
                {"api_key": api.key, "min_version": api.version_min, "max_version": api.version_max}
            ],
        }
        return frame_response(header._replace(api_version=0), fields)
