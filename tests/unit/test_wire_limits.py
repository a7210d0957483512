"""What one request may be, for every API: its bytes, its elements all together, its strings."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_wire_codec import SIDES, contents

from ottla.wire import apis, codec, messages
from ottla.wire.apis import APIS, BY_NAME, Api
from ottla.wire.fields import ZERO, Field, describe
from ottla.wire.framing import SCRATCH_BYTES, FrameDecoder, FrameError
from ottla.wire.messages import MalformedMessage
from ottla.wire.primitives import READ_ERRORS, STRING_BYTES_MAX, write_uvarint

PLENTY = 1 << 30
REQUESTS = [(key, version) for key, version, side in SIDES if side == "request"]
EDGES = sorted({(api.key, v) for api in APIS.values() for v in (api.version_min, api.version_max)})
RESPONSES = [(key, version) for key, version, side in SIDES if side == "response"]


def encoded(entity: type[Any], fields: dict[str, Any]) -> bytes:
    pieces: list[Any] = []
    codec.writer(entity)(fields, pieces)
    return b"".join(pieces)


def elements(value: Any) -> int:
    """How many elements the arrays of a message have, nested ones together."""
    if isinstance(value, dict):
        return sum(map(elements, value.values()))
    if hasattr(value, "_fields"):
        return sum(map(elements, value))
    if isinstance(value, list | tuple):
        return len(value) + sum(map(elements, value))
    return 0


def zero(field: Field) -> Any:
    if field.array or field.default is not dataclasses.MISSING:
        return () if field.array else field.default
    return fewest(field.entity) if field.entity is not None else ZERO[field.kind]


def fewest(entity: type[Any]) -> dict[str, Any]:
    """A message with nothing in it."""
    return {field.name: zero(field) for field in describe(entity)}


def paths(entity: type[Any], kind: str) -> Iterator[list[Field]]:
    """Each way down to a field: to ``arrays``, or to ``strings`` (those in arrays too)."""
    for field in describe(entity):
        if field.array if kind == "arrays" else field.kind == "string":
            yield [field]
        if field.entity is not None:
            for deeper in paths(field.entity, kind):
                yield [field, *deeper]


def filled(entity: type[Any], path: list[Field], last: Any) -> dict[str, Any]:
    """A message in which only the field at the end of a path has something, one element on each step."""
    field, *deeper = path
    value = filled(field.entity, deeper, last) if deeper and field.entity is not None else last
    return fewest(entity) | {field.name: [value] if field.array and deeper else value}


@pytest.mark.parametrize(("key", "version"), REQUESTS)
def test_whatever_comes_is_counted_over_the_whole_request(key: int, version: int) -> None:
    entity = messages.load(APIS[key].schema, version, "request")
    read = codec.reader(entity)

    @given(contents(entity))
    @settings(max_examples=10, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(fields: dict[str, Any]) -> None:
        data = encoded(entity, fields)
        left = [PLENTY]
        read(data, 0, left)
        used = PLENTY - left[0]
        assert used == elements(fields) or (entity.__flexible__ and used > elements(fields))
        read(data, 0, [used])
        if used:
            with pytest.raises(MalformedMessage):
                read(data, 0, [used - 1])

    check()


@pytest.mark.parametrize(("key", "version"), EDGES)
def test_each_array_ends_where_the_budget_of_its_api_does(key: int, version: int) -> None:
    api = APIS[key]
    entity = messages.load(api.schema, version, "request")
    for path in paths(entity, "arrays"):
        *above, field = path
        # Those on the way to it count, too.
        room = api.elements_max - sum(step.array for step in above)
        single = dataclasses.replace(field, array=False, default=dataclasses.MISSING)
        one = zero(single)
        for count in (room, room + 1):
            data = encoded(entity, filled(entity, path, [one] * count))
            # A known tagged field is an element itself.
            if any(step.tag is not None for step in path):
                continue
            if count == room:
                messages.decode_request(key, version, data)
            else:
                with pytest.raises(MalformedMessage, match=api.name):
                    messages.decode_request(key, version, data)


@pytest.mark.parametrize("flexible", [False, True])
def test_a_count_costs_no_memory_before_it_is_found_to_be_too_large(flexible: bool) -> None:
    """The bytes are there, and only the budget is against it."""
    count = 1_000_000
    if flexible:
        name, version = "DeleteRecords", 2
        data = b"\2\2a" + write_uvarint(count + 1)
    else:
        name, version = "DeleteRecords", 0
        data = struct.pack(">ih", 1, 1) + b"a" + struct.pack(">i", count)
    data += bytes(13 * count)
    with pytest.raises(MalformedMessage, match="may come"):
        messages.decode_request(BY_NAME[name].key, version, data)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessage):
            messages.decode_request(BY_NAME[name].key, version, data)
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def tags(count: int) -> bytes:
    return write_uvarint(count) + b"".join(write_uvarint(100 + tag) + b"\0" for tag in range(count))


def test_tagged_fields_that_nobody_knows_are_counted() -> None:
    key, version = BY_NAME["Heartbeat"].key, 4
    body = messages.encode_request(
        key, version, {"group_id": "g", "generation_id": 1, "member_id": "m", "group_instance_id": None}
    )
    assert body.endswith(b"\0")
    limit = APIS[key].elements_max
    messages.decode_request(key, version, body[:-1] + tags(limit))
    with pytest.raises(MalformedMessage):
        messages.decode_request(key, version, body[:-1] + tags(limit + 1))
    for claimed in (b"\x7f", b"\xff\xff\xff\xff\x0f"):
        with pytest.raises(MalformedMessage):
            messages.decode_request(key, version, body[:-1] + claimed)


def test_tagged_fields_of_a_header_are_counted() -> None:
    header = struct.pack(">hhih", BY_NAME["Heartbeat"].key, 4, 1, -1)
    limit = messages.HEADER_TAGS_MAX
    assert messages.read_header(header + tags(limit)).body_offset == len(header + tags(limit))
    with pytest.raises(MalformedMessage):
        messages.read_header(header + tags(limit + 1))


@pytest.mark.parametrize(("key", "version"), REQUESTS)
def test_a_string_has_at_most_as_many_bytes_as_the_protocol_can_say(key: int, version: int) -> None:
    """Wherever it stands; nullable or not."""
    entity = messages.load(APIS[key].schema, version, "request")
    read = codec.reader(entity)
    mark = "marked" * 30
    for path in paths(entity, "strings"):
        last: Any = [mark] if path[-1].array else mark
        data = encoded(entity, filled(entity, path, last))
        size = len(mark) + 1
        head = write_uvarint(size) if entity.__flexible__ else struct.pack(">h", size - 1)
        short = head + mark.encode()
        assert data.count(short) == 1
        for count in (STRING_BYTES_MAX, STRING_BYTES_MAX + 1, 1 << 20):
            if not entity.__flexible__ and count > STRING_BYTES_MAX:
                continue
            head = write_uvarint(count + 1) if entity.__flexible__ else struct.pack(">h", count)
            if any(step.tag is not None for step in path):
                continue
            long = data.replace(short, head + b"x" * count)
            if count == STRING_BYTES_MAX:
                read(long, 0, [PLENTY])
            else:
                with pytest.raises(MalformedMessage, match="string"):
                    read(long, 0, [PLENTY])


@pytest.mark.parametrize(("key", "version"), RESPONSES)
def test_no_string_is_written_that_a_client_cannot_read(key: int, version: int) -> None:
    """Messages of errors, which repeat what a client sent, are cut; nothing else can be."""
    entity = messages.load(APIS[key].schema, version, "response")
    for path in paths(entity, "strings"):
        for count in (STRING_BYTES_MAX, STRING_BYTES_MAX + 1, 40_000):
            text = "é" * (count // 2) + "x" * (count % 2)
            fields = filled(entity, path, [text] if path[-1].array else text)
            if count > STRING_BYTES_MAX and not path[-1].name.endswith("error_message"):
                with pytest.raises((ValueError, struct.error)):
                    encoded(entity, fields)
                continue
            message, _ = codec.reader(entity)(encoded(entity, fields), 0, [PLENTY])
            read = message
            for step in path:
                read = getattr(read, step.name)
                read = read[0] if step.array else read
            assert text.startswith(read) and len(read.encode()) >= STRING_BYTES_MAX - 1


@pytest.mark.parametrize(("key", "version"), REQUESTS)
def test_bytes_that_lie_are_refused_within_the_budget(key: int, version: int) -> None:
    """Whatever the bytes are: an error that the connection expects, or a message of no more elements."""
    api = APIS[key]

    @given(st.binary(max_size=60), st.integers(1, 255), st.integers(0, 3_000))
    @settings(max_examples=15, deadline=None, database=None)
    def check(head: bytes, filler: int, count: int) -> None:
        entity = messages.load(api.schema, version, "request")
        left = [api.elements_max]
        try:
            message, _ = codec.reader(entity)(head + bytes([filler]) * count, 0, left)
        except READ_ERRORS:
            return
        assert left[0] >= 0
        assert elements(message) <= api.elements_max

    check()


# ---------------------------------------------------------------- frames


def head(key: int, size: int) -> bytes:
    return struct.pack(">ih", size, key)


def decoder(size_max: int = 2**31 - 1) -> FrameDecoder:
    return FrameDecoder(memoryview(bytearray(SCRATCH_BYTES)), size_max)


def feed(cutter: FrameDecoder, data: bytes) -> list[Any]:
    cutter.buffer()[: len(data)] = data
    return list(cutter.received(len(data)))


@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.name)
def test_a_request_that_is_too_large_for_its_api_is_refused_from_its_first_bytes(api: Api) -> None:
    limit = api.frame_bytes_max
    assert feed(decoder(), head(api.key, limit)) == []
    if limit < 2**31 - 1:
        with pytest.raises(FrameError, match=f"{api.name} of {limit + 1} bytes"):
            feed(decoder(), head(api.key, limit + 1))
        # The key decides, and comes when it comes.
        cutter = decoder()
        for byte in head(api.key, limit + 1)[:-1]:
            assert feed(cutter, bytes([byte])) == []
        with pytest.raises(FrameError):
            feed(cutter, head(api.key, limit + 1)[-1:])
    # The limit of all holds for each.
    with pytest.raises(FrameError, match=r"socket\.request\.max\.bytes"):
        feed(decoder(70_000), head(api.key, 70_001))


@pytest.mark.parametrize("key", [-1, 999, 4])
def test_an_api_that_is_not_served_gets_as_much_as_the_smallest(key: int) -> None:
    assert feed(decoder(), head(key, apis.SMALL)) == []
    with pytest.raises(FrameError, match=f"key {key}"):
        feed(decoder(), head(key, apis.SMALL + 1))


def test_what_fits_into_the_scratch_buffer_is_small_for_every_api() -> None:
    assert min(apis.frame_bytes_max(key) for key in range(-1, 100)) >= SCRATCH_BYTES


@pytest.mark.parametrize(("key", "version"), REQUESTS)
def test_the_frame_of_an_api_has_room_for_its_longest_strings(key: int, version: int) -> None:
    """Each string outside of arrays as long as can be, and the client's id; where names are listed, 10,000 of
    the longest."""
    api = APIS[key]
    entity = messages.load(api.schema, version, "request")
    strings = sum(not any(step.array for step in path) for path in paths(entity, "strings"))
    assert (strings + 1) * (STRING_BYTES_MAX + 3) + 1_000 <= api.frame_bytes_max
    if api.elements_max >= apis.MANY:
        assert api.frame_bytes_max > 249 * apis.MANY
