"""Renders docs/COMPATIBILITY.md: what of Kafka's protocol is served, from the table that the broker reads."""

from __future__ import annotations

import ast
from pathlib import Path

import ottla.broker.api
from ottla.metadata.feature_levels import FEATURES, METADATA_VERSION, release_of
from ottla.metadata.features import SUPPORTED, new_cluster_levels
from ottla.wire.apis import APIS, UNBOUNDED, Api

HANDLERS = Path(ottla.broker.api.__file__).parent

HEAD = """\
# What of Kafka's protocol Ottla serves

This page is generated from `src/ottla/wire/apis.py` by `make docs`. Answers are those of Apache Kafka 4.4,
and so are the versions of each request: all that are stable there, compared with its message definitions.
A request in a version that is not served gets Kafka's answer: UNSUPPORTED_VERSION with the list of versions
for ApiVersions, a closed connection for the others. What each version adds, and where the answer differs from
Kafka's, is said at the head of the API's file in `src/ottla/broker/api/`.

A request that is larger than the table says, or whose arrays and tagged fields have more elements (nested
ones counted together), gets Kafka's answer to what it cannot read: the connection is closed, and the log
says why. `socket.request.max.bytes` holds for all. Strings have at most 32,767 bytes.

| Key | API | Versions | Bytes | Elements | What it does |
| --: | --- | --- | --: | --: | --- |
"""

TAIL = """
Produce is *listed* from version 0 as Kafka 4 does, because librdkafka before 2.6 falls back to the old
message format when it does not see those versions; they are not served. Only record batches of format 2
(Kafka 0.11 and later) are accepted.

## Features

The levels that nodes support, and those that a new cluster begins with; `ottla feature` and
`kafka-features.sh` show and move them ([CLUSTER.md](CLUSTER.md#upgrade-to-another-release)). A cluster that
an earlier release has made begins with the least of each ([decisions/0021](decisions/0021-features.md)). A
feature that has no level but 0 is not served yet, so `kafka-features.sh upgrade --release-version`, which
moves all or none, is refused; `ottla feature upgrade` leaves those out, and says so.

| Feature | Kafka 4.4 | Supported | A new cluster |
| --- | --- | --- | --- |
FEATURES
## Not served yet

Consumer groups of the new protocol (KIP-848) and share groups (KIP-932), and tiered storage. Clients see this
in ApiVersions and fall back or say so. One thing is said
in such a way that clients fail at once, instead of asking again until their time is up:
ConsumerGroupHeartbeat is listed, and answered with UNSUPPORTED_VERSION.

Of transactions the second phase of KIP-939 (InitProducerId v6) is not listed, as in Kafka 4.4. Clients'
patterns in ListTransactions may not refer to groups or look around: such are INVALID_REGULAR_EXPRESSION.

Of security ([SECURITY.md](SECURITY.md)) some things are not as in Kafka: a connection of an address that is
over its `connection_creation_rate` is closed at once, not after a while; where more connections come than
`max.connection.creation.rate`, those beyond are taken, and heard later. A Fetch that takes a consumer over
its quota has its records, and the client waits afterwards. Nodes log in to each other by PLAIN and SCRAM.
A cluster has at most 10,000 delegation tokens, one principal may ask for 5,000 of them, a token's names have
at most 4,096 characters together, and its owner is a user. Nobody is throttled for longer than 25 days.

A transactional id is kept for `transactional.id.expiration.ms` (7 days) after its last use, as in Kafka:
clients that take a new one at each start, or that flood the broker with them, fill `__transaction_state`
and the memory of its leaders for that long. Nothing bounds their number but who may use them; make the time
shorter where clients do that.

`ottla transaction force-terminate ID` does what `kafka-transactions.sh forceTerminateTransaction
--transactionalId ID` does, which works as well: it begins anew in the producer's place (InitProducerId),
which aborts what is open and fences it. It differs in that an id that nobody knows is refused with exit
code 4, where Kafka's makes a new id of it and ends with 0; and it tells the producer id and epoch that it
was given.

## Clients that the tests run against a real broker

"""

# Client and, where it has one, the version that the tests use; and its tests.
CLIENTS = {
    "librdkafka, through confluent-kafka for Python": "test_confluent.py",
    "librdkafka 2.0.2, through Debian's kcat": "test_kcat.py",
    "Apache Kafka's Java client 4.3.0": "test_java.py",
    "Kafka Connect 4.3.0, with Debezium 3.6.3": "test_connect.py",
    "aiokafka": "test_aiokafka.py",
    "kafka-python": "test_kafka_python.py",
    "KafkaJS and @platformatic/kafka for Node.js": "test_node.py",
}


def row(api: Api) -> str:
    """One line of the table; the last column is the first sentence of the handler's header."""
    versions = (
        str(api.version_min)
        if api.version_min == api.version_max
        else f"{api.version_min} – {api.version_max}"
    )
    limits = f"{size(api.frame_bytes_max)} | {api.elements_max:,}"
    return f"| {api.key} | {api.name} | {versions} | {limits} | {summary(api)} |\n"


def feature_rows() -> str:
    """The features, in Kafka's order."""
    begin = new_cluster_levels(SUPPORTED)
    rows = []
    for name, (low, high) in SUPPORTED.items():
        kafka = SUPPORTED[name] if name == METADATA_VERSION else (0, FEATURES[name][-1].level)
        cells = [_levels(name, *kafka), _levels(name, low, high), _level(name, begin.get(name, 0))]
        rows.append(f"| `{name}` | {' | '.join(cells)} |\n")
    return "".join(rows)


def _levels(name: str, low: int, high: int) -> str:
    return _level(name, low) if low == high else f"{_level(name, low)} – {_level(name, high)}"


def _level(name: str, level: int) -> str:
    release = release_of(level) if name == METADATA_VERSION else None
    return str(level) if release is None else f"{level} ({release.name})"


def size(limit: int) -> str:
    """A limit in bytes, in words; empty where there is none but that of all."""
    if limit == UNBOUNDED:
        return ""
    return f"{limit // 2**20} MiB" if limit >= 2**20 else f"{limit // 2**10} KiB"


def summary(api: Api) -> str:
    """The first sentence of the header of the handler's file."""
    path = HANDLERS / api.room / api.schema
    source = (path / "handler.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    header = ast.get_docstring(ast.parse(source)) or ""
    first = " ".join(header.split("\n\n")[0].split())
    sentence = first.split(". ")[0].rstrip(".")
    text = sentence.partition(": ")[2] or sentence
    return text[0].upper() + text[1:]


def render() -> str:
    """The page."""
    rows = "".join(row(api) for api in sorted(APIS.values()))
    clients = "".join(f"- {client}: `tests/interop/{tests}`\n" for client, tests in CLIENTS.items())
    return HEAD + rows + TAIL.replace("FEATURES\n", feature_rows()) + clients
