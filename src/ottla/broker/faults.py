"""What a fault does to a request. Only the broker for tests has a `FaultHook`; any other never comes here.

An error is answered as by a broker that met it: where it is for one topic, the request's other topics are
served as always, and whatever is wrong with its topics, a broker tells in Metadata who the brokers are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, Protocol
from uuid import UUID

from ottla.broker.request import Answer, CloseConnection, Fields, Framed, Handler, RequestContext, fulfilled
from ottla.errors import ErrorCode, KafkaError
from ottla.wire.apis import METADATA
from ottla.wire.codec import Encoded, reader, writer
from ottla.wire.messages import RESPONSE_ELEMENTS_MAX, element
from ottla.wire.produce import OneBatch

TopicName = Callable[[UUID], str | None]

# Where requests have their topics: structures with a name or an id, plain names, or configuration resources.
TOPIC_LISTS = ("topics", "topic_data", "topic_names", "resources")
_RESOURCE_TYPE_TOPIC = 2
ASKED = "a test asked for it"


class Fault(NamedTuple):
    """What to do to one request: wait, then close the connection, answer with an error, or serve it."""

    error_code: int | None = None
    delay_ms: float = 0
    # Close the connection instead of answering, before or after the request took effect.
    drop: Literal["before", "after"] | None = None
    # A pattern as in the shell: the error is for such topics only. None: for the whole request.
    topic: str | None = None


class FaultHook(Protocol):
    """Faults on demand, for tests of clients (see ottla.testing)."""

    def before(self, ctx: RequestContext, request: Any) -> Fault | None:
        """Called once for each request, before its handler; must not block."""
        ...

    def refuses_connections(self) -> bool:
        """Called once for each new connection; must not block."""
        ...

    def holds_marker(self, topic: str) -> bool:
        """Called for each marker that would end a transaction in the topic; must not block."""
        ...


def element_name(element: Any, topic_name: TopicName) -> str | None:
    """The name of the topic that an element of one of `TOPIC_LISTS` is about; None if it is about none."""
    if isinstance(element, str):
        return element
    if hasattr(element, "resource_type"):
        return str(element.resource_name) if element.resource_type == _RESOURCE_TYPE_TOPIC else None
    name = getattr(element, "name", None) or getattr(element, "topic", None)
    if name is None and (topic_id := getattr(element, "topic_id", None)) is not None:
        name = topic_name(topic_id)
    return name


def with_faults(handlers: Mapping[int, Handler], hook: FaultHook) -> dict[int, Handler]:
    """The same handlers, each of which asks first whether its request is to meet a fault."""

    def wrapped(handler: Handler) -> Handler:
        def handle(ctx: RequestContext, request: Any) -> Answer:
            if isinstance(request, OneBatch):
                # A hook may look at any field, by its name.
                request = request.whole()
            fault = hook.before(ctx, request)
            return handler(ctx, request) if fault is None else run_faulty(ctx, handler, request, fault)

        return handle

    return {key: wrapped(handler) for key, handler in handlers.items()}


async def run_faulty(
    ctx: RequestContext, handler: Handler, request: Any, fault: Fault
) -> Fields | Framed | None:
    """The response to a request that meets a fault. CloseConnection in its place where asked for."""
    if fault.delay_ms:
        await asyncio.sleep(fault.delay_ms / 1000)
    if fault.drop == "before":
        raise CloseConnection(ASKED)
    fields: Fields | Framed | None
    if fault.error_code is None:
        fields = await _serve(ctx, handler, request)
    else:
        fields = await _fail(ctx, handler, request, ErrorCode(fault.error_code), fault.topic)
    if fault.drop == "after":
        raise CloseConnection(ASKED)
    return fields


async def _serve(ctx: RequestContext, handler: Handler, request: Any) -> Fields | Framed | None:
    return await fulfilled(handler(ctx, request))


async def _fail(
    ctx: RequestContext, handler: Handler, request: Any, code: ErrorCode, pattern: str | None
) -> Fields | None:
    def topic_name(topic_id: UUID) -> str | None:
        topic = ctx.services.metadata.image.topics_by_id.get(topic_id)
        return topic.name if topic is not None else None

    def fails(element: Any) -> bool:
        name = element_name(element, topic_name)
        return pattern is None or (name is not None and fnmatchcase(name, pattern))

    failing, spared = (None, request) if ctx.api_key == METADATA else split(request, fails)
    served = await _serve(ctx, handler, spared) if spared is not None else {}
    if isinstance(served, Framed):
        raise CloseConnection(f"{ASKED}; the answer to the rest is too large to be joined with an error")
    if served is None or getattr(request, "acks", None) == 0:
        # Nobody waits for the answer: Kafka closes the connection to make the error known.
        raise CloseConnection(ASKED)
    if ctx.api_key == METADATA:
        topics = _failed_topics(served["topics"], ctx.api_version, code, pattern)
        return served | {"topics": topics}
    # Loaded where something is to fail, as the gate has it.
    from ottla.broker.error_responses import error_fields

    return merge(served, error_fields(ctx.api_key, failing, KafkaError(code, ASKED)))


def _failed_topics(topics: Encoded, version: int, code: ErrorCode, pattern: str | None) -> Encoded:
    """A Metadata response's topics, where some have failed."""
    entity = element(METADATA, version, "topics")
    read, write = reader(entity), writer(entity)
    whole, offset = b"".join(topics.pieces), 0
    out: list[Any] = []
    while offset < len(whole):
        topic, end = read(whole, offset, [RESPONSE_ELEMENTS_MAX])
        if pattern is None or fnmatchcase(topic.name or "", pattern):
            write(topic._asdict() | {"error_code": code, "partitions": ()}, out)
        else:
            out.append(whole[offset:end])
        offset = end
    return Encoded(topics.count, out)


def split(request: Any, fails: Callable[[Any], bool]) -> tuple[Any, Any | None]:
    """The request with only what fails, and with only what does not; None where nothing is left of it.

    A request that has no list of topics fails as a whole.
    """
    for name in TOPIC_LISTS:
        elements = getattr(request, name, None) or ()
        spared = tuple(element for element in elements if not fails(element))
        if spared and len(spared) < len(elements):
            failing = request._replace(**{name: tuple(element for element in elements if fails(element))})
            return failing, _at_once(request._replace(**{name: spared}))
    return request, None


def _at_once(request: Any) -> Any:
    """As in Kafka, a Fetch does not wait for more when one of its partitions has an error; nor does it begin
    a session, which would lack the topics that failed."""
    if not hasattr(request, "max_wait_ms"):
        return request
    session = {"session_id": 0, "session_epoch": -1} if hasattr(request, "session_id") else {}
    return request._replace(max_wait_ms=0, **session)


def merge(served: Fields, failed: Fields) -> Fields:
    """One response out of that to what was served and that to what failed."""
    joined = {
        name: [*served[name], *value]
        for name, value in failed.items()
        if isinstance(value, list | tuple) and isinstance(served.get(name), list | tuple)
    }
    return failed | served | joined
