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
# Which requests of Kafka's protocol Ottla serves

The reference is Apache Kafka 4.4. Ottla serves all stable versions of each request in the table, and answers
as Kafka does.

- If a client sends ApiVersions in a version that is not served, it gets UNSUPPORTED_VERSION with the list of
  versions. If a client sends another request in such a version, its connection is closed. Kafka does the
  same.
- If a request is larger than the column *Bytes*, or has more array elements and tagged fields than the column
  *Elements* (nested ones included), its connection is closed, and the log says why.
  `socket.request.max.bytes` limits all requests. A string has 32,767 bytes at most.
- The head of each file in `src/ottla/broker/api/` says what each version adds, and where an answer differs
  from Kafka's.

This page is generated from `src/ottla/wire/apis.py` by `make docs`.

| Key | API | Versions | Bytes | Elements | What it does |
| --: | --- | --- | --: | --: | --- |
"""

TAIL = """
ApiVersions lists Produce from version 0, as Kafka 4 does: librdkafka before 2.6 otherwise uses the old
message format. Versions 0 to 2 are not served. Only record batches of format 2 (Kafka 0.11 and later) are
accepted.

## Features

A feature has a level that all nodes of a cluster have agreed on. `ottla feature` and `kafka-features.sh` show
and change levels ([OPERATING.md](OPERATING.md#upgrade-to-another-release)). A cluster that an earlier release
created has the lowest levels ([decisions/0021](decisions/0021-features.md)). A feature whose only level is 0
is not served yet. For this reason `kafka-features.sh upgrade --release-version` is refused: it changes all
features or none. `ottla feature upgrade` leaves such features out, and names them.

| Feature | Kafka 4.4 | Supported | A new cluster |
| --- | --- | --- | --- |
FEATURES
## Not served yet

- Consumer groups of the new protocol (KIP-848). ConsumerGroupHeartbeat is listed and answered with
  UNSUPPORTED_VERSION, so that clients fail at once. Without that, they retry until their timeout.
- Share groups (KIP-932), groups of Kafka Streams (KIP-1071), tiered storage (KIP-405). They are not in
  ApiVersions.
- The second phase of KIP-939 (InitProducerId v6). Kafka 4.4 does not list it either.

## Differences from Kafka

Transactions:

- The pattern in ListTransactions must not have back-references or look-around. Otherwise the error is
  INVALID_REGULAR_EXPRESSION.
- A transactional id is kept for `transactional.id.expiration.ms` (default: 7 days) after its last use, as in
  Kafka. The number of ids is not limited. If clients use a new id at each start, make this time shorter.
- `ottla transaction force-terminate ID` does what `kafka-transactions.sh forceTerminateTransaction` does: it
  sends InitProducerId for the id, which aborts the open transaction and fences its producer. If the id is not
  known, the command exits with code 4; Kafka's command creates the id.

Security ([SECURITY.md](SECURITY.md)):

- If an address exceeds its `connection_creation_rate`, the connection is closed at once. Kafka closes it
  later.
- If new connections exceed `max.connection.creation.rate`, they are accepted, and served later.
- If connections exceed `max.connections`, they are closed at once. Kafka lets them wait.
- If a host name in `max.connections.per.ip.overrides` cannot be resolved, the broker logs an error and
  starts.
- If a Fetch takes a consumer over its quota, the consumer gets the records, and waits afterwards.
- Nodes log in to each other by PLAIN, SCRAM or OAUTHBEARER, not by GSSAPI.
- A cluster has 10,000 delegation tokens at most, and a principal 5,000. The names of a token have 4,096
  characters together at most. The owner of a token is a user.
- No client is throttled for longer than 25 days.

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
    "All of these, as they log in and may do what they may": "test_logins.py",
    "The Java client and kafka-python, by Kerberos with a KDC": "test_kerberos.py",
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
