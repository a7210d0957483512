"""From a frame to a handler and back: header, version, faults, handler, and what errors become."""

from __future__ import annotations

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
        except KafkaError as error:
            return frame_response(ctx.header, error_fields(ctx.api_key, request, error))
        except CloseConnection:
            raise
        except Exception:  # noqa: BLE001 - logged with its traceback, and answered
            return frame_response(ctx.header, self._unexpected(ctx, request))
        if type(result) is dict:
            return frame_response(ctx.header, result)
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
        """A promise of the response to which ``result`` will lead."""
        if isinstance(result, Deferred):
            pending = Pending(blocks, result.cancel)
            result.listen(lambda done: self._answer(ctx, request, done, pending))
        else:
            pending = Pending(blocks)
            fields: Deferred[Fields | None] = Deferred()
            fields.follow(result)
            fields.listen(lambda done: self._answer(ctx, request, done, pending))
        return pending

    def _answer(self, ctx: RequestContext, request: Any, done: Deferred[Any], pending: Pending) -> None:
        try:
            fields = done.result()
        except KafkaError as error:
            fields = error_fields(ctx.api_key, request, error)
        except CloseConnection as error:
            pending.fail(error)
            return
        except Exception:  # noqa: BLE001 - logged with its traceback, and answered
            fields = self._unexpected(ctx, request)
        pending.resolve(None if fields is None else frame_response(ctx.header, fields))

    @staticmethod
    def _unexpected(ctx: RequestContext, request: Any) -> Fields:
        """A bug of ours: it is logged whole, and the client hears of it as Kafka's clients would."""
        api = APIS[ctx.api_key]
        log.exception("%s: %s v%d failed", ctx.connection, api.name, ctx.api_version)
        error = KafkaError(ErrorCode.unknown_server_error, "the broker failed; its log says how")
        return error_fields(ctx.api_key, request, error)

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
