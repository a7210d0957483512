"""The cluster as the commands see it: confluent-kafka, its errors made plain, and no wait without an end.

confluent-kafka is imported when the first client is made, not before.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from ottla.addresses import parse_address
from ottla.cli.client_properties import BY_TOKEN, client_properties
from ottla.cli.errors import CliError, DeniedError, ExitCode
from ottla.cli.positions import Kind, Position
from ottla.cli.rights import KINDS, Right
from ottla.cli.values import is_host, shown
from ottla.types import TopicPartition

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Producer
    from confluent_kafka.admin import AdminClient

T = TypeVar("T")

PORT_DEFAULT = 9092
CONNECT_TIMEOUT_S = 4.0
REQUEST_TIMEOUT_S = 30.0
# Whoever is to be told why a login fails knows it by then.
FIRST_LOOK_S = 1.5
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

# What no other try mends: what a client is, or what it trusts, is not what the broker asks for.
REFUSED = frozenset(("_AUTHENTICATION", "_SSL"))
_BROKER = re.compile(r"^[a-z_]+://\S+: ")
_STATE = re.compile(r" \(after \d+ms in state [^()]*\)$")
# OpenSSL's number of an error, the library and the function.
_OPENSSL = re.compile(r"error:[0-9A-Fa-f]+:[^:]*:[^:]*:")
# What librdkafka says of a listener without SASL, which answers SaslHandshake with ILLEGAL_SASL_STATE.
_NO_LOGIN = "Request not valid in current SASL state"
_MAKING = re.compile(r"^Failed to create [a-z ]+: ")
_NO_FILE = re.compile(r"(ssl\.\S+) failed: ")
_NO_PROPERTY = re.compile(r'No such configuration property: "([^"]*)"')
# Properties of the readers and writers of Kafka's console clients, by how they begin, and what we have.
OF_CONSOLES = {
    ("parse.key", "key.separator"): "give --key-separator",
    ("parse.headers", "headers."): "give --header NAME=VALUE",
    ("print.key",): "give --key-separator, or --format",
    ("print.", "line.separator", "null.literal"): "give --format, or --json",
}
NO_RIGHT = "the user lacks a right: the broker's log says which, 'ottla acl add' gives it"

# What to do about an error, where the broker's own words do not say.
ADVICE = {
    "NON_EMPTY_GROUP": "stop its consumers first",
    "UNKNOWN_TOPIC_OR_PART": "see 'ottla topic list'",
    "GROUP_ID_NOT_FOUND": "see 'ottla group list'",
    "INVALID_REPLICATION_FACTOR": "ask for no more replicas than there are brokers",
    "TOPIC_ALREADY_EXISTS": "pick another name, or give --if-not-exists",
    "MSG_SIZE_TOO_LARGE": "the topic's max.message.bytes limits a message, and a batch of them",
    "_MSG_TIMED_OUT": "the broker did not take it in time",
    "TOPIC_AUTHORIZATION_FAILED": NO_RIGHT,
    "GROUP_AUTHORIZATION_FAILED": NO_RIGHT,
    "CLUSTER_AUTHORIZATION_FAILED": NO_RIGHT,
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": NO_RIGHT,
    "INVALID_RECORD": "a compacted topic takes only messages with keys: give --key or --key-separator",
}


def admin_api() -> Any:
    """confluent_kafka.admin, as Any: it does not export its names in the way that a strict check asks for."""
    return import_module("confluent_kafka.admin")


def explain(error: KafkaError, what: str, *rights: Right) -> CliError:
    """The error for the user when ``what`` (a topic, a group, an action) failed. ``rights``: those that it
    needs, of which the user lacks the one that the error is about."""
    name = error.name()
    text = _OPENSSL.sub("", error.str()).strip().rstrip(".").removeprefix("Broker: ") or name
    if name in UNREACHABLE:
        return CliError(
            f"{what}: the broker did not answer ({text}); is it still running?", ExitCode.UNREACHABLE
        )
    kind = KINDS.get(error.code())
    advice = next((str(right) for right in rights if right.kind == kind), ADVICE.get(name))
    # The broker's message often begins with what it is about, and says it better.
    subject = "" if text.lower().startswith(what.lower()) else f"{what}: "
    code = ExitCode.FAILED
    if name in NOT_FOUND:
        code = ExitCode.NOT_FOUND
    elif name == "TOPIC_ALREADY_EXISTS":
        code = ExitCode.EXISTS
    made = CliError if kind is None else DeniedError
    return made(subject + text + (f" ({advice})" if advice else ""), code)


def _of_property(error: KafkaError) -> str:
    """What librdkafka says of a client property, in our words."""
    text = error.str().strip()
    if found := _NO_PROPERTY.search(text):
        advice = next((text for names, text in OF_CONSOLES.items() if found[1].startswith(names)), None)
        return f"there is no client property {shown(found[1])}" + (f": {advice}" if advice else "")
    if found := _NO_FILE.search(text):
        return f"{found[1]}: the file cannot be read, or does not hold that in PEM"
    return _OPENSSL.sub("", _MAKING.sub("", text))


def parse_bootstrap(bootstrap: str) -> list[tuple[str, int]]:
    """The addresses of a bootstrap list; CliError (usage) where one is malformed."""
    addresses = []
    for part in filter(None, (part.strip() for part in bootstrap.split(","))):
        found = parse_address(part.rpartition("://")[2], port_min=1, port_default=PORT_DEFAULT)
        is_web = part.lower().startswith(("http://", "https://"))
        if found is None or is_web or not is_host(found[0]):
            raise CliError(
                f"--bootstrap {shown(part)}: give HOST:PORT, such as 127.0.0.1:9092", ExitCode.USAGE
            )
        addresses.append(found)
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


def _why_nobody_answers(bootstrap: str, troubles: Iterable[KafkaError]) -> CliError:
    """What there is to say of brokers that accept connections, and of what librdkafka met at them."""
    subject = {"_AUTHENTICATION": "the login was refused", "_SSL": "TLS"}
    words = "does it ask for TLS, or a login?"
    told = [error for error in troubles if error.name() != "_ALL_BROKERS_DOWN"]
    # What is decisive before what came last.
    decisive = [error for error in told if error.name() in REFUSED]
    if told:
        words = (decisive or told)[-1].str()
        words = _OPENSSL.sub("", words)
        words = _STATE.sub("", _BROKER.sub("", words)).rstrip(".").removeprefix("SASL authentication error: ")
    if _NO_LOGIN in words:
        return CliError(
            f"{bootstrap}: the login was refused: this listener has no login by SASL; set security.protocol "
            "to PLAINTEXT or SSL (-X)",
            ExitCode.UNREACHABLE,
        )
    if decisive:
        return CliError(f"{bootstrap}: {subject[decisive[-1].name()]}: {words} (-X)", ExitCode.UNREACHABLE)
    return CliError(
        f"{bootstrap} accepts connections but does not answer as a Kafka broker ({words}); "
        "check the port and the security properties (-X).",
        ExitCode.UNREACHABLE,
    )


class Cluster:
    """One cluster, reached from its bootstrap list. Clients are made as a command asks for them."""

    def __init__(self, bootstrap: str, properties: Iterable[str] | None = None) -> None:
        self.bootstrap = bootstrap
        # Client properties as they were given.
        self.given = list(properties or ())
        self._properties = client_properties(self.given)
        if BY_TOKEN in self._properties:
            raise CliError(
                "sasl.jaas.config has tokenauth=true, and this command comes in by librdkafka, which cannot "
                "log in by delegation tokens: give a user's password",
                ExitCode.USAGE,
            )
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
            raise CliError(f"client properties (-X): {_of_property(error.args[0])}", ExitCode.USAGE) from None

    def connect(self) -> Cluster:
        """Find out within five seconds whether a broker answers, and load the metadata.

        A plain connection first: it fails at once where nothing listens, where librdkafka would keep trying.
        """
        from confluent_kafka.admin import AdminClient

        deadline_s = time.monotonic() + CONNECT_TIMEOUT_S
        if reason := _probe(self._addresses, deadline_s):
            raise CliError(
                f"cannot reach a broker at {self.bootstrap}: {reason}. "
                "Start one with 'ottla serve', or name another with --bootstrap HOST:PORT.",
                ExitCode.UNREACHABLE,
            )
        troubles: list[KafkaError] = []
        self._admin = self._make(
            AdminClient, {"socket.connection.setup.timeout.ms": 5000, "error_cb": troubles.append}
        )
        if not self._answers(FIRST_LOOK_S, troubles):
            refused = any(trouble.name() in REFUSED for trouble in troubles)
            # Another address may still let it in.
            if (refused and len(self._addresses) == 1) or not self._answers(
                max(1.0, deadline_s - time.monotonic()), troubles
            ):
                raise _why_nobody_answers(self.bootstrap, troubles)
        return self

    def _answers(self, timeout_s: float, troubles: list[KafkaError]) -> bool:
        """Whether the metadata came; librdkafka tells of ``troubles`` while it is polled."""
        from confluent_kafka import KafkaException

        try:
            self._metadata = self.admin.list_topics(timeout=timeout_s)
        except KafkaException:
            self.admin.poll(0)
            return False
        return True

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

    def producer(self, *, on_delivery: Callable[..., None] | None = None, **properties: Any) -> Producer:
        """A producer; keyword names are librdkafka properties with '_' for '.'.

        ``on_delivery`` is given the error and the message of each delivery while the producer is polled.
        """
        from confluent_kafka import Producer

        named = {name.replace("_", "."): value for name, value in properties.items()}
        return self._make(Producer, named if on_delivery is None else {**named, "on_delivery": on_delivery})

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
            # A topic that one may not describe is as if it were not there.
            seen = ", or may not be seen by this user" if "security.protocol" in self._properties else ""
            raise CliError(f"topic {name!r} does not exist{seen}; see 'ottla topic list'", ExitCode.NOT_FOUND)
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

    def wait(self, future: Future[T], what: str, *rights: Right) -> T:
        """An admin call's result, its error made plain; ``rights`` as of ``explain``."""
        from confluent_kafka import KafkaException

        try:
            return future.result(REQUEST_TIMEOUT_S + 1)
        except KafkaException as error:
            raise explain(error.args[0], what, *rights) from None
        except TimeoutError:
            raise CliError(f"{what}: the broker did not answer in time", ExitCode.UNREACHABLE) from None

    def outcomes(
        self,
        kind: str,
        futures: Mapping[str, Future[Any]],
        result: str,
        forgiven: Mapping[ExitCode, str],
        operation: str,
    ) -> tuple[list[tuple[str, str]], list[CliError]]:
        """(name and result of what went through, errors of what did not) of an admin call for several things.

        Errors with a code in ``forgiven`` count as gone through, with the result given there. ``operation``
        is the one that the user must have the right to do.
        """
        done, errors = [], []
        for name, future in futures.items():
            try:
                self.wait(future, f"{kind} {name!r}", Right(operation, kind, name))
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
                    right = Right("describe", "topic", key.topic)
                    result[name] = self.wait(future, f"offsets of {name}", right).offset
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
