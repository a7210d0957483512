"""What a handler is given: the request's circumstances, and its client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from logging import DEBUG
from typing import TYPE_CHECKING, Any, Protocol, final

from ottla.broker.audit import AUDIT, DENIALS_TOLD_MAX, tell
from ottla.env.deferred import Deferred
from ottla.security.nothing import NOTHING
from ottla.security.principals import ANONYMOUS
from ottla.text import printable
from ottla.types import Buffer
from ottla.wire.messages import RequestHeader

if TYPE_CHECKING:
    from ottla.broker.api.records.produce.refusals import Refusals
    from ottla.broker.services import Services
    from ottla.env.clock import Timer
    from ottla.security.acl import Permissions
    from ottla.security.acl_bindings import Operation, ResourceType
    from ottla.security.sasl.machine import SaslMachine

Fields = dict[str, Any]


@final
class Framed:
    """A response that is written already. ``refused``: what it says of elements that are errors."""

    __slots__ = ("pieces", "refused")

    def __init__(self, pieces: list[Any], refused: Sequence[Fields] = ()) -> None:
        self.pieces = pieces
        self.refused = refused


# What a handler answers: a response's fields or the whole of it, now or later; None where no answer is due.
Answer = Fields | Framed | Awaitable[Fields | Framed | Awaitable[Fields] | None] | None
# What is promised may be another promise: then all that was to be changed has been, and only waiting is left.
Handler = Callable[["RequestContext", Any], Answer]


async def fulfilled(answer: Answer) -> Fields | Framed | None:
    """An answer, once it is there."""
    promised: Any = answer
    while isinstance(promised, Awaitable):
        promised = await promised
    fields: Fields | Framed | None = promised
    return fields


class CloseConnection(Exception):
    """The connection cannot go on, and this is what the log says of it. No response is sent."""


class Habit(Protocol):
    """What a client asks for each time."""

    def again(self, ctx: RequestContext) -> Framed | Deferred[Framed] | None:
        """Answer a request that has not been read; None: it asks for something else."""
        ...

    def end(self) -> None:
        """The client is gone."""
        ...


class Instance(Protocol):
    """A client that is asked for metrics."""

    def end(self) -> None:
        """The client is gone."""
        ...


class Line(Protocol):
    """A client's connection, for whoever finds out who the client is."""

    def end(self) -> None:
        """Take nothing more, and close once what is being worked on is answered."""
        ...

    def trust(self) -> None:
        """The client has logged in: its requests may be as large as anybody's."""
        ...

    def mute(self) -> None:
        """Do nothing more of what the client wants, until as many ``unmute``."""
        ...

    def unmute(self) -> None:
        """The end of a ``mute``."""
        ...


@final
class Usage:
    """What a connection has cost so far, for as long as requests are watched. Plain numbers: a microsecond is
    what watching a request may take, and this is a tenth of that."""

    __slots__ = (
        "busy_ns", "client_id", "marked_busy_ns", "marked_request_bytes", "marked_requests",
        "marked_response_bytes", "request_bytes", "requests", "response_bytes",
    )  # fmt: skip

    def __init__(self, client_id: str) -> None:
        """``client_id``: that of the first request."""
        self.client_id = client_id
        self.requests = 0
        # Its requests' handling on the event loop.
        self.busy_ns = 0
        self.request_bytes = 0
        self.response_bytes = 0
        # All of it as it was when somebody looked last: what is told of is what came since.
        self.marked_requests = 0
        self.marked_busy_ns = 0
        self.marked_request_bytes = 0
        self.marked_response_bytes = 0


@final
class Client:
    """Who is at the other end of a connection, for as long as it lasts."""

    __slots__ = (
        "excused_from_ns",
        "excused_to_ns",
        "habit",
        "host",
        "instance",
        "is_node",
        "line",
        "listener",
        "login",
        "mutes",
        "permissions",
        "port",
        "principal",
        "refusals",
        "software",
        "throttled_ms",
        "usage",
        "waited_ns",
    )

    def __init__(self, host: str, listener: str, port: int = 0) -> None:
        """``port``: where it connects from; 0 where that is not known."""
        self.host = host
        self.port = port
        self.listener = listener
        self.principal = ANONYMOUS
        # Whether it is another node of the cluster, which has shown that it is: no quota is for it.
        self.is_node = False
        # What it may do: nothing, until the door that it comes in by says otherwise; None: everything, since
        # there is no authorizer.
        self.permissions: Permissions | None = NOTHING
        # How far it has logged in, where its listener asks for that.
        self.login: SaslMachine | None = None
        # None where there is no connection (any more).
        self.line: Line | None = None
        # What ends the times for which it is not listened to, being over quotas.
        self.mutes: list[Timer] = []
        # What its producers were refused, once there is any such thing.
        self.refusals: Refusals | None = None
        # What it fetches each time, without a session.
        self.habit: Habit | None = None
        # The name and version of its software, where it gave any.
        self.software: tuple[str, str] | None = None
        # As what it is asked for metrics, once it is.
        self.instance: Instance | None = None
        # For whoever watches its requests: how long the one that comes next waited to be handled, and for how
        # long it is not listened to after the one before.
        self.waited_ns = 0
        self.throttled_ms = 0
        # For whoever looks for slow ones: when it was last made to wait as it had asked to, or by a quota.
        self.excused_from_ns = 0
        self.excused_to_ns = 0
        # What it costs, once it has asked for something while requests are watched.
        self.usage: Usage | None = None

    def leave(self) -> None:
        """Its connection is gone."""
        self.line = None
        for timer in self.mutes:
            # It may be due in days, and have all of this kept until then.
            timer.cancel()
        self.mutes.clear()
        habit, self.habit = self.habit, None
        if habit is not None:
            habit.end()
        instance, self.instance = self.instance, None
        if instance is not None:
            instance.end()

    @property
    def is_stranger(self) -> bool:
        """Whether nobody knows who it is."""
        return self.principal is ANONYMOUS

    def __str__(self) -> str:
        if self.principal is ANONYMOUS:
            return f"client {self.host}"
        return f"client {self.host} ({printable(str(self.principal))})"


@final
class RequestContext:
    """One request's circumstances."""

    __slots__ = ("_denied", "client", "elements", "frame", "header", "meter", "services")

    def __init__(self, header: RequestHeader, client: Client, services: Services, elements: int = 0) -> None:
        self.header = header
        self.client = client
        self.services = services
        # How many elements its arrays have, nested ones together.
        self.elements = elements
        # The request's bytes, where its handler has to do with them.
        self.frame: Buffer = b""
        # Told how many milliseconds each later piece of it takes, where its client has a quota for that.
        self.meter: Callable[[float], None] | None = None
        # What the audit log has been told that the client may not do.
        self._denied: set[tuple[Operation, ResourceType, str]] | None = None

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
        return self.client.host

    @property
    def listener(self) -> str:
        return self.client.listener

    def may(self, operation: Operation, kind: ResourceType, name: str, /, *, quietly: bool = False) -> bool:
        """Whether the client may do something to a resource of that very name.

        ``quietly``: the audit log need not say that it may not, where nothing was asked for by that name, or
        something else is enough.
        """
        permissions = self.client.permissions
        if permissions is None:
            return True
        allowed = permissions.allows(operation, kind, name)
        if allowed:
            if AUDIT.isEnabledFor(DEBUG):
                decision = permissions.decide(operation, kind, name)
                tell(decision, self.client, self.header.api_key, operation, kind, name)
        elif not quietly:
            self._deny(permissions, operation, kind, name)
        return allowed

    def _deny(self, permissions: Permissions, operation: Operation, kind: ResourceType, name: str) -> None:
        """Have the audit log say so, once for each thing."""
        denied = self._denied
        if denied is None:
            denied = self._denied = set()
        key = (operation, kind, name)
        if key in denied:
            return
        self.services.denials += 1
        if len(denied) < DENIALS_TOLD_MAX:
            denied.add(key)
            decision = permissions.decide(operation, kind, name)
            tell(decision, self.client, self.header.api_key, operation, kind, name, len(denied))

    def may_any(self, operation: Operation, kind: ResourceType) -> bool:
        """Whether the client may do it to some resource of that type."""
        permissions = self.client.permissions
        return permissions is None or permissions.allows_any(operation, kind)

    def operations(self, kind: ResourceType, name: str) -> int:
        """What the client may do to a resource, as the bits of Kafka's ``authorizedOperations``."""
        permissions = self.client.permissions
        if permissions is not None:
            return permissions.operations(kind, name)
        # A node without an authorizer starts without it, and few clients ask.
        from ottla.security.acl import Everything

        return Everything().operations(kind, name)
