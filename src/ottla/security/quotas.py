"""How much clients may use of a node: bytes, time, changes to the metadata (Kafka's ``ClientQuotaManager``).

Of the quotas that fit a user and client id the first one of this order holds:

1. the user and the client id, 2. the user and any client id, 3. the user,
4. any user and the client id, 5. any user and any client id, 6. any user,
7. the client id, 8. any client id.

Those with one of 3 or 6 share what their users have; 7 and 8 what their client ids have; of the others each
pair has its own. Where all quotas of a kind are of users, client ids do not count, and the other way round.

A node that has no quota of a kind does nothing for its requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from enum import Enum
from hashlib import sha256
from typing import Final, Generic, NamedTuple, TypeVar, final

from ottla.security.acl_bindings import address_of
from ottla.security.quota_entities import (
    CLIENT_ID,
    CONNECTION_CREATION_RATE,
    CONSUMER_BYTE_RATE,
    CONTROLLER_MUTATION_RATE,
    IP,
    PRODUCER_BYTE_RATE,
    REQUEST_PERCENTAGE,
    USER,
    Entity,
)
from ottla.security.rates import Rate, TokenBucket, Window

# Nobody is remembered who has not been there for so long (Kafka's INACTIVE_SENSOR_EXPIRATION_TIME).
IDLE_MS_MAX = 3_600_000
# How often is looked for those.
SWEPT_EVERY_MS = 60_000
# Whose use is remembered, for each kind of quota; beyond that who came first is forgotten.
MEASURED_MAX = 50_000
# Users with client ids for which it is remembered what holds; others are looked up each time.
KNOWN_MAX = 10_000
KNOWN_NAME_MAX = 256

# Entities whose quotas change at once: some microseconds each.
CHANGED_AT_ONCE = 500
# Entities that may have changed.
COMPARED_AT_ONCE = 5_000

T = TypeVar("T", Rate, TokenBucket)


class _Unnamed(Enum):
    """What an entity has in place of a name."""

    DEFAULT = "anybody"
    NONE = "nobody"


_DEFAULT: Final = _Unnamed.DEFAULT
_NONE: Final = _Unnamed.NONE
_Part = str | _Unnamed
_Key = tuple[_Part, _Part]


def _part(names: Mapping[str, str | None], kind: str) -> _Part:
    if kind not in names:
        return _NONE
    name = names[kind]
    return _DEFAULT if name is None else name


class _Limits:
    """The quotas of one kind, and which one holds for whom."""

    __slots__ = ("_by_entity", "_clients", "_pairs", "_users")

    def __init__(self) -> None:
        self._by_entity: dict[_Key, float] = {}
        # How many of them are of users alone, of client ids alone, and of both.
        self._users = self._clients = self._pairs = 0

    def __len__(self) -> int:
        return len(self._by_entity)

    def change(self, key: _Key, limit: float | None) -> None:
        """Have a quota, or, where it is None, have it no more."""
        was = key in self._by_entity
        if limit is not None:
            self._by_entity[key] = limit
        elif was:
            del self._by_entity[key]
        more = (limit is not None) - was
        if key[1] is _NONE:
            self._users += more
        elif key[0] is _NONE:
            self._clients += more
        else:
            self._pairs += more

    def holding(self, user: str, client_id: str) -> tuple[tuple[str, str], float] | None:
        """By which names it is told who shares what is used with this client, and the quota; None where none
        holds (``DefaultQuotaCallback``)."""
        shared = self._shared(user, client_id)
        for key in _wanted(*shared):
            limit = self._by_entity.get(key)
            if limit is not None:
                return shared, limit
        return None

    def _shared(self, user: str, client_id: str) -> tuple[str, str]:
        if not self._users and not self._pairs:
            return "", client_id
        if not self._clients and not self._pairs:
            return user, ""
        if not self._users and not self._clients:
            return user, client_id
        for key, by_user_alone in (
            ((user, client_id), False),
            ((user, _DEFAULT), False),
            ((user, _NONE), True),
            ((_DEFAULT, client_id), False),
            ((_DEFAULT, _DEFAULT), False),
            ((_DEFAULT, _NONE), True),
        ):
            if key in self._by_entity:
                return user, "" if by_user_alone else client_id
        return "", client_id


def _wanted(user: str, client_id: str) -> tuple[_Key, ...]:
    """Entities whose quota may hold, the first first; a name that is empty is none."""
    if user and client_id:
        return (user, client_id), (user, _DEFAULT), (_DEFAULT, client_id), (_DEFAULT, _DEFAULT)
    if user:
        return (user, _NONE), (_DEFAULT, _NONE)
    if client_id:
        return (_NONE, client_id), (_NONE, _DEFAULT)
    return ()


def _shortened(name: str) -> str:
    """What stands for a name where it is remembered for long: a client may be called by 32,767 bytes, and by
    others in its next request."""
    if len(name) <= KNOWN_NAME_MAX:
        return name
    return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


@final
class _Measured(Generic[T]):
    """What those have used that share a quota."""

    __slots__ = ("limit", "seen_ms", "use")

    def __init__(self, use: T, limit: float, now_ms: int) -> None:
        self.use: T = use
        self.limit = limit
        self.seen_ms = now_ms


class _Quota(Generic[T]):
    """Quotas of one kind, and what is used of them."""

    __slots__ = ("_key", "_known", "_limits", "_make", "_measured", "_swept_ms", "is_set")

    def __init__(self, key: str, make: Callable[[float, int], T]) -> None:
        """``key``: the quota's name; ``make``: what measures the use of one, given its limit and the time."""
        self._key = key
        self._make: Callable[[float, int], T] = make
        self._limits = _Limits()
        self._measured: dict[tuple[str, str], _Measured[T]] = {}
        self._known: dict[tuple[str, str], _Measured[T] | None] = {}
        self._swept_ms = 0
        # Whether anybody has such a quota: whoever works for each request asks this first.
        self.is_set = False

    def change(self, entity: Entity, values: Mapping[str, float]) -> None:
        """Have these quotas of an entity from now on. What was used already counts."""
        names = entity.names
        if IP in names:
            return
        limit = values.get(self._key)
        self._limits.change(
            (_part(names, USER), _part(names, CLIENT_ID)), None if limit is None else float(limit)
        )
        self.is_set = len(self._limits) > 0
        self._known.clear()
        if not self.is_set:
            self._measured.clear()

    def find(self, user: str, client_id: str, now_ms: int) -> _Measured[T] | None:
        """The use of the quota that holds for a client; None where none does."""
        key = (user, client_id)
        found = self._known.get(key)
        if found is None and key not in self._known:
            found = self._look_up(user, client_id, now_ms)
            if len(user) + len(client_id) <= KNOWN_NAME_MAX:
                if len(self._known) >= KNOWN_MAX:
                    self._known.clear()
                self._known[key] = found
        if found is not None:
            found.seen_ms = now_ms
        return found

    def _look_up(self, user: str, client_id: str, now_ms: int) -> _Measured[T] | None:
        holding = self._limits.holding(user, client_id)
        if holding is None:
            return None
        names, limit = holding
        shared = _shortened(names[0]), _shortened(names[1])
        found = self._measured.get(shared)
        if found is None:
            self._make_room(now_ms)
            found = self._measured[shared] = _Measured(self._make(limit, now_ms), limit, now_ms)
        found.limit = limit
        return found

    def _make_room(self, now_ms: int) -> None:
        if now_ms - self._swept_ms >= SWEPT_EVERY_MS or len(self._measured) >= MEASURED_MAX:
            self._swept_ms = now_ms
            idle = [key for key, one in self._measured.items() if now_ms - one.seen_ms >= IDLE_MS_MAX]
            if not idle and len(self._measured) >= MEASURED_MAX:
                idle = [next(iter(self._measured))]
            for key in idle:
                del self._measured[key]
            if idle:
                self._known.clear()

    def __len__(self) -> int:
        return len(self._measured)


@final
class RateQuota(_Quota[Rate]):
    """A quota of something per second."""

    __slots__ = ("_throttle_ms_max", "_window")

    def __init__(self, key: str, window: Window, *, throttle_ms_max: int | None = None) -> None:
        super().__init__(key, lambda limit, now_ms: Rate(window))
        self._window = window
        self._throttle_ms_max = throttle_ms_max

    def record(self, user: str, client_id: str, value: float, now_ms: int) -> int:
        """A client has used so much: for how many milliseconds it must be throttled."""
        if not self.is_set:
            return 0
        found = self.find(user, client_id, now_ms)
        if found is None:
            return 0
        found.use.record(value, now_ms)
        return self._throttle_ms(found, now_ms)

    def throttle_ms(self, user: str, client_id: str, now_ms: int) -> int:
        """For how many milliseconds a client must be throttled by what it has used so far."""
        found = self.find(user, client_id, now_ms) if self.is_set else None
        return 0 if found is None else self._throttle_ms(found, now_ms)

    def _throttle_ms(self, found: _Measured[Rate], now_ms: int) -> int:
        throttle_ms = found.use.throttle_ms(found.limit, now_ms)
        return throttle_ms if self._throttle_ms_max is None else min(throttle_ms, self._throttle_ms_max)

    def unrecord(self, user: str, client_id: str, value: float, now_ms: int) -> None:
        """A client has not used that after all: it is throttled instead of being given it."""
        if self.is_set and (found := self.find(user, client_id, now_ms)) is not None:
            found.use.record(-value, now_ms)

    def value_max(self, user: str, client_id: str, now_ms: int) -> float:
        """The most that a client can be given at once without being throttled for ever."""
        found = self.find(user, client_id, now_ms) if self.is_set else None
        if found is None:
            return float("inf")
        return found.limit * (self._window.samples - 1) * self._window.sample_ms / 1000


@final
class MutationQuota(_Quota[TokenBucket]):
    """The quota of changes to the metadata, which partitions are counted of (KIP-599)."""

    __slots__ = ()

    def __init__(self, window: Window) -> None:
        super().__init__(CONTROLLER_MUTATION_RATE, lambda limit, now_ms: TokenBucket(window, limit, now_ms))

    def of(self, user: str, client_id: str, now_ms: int, *, strict: bool) -> Mutations | None:
        """What one request of a client may change; None: as much as it likes. ``strict``: more than that is
        refused, as versions of requests ask for that know THROTTLING_QUOTA_EXCEEDED."""
        found = self.find(user, client_id, now_ms) if self.is_set else None
        return None if found is None else Mutations(found, strict)


@final
class Mutations:
    """The changes of one request (Kafka's ``ControllerMutationQuota``)."""

    __slots__ = ("_at_ms", "_bucket", "_strict", "_throttle_ms")

    def __init__(self, bucket: _Measured[TokenBucket], strict: bool) -> None:
        self._bucket = bucket
        self._strict = strict
        self._throttle_ms = 0
        self._at_ms = 0

    def take(self, partitions: int, now_ms: int) -> bool:
        """Whether so many partitions may be made or deleted now; otherwise THROTTLING_QUOTA_EXCEEDED. As long
        as there is no debt, more may be taken than there is."""
        bucket, limit = self._bucket.use, self._bucket.limit
        if not self._strict:
            bucket.take(partitions, limit, now_ms)
        throttle_ms = bucket.throttle_ms(limit, now_ms)
        if throttle_ms > 0:
            self._throttle_ms, self._at_ms = throttle_ms, now_ms
            return not self._strict
        if self._strict:
            bucket.take(partitions, limit, now_ms)
        return True

    def throttle_ms(self, now_ms: int) -> int:
        """For how long the client is to be throttled still."""
        return max(0, self._throttle_ms - (now_ms - self._at_ms)) if self._throttle_ms else 0


class Entrance(NamedTuple):
    """What becomes of a connection. ``wait_ms``: for how long no other is to be taken from this listener
    (KIP-402); ``refuse_ms``: it is one too many of its address, to be closed after so long (KIP-612)."""

    wait_ms: int
    refuse_ms: int


@final
class ConnectionRates:
    """How many connections are taken each second: by the node, by a listener, from an address."""

    __slots__ = (
        "_addresses",
        "_limits",
        "_listeners",
        "_node",
        "_swept_ms",
        "_window",
        "listener_limits",
        "node_limit",
    )

    def __init__(self, window: Window) -> None:
        self._window = window
        # ``max.connection.creation.rate`` of the node, and of listeners that have their own; None: any.
        self.node_limit: float | None = None
        self.listener_limits: dict[str, float] = {}
        self._node = Rate(window)
        self._listeners: dict[str, Rate] = {}
        # By address; under None what holds for all that have no limit of their own.
        self._limits: dict[str | None, float] = {}
        self._addresses: dict[str, _Measured[Rate]] = {}
        self._swept_ms = 0

    @property
    def is_set(self) -> bool:
        """Whether there is any limit: whoever takes connections asks this first."""
        return self.node_limit is not None or bool(self.listener_limits) or bool(self._limits)

    def change(self, entity: Entity, values: Mapping[str, float]) -> None:
        """Have these quotas of an address from now on."""
        names = entity.names
        if IP not in names:
            return
        address = names[IP]
        host = None if address is None else address_of(address)
        if host is None and address is not None:
            # It is of nobody, and least of all of everybody.
            return
        if CONNECTION_CREATION_RATE in values:
            self._limits[host] = float(values[CONNECTION_CREATION_RATE])
        else:
            self._limits.pop(host, None)
        if not self._limits:
            self._addresses.clear()

    def enter(self, listener: str, host: str, now_ms: int, *, protected: bool = False) -> Entrance:
        """A connection has come. ``protected``: by the listener of nodes, where clients have others: the
        node's own limit does not hold for it. ``host`` is as ``canonical_host``."""
        wait_ms = 0
        if self.node_limit is not None and not protected:
            self._node.record(1, now_ms)
            wait_ms = self._node.throttle_ms(self.node_limit, now_ms)
        limit = self.listener_limits.get(listener)
        if limit is not None:
            rate = self._listeners.setdefault(listener, Rate(self._window))
            rate.record(1, now_ms)
            wait_ms = max(wait_ms, rate.throttle_ms(limit, now_ms))
        refuse_ms = self._refuse_ms(host, now_ms) if self._limits else 0
        if refuse_ms:
            # It is not taken, and so does not count.
            if self.node_limit is not None and not protected:
                self._node.record(-1, now_ms)
            if limit is not None:
                self._listeners[listener].record(-1, now_ms)
        return Entrance(min(wait_ms, self._window.sample_ms), refuse_ms)

    def _refuse_ms(self, host: str, now_ms: int) -> int:
        limit = self._limits.get(host, self._limits.get(None))
        if limit is None:
            return 0
        found = self._addresses.get(host)
        if found is None:
            self._make_room(now_ms)
            found = self._addresses[host] = _Measured(Rate(self._window), limit, now_ms)
        found.seen_ms = now_ms
        found.use.record(1, now_ms)
        throttle_ms = min(found.use.throttle_ms(limit, now_ms), self._window.sample_ms)
        if throttle_ms:
            found.use.record(-1, now_ms)
        return throttle_ms

    def _make_room(self, now_ms: int) -> None:
        window_ms = self._window.samples * self._window.sample_ms
        if now_ms - self._swept_ms >= SWEPT_EVERY_MS:
            self._swept_ms = now_ms
            idle = [host for host, one in self._addresses.items() if now_ms - one.seen_ms >= window_ms]
            for host in idle:
                del self._addresses[host]
        if len(self._addresses) >= MEASURED_MAX:
            del self._addresses[next(iter(self._addresses))]


def _in_force(values: Mapping[str, float]) -> Mapping[str, float]:
    """What is no number limits nothing."""
    return {key: math.inf if math.isnan(value) else value for key, value in values.items()}


@final
class Quotas:
    """All quotas of a node."""

    __slots__ = ("connections", "consumers", "mutations", "producers", "requests")

    def __init__(self, window: Window, mutation_window: Window) -> None:
        """``window``: ``quota.window.num`` and ``quota.window.size.seconds``; ``mutation_window``: those that
        begin with ``controller.``."""
        self.producers = RateQuota(PRODUCER_BYTE_RATE, window)
        self.consumers = RateQuota(CONSUMER_BYTE_RATE, window)
        # In percent of a second of CPU: 100 is a whole core. No wait is longer than a sample.
        self.requests = RateQuota(REQUEST_PERCENTAGE, window, throttle_ms_max=window.sample_ms)
        self.mutations = MutationQuota(mutation_window)
        self.connections = ConnectionRates(window)

    def follow(
        self, old: Mapping[Entity, Mapping[str, float]], new: Mapping[Entity, Mapping[str, float]]
    ) -> Generator[None, None, None]:
        """Have the ``new`` quotas in place of the ``old`` ones, in pieces."""
        nothing: Mapping[str, float] = {}
        changed: list[Entity] = []
        for count, (entity, quotas) in enumerate(new.items(), 1):
            if quotas is not old.get(entity):
                changed.append(entity)
            if count % COMPARED_AT_ONCE == 0:
                yield
        for count, entity in enumerate(old, 1):
            if entity not in new:
                changed.append(entity)
            if count % COMPARED_AT_ONCE == 0:
                yield
        for count, entity in enumerate(changed, 1):
            values = _in_force(new.get(entity, nothing))
            for kind in (self.producers, self.consumers, self.requests, self.mutations, self.connections):
                kind.change(entity, values)
            if count % CHANGED_AT_ONCE == 0:
                yield
