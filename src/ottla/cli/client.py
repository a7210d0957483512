"""The cluster as the commands see it: confluent-kafka, its errors made plain, and no wait without an end.

confluent-kafka is imported when the first client is made, not before.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from ottla.cli.client_properties import client_properties
from ottla.cli.errors import CliError, ExitCode
from ottla.cli.positions import Kind, Position
from ottla.cli.values import is_host, shown
from ottla.numbers import parse_whole
from ottla.types import TopicPartition

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Producer
    from confluent_kafka.admin import AdminClient

T = TypeVar("T")

PORT_DEFAULT = 9092
PORT_MAX = 65535
CONNECT_TIMEOUT_S = 4.0
REQUEST_TIMEOUT_S = 30.0
# Between two tries of what a new leader cannot say yet.
RETRY_STEP_S = 0.1

NOT_FOUND = frozenset(
    (
        "UNKNOWN_TOPIC_OR_PART",
        "UNKNOWN_TOPIC_ID",
        "GROUP_ID_NOT_FOUND",
        "_UNKNOWN_TOPIC",
        "_UNKNOWN_PARTITION",
    )
)
UNREACHABLE = frozenset(("_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_RESOLVE", "_TIMED_OUT_QUEUE"))

# What to do about an error, where the broker's own words do not say.
ADVICE = {
    "NON_EMPTY_GROUP": "stop its consumers first",
    "UNKNOWN_TOPIC_OR_PART": "see 'ottla topic list'",
    "GROUP_ID_NOT_FOUND": "see 'ottla group list'",
    "INVALID_REPLICATION_FACTOR": "ask for no more replicas than there are brokers",
    "TOPIC_ALREADY_EXISTS": "pick another name, or give --if-not-exists",
    "MSG_SIZE_TOO_LARGE": "the topic's max.message.bytes limits a message, and a batch of them",
    "_MSG_TIMED_OUT": "the broker did not take it in time",
    "INVALID_RECORD": "a compacted topic takes only messages with keys: give --key or --key-separator",
}


def admin_api() -> Any:
    """confluent_kafka.admin, as Any: it does not export its names in the way that a strict check asks for."""
    return import_module("confluent_kafka.admin")


def explain(error: KafkaError, what: str) -> CliError:
    """The error for the user when ``what`` (a topic, a group, an action) failed."""
    name = error.name()
    text = error.str().strip().rstrip(".").removeprefix("Broker: ") or name
    if name in UNREACHABLE:
        return CliError(
            f"{what}: the broker did not answer ({text}); is it still running?", ExitCode.UNREACHABLE
        )
    advice = ADVICE.get(name)
    # The broker's message often begins with what it is about, and says it better.
    subject = "" if text.lower().startswith(what.lower()) else f"{what}: "
    code = ExitCode.FAILED
    if name in NOT_FOUND:
        code = ExitCode.NOT_FOUND
    elif name == "TOPIC_ALREADY_EXISTS":
        code = ExitCode.EXISTS
    return CliError(subject + text + (f" ({advice})" if advice else ""), code)


def parse_bootstrap(bootstrap: str) -> list[tuple[str, int]]:
    """The addresses of a bootstrap list; CliError (usage) where one is malformed."""
    addresses = []
    for part in filter(None, (part.strip() for part in bootstrap.split(","))):
        host, colon, port = part.rpartition("://")[2].rpartition(":")
        if not colon or port.endswith("]"):
            host, port = f"{host}{colon}{port}", str(PORT_DEFAULT)
        number = parse_whole(port, 1, PORT_MAX)
        if number is None or not is_host(host):
            raise CliError(
                f"--bootstrap {shown(part)}: give HOST:PORT, such as 127.0.0.1:9092", ExitCode.USAGE
            )
        addresses.append((host.strip("[]"), number))
    if not addresses:
        raise CliError("--bootstrap: give HOST:PORT, such as 127.0.0.1:9092", ExitCode.USAGE)
    return addresses


def _probe(addresses: Iterable[tuple[str, int]], deadline_s: float) -> str | None:
    """None once one address accepts a connection, else why the last one did not."""
    reason = "no address"
    for address in addresses:
        try:
            left_s = max(0.1, deadline_s - time.monotonic())
            socket.create_connection(address, timeout=left_s).close()
            return None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
    return reason


class Cluster:
    """One cluster, reached from its bootstrap list. Clients are made as a command asks for them."""

    def __init__(self, bootstrap: str, properties: Iterable[str] | None = None) -> None:
        self.bootstrap = bootstrap
        # Client properties as they were given.
        self.given = list(properties or ())
        self._properties = client_properties(self.given)
        self._addresses = parse_bootstrap(bootstrap)
        self._admin: AdminClient | None = None
        self._metadata: Any = None

    def _settings(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        quiet = {
            "bootstrap.servers": self.bootstrap,
            "client.id": "ottla-cli",
            "log_level": 0,
            "error_cb": lambda error: None,
        }
        return {**quiet, **extra, **self._properties}

    def _make(self, factory: Callable[[dict[str, Any]], T], extra: Mapping[str, Any]) -> T:
        from confluent_kafka import KafkaException

        try:
            return factory(self._settings(extra))
        except KafkaException as error:
            raise CliError(f"--property: {error.args[0].str()}", ExitCode.USAGE) from None

    def connect(self) -> Cluster:
        """Find out within five seconds whether a broker answers, and load the metadata.

        A plain connection first: it fails at once where nothing listens, where librdkafka would keep trying.
        """
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        deadline_s = time.monotonic() + CONNECT_TIMEOUT_S
        if reason := _probe(self._addresses, deadline_s):
            raise CliError(
                f"cannot reach a broker at {self.bootstrap}: {reason}. "
                "Start one with 'ottla serve', or name another with --bootstrap HOST:PORT.",
                ExitCode.UNREACHABLE,
            )
        self._admin = self._make(AdminClient, {"socket.connection.setup.timeout.ms": 5000})
        try:
            self._metadata = self._admin.list_topics(timeout=max(1.0, deadline_s - time.monotonic()))
        except KafkaException as error:
            raise CliError(
                f"{self.bootstrap} accepts connections but does not answer as a Kafka broker "
                f"({error.args[0].str()}); check the port and the security properties (-X).",
                ExitCode.UNREACHABLE,
            ) from None
        return self

    def refresh(self) -> None:
        """Load the metadata again."""
        from confluent_kafka import KafkaException

        try:
            self._metadata = self.admin.list_topics(timeout=CONNECT_TIMEOUT_S)
        except KafkaException as error:
            raise explain(error.args[0], "metadata") from None

    @property
    def admin(self) -> AdminClient:
        assert self._admin is not None, "connect() comes first"
        return self._admin

    @property
    def metadata(self) -> Any:
        """As it was when the command connected, or last refreshed."""
        assert self._metadata is not None, "connect() comes first"
        return self._metadata

    @property
    def never_reached(self) -> bool:
        """Whether no broker has answered yet."""
        return self._metadata is None

    def controller(self) -> tuple[str, int]:
        """Where the controller listens, or any broker where there is none."""
        brokers = self.metadata.brokers
        broker = brokers.get(self.metadata.controller_id) or next(iter(brokers.values()))
        return broker.host, broker.port

    def producer(self, **properties: Any) -> Producer:
        """A producer; keyword names are librdkafka properties with '_' for '.'."""
        from confluent_kafka import Producer

        return self._make(Producer, {name.replace("_", "."): value for name, value in properties.items()})

    def consumer(self, *, stats: Callable[[str], None] | None = None, **properties: Any) -> Consumer:
        """A consumer; keyword names are librdkafka properties with '_' for '.'.

        ``stats`` is given librdkafka's statistics, as JSON, while the consumer is polled.
        """
        from confluent_kafka import Consumer

        named = {name.replace("_", "."): value for name, value in properties.items()}
        return self._make(Consumer, named if stats is None else {**named, "stats_cb": stats})

    def topic(self, name: str) -> Any:
        """The topic's metadata; CliError (not found) where there is no such topic."""
        topic = self.metadata.topics.get(name)
        if topic is None:
            raise CliError(f"topic {name!r} does not exist; see 'ottla topic list'", ExitCode.NOT_FOUND)
        if topic.error is not None:
            raise explain(topic.error, f"topic {name!r}")
        return topic

    def partitions(self, name: str, chosen: Iterable[int] | None = None) -> list[TopicPartition]:
        """All partitions of a topic, or the chosen ones; CliError (not found) where one does not exist."""
        known = sorted(self.topic(name).partitions)
        wanted = sorted(set(chosen)) if chosen else known
        for partition in wanted:
            if partition not in known:
                raise CliError(
                    f"topic {name!r} has no partition {partition}: it has {len(known)}, from 0",
                    ExitCode.NOT_FOUND,
                )
        return [TopicPartition(name, partition) for partition in wanted]

    def wait(self, future: Future[T], what: str) -> T:
        """An admin call's result, its error made plain."""
        from confluent_kafka import KafkaException

        try:
            return future.result(REQUEST_TIMEOUT_S + 1)
        except KafkaException as error:
            raise explain(error.args[0], what) from None
        except TimeoutError:
            raise CliError(f"{what}: the broker did not answer in time", ExitCode.UNREACHABLE) from None

    def outcomes(
        self, kind: str, futures: Mapping[str, Future[Any]], result: str, forgiven: Mapping[ExitCode, str]
    ) -> tuple[list[tuple[str, str]], list[CliError]]:
        """(name and result of what went through, errors of what did not) of an admin call for several things.

        Errors with a code in ``forgiven`` count as gone through, with the result given there.
        """
        done, errors = [], []
        for name, future in futures.items():
            try:
                self.wait(future, f"{kind} {name!r}")
                done.append((name, result))
            except CliError as error:
                if error.code in forgiven:
                    done.append((name, forgiven[error.code]))
                else:
                    errors.append(error)
        return done, errors

    def offsets(self, partitions: Iterable[TopicPartition], position: Position) -> dict[TopicPartition, int]:
        """The offset of each partition at a position.

        Where no record is as new as a time, that is the end. Offsets are cut to what the log holds.
        """
        spec = admin_api().OffsetSpec
        wanted = list(partitions)
        if position.kind is Kind.BEGINNING:
            return self._list_offsets(wanted, spec.earliest())
        ends = self._list_offsets(wanted, spec.latest())
        if position.kind is Kind.END:
            return ends
        if position.kind is Kind.TIME:
            found = self._list_offsets(wanted, spec.for_timestamp(position.value))
            return {key: ends[key] if offset < 0 else offset for key, offset in found.items()}
        starts = self._list_offsets(wanted, spec.earliest())
        tail = position.kind is Kind.TAIL
        return {
            key: max(starts[key], min(end, end - position.value if tail else position.value))
            for key, end in ends.items()
        }

    def _list_offsets(self, partitions: list[TopicPartition], spec: Any) -> dict[TopicPartition, int]:
        from confluent_kafka import TopicPartition as ClientPartition

        result: dict[TopicPartition, int] = {}
        deadline_s = time.monotonic() + REQUEST_TIMEOUT_S
        missing = partitions
        while missing:
            futures = self.admin.list_offsets(
                {ClientPartition(topic, partition): spec for topic, partition in missing},
                request_timeout=REQUEST_TIMEOUT_S,
            )
            for key, future in futures.items():
                name = TopicPartition(key.topic, key.partition)
                if not (_is_too_early(future) and time.monotonic() < deadline_s):
                    result[name] = self.wait(future, f"offsets of {name}").offset
            missing = [partition for partition in partitions if partition not in result]
            if missing:
                time.sleep(RETRY_STEP_S)
        return {partition: result[partition] for partition in partitions}


def _is_too_early(future: Future[Any]) -> bool:
    """Whether a leader that is new does not know yet what is committed; librdkafka does not ask again."""
    from confluent_kafka import KafkaError, KafkaException

    try:
        error = future.exception(REQUEST_TIMEOUT_S + 1)
    except TimeoutError:
        return False
    return isinstance(error, KafkaException) and error.args[0].code() == KafkaError.OFFSET_NOT_AVAILABLE


def connect(bootstrap: str, properties: Iterable[str] | None = None) -> Cluster:
    """A cluster that has answered once."""
    return Cluster(bootstrap, properties).connect()
