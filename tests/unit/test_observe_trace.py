"""Traces: which requests they tell of, how much, and what of a request is nobody's business."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from coordinators_support import ManualClock, settle
from hypothesis import given
from hypothesis import strategies as st
from test_observe_http import on_loop
from test_observe_slow import METADATA_FRAME, fetch, request, seen

from interop.raw import batch, produce_fields
from ottla.broker.request import Client
from ottla.observe import trace
from ottla.observe.bodies import ARRAY_MAX, VALUES_MAX, body_of
from ottla.observe.described import bounded, read_head
from ottla.observe.http import Response, Stream
from ottla.observe.request import Request
from ottla.observe.requests import Seen
from ottla.observe.trace import LINES_PER_SECOND_MAX, TRACES_MAX, Trace, Traces, Wanted, matches, parse
from ottla.observe.watching import Watching
from ottla.security.principals import KafkaPrincipal
from ottla.wire.apis import FETCH, METADATA, PRODUCE, SASL_AUTHENTICATE
from ottla.wire.messages import frame_request

# ------------------------------------------------------------ what is asked for


def test_what_is_wanted_is_read() -> None:
    assert parse("") == Wanted()
    asked = "client=a%20b*&host=::1&principal=User:x&api=produce&api=FETCH&seconds=600&bodies=1"
    assert parse(asked) == Wanted("a b*", "::1", "User:x", frozenset((PRODUCE, FETCH)), 600, True)
    assert parse("client=").client == ""


@pytest.mark.parametrize(
    "query", ["seconds=601", "seconds=0", "seconds=x", "api=Nope", "bodies=2", "what=1", "host=a&host=b", "a"]
)
def test_what_cannot_be_understood_is_refused(query: str) -> None:
    with pytest.raises(ValueError):
        parse(query)


@given(st.text(max_size=300))
def test_any_query_is_understood_or_refused(query: str) -> None:
    try:
        wanted = parse(query)
    except ValueError:
        return
    assert 1 <= wanted.seconds <= 600


@given(st.text(), st.text())
def test_a_pattern_is_exact_or_a_beginning(text: str, rest: str) -> None:
    assert matches(None, text)
    assert matches(f"{text}*", text + rest)
    if not text.endswith("*"):
        assert matches(text, text + rest) is (not rest)
    assert not matches(f"{text}x*", text)


# ------------------------------------------------------------ one trace


class Gate:
    """What a watcher is put before."""

    def __init__(self) -> None:
        self.watcher: Any = None

    def watch(self, watcher: Any) -> None:
        self.watcher = watcher


class Read:
    """A trace, and what it has sent."""

    def __init__(self, wanted: Wanted, watching: Watching | None = None) -> None:
        self.clock = ManualClock()
        self.gate = Gate()
        turn = SimpleNamespace(is_watched=False)
        self.watching = watching or Watching(cast(Any, self.gate), cast(Any, turn))
        self.running: set[Trace] = set()
        self.trace = Trace(1, wanted, self.watching, self.clock)
        self.pieces = self.trace.lines(self.running)

    async def next(self) -> list[Any]:
        return [json.loads(line) for line in (await anext(self.pieces)).splitlines()]

    async def begun(self) -> Read:
        assert await self.next() == [{"node": 1, "seconds": 30}]
        return self


def client(principal: str = "ANONYMOUS", host: str = "h") -> Client:
    one = Client(host, "L")
    one.principal = KafkaPrincipal("User", principal)
    return one


@pytest.mark.parametrize(
    ("wanted", "hits"),
    [
        (Wanted(), 6),
        (Wanted(client="shop-1"), 1),
        (Wanted(client="shop-*"), 2),
        (Wanted(client=""), 1),
        (Wanted(host="10.0.0.2"), 1),
        (Wanted(host="10.*"), 1),
        (Wanted(principal="User:alice"), 1),
        (Wanted(apis=frozenset((FETCH,))), 1),
        (Wanted(client="shop-*", apis=frozenset((FETCH,))), 0),
    ],
)
@on_loop
async def test_what_is_wanted_is_told_of(wanted: Wanted, hits: int) -> None:
    read = await Read(wanted).begun()
    for one in (
        seen(request(METADATA, 1, {"topics": []}, "shop-1")),
        seen(request(METADATA, 1, {"topics": []}, "shop-2")),
        seen(request(METADATA, 1, {"topics": []}, "")),
        seen(client=client(host="10.0.0.2")),
        seen(client=client("alice")),
        seen(fetch(11, 0), client=client()),
    ):
        one.client.host = one.client.host.replace("10.0.0.7", "h")
        read.trace.told(one)
    if hits:
        told = await read.next()
        assert len(told) == hits
        assert {"time_ms", "node", "api", "queue_ms", "local_ms", "remote_ms"} <= told[0].keys()
        assert "body" not in told[0]
    await read.pieces.aclose()


@on_loop
async def test_a_trace_ends_with_its_time_and_says_what_there_was() -> None:
    read = await Read(Wanted()).begun()
    assert read.gate.watcher is read.watching.watcher
    assert read.watching.watcher.listeners == (read.trace.told,)
    read.trace.told(seen())
    assert len(await read.next()) == 1
    ending = asyncio.ensure_future(read.next())
    await settle()
    await read.clock.advance(30_000)
    assert (await ending) == [{"ended": True, "requests": 1, "missed": 0}]
    with pytest.raises(StopAsyncIteration):
        await anext(read.pieces)
    assert (read.gate.watcher, read.watching.watcher.listeners, read.running) == (None, (), set())


@on_loop
async def test_too_many_in_a_second_are_counted() -> None:
    read = await Read(Wanted()).begun()
    for _ in range(LINES_PER_SECOND_MAX + 7):
        read.trace.told(seen())
    *told, missing = await read.next()
    assert len(told) == LINES_PER_SECOND_MAX
    assert missing == {"node": 1, "missed": 7, "over_rate": 7, "unread": 0}
    read.trace.told(seen())
    assert await read.next() == [{"node": 1, "missed": 1, "over_rate": 1, "unread": 0}]
    await read.clock.advance(1000)
    read.trace.told(seen())
    assert [one["api"] for one in await read.next()] == ["Metadata"]
    await read.pieces.aclose()


@on_loop
async def test_a_reader_that_stops_reading_keeps_no_more_than_so_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trace, "UNREAD_BYTES_MAX", 5_000)
    read = await Read(Wanted()).begun()
    for _ in range(100):
        read.trace.told(seen())
    *told, missing = await read.next()
    assert 5_000 <= sum(len(json.dumps(one)) + 1 for one in told) < 6_000
    assert missing == {"node": 1, "missed": 100 - len(told), "over_rate": 0, "unread": 100 - len(told)}
    await read.pieces.aclose()


@on_loop
async def test_bodies_are_asked_for_while_there_is_a_trace_that_wants_them() -> None:
    plain = await Read(Wanted()).begun()
    watcher = plain.watching.watcher
    assert not watcher.keeps_frames
    bodies = await Read(Wanted(bodies=True), plain.watching).begun()
    assert watcher.keeps_frames and len(watcher.listeners) == 2
    bodies.trace.told(seen())
    assert (await bodies.next())[0]["body"] == {"topics": []}
    await bodies.pieces.aclose()
    assert not watcher.keeps_frames and plain.gate.watcher is watcher
    await plain.pieces.aclose()
    assert plain.gate.watcher is None


@on_loop
async def test_so_many_traces_at_a_time() -> None:
    read = Read(Wanted())
    traces = Traces(1, read.watching, read.clock)

    async def ask(query: str = "", method: str = "GET") -> Response | Stream:
        return await traces.answer(Request(method, "/trace", query, {}, True))

    streams = []
    for _ in range(TRACES_MAX):
        stream = await ask("seconds=7")
        assert isinstance(stream, Stream) and stream.lasts_ms == 12_000
        await anext(stream.pieces)
        streams.append(stream)
    refused = await ask()
    assert isinstance(refused, Response) and refused.status == 503
    wrong, head = await ask("seconds=x"), await ask(method="HEAD")
    assert isinstance(wrong, Response) and wrong.status == 400
    assert isinstance(head, Response) and head.status == 200
    await streams[0].pieces.aclose()
    again = await ask()
    assert isinstance(again, Stream)
    for stream in (*streams, again):
        await stream.pieces.aclose()
    assert read.gate.watcher is None


# ------------------------------------------------------------ what requests say


def body(key: int, version: int, fields: dict[str, Any]) -> Any:
    frame = request(key, version, fields)
    one = Seen(client(), key, frame, len(frame) + 4, 0, 0, 0)
    found = body_of(one, read_head(frame))
    json.dumps(found, allow_nan=False)
    return found


SECRET = "open sesame"


def test_no_secret_is_shown() -> None:
    hidden = "[hidden]"
    assert body(SASL_AUTHENTICATE, 2, {"auth_bytes": f"\0u\0{SECRET}".encode()}) == {"auth_bytes": hidden}
    upsertion = {"name": "u", "mechanism": 1, "iterations": 4096}
    upsertion |= {"salt": SECRET.encode(), "salted_password": SECRET.encode()}
    found = body(51, 0, {"deletions": [], "upsertions": [upsertion]})
    assert found["upsertions"][0] == upsertion | {"salt": hidden, "salted_password": hidden}
    values = {
        "sasl.jaas.config": SECRET, "listener.name.x.ssl.keystore.password": SECRET, "unknown": SECRET,
        "ottla.users": SECRET, "log.retention.ms": "1000", "cleanup.policy": None,
    }  # fmt: skip
    configs = [{"name": name, "value": value, "config_operation": 0} for name, value in values.items()]
    resource = {"resource_type": 4, "resource_name": "1", "configs": configs}
    shown = {}
    for key in (33, 44):
        found = body(key, 1, {"resources": [resource], "validate_only": False})
        assert SECRET not in json.dumps(found)
        shown = {one["name"]: one["value"] for one in found["resources"][0]["configs"]}
        assert shown["log.retention.ms"] == "1000" and shown["cleanup.policy"] is None
        assert shown["unknown"] == shown["ottla.users"] == hidden
    topic = {"name": "t", "num_partitions": 1, "replication_factor": 1, "assignments": [], "configs": configs}
    found = body(19, 5, {"topics": [topic], "timeout_ms": 1, "validate_only": False})
    assert SECRET not in json.dumps(found) and found["topics"][0]["name"] == "t"


def test_records_and_bytes_are_counted_only() -> None:
    data = batch(SECRET.encode())
    found = body(PRODUCE, 9, produce_fields("t", data))
    (partition,) = found["topic_data"][0]["partition_data"]
    assert partition == {"index": 0, "records": f"[{len(data)} bytes]"}
    large = body(PRODUCE, 9, produce_fields("t", batch(b"v" * 200_000)))
    assert large["topic_data"][0]["name"] == "t"
    metadata = {"name": "range", "metadata": SECRET.encode()}
    join = {
        "group_id": "g", "session_timeout_ms": 1, "rebalance_timeout_ms": 1, "member_id": "",
        "group_instance_id": None, "protocol_type": "consumer", "protocols": [metadata], "reason": None,
    }  # fmt: skip
    assert SECRET not in json.dumps(body(11, 9, join))


def test_what_is_large_is_shown_in_part() -> None:
    names = [{"name": f"topic-{number}"} for number in range(100)]
    found = body(METADATA, 1, {"topics": names})["topics"]
    assert len(found) == ARRAY_MAX + 1 and found[-1] == f"… {100 - ARRAY_MAX} more"
    topics = [
        {"name": f"t{n}", "partition_data": [{"index": i, "records": None} for i in range(20)]}
        for n in range(20)
    ]
    found = body(PRODUCE, 9, produce_fields("t", b"") | {"topic_data": topics})
    assert json.dumps(found).count(":") < 3 * VALUES_MAX
    assert body(METADATA, 1, {"topics": [{"name": "n"}] * 600}) == "malformed, or too large to be shown"
    assert body(METADATA, 1, {"topics": [{"name": "n" * 9000}] * 9}) == "too large to be shown"
    assert body(METADATA, 1, {"topics": [{"name": "n" * 9000}]})["topics"][0]["name"] == bounded("n" * 9000)


def test_what_is_not_there_or_no_request_is_not_read() -> None:
    frame = frame_request(METADATA, 1, 7, "c", {"topics": []})[4:]
    part = Seen(client(), METADATA, frame[:-1], len(frame) + 4, 0, 0, 0)
    assert body_of(part, read_head(frame[:-1])) == "not read"
    unknown = Seen(client(), 999, b"\x03\xe7" + bytes(8), 14, 0, 0, 0)
    assert body_of(unknown, read_head(unknown.frame)) == "not read"


@given(
    st.binary(max_size=200), st.sampled_from([(METADATA, 12), (PRODUCE, 9), (FETCH, 12), (44, 1), (19, 7)])
)
def test_any_bytes_are_shown_or_not(data: bytes, api: tuple[int, int]) -> None:
    frame = METADATA_FRAME
    frame = api[0].to_bytes(2, "big") + api[1].to_bytes(2, "big") + frame[4:11] + data
    one = Seen(client(), api[0], frame, len(frame) + 4, 0, 0, 0)
    json.dumps(body_of(one, read_head(frame)), allow_nan=False)
