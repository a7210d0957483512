"""What clients have sent of their metrics: the last value of each, until they have been quiet for long.

A push is OpenTelemetry's ``MetricsData``. Names and labels become such as Prometheus takes. Clients send how
much sums have grown since (KIP-714 has brokers ask for that), so that is added up here. Of a histogram count
and sum are kept. All that a client chooses is bounded: names, labels, and how many of them.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator, Mapping
from sys import getsizeof
from typing import Final, NamedTuple, final
from uuid import UUID

from ottla.telemetry.otlp import Reader
from ottla.text import id_text

# Clients whose values are kept, values of one client, and of all together: most take 500 to 1,000 bytes.
SENDERS_MAX: Final = 5_000
VALUES_OF_ONE_MAX: Final = 2_000
VALUES_MAX: Final = 50_000
# Different names of metrics; Java's clients have some 200.
NAMES_MAX: Final = 5_000
# What all values take in memory, which whoever makes up long labels would have be ten times as much.
BYTES_MAX: Final = 64 * 1024 * 1024
# Characters of a name or a label's value, and labels of one value beside those that name the client.
TEXT_MAX: Final = 200
LABELS_MAX: Final = 8
# Fields of a push that are read in one step, which is a millisecond or two; one value may be on top.
FIELDS_AT_ONCE: Final = 1_000
# A value's place in two tables and a set, without its texts; and a client's.
_VALUE_BYTES: Final = 400
_PAIR_BYTES: Final = 64
# What the names of Kafka's own metrics for clients begin with, and what these begin with here.
_THEIR_PREFIX: Final = "org.apache.kafka."
PREFIX: Final = "kafka_client_"
# Labels that say which client it is.
_OWN_LABELS: Final = ("client_id", "client_instance_id", "client_software_name", "client_software_version")
_ODD: Final = re.compile(r"[^a-zA-Z0-9_]")

Labels = tuple[tuple[str, str], ...]
# Whose value it is, and its own labels.
Key = tuple[UUID, Labels]


class Sample(NamedTuple):
    """One value of one client; ``labels`` name the client as well."""

    labels: Labels
    value: float


@final
class _Sender:
    __slots__ = ("bytes", "expires_ms", "keys", "labels", "shown_bytes")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.expires_ms = 0
        # What it and its values take; and what its labels take wherever one of these is shown.
        self.bytes = _bytes_of(labels)
        self.shown_bytes = sum(len(text.encode("utf-8", "replace")) for _, text in labels)
        # The names and keys of its values.
        self.keys: set[tuple[str, Key]] = set()


@final
class Received:
    """The values of all clients, by the metric's name."""

    __slots__ = ("_senders", "_values", "bytes", "count", "dropped", "pushes")

    def __init__(self) -> None:
        self._values: dict[str, dict[Key, float]] = {}
        # The quietest first.
        self._senders: OrderedDict[UUID, _Sender] = OrderedDict()
        # How many values are kept; what was sent so far, and what of it was not kept since it was too much.
        self.count = 0
        # And what they take in memory.
        self.bytes = 0
        self.pushes = 0
        self.dropped = 0

    @property
    def names(self) -> list[str]:
        """The names of all metrics of which there is a value, `NAMES_MAX` at most."""
        return sorted(self._values)

    def samples(self, name: str) -> Iterator[Sample]:
        """The values of one metric. Whoever pauses in between may miss some."""
        for (instance_id, labels), value in list(self._values.get(name, {}).items()):
            sender = self._senders.get(instance_id)
            if sender is not None:
                yield Sample(sender.labels + labels, value)

    def take(
        self, instance_id: UUID, attributes: Mapping[str, str | None], metrics: bytes, expires_ms: int
    ) -> Generator[None, None, None]:
        """Keep what a client has sent until then, with a pause after each `FIELDS_AT_ONCE` of it.

        Malformed: what came before is kept."""
        self.pushes += 1
        sender = self._sender(instance_id, attributes, expires_ms)
        reader, paused_at = Reader(metrics), 0
        for point in reader.values():
            if reader.fields - paused_at >= FIELDS_AT_ONCE:
                paused_at = reader.fields
                yield
                if self._senders.get(instance_id) is not sender:
                    # It was forgotten meanwhile, others having sent too much.
                    return
            if point is None:
                continue
            name = _name(point.name)
            # A sum that has become none would stay none.
            if name is not None and (not point.adds or math.isfinite(point.value)):
                key = (instance_id, _labels(point.attributes))
                self._put(sender, name, key, point.value, point.adds)

    def forget_expired(self, now_ms: int) -> bool:
        """Let go of a client that has sent nothing for long; False where there is none."""
        quietest = next(iter(self._senders), None)
        if quietest is None or self._senders[quietest].expires_ms > now_ms:
            return False
        self._drop(quietest)
        return True

    def _sender(self, instance_id: UUID, attributes: Mapping[str, str | None], expires_ms: int) -> _Sender:
        sender = self._senders.get(instance_id)
        if sender is None:
            own = {**attributes, "client_instance_id": id_text(instance_id)}
            texts = ((name, own.get(name)) for name in _OWN_LABELS)
            labels = tuple((name, text[:TEXT_MAX]) for name, text in texts if text)
            sender = self._senders[instance_id] = _Sender(labels)
            self.bytes += sender.bytes
            if len(self._senders) > SENDERS_MAX:
                self._drop(next(iter(self._senders)))
        sender.expires_ms = expires_ms
        self._senders.move_to_end(instance_id)
        return sender

    def _put(self, sender: _Sender, name: str, key: Key, value: float, adds: bool) -> None:
        place = (name, key)
        if place not in sender.keys:
            size = _VALUE_BYTES + getsizeof(name) + _bytes_of(key[1]) + sender.shown_bytes
            if len(sender.keys) >= VALUES_OF_ONE_MAX or not self._has_room(sender, name, size):
                self.dropped += 1
                return
            sender.keys.add(place)
            self._values.setdefault(name, {})[key] = value
            self.count += 1
            sender.bytes += size
            self.bytes += size
            return
        values = self._values[name]
        values[key] = values[key] + value if adds else value

    def _has_room(self, sender: _Sender, name: str, size: int) -> bool:
        """Whether there is room for another value, if need be in place of those of who is quietest."""
        while (
            self.count >= VALUES_MAX
            or self.bytes + size > BYTES_MAX
            or (len(self._values) >= NAMES_MAX and name not in self._values)
        ):
            quietest = next(iter(self._senders))
            if self._senders[quietest] is sender:
                return False
            self._drop(quietest)
        return True

    def _drop(self, instance_id: UUID) -> None:
        sender = self._senders.pop(instance_id)
        self.count -= len(sender.keys)
        self.bytes -= sender.bytes
        for name, key in sender.keys:
            values = self._values[name]
            del values[key]
            if not values:
                del self._values[name]


def _bytes_of(labels: Labels) -> int:
    """What labels take in memory, about: their texts, of which a character may take four bytes."""
    return sum(_PAIR_BYTES + getsizeof(name) + getsizeof(text) for name, text in labels)


def _name(text: str) -> str | None:
    """A metric's name here; None for one that has none, or is too long."""
    if not text or len(text) > TEXT_MAX:
        return None
    return PREFIX + _ODD.sub("_", text.removeprefix(_THEIR_PREFIX))


def _labels(attributes: Iterable[tuple[str, str]]) -> Labels:
    """The labels of a value, in order: those that name the client are not the value's to say."""
    found: dict[str, str] = {}
    for key, text in attributes:
        if len(found) >= LABELS_MAX:
            break
        name = _ODD.sub("_", key[:TEXT_MAX])
        if name and text and not name[0].isdigit() and not name.startswith("__") and name not in _OWN_LABELS:
            found[name] = text[:TEXT_MAX]
    return tuple(sorted(found.items()))
