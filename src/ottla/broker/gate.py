"""From a frame to a handler and back: header, version, budget, rights, handler, and what errors become.

The row of an API in ``wire.apis`` has the limits of its requests: versions, bytes and elements. The row in
``security.demands`` has the rights that its client needs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

from ottla.broker.large import AT_ONCE_MAX, in_pieces
from ottla.broker.metering import metered
from ottla.broker.pending import Pending, Unbegun
from ottla.broker.pipeline import Handle
from ottla.broker.request import (
    Answer,
    Client,
    CloseConnection,
    Fields,
    Framed,
    Habit,
    Handler,
    RequestContext,
    fulfilled,
)
from ottla.broker.services import Services
from ottla.env.deferred import Deferred
from ottla.errors import ErrorCode, KafkaError
from ottla.types import Buffer
from ottla.wire.apis import API_VERSIONS, APIS, FETCH, PRODUCE, Api
from ottla.wire.messages import RequestHeader, decode_request, frame_response, read_header, read_request

if TYPE_CHECKING:
    from ottla.security.demands import May

log = logging.getLogger(__name__)


# Rooms, and APIs of other rooms by their schemas, whose handlers are loaded when one is first asked for
# something: most nodes never are.
LOADED_LATER: Final = frozenset({
    "configs", "security", "telemetry",
    "alter_partition_reassignments", "alter_replica_log_dirs", "describe_log_dirs", "describe_producers",
    "describe_transactions", "elect_leaders", "list_partition_reassignments", "list_transactions",
    "unregister_broker", "update_features",
})  # fmt: skip


def load_handlers() -> dict[int, Handler]:
    """The handler of each API that we serve, by its key."""
    return {
        api.key: _load(api) if LOADED_LATER.isdisjoint((api.room, api.schema)) else _loaded_later(api)
        for api in APIS.values()
    }


def _load(api: Api) -> Handler:
    handler: Handler = import_module(f"ottla.broker.api.{api.room}.{api.schema}").handle
    return handler


def _loaded_later(api: Api) -> Handler:
    def handle(ctx: RequestContext, request: Any) -> Answer:
        return _load(api)(ctx, request)

    return handle


Refusal = Callable[[int, int, Any, "May"], KafkaError | None]


class Around(Protocol):
    """What has something to do with each request, before it is handled and afterwards."""

    def answer(self, client: Client, frame: Buffer, handle: Handle) -> list[Any] | Pending | None:
        """As ``Gate``, by way of ``handle``."""
        ...


class Throttling(Around, Protocol):
    """Looks after quotas."""

    def meter(self, client: Client, header: RequestHeader) -> Callable[[float], None] | None:
        """What is told of the milliseconds that each later piece of a request takes; None: nobody counts."""
        ...


class Watcher(Around, Protocol):
    """Watches requests, and changes nothing."""

    def told(self, api_key: int, fields: Fields) -> None:
        """These are the fields of an answer, which may have error codes."""
        ...


class Gate:
    """What every request goes through: called with each frame. ``handlers``: by the key of their API."""

    __slots__ = (
        "_around", "_handlers", "_inner", "_refusal", "_repeats", "_services", "_throttling", "_watcher",
    )  # fmt: skip

    def __init__(self, services: Services, handlers: Mapping[int, Handler], *, repeats: bool = True) -> None:
        """``repeats``: a request that asks for the same as its client's last need not come to its handler."""
        self._services = services
        self._handlers = handlers
        self._repeats = repeats
        # Why a client must not ask for something: once there is one that may not do everything.
        self._refusal: Refusal | None = None
        # Who has to do with requests: watches them, looks after quotas. Of the two the outer one, None while
        # there is neither; and what that one has to call.
        self._around: Around | None = None
        self._inner: Handle = self._handle
        self._watcher: Watcher | None = None
        self._throttling: Throttling | None = None

    def __call__(self, client: Client, frame: Buffer) -> list[Any] | Pending | None:
        """The response's pieces, or a promise of them, or None where no response is due.

        MalformedMessage or CloseConnection: the connection cannot go on.
        """
        if self._around is not None:
            return self._around.answer(client, frame, self._inner)
        return self._handle(client, frame)

    def switch_throttling(self, throttling: Throttling | None) -> None:
        """Have quotas looked after from now on, or not any more."""
        self._throttling = throttling
        self._surround()

    def watch(self, watcher: Watcher | None) -> None:
        """Have requests watched from now on, or not any more."""
        self._watcher = watcher
        self._surround()

    def _surround(self) -> None:
        self._around = self._throttling if self._watcher is None else self._watcher
        both = self._watcher is not None and self._throttling is not None
        self._inner = self._throttled if both else self._handle

    def _throttled(self, client: Client, frame: Buffer) -> list[Any] | Pending | None:
        assert self._throttling is not None
        return self._throttling.answer(client, frame, self._handle)

    def _handle(self, client: Client, frame: Buffer) -> list[Any] | Pending | None:
        header = read_header(frame)
        codec = header.codec
        handler = self._handlers.get(header.api_key)
        if handler is None or codec is None:
            return self._unsupported(header)
        is_fetch = header.api_key == FETCH
        if is_fetch and client.habit is not None and self._repeats:
            answer = self._again(client, client.habit, header, frame)
            if answer is not None:
                return answer
        request, elements = read_request(codec, frame, header.body_offset)
        ctx = self._context(header, client, elements)
        if is_fetch:
            ctx.frame = frame
        try:
            if client.permissions is not None:
                refusal = self._refusal or self._load_refusal()
                refused = refusal(header.api_key, header.api_version, request, ctx.may)
                if refused is not None:
                    raise refused
            result = handler(ctx, request)
            if isinstance(result, Framed):
                return self._written(header.api_key, result)
            if elements > AT_ONCE_MAX and result is not None:
                return self._large(ctx, request, result)
            if type(result) is dict:
                return self._framed(header, result)
        except CloseConnection:
            raise
        except Exception as error:  # noqa: BLE001 - answered, and logged where it is not expected
            if elements <= AT_ONCE_MAX:
                return self._failure(ctx, request, error)
            return self._large(ctx, request, self._refused(ctx, request, error))
        if result is None:
            return None
        assert not isinstance(result, dict)
        # What a Produce waits for has been begun, but for a coroutine, which is still to run, and the like.
        blocks = ctx.api_key != PRODUCE or type(result) is Unbegun or isinstance(result, Coroutine)
        return self._later(ctx, request, result, blocks=blocks)

    def _framed(self, header: RequestHeader, fields: Fields) -> list[Any]:
        if self._watcher is not None:
            self._watcher.told(header.api_key, fields)
        return frame_response(header, fields)

    def _written(self, api_key: int, framed: Framed) -> list[Any]:
        if framed.refused and self._watcher is not None:
            self._watcher.told(api_key, {"refused": framed.refused})
        return framed.pieces

    def _context(self, header: RequestHeader, client: Client, elements: int) -> RequestContext:
        ctx = RequestContext(header, client, self._services, elements)
        if self._throttling is not None:
            ctx.meter = self._throttling.meter(client, header)
        return ctx

    def _load_refusal(self) -> Refusal:
        # A node without an authorizer starts without it.
        from ottla.security.demands import refusal

        self._refusal = refusal
        return refusal

    def _again(
        self, client: Client, habit: Habit, header: RequestHeader, frame: Buffer
    ) -> list[Any] | Pending | None:
        """The answer to a Fetch that asks for the same as the client's last one; None where it does not."""
        ctx = self._context(header, client, 0)
        ctx.frame = frame
        try:
            result = habit.again(ctx)
        except Exception as error:  # noqa: BLE001 - answered, and logged where it is not expected
            return self._failure(ctx, None, error)
        if isinstance(result, Framed):
            return self._written(header.api_key, result)
        if isinstance(result, Deferred):
            return self._later(ctx, None, result, blocks=True)
        return None

    def _large(self, ctx: RequestContext, request: Any, result: Answer) -> Pending:
        """As ``_later``, for a request that is large: so is its answer, which is written piece by piece. What
        follows it on its connection waits, also behind a Produce."""
        work = asyncio.ensure_future(metered(ctx, self._in_pieces(ctx, request, result)))
        fields: Deferred[Any] = Deferred()
        work.add_done_callback(fields.take_over)
        pending = Pending(True, work.cancel if isinstance(result, Deferred) else None)
        fields.listen(lambda done: self._answer(ctx, request, done, pending))
        return pending

    async def _in_pieces(self, ctx: RequestContext, request: Any, result: Answer) -> Framed | None:
        """The answer to a large request, which is large itself: also where it is an error."""
        try:
            fields = await fulfilled(result)
        except (CloseConnection, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - answered, and logged where it is not expected
            fields = self._error_fields(ctx, request, error)
        if self._watcher is not None and isinstance(fields, dict):
            self._watcher.told(ctx.api_key, fields)
        return fields if fields is None or isinstance(fields, Framed) else await in_pieces(ctx, fields)

    def _later(
        self,
        ctx: RequestContext,
        request: Any,
        result: Deferred[Any] | Awaitable[Fields | Framed | Awaitable[Fields] | None],
        *,
        blocks: bool,
    ) -> Pending:
        """A promise of the response to which ``result`` will lead. Where the client goes away, a Deferred
        is cancelled; anything else, which may be about to change something, runs to its end."""
        fields: Deferred[Any]
        if isinstance(result, Deferred):
            fields = result
            pending = Pending(blocks, result.cancel)
            pending.hurry = result.hurry
        else:
            fields = Deferred()
            fields.follow(metered(ctx, result) if isinstance(result, Coroutine) else result)
            pending = Pending(blocks)
        fields.listen(lambda done: self._answer(ctx, request, done, pending))
        return pending

    def _answer(self, ctx: RequestContext, request: Any, done: Deferred[Any], pending: Pending) -> None:
        """Keep the promise, whatever has happened: a connection waits for it.

        Where what was to be changed has been changed, and led to another promise, that is what is waited for.
        """
        if not done.failed and type(written := done.result()) is Framed:
            pending.resolve(self._written(ctx.api_key, written))
            return
        if not done.failed and isinstance(then := done.result(), Deferred | asyncio.Future):
            fields = then if isinstance(then, Deferred) else Deferred[Any]()
            if fields is not then:
                fields.follow(then)
            pending.release()
            fields.listen(lambda done: self._answer(ctx, request, done, pending))
            return
        try:
            pieces = self._pieces(ctx, request, done)
        except CloseConnection as error:
            pending.fail(error)
        else:
            pending.resolve(pieces)

    def _pieces(self, ctx: RequestContext, request: Any, done: Deferred[Any]) -> list[Any] | None:
        try:
            fields = done.result()
            if type(fields) is Framed:
                return self._written(ctx.api_key, fields)
            return None if fields is None else self._framed(ctx.header, fields)
        except CloseConnection:
            raise
        except asyncio.CancelledError as cancelled:
            raise CloseConnection("the broker stops") from cancelled
        except Exception as error:  # noqa: BLE001 - answered, and logged where it is not expected
            return self._failure(ctx, request, error)

    async def _refused(self, ctx: RequestContext, request: Any, error: Exception) -> Fields:
        """As ``_error_fields``, in a step of its own: to read the request has been enough for one."""
        return self._error_fields(ctx, request, error)

    @staticmethod
    def _error_fields(ctx: RequestContext, request: Any, error: Exception) -> Fields:
        """The answer to a request that failed as a whole. CloseConnection where there can be none.

        What is not a KafkaError is a bug of ours: the log has it whole, and the client hears of it as
        Kafka's would.
        """
        api = APIS[ctx.api_key]
        if request is None:
            # It was not read, since it asks for the same as another.
            header = ctx.header
            request = decode_request(ctx.api_key, ctx.api_version, ctx.frame, header.body_offset)
        if not isinstance(error, KafkaError):
            log.error("%s: %s v%d failed", ctx.client, api.name, ctx.api_version, exc_info=error)
            error = KafkaError(ErrorCode.unknown_server_error, "the broker failed; its log says how")
        if getattr(request, "acks", None) == 0:
            raise CloseConnection(f"a Produce with acks=0 failed: {error}")
        # Few requests of most clients fail as a whole.
        from ottla.broker.error_responses import error_fields

        return error_fields(ctx.api_key, request, error)

    def _failure(self, ctx: RequestContext, request: Any, error: Exception) -> list[Any]:
        """The response to a request that failed as a whole, framed."""
        fields = self._error_fields(ctx, request, error)
        try:
            return self._framed(ctx.header, fields)
        except Exception as again:
            api = APIS[ctx.api_key]
            log.exception("%s: %s v%d: no response to %s", ctx.client, api.name, ctx.api_version, error)
            raise CloseConnection("an error could not be put into a response") from again

    @staticmethod
    def _unsupported(header: RequestHeader) -> list[Any]:
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
        correlation_id, client_id = header.correlation_id, header.client_id
        return frame_response(RequestHeader(API_VERSIONS, 0, correlation_id, client_id, 0), fields)
