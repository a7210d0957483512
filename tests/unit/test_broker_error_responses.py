"""Every API, at every version that we serve, can say that a whole request failed."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from ottla.broker.error_responses import error_fields
from ottla.errors import ErrorCode, KafkaError
from ottla.wire import codec, messages
from ottla.wire.apis import APIS
from ottla.wire.fields import describe

VERSIONS = [(a.key, v) for a in APIS.values() for v in range(a.version_min, a.version_max + 1)]
# Fetch before sessions has no room for an error but by partition, and ListGroups has nothing else than it.
SAMPLES: dict[str, Any] = {
    "string": "name",
    "bytes": b"b",
    "records": b"r",
    "bool": True,
    "uuid": UUID(int=1),
}


def sample(entity: type[Any]) -> dict[str, Any]:
    """A request with one of everything."""
    out: dict[str, Any] = {}
    for field in describe(entity):
        one = sample(field.entity) if field.entity is not None else SAMPLES.get(field.kind, 1)
        out[field.name] = [one] if field.array else one
    return out


def codes(message: Any) -> list[int]:
    """Every error code in a response, at any depth."""
    found = []
    if hasattr(message, "_fields"):
        for name in message._fields:
            value = getattr(message, name)
            found += [value] if name in ("error_code", "partition_error_code") else codes(value)
    elif isinstance(message, tuple):
        for item in message:
            found += codes(item)
    return found


@pytest.mark.parametrize(("key", "version"), VERSIONS)
def test_the_error_reaches_the_client(key: int, version: int) -> None:
    entity = messages.load(APIS[key].schema, version, "request")
    pieces: list[Any] = []
    codec.writer(entity)(sample(entity), pieces)
    request = messages.decode_request(key, version, b"".join(pieces))
    error = KafkaError(ErrorCode.kafka_storage_error, "why")
    body = messages.encode_response(key, version, error_fields(key, request, error))
    response = messages.decode_response(key, version, body)
    found = codes(response)
    if APIS[key].name == "DescribeLogDirs" and version < 3:
        assert found == []  # there is no room for it: Kafka too sends no results
    else:
        assert found
        assert set(found) <= {ErrorCode.kafka_storage_error, ErrorCode.none}
        assert ErrorCode.kafka_storage_error in found
