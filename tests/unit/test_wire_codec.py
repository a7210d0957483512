"""The compiled codec against kio's own: every API and version, random contents, and bytes that lie."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import io
import pickle
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kio.serial import entity_reader, entity_writer

from measuring import at_most, shortest_s
from ottla.wire import codec, messages
from ottla.wire.apis import APIS
from ottla.wire.fields import FIXED, Field, describe
from ottla.wire.primitives import READ_ERRORS

SIDES = [
    (api.key, version, side)
    for api in APIS.values()
    for version in range(api.version_min, api.version_max + 1)
    for side in ("request", "response")
]
# More elements than any of these messages has.
PLENTY = 1 << 30
RANGES = {"b": 7, "h": 15, "i": 31, "q": 63}


def values(field: Field) -> st.SearchStrategy[Any]:
    code = FIXED.get(field.kind, "")
    if field.kind == "entity":
        assert field.entity is not None
        one: st.SearchStrategy[Any] = contents(field.entity)
    elif field.kind == "error_code":
        one = st.integers(-1, 120)
    elif field.kind in ("timedelta_i32", "timedelta_i64"):
        one = st.integers(0, 2**31 - 1)
    elif field.kind == "datetime_i64":
        # kio has no time for -1 where it does not say that there may be none.
        one = st.integers(-1 if field.nullable else 0, 10**12)
    elif field.kind == "bool":
        one = st.booleans()
    elif field.kind == "uuid":
        one = st.uuids()
    elif field.kind == "float64":
        one = st.floats(allow_nan=False)
    elif code in RANGES:
        one = st.integers(-(2 ** RANGES[code]), 2 ** RANGES[code] - 1)
    elif code == "H":
        one = st.integers(0, 2**16 - 1)
    elif field.kind == "string":
        one = st.text(max_size=200)
    else:
        one = st.binary(max_size=200)
    if field.array:
        one = st.lists(one, max_size=3)
    if field.nullable and field.kind != "datetime_i64" and (field.tag is None or field.kind == "entity"):
        one = st.none() | one
    return one


def contents(entity: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({f.name: values(f) for f in describe(entity)})


def plain(value: Any) -> Any:
    """A message of kio's, or of ours, as comparable plain data under our names."""
    if dataclasses.is_dataclass(value):
        return {f.name.removesuffix("_ms"): plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "_fields"):
        return {name.removesuffix("_ms"): plain(getattr(value, name)) for name in value._fields}
    if isinstance(value, dict):
        return {name.removesuffix("_ms"): plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, datetime.timedelta):
        return round(value.total_seconds() * 1000)
    if isinstance(value, datetime.datetime):
        return round(value.timestamp() * 1000)
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, uuid.UUID) and not value.int:
        return None
    return value


def loosely(theirs: Any, ours: Any) -> Any:
    """kio reads Kafka's -1 time as None: take our value where that is so."""
    if isinstance(theirs, dict):
        return {k: loosely(v, ours[k]) for k, v in theirs.items()}
    if isinstance(theirs, list):
        return [loosely(t, o) for t, o in zip(theirs, ours, strict=True)]
    return ours if theirs is None and ours == -1 else theirs


@pytest.mark.parametrize(("key", "version", "side"), SIDES)
def test_reads_what_kio_reads(key: int, version: int, side: str) -> None:
    entity = messages.load(APIS[key].schema, version, side)
    read, write, kio_read = codec.reader(entity), codec.writer(entity), entity_reader(entity)
    write_in_pieces = codec.pieces_writer(entity)

    @given(contents(entity))
    @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(fields: dict[str, Any]) -> None:
        pieces: list[Any] = []
        write(fields, pieces)
        data = b"".join(pieces)
        out: list[Any] = []
        taken = [(b"".join(out), out.clear())[0] for _ in write_in_pieces(fields, out, [2])]
        assert b"".join([*taken, *out]) == data
        ours, end = read(data, 0, [PLENTY])
        assert end == len(data)
        theirs, size = kio_read(data, 0)
        assert size == len(data)
        assert loosely(plain(theirs), plain(ours)) == plain(ours)
        buffer = io.BytesIO()
        entity_writer(entity)(buffer, theirs)
        assert buffer.getvalue() == data

    check()


@pytest.mark.parametrize("count", [0, 1, codec.FEW_NUMBERS - 1, codec.FEW_NUMBERS, 126, 127, 128])
@pytest.mark.parametrize("version", [7, 12])
def test_few_numbers_are_written_as_many_are(version: int, count: int) -> None:
    entity = messages.load("metadata", version, "response")
    (topics,) = [f.entity for f in describe(entity) if f.name == "topics"]
    (partitions,) = [f.entity for f in describe(topics) if f.name == "partitions"]
    numbers = tuple(range(-1, count - 1))
    nodes = {"replica_nodes": numbers, "isr_nodes": numbers, "offline_replicas": ()}
    fields = {"error_code": 0, "partition_index": 1, "leader_id": 2, "leader_epoch": 3} | nodes
    pieces: list[Any] = []
    codec.writer(partitions)(fields, pieces)
    data = b"".join(pieces)
    theirs, size = entity_reader(partitions)(data, 0)
    assert size == len(data)
    assert (theirs.replica_nodes, theirs.isr_nodes, theirs.offline_replicas) == (numbers, numbers, ())


@pytest.mark.parametrize(("key", "version", "side"), SIDES)
def test_bytes_that_lie_raise_and_do_no_more(key: int, version: int, side: str) -> None:
    read = codec.reader(messages.load(APIS[key].schema, version, side))

    @given(st.binary(max_size=300))
    @settings(max_examples=15, deadline=None, database=None)
    def check(data: bytes) -> None:
        for lie in (data, b"\x7f\xff\xff\xff" + data, b"\xff\xff\xff\xff\x0f" + data):
            try:
                _, end = read(lie, 0, [PLENTY])
            except READ_ERRORS:
                continue
            assert 0 <= end <= len(lie)

    check()


@pytest.mark.parametrize(("key", "version", "side"), [s for s in SIDES if s[2] == "request"])
def test_every_cut_of_a_message_is_refused_or_shorter(key: int, version: int, side: str) -> None:
    entity = messages.load(APIS[key].schema, version, side)
    read, write = codec.reader(entity), codec.writer(entity)

    @given(contents(entity), st.data())
    @settings(max_examples=5, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(fields: dict[str, Any], data: st.DataObject) -> None:
        pieces: list[Any] = []
        write(fields, pieces)
        whole = b"".join(pieces)
        cut = data.draw(st.integers(0, max(0, len(whole) - 1)))
        if not whole:
            return
        with pytest.raises(READ_ERRORS):
            read(whole[:cut], 0, [PLENTY])

    check()


def test_an_id_that_is_read_is_one_like_any_other_and_made_faster() -> None:
    made = uuid.uuid4()
    read = codec.read_uuid(made.bytes)
    assert type(read) is uuid.UUID
    assert (read, hash(read), str(read), read.is_safe) == (made, hash(made), str(made), made.is_safe)
    assert pickle.loads(pickle.dumps(read)) == copy.deepcopy(read) == made
    with pytest.raises(TypeError):
        read.int = 1  # type: ignore[misc]
    ids = [uuid.uuid4().bytes for _ in range(2_000)]

    def make_all(make: Callable[[bytes], uuid.UUID]) -> None:
        for one in ids:
            make(one)

    for attempt in at_most(0.65, "of the time that Python's own take"):
        ours_s, pythons_s = shortest_s(
            partial(make_all, codec.read_uuid), partial(make_all, lambda data: uuid.UUID(bytes=data))
        )
        attempt.took(ours_s / pythons_s)
