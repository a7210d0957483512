"""The clients that are asked for metrics, and what each may ask and send when: a pure machine.

Kafka's ``ClientMetricsManager`` and ``ClientMetricsInstance`` (KIP-714). A client is known by an id that it
was given by whichever broker it asked first. What is kept of it is its times and its last error, none of its
names: clients choose these, and there may be many.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, final
from uuid import UUID

from ottla.errors import ErrorCode, KafkaError
from ottla.telemetry.subscriptions import Asked, Subscription, asked_of, subscription_of
from ottla.text import id_text
from ottla.wire.compression import Codec

# The clients that are known, of which those are forgotten that have been quiet for longest.
INSTANCES_MAX: Final = 16_384
# How long a client is known that says nothing, at least, and for how many of its intervals.
KNOWN_MS_MIN: Final = 60_000
KNOWN_INTERVALS: Final = 3
# Ids that mean something else (Kafka's Uuid.RESERVED).
RESERVED: Final = frozenset((UUID(int=0), UUID(int=1)))
# The codecs that clients are offered, the best first.
ACCEPTED_CODECS: Final = (Codec.ZSTD, Codec.LZ4, Codec.GZIP, Codec.SNAPPY)
_CODECS: Final = frozenset(Codec)
_NEVER_MS: Final = -(1 << 62)

# A client's attributes, by the names that subscriptions match; its id, which it may not have yet, aside.
Attributes = Mapping[str, str | None]


@final
class Instance:
    """One client, since it was first asked or since subscriptions have changed."""

    __slots__ = (
        "_forget", "asked", "expires_ms", "get_ms", "id", "last_error", "push_ms", "subscription_id",
        "terminating", "version",
    )  # fmt: skip

    def __init__(self, instance_id: UUID, asked: Asked, version: int, forget: Callable[[UUID], None]) -> None:
        self.id = instance_id
        self.asked = asked
        self.subscription_id = asked.id_for(instance_id)
        # Which subscriptions it was asked by.
        self.version = version
        self.get_ms = self.push_ms = _NEVER_MS
        self.expires_ms = 0
        # Whether it has said that it ends.
        self.terminating = False
        self.last_error = ErrorCode.none
        self._forget = forget

    def end(self) -> None:
        """Its connection is gone."""
        self._forget(self.id)

    def may_get(self, now_ms: int) -> bool:
        """Whether it asks no earlier than its interval has it, or has a reason to."""
        if now_ms - max(self.get_ms, self.push_ms) >= self.asked.interval_ms:
            self.get_ms = now_ms
            return True
        return self.last_error in (ErrorCode.unknown_subscription_id, ErrorCode.unsupported_compression_type)

    def may_push(self, now_ms: int) -> bool:
        """Whether it sends no earlier than its interval has it; the first after it asked comes at any time,
        since clients spread their sending."""
        if self.get_ms <= self.push_ms and now_ms - self.push_ms < self.asked.interval_ms:
            return False
        self.push_ms = now_ms
        return True


@final
class Instances:
    """All clients that this node asks for metrics."""

    def __init__(self, new_id: Callable[[], UUID]) -> None:
        """``new_id``: another random one each time."""
        self._new_id = new_id
        self._subscriptions: dict[str, Subscription] = {}
        # One more with each change of subscriptions.
        self._version = 0
        self._known: OrderedDict[UUID, Instance] = OrderedDict()
        # Requests that came too early, and that named subscriptions which are not (any more).
        self.throttled = self.unknown_subscriptions = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def is_subscribed(self) -> bool:
        """Whether any client is asked for anything."""
        return bool(self._subscriptions)

    def change(self, name: str, configs: Mapping[str, str] | None) -> None:
        """A subscription's configuration has changed; None or nothing of it: it is gone."""
        self._subscriptions.pop(name, None)
        made = subscription_of(configs) if configs else None
        if made is not None:
            self._subscriptions[name] = made
        self._version += 1

    def get(self, instance_id: UUID | None, attributes: Attributes, now_ms: int) -> Instance:
        """The client that asks what to send; without an id it is given one. THROTTLING_QUOTA_EXCEEDED where
        it asks too early."""
        if instance_id is None or not instance_id.int:
            instance_id = self._new_id()
            while instance_id in self._known:
                instance_id = self._new_id()
        one = self._instance(instance_id, attributes, now_ms)
        if not one.may_get(now_ms):
            self.throttled += 1
            raise KafkaError(ErrorCode.throttling_quota_exceeded)
        one.last_error = ErrorCode.none
        return one

    def push(self, request: Any, attributes: Attributes, bytes_max: int, now_ms: int) -> Instance:
        """The client that sends metrics, where it may. KafkaError says why not: INVALID_REQUEST,
        THROTTLING_QUOTA_EXCEEDED, UNKNOWN_SUBSCRIPTION_ID, UNSUPPORTED_COMPRESSION_TYPE, TELEMETRY_TOO_LARGE
        for more than ``bytes_max``."""
        instance_id = request.client_instance_id
        if instance_id is None or instance_id in RESERVED:
            raise KafkaError(ErrorCode.invalid_request)
        one = self._instance(instance_id, attributes, now_ms)
        error = self._refusal(one, request, bytes_max, now_ms)
        one.last_error = error
        one.terminating = request.terminating
        if error is not ErrorCode.none:
            raise KafkaError(error)
        return one

    def _refusal(self, one: Instance, request: Any, bytes_max: int, now_ms: int) -> ErrorCode:
        if one.terminating:
            return ErrorCode.invalid_request
        if not one.may_push(now_ms) and not request.terminating:
            self.throttled += 1
            return ErrorCode.throttling_quota_exceeded
        if request.subscription_id != one.subscription_id:
            self.unknown_subscriptions += 1
            return ErrorCode.unknown_subscription_id
        if request.compression_type not in _CODECS:
            return ErrorCode.unsupported_compression_type
        if request.metrics is not None and len(request.metrics) > bytes_max:
            return ErrorCode.telemetry_too_large
        return ErrorCode.none

    def _instance(self, instance_id: UUID, attributes: Attributes, now_ms: int) -> Instance:
        one = self._known.get(instance_id)
        if one is not None and one.expires_ms <= now_ms:
            self._forget(instance_id)
            one = None
        if one is None or one.version < self._version:
            known_by = {**attributes, "client_instance_id": id_text(instance_id)}
            asked = asked_of(self._subscriptions, known_by)
            one = self._known[instance_id] = Instance(instance_id, asked, self._version, self._forget)
        one.expires_ms = now_ms + max(KNOWN_MS_MIN, KNOWN_INTERVALS * one.asked.interval_ms)
        self._known.move_to_end(instance_id)
        if len(self._known) > INSTANCES_MAX:
            self._known.popitem(last=False)
        return one

    def forget_expired(self, now_ms: int, count_max: int = 100) -> None:
        """Let go of some that have said nothing for long, the quietest first."""
        for _ in range(min(count_max, len(self._known))):
            instance_id, one = next(iter(self._known.items()))
            if one.expires_ms > now_ms:
                return
            del self._known[instance_id]

    def _forget(self, instance_id: UUID) -> None:
        self._known.pop(instance_id, None)
