"""Renders docs/COMPATIBILITY.md: what of Kafka's protocol is served, from the table that the broker reads."""

from __future__ import annotations

import ast
from pathlib import Path

import ottla.broker.handlers
from ottla.wire.apis import APIS, Api

HANDLERS = Path(ottla.broker.handlers.__file__).parent

HEAD = """\
# What of Kafka's protocol Ottla serves

This page is generated from `src/ottla/wire/apis.py` by `make docs`. The versions are those that Apache
Kafka 4.3 serves. A request in a version that is not served gets Kafka's answer: UNSUPPORTED_VERSION with the
list of versions for ApiVersions, a closed connection for the others. What each version adds, and where the
answer differs from Kafka's, is said at the head of the API's file in `src/ottla/broker/handlers/`.

| Key | API | Versions | What it does |
| --: | --- | --- | --- |
"""

TAIL = """
Produce is *listed* from version 0 as Kafka 4 does, because librdkafka before 2.6 falls back to the old
message format when it does not see those versions; they are not served. Only record batches of format 2
(Kafka 0.11 and later) are accepted.

## Not served yet

Transactions (InitProducerId with a transactional id says UNSUPPORTED_VERSION; librdkafka asks again until its
own time is up), consumer groups of the new protocol (KIP-848) and share groups (KIP-932), SASL and TLS, ACLs,
client quotas, delegation tokens, tiered storage. Clients see this in ApiVersions and fall back or say so.

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
    return f"| {api.key} | {api.name} | {versions} | {summary(api)} |\n"


def summary(api: Api) -> str:
    """The first sentence of the header of the handler's file."""
    source = (HANDLERS / f"{api.schema}.py").read_text()
    header = ast.get_docstring(ast.parse(source)) or ""
    first = " ".join(header.split("\n\n")[0].split())
    sentence = first.split(". ")[0].rstrip(".")
    text = sentence.partition(": ")[2] or sentence
    return text[0].upper() + text[1:]


def render() -> str:
    """The page."""
    rows = "".join(row(api) for api in sorted(APIS.values()))
    clients = "".join(f"- {client}: `tests/interop/{tests}`\n" for client, tests in CLIENTS.items())
    return HEAD + rows + TAIL + clients
