"""The readers and writers that are written down to be compiled, run as Python: they do as the codec's do."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_wire_codec import PLENTY, contents

from ottla.wire import codec, messages
from ottla.wire.apis import APIS
from ottla.wire.primitives import READ_ERRORS
from scripts import generating

VERSIONS = [
    (key, version)
    for key in generating.KEYS
    for version in range(APIS[key].version_min, APIS[key].version_max + 1)
]


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    module = ModuleType("generated")
    exec(compile(generating.generate(), "generated", "exec"), vars(module))
    return module


def test_all_versions_are_there(generated: ModuleType) -> None:
    assert list(generated.READERS) == list(generated.WRITERS) == VERSIONS


@pytest.mark.parametrize(("key", "version"), VERSIONS)
def test_a_request_is_read_as_the_codec_does(generated: ModuleType, key: int, version: int) -> None:
    entity = messages.load(APIS[key].schema, version, "request")
    write, read, theirs = codec.writer(entity), codec.reader(entity), generated.READERS[key, version]

    @given(contents(entity), st.integers(0, 400))
    @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(fields: dict[str, Any], cut: int) -> None:
        pieces: list[Any] = []
        write(fields, pieces)
        data = b"\7" + b"".join(pieces)
        left, left_there = [PLENTY], [PLENTY]
        message, end = read(data, 1, left)
        same, same_end = theirs(data, 1, left_there)
        assert (same, same_end, left_there) == (message, end, left)
        assert same._fields == message._fields
        if cut < len(data) - 1:
            with pytest.raises(READ_ERRORS):
                theirs(data[: cut + 1], 1, [PLENTY])

    check()


@pytest.mark.parametrize(("key", "version"), VERSIONS)
def test_a_response_is_written_as_the_codec_does(generated: ModuleType, key: int, version: int) -> None:
    entity = messages.load(APIS[key].schema, version, "response")
    write, theirs = codec.writer(entity), generated.WRITERS[key, version]

    @given(contents(entity))
    @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(fields: dict[str, Any]) -> None:
        pieces: list[Any] = []
        same: list[Any] = []
        write(fields, pieces)
        theirs(fields, same)
        assert same == pieces

    check()


def test_what_is_read_from_views_is_not_given_to_readers_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large request is a view of the buffer that it was received into."""
    fields = {"acks": 1, "timeout_ms": 5, "transactional_id": None, "topic_data": []}
    data = messages.encode_request(0, 9, fields)

    def bytes_only(buffer: bytes, offset: int, left: list[int]) -> Any:
        assert type(buffer) is bytes
        return "from bytes", len(buffer)

    made = messages._request(0, 9)
    monkeypatch.setattr(made, "read", bytes_only)
    monkeypatch.setattr(made, "reads_bytes_only", True)
    assert messages.decode_request(0, 9, data) == "from bytes"
    assert messages.decode_request(0, 9, memoryview(data)).timeout_ms == 5
