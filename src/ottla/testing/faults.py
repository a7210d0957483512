"""Faults on demand: what a test asks a broker to do to the requests of its clients.

A fault applies to the requests of an API, of several, or of any (None); of a topic and of a client id, where
they are given; and to the next ``times`` of them, or until it is ended:

    broker.faults.fail("Produce", "NOT_ENOUGH_REPLICAS", topic="orders", times=3)
    broker.faults.drop("Produce", after=True, times=1)     # appended, but the client never learns it
    with broker.faults.delay("Fetch", ms=500, client_id="slow-*"):
        ...

Topics and client ids are patterns as in the shell (``*``, ``?``). An error for a topic spares the request's
other topics; a delay or a drop is for the whole request. Where several faults match a request, their delays
add up, and the oldest error and the oldest drop hold.

What was asked is kept in ``requests``, so that a test can also say what its client did.

The broker's event loop calls `Faults.before`, `Faults.refuses_connections` and `Faults.holds_marker`; tests
call the rest, from any thread.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self
from uuid import UUID

from ottla.broker.faults import TOPIC_LISTS, Fault, element_name
from ottla.errors import ErrorCode
from ottla.testing.names import did_you_mean
from ottla.wire.apis import APIS, BY_NAME

# How many of the latest requests are kept to be asserted on.
REQUESTS_MAX = 10_000

# Lists in requests whose elements have lists of topics of their own.
_NESTED_LISTS = ("groups",)

# One API by Kafka's name, several, or any.
Apis = str | Iterable[str] | None


class RequestContext(Protocol):
    """What `Faults` reads of the broker's context of a request."""

    @property
    def api_key(self) -> int: ...
    @property
    def api_version(self) -> int: ...
    @property
    def client_id(self) -> str: ...


class Request(NamedTuple):
    """A request that reached the broker, and the fault that it met, if any.

    ``client_id`` is empty where the client gave none. ``fields`` are those of its outermost level that are
    plain values (``acks``, ``group_id``, ``max_wait_ms``, …), named as in Kafka's schema but in snake_case.
    """

    api: str
    version: int
    client_id: str
    topics: tuple[str, ...]
    fields: Mapping[str, object]
    fault: Fault | None


Listener = Callable[[Request], None]


class Selector(NamedTuple):
    """Which requests are meant."""

    apis: frozenset[str] | None
    topic: str | None
    client_id: str | None

    def __str__(self) -> str:
        parts = [", ".join(sorted(self.apis)) if self.apis is not None else "any"]
        parts += [f"topic {self.topic!r}"] if self.topic is not None else []
        parts += [f"client {self.client_id!r}"] if self.client_id is not None else []
        return ", ".join(parts)

    def matches(self, api: str, client_id: str, topics: Iterable[str]) -> bool:
        """Whether such a request is."""
        return (
            (self.apis is None or api in self.apis)
            and (self.client_id is None or fnmatchcase(client_id, self.client_id))
            and (self.topic is None or any(fnmatchcase(topic, self.topic) for topic in topics))
        )


class Rule:
    """A fault and the requests it applies to; as a context manager it ends with the block."""

    def __init__(
        self, fault: Fault, selector: Selector, times: int | None, end: Callable[[Rule], None]
    ) -> None:
        self.id = 0  # its number, from 1 on, among all faults of the broker
        self.fault = fault
        self.selector = selector
        self.hits = 0  # requests it applied to so far
        self.left = times  # requests it will yet apply to; None is without end
        self._end = end

    def end(self) -> None:
        """Apply to no further request; harmless when it has ended already."""
        self._end(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def __repr__(self) -> str:
        return f"<Rule {self.fault} on {self.selector}, {self.hits} hits, {self.left} left>"


class Faults:
    """The faults of one broker, or of the nodes of a cluster, and the requests they have seen."""

    def __init__(
        self,
        topic_name: Callable[[UUID], str | None] = lambda _: None,
        *,
        spares: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """``topic_name`` finds the name of a topic id. ``spares``: the client ids that only a fault with a
        ``client_id`` applies to, and whose requests are seen only where one does."""
        self._topic_name = topic_name
        self._spares = spares
        self._rules: tuple[Rule, ...] = ()
        self._requests: deque[Request] = deque(maxlen=REQUESTS_MAX)
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._listeners: tuple[Listener, ...] = ()

    # ------------------------------------------------------------ faults

    def fail(
        self,
        api: Apis,
        error: str | int,
        *,
        times: int | None = None,
        topic: str | None = None,
        client_id: str | None = None,
    ) -> Rule:
        """Answer with an error, without doing what the request asks.

        ``error`` is Kafka's name (``"NOT_ENOUGH_REPLICAS"``) or number. Raises ValueError for an error or an
        API that does not exist.
        """
        return self._add(Fault(error_code=error_code(error), topic=topic), api, times, topic, client_id)

    def delay(
        self,
        api: Apis,
        ms: float,
        *,
        times: int | None = None,
        topic: str | None = None,
        client_id: str | None = None,
    ) -> Rule:
        """Wait before the request is looked at; the requests behind it on its connection wait too."""
        if ms < 0:
            raise ValueError(f"a delay of {ms} ms: it must not be negative")
        return self._add(Fault(delay_ms=ms), api, times, topic, client_id)

    def drop(
        self,
        api: Apis,
        *,
        after: bool = False,
        times: int | None = None,
        topic: str | None = None,
        client_id: str | None = None,
    ) -> Rule:
        """Close the connection instead of answering: before the request is executed, or after it."""
        return self._add(Fault(drop="after" if after else "before"), api, times, topic, client_id)

    def refuse_connections(self, *, times: int | None = None) -> Rule:
        """Close every new connection as soon as it is made; those that exist go on.

        A client id is not known yet at that moment: to keep one client out, drop its first request with
        ``drop("ApiVersions", client_id=…)``.
        """
        return self._start(Rule(CONNECTION_REFUSED, _CONNECTIONS, _checked(times), self._remove))

    def hold_markers(self, *, topic: str | None = None) -> Rule:
        """Write no end of a transaction into a topic's partitions, or any, until this ends.

        So transactions are decided (``PrepareCommit``, ``PrepareAbort``) and not complete: their records are
        hidden from read_committed, and what follows is told CONCURRENT_TRANSACTIONS. Markers are tried again
        once a second at least.
        """
        return self._start(Rule(MARKERS_HELD, Selector(frozenset(), topic, None), None, self._remove))

    def clear(self) -> None:
        """End every fault; what was seen stays."""
        with self._changed:
            self._rules = ()

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The faults that have not ended, oldest first."""
        return self._rules

    def _add(
        self, fault: Fault, api: Apis, times: int | None, topic: str | None, client_id: str | None
    ) -> Rule:
        return self._start(
            Rule(fault, Selector(api_names(api), topic, client_id), _checked(times), self._remove)
        )

    def _start(self, rule: Rule) -> Rule:
        with self._changed:
            rule.id = next(self._numbers)
            self._rules = (*self._rules, rule)
        return rule

    def _remove(self, ended: Rule) -> None:
        with self._changed:
            self._rules = tuple(rule for rule in self._rules if rule is not ended)

    # ------------------------------------------------------------ what was asked

    @property
    def requests(self) -> tuple[Request, ...]:
        """The latest `REQUESTS_MAX` requests, oldest first."""
        with self._changed:
            return tuple(self._requests)

    def seen(
        self, api: Apis = None, *, topic: str | None = None, client_id: str | None = None
    ) -> list[Request]:
        """Those of `requests` that are of this API, topic and client, oldest first."""
        selector = Selector(api_names(api), topic, client_id)
        with self._changed:
            return self._seen(selector)

    def wait_for(
        self,
        api: Apis = None,
        count: int = 1,
        *,
        topic: str | None = None,
        client_id: str | None = None,
        timeout_s: float = 10.0,
    ) -> list[Request]:
        """Block until `seen` has ``count`` requests, and return them; TimeoutError when they do not come."""
        selector = Selector(api_names(api), topic, client_id)
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._seen(selector)) >= count, timeout_s):
                got = len(self._seen(selector))
                each = Counter(asked.api for asked in self._requests)
                seen = ", ".join(f"{name} {times}" for name, times in sorted(each.items())) or "none"
                raise TimeoutError(
                    f"the broker saw {got} of {count} requests ({selector}) in {timeout_s:g} s; all requests "
                    f"that it has recorded, by API: {seen}"
                )
            return self._seen(selector)

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` with each request from now on, on the broker's event loop; it must not block."""
        with self._changed:
            self._listeners = (*self._listeners, listener)

    def unlisten(self, listener: Listener) -> None:
        """Call it no more."""
        with self._changed:
            self._listeners = tuple(one for one in self._listeners if one is not listener)

    def forget(self) -> None:
        """Start `requests` anew."""
        with self._changed:
            self._requests.clear()

    def _seen(self, selector: Selector) -> list[Request]:
        return [
            asked for asked in self._requests if selector.matches(asked.api, asked.client_id, asked.topics)
        ]

    # ------------------------------------------------------------ the broker's side

    def before(self, ctx: RequestContext, request: Any) -> Fault | None:
        """What to do to a request that was decoded and is about to be handled."""
        api = APIS[ctx.api_key].name
        topics = tuple(topics_of(request, self._topic_name))
        with self._changed:
            spared = self._spares(ctx.client_id)
            hit = [
                rule
                for rule in self._rules
                if rule.selector.matches(api, ctx.client_id, topics)
                and not (spared and rule.selector.client_id is None)
            ]
            if spared and not hit:
                return None
            fault = combine(self._count(hit))
            fields = plain_fields(request)
            seen = Request(api, ctx.api_version, ctx.client_id, topics, fields, fault)
            self._requests.append(seen)
            self._changed.notify_all()
        for listener in self._listeners:
            listener(seen)
        return fault

    def refuses_connections(self) -> bool:
        """Whether a connection that was just made is to be closed."""
        with self._changed:
            hit = [rule for rule in self._rules if rule.fault is CONNECTION_REFUSED]
            return bool(self._count(hit))

    def holds_marker(self, topic: str) -> bool:
        """Whether a transaction's marker may not be written to the topic now."""
        with self._changed:
            hit = [
                rule
                for rule in self._rules
                if rule.fault is MARKERS_HELD
                and (rule.selector.topic is None or fnmatchcase(topic, rule.selector.topic))
            ]
            return bool(self._count(hit))

    def _count(self, hit: list[Rule]) -> list[Fault]:
        """The faults of these rules, which are counted; those that are used up end."""
        for rule in hit:
            rule.hits += 1
            if rule.left is not None:
                rule.left -= 1
        if any(rule.left == 0 for rule in hit):
            self._rules = tuple(rule for rule in self._rules if rule.left != 0)
        return [rule.fault for rule in hit]


# What a refused connection meets; it has no request, so no selector of requests matches it.
CONNECTION_REFUSED = Fault(drop="before")
# What markers meet that are held.
MARKERS_HELD = Fault(error_code=ErrorCode.not_leader_or_follower)
_CONNECTIONS = Selector(frozenset(), None, None)


def combine(faults: Iterable[Fault]) -> Fault | None:
    """One fault that does what they all do: delays add up, the first error and the first drop hold."""
    combined: Fault | None = None
    for fault in faults:
        if combined is None:
            combined = fault
            continue
        first = fault if combined.error_code is None else combined
        combined = Fault(
            error_code=first.error_code,
            delay_ms=combined.delay_ms + fault.delay_ms,
            drop=combined.drop or fault.drop,
            topic=first.topic,
        )
    return combined


def api_names(api: Apis) -> frozenset[str] | None:
    """The names of APIs, checked; None for any API."""
    if api is None:
        return None
    names = frozenset((api,) if isinstance(api, str) else api)
    for name in names:
        if name not in BY_NAME:
            near = did_you_mean(name, BY_NAME) or f" The APIs are {', '.join(BY_NAME)}."
            raise ValueError(f"{name!r} is no API that Ottla serves.{near}")
    return names


def error_code(error: str | int) -> int:
    """The number of an error of Kafka's, given by name or number."""
    try:
        code = ErrorCode[error.lower()] if isinstance(error, str) else ErrorCode(error)
    except (KeyError, ValueError):
        code = ErrorCode.none
    if code == ErrorCode.none:
        names = [each.name.upper() for each in ErrorCode if each != ErrorCode.none]
        near = did_you_mean(error, names) if isinstance(error, str) else ""
        raise ValueError(f"{error!r} is no error of Kafka's.{near or ' An example is NOT_ENOUGH_REPLICAS.'}")
    return int(code)


def _checked(times: int | None) -> int | None:
    if times is not None and times < 1:
        raise ValueError(f"times={times}: a fault applies once at least")
    return times


def topics_of(request: Any, topic_name: Callable[[UUID], str | None]) -> Iterator[str]:
    """The names of the topics that a decoded request of any API mentions."""
    for attribute in TOPIC_LISTS:
        for element in getattr(request, attribute, None) or ():
            name = element_name(element, topic_name)
            if name is not None:
                yield name
    for attribute in _NESTED_LISTS:
        for nested in getattr(request, attribute, None) or ():
            yield from topics_of(nested, topic_name)


def plain_fields(request: Any) -> dict[str, object]:
    """The outermost fields of a decoded request that are plain values."""
    fields: dict[str, object] = request._asdict()
    plain = str | int | float | UUID | None
    return {name: value for name, value in fields.items() if isinstance(value, plain)}
