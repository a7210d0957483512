"""What a client asks for each time without a session is kept: it is answered as if it were not."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from admin_support import Client, create, new_topic
from admin_support import run as run_one
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_broker_fetch import FETCH, batch, by_partition, fetch, wants
from test_broker_garbage import WATCHED, nothing_left

from ottla.broker import gate
from ottla.broker.api.records.fetch import asked, habit, habit_fetch, handler, slowly
from ottla.broker.api.records.fetch.habits import PARTITIONS_MAX, Habits
from ottla.broker.api.records.fetch.layout import layout_of
from ottla.broker.api.records.fetch.reader import Reader
from ottla.broker.api.records.fetch.session import Want
from ottla.broker.memory import SMALL_REQUEST_BYTES
from ottla.replication.partition import Partition
from ottla.wire.apis import BY_NAME
from ottla.wire.messages import Codec, MalformedMessage, decode_request, encode_request

TOPICS, PARTITIONS = ("t", "u"), 4
VERSIONS = (4, 7, 11, 12, 13, 17)
# In versions that say so at the end.
CONSUMER = {"replica_state": {"replica_id": -1, "replica_epoch": -1}}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names more than one is known."""
    monkeypatch.setattr(habit_fetch, "FEW", 1)


class Asker:
    """Asks a broker for the same by a connection that keeps what it asks, and by one that does not."""

    def __init__(self, kept: Client, other: Client, version: int) -> None:
        self.kept, self.other, self.version = kept, other, version
        self.node = kept.node
        self.offsets: dict[tuple[str, int], int] = {}
        self.epochs: dict[tuple[str, int], int] = {}
        self.order = [(topic, index) for topic in TOPICS for index in range(PARTITIONS)]
        self.limits: dict[str, Any] = {}

    def partition(self, topic: str, index: int) -> Partition:
        return self.node.services.replicas.partitions[topic, index]

    def request(self) -> dict[str, Any]:
        topics: list[dict[str, Any]] = []
        ids = {name: topic.topic_id for name, topic in self.node.services.metadata.image.topics.items()}
        for topic, index in self.order:
            if not topics or topics[-1]["topic"] != topic:
                topics.append({"topic": topic, "topic_id": ids[topic], "partitions": []})
            (one,) = wants(
                topic,
                index,
                fetch_offset=self.offsets.get((topic, index), 0),
                current_leader_epoch=self.epochs.get((topic, index), -1),
            )["partitions"]
            topics[-1]["partitions"].append(one)
        return (
            FETCH | {"topics": topics, "replica_state": {"replica_id": -1, "replica_epoch": -1}} | self.limits
        )

    async def ask(self) -> None:
        fields = self.request()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(habit_fetch, "FEW", 1_000)
            patch.setattr(handler, "has_habits", lambda *_: False)
            anew = await raw(self.other, self.version, fields)
        kept = await raw(self.kept, self.version, fields)
        assert kept == anew


async def raw(client: Client, version: int, fields: dict[str, Any]) -> bytes:
    """An answer's bytes, but for which request it is to."""
    client.send("Fetch", version, fields)
    (size,) = struct.unpack(">i", await client._reader.readexactly(4))
    data = await client._reader.readexactly(size)
    client._answered_id = client._correlation_id
    return data[4:]


# What happens, to the partition of this number.
STEP = st.tuples(
    st.sampled_from(
        ["append", "append", "append large", "read", "read", "lead", "resign", "truncate", "start", "turn",
         "swap", "epoch", "limits", "again", "remake", "grow", "forget", "retire", "shortage"]
    ),
    st.integers(0, len(TOPICS) * PARTITIONS - 1),
)  # fmt: skip


async def do(asker: Asker, step: str, number: int) -> None:  # noqa: C901 - one line for each
    topic = TOPICS[number // PARTITIONS]
    where = topic, number % PARTITIONS
    partition = asker.partition(*where)
    state = partition.state
    if step.startswith("append") and partition.leading is not None:
        partition.append(batch(b"v" * (3_000 if step == "append large" else 5)), now_ms=1)
    elif step == "read":
        asker.offsets[where] = partition.log.log_end_offset
    elif step == "lead":
        partition.apply(replace(state, leader=1, leader_epoch=state.leader_epoch + 1))
    elif step == "resign":
        partition.apply(replace(state, leader=2, leader_epoch=state.leader_epoch + 1))
    elif step == "truncate" and partition.leading is None:
        partition.truncate_to(max(partition.log.log_start_offset, partition.log.log_end_offset - 1), 1)
    elif step == "start":
        partition.log.advance_log_start(partition.high_watermark)
    elif step == "turn":
        asker.order = asker.order[number:] + asker.order[:number]
    elif step == "swap":
        number %= len(asker.order)
        asker.order[0], asker.order[number] = asker.order[number], asker.order[0]
    elif step == "epoch":
        asker.epochs[where] = state.leader_epoch - number % 2
    elif step == "limits":
        asker.limits = {"max_bytes": 4_000, "isolation_level": number % 2} if number % 3 else {}
    elif step in ("grow", "forget"):
        asker.order = [one for one in asker.order if one != where]
        asker.order += [where] if step == "grow" or len(asker.order) < 3 else []
    elif step == "remake":
        name = {"topic_names": [topic], "timeout_ms": 1_000}
        await asker.other.ask("DeleteTopics", 5, name)
        await create(asker.other, new_topic(topic, PARTITIONS))
    elif step == "retire":
        asker.node.services.fetch_sessions.habits.let_go()
    elif step == "shortage":
        asker.limits = {"min_bytes": 1_000, "max_wait_ms": 1}
    if step != "again":
        return
    await asker.ask()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("piece", [2, 500])
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(version=st.sampled_from(VERSIONS), steps=st.lists(STEP, min_size=1, max_size=25))
def test_the_answers_are_those_that_it_would_get_without(
    tmp_path_factory: pytest.TempPathFactory, piece: int, version: int, steps: list[tuple[str, int]]
) -> None:
    async def body(client: Client) -> None:
        await create(client, *(new_topic(topic, PARTITIONS) for topic in TOPICS))
        other = Client(client.node, *await asyncio.open_connection(*client.node.address))
        asker = Asker(client, other, version)
        with pytest.MonkeyPatch.context() as patch:
            for module in (asked, handler, habit_fetch, slowly):
                patch.setattr(module, "PIECE", piece)
            await asker.ask()
            for step, number in steps:
                await do(asker, step, number)
                await asker.ask()
        other.close()

    run_one(tmp_path_factory.mktemp("broker"), body)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Requests that were read, and partitions that were looked at."""
    counted: Counter[str] = Counter()
    read_request, read = gate.read_request, Reader._read

    def counting(codec: Codec, *more: Any) -> Any:
        counted["requests"] += codec.api_key == BY_NAME["Fetch"].key
        return read_request(codec, *more)

    def looking(*of: Any) -> Any:
        counted["looks"] += 1
        return read(*of)

    monkeypatch.setattr(gate, "read_request", counting)
    monkeypatch.setattr(Reader, "_read", looking)
    return counted


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_asked_again_is_not_read_again_nor_looked_at(
    tmp_path: Path, counts: Counter[str], version: int
) -> None:
    count = 150

    async def body(client: Client) -> None:
        await create(client, new_topic("t", count))
        partition = client.node.services.replicas.get("t", 77)
        client.node.services.replicas.get("t", 0).append(batch(b"v"), now_ms=1)

        async def asks(*order: int, **offsets: int) -> int:
            """How many partitions give records."""
            asked = wants("t", *order) | {"topic_id": partition.topic_id}
            for one in asked["partitions"]:
                one["fetch_offset"] = offsets.get(f"at_{one['partition']}", 0)
            answer = await fetch(client, asked, version=version, max_wait_ms=20_000, **CONSUMER)
            found = [one for topic in answer["responses"] for one in topic["partitions"]]
            assert [one["partition_index"] for one in found] == list(order)
            return sum(bool(one["records"]) for one in found)

        assert await asks(*range(count)) == 1
        assert counts == {"requests": 1, "looks": count}
        assert await asks(*range(count)) == 1
        # In another order, as librdkafka and others have it.
        assert await asks(*range(50, count), *range(50)) == 1
        assert await asks(*reversed(range(count))) == 1
        # The one that has something.
        assert counts == {"requests": 1, "looks": count + 3}
        waiting = asyncio.ensure_future(asks(*range(count), at_0=1))
        while not client.node.services.fetch_sessions.without.partitions:
            await asyncio.sleep(0.001)
        partition.append(batch(b"v"), now_ms=1)
        assert await waiting == 1
        assert counts == {"requests": 1, "looks": count + 5}
        partition.append(batch(b"v"), now_ms=1)
        assert await asks(*range(count), at_0=1, at_77=1) == 1
        assert counts == {"requests": 1, "looks": count + 6}

    run_one(tmp_path, body)


async def waits(client: Client, *partitions: int) -> asyncio.Future[dict[str, Any]]:
    waiting = client.node.services.fetch_sessions.without
    before = waiting.partitions
    asked = asyncio.ensure_future(fetch(client, wants("t", *partitions), max_wait_ms=2**31 - 1))
    while waiting.partitions == before:
        await asyncio.sleep(0.001)
    return asked


@pytest.mark.usefixtures("few")
def test_only_so_many_are_kept_and_those_that_give_way_listen_to_nothing(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 4))
        habits = client.node.services.fetch_sessions.habits
        habits.partitions_max = 9
        listening = client.node.services.replicas.get("t", 3)._waiters
        clients = [
            Client(client.node, *await asyncio.open_connection(*client.node.address)) for _ in range(4)
        ]
        for one in clients:
            await fetch(one, wants("t", *range(4)))
        assert (len(habits), habits.partitions, len(listening)) == (2, 8, 2)
        # Those that asked last are kept.
        await fetch(clients[2], wants("t", *range(4)))
        first = await waits(clients[0], *range(4))
        assert (len(habits), len(listening)) == (2, 2)
        await waits(clients[2], *range(4))
        # One that gives way while its request waits hears of everything until that is answered.
        habits.let_go()
        assert (len(habits), habits.partitions, len(listening)) == (0, 0, 2)
        client.node.services.replicas.get("t", 3).append(batch(b"v"), now_ms=1)
        assert by_partition(await first)["t", 3]["records"]
        while listening:
            await asyncio.sleep(0.001)
        assert by_partition(await fetch(clients[0], wants("t", *range(4))))["t", 3]["records"]
        for one in clients:
            one.close()
        while client.node.connection_count > 1:
            await asyncio.sleep(0)
        assert not len(habits) and not listening

    run_one(tmp_path, body)


@pytest.mark.usefixtures("few")
def test_none_is_kept_while_requests_fill_the_memory(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 4))
        habits, memory = client.node.services.fetch_sessions.habits, client.node.services.memory
        await fetch(client, wants("t", *range(4)))
        assert len(habits) == 1
        memory.request_bytes += memory.request_bytes_max
        memory.may_hold(client.node, SMALL_REQUEST_BYTES + 1)  # type: ignore[arg-type]
        assert not len(habits)
        assert len(by_partition(await fetch(client, wants("t", *range(4))))) == 4
        assert not len(habits) and not client.node.services.replicas.get("t", 3)._waiters
        memory.request_bytes -= memory.request_bytes_max

    run_one(tmp_path, body)


@pytest.mark.usefixtures("few")
def test_one_leaves_no_circle_behind(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 4))
        await fetch(client, wants("t", *range(4)))
        with nothing_left((*WATCHED, Want, habit.Habit, habit_fetch.HabitFetch, habit_fetch.KeptHabit)):
            one = Client(client.node, *await asyncio.open_connection(*client.node.address))
            await fetch(one, wants("t", *range(4)))
            asked = await waits(one, *range(4))
            client.node.services.replicas.get("t", 3).append(batch(b"v"), now_ms=1)
            await asked
            (await waits(one, *range(2))).cancel()
            one.close()
            while client.node.connection_count > 1:
                await asyncio.sleep(0)

    run_one(tmp_path, body)


NUMBER = st.integers(-1, 3)


@given(
    version=st.sampled_from(VERSIONS),
    topics=st.lists(st.tuples(st.sampled_from("tuvw"), st.lists(NUMBER, max_size=4)), max_size=4),
    change=st.none() | st.tuples(st.integers(0, 300), st.integers(0, 255)),
)
def test_where_partitions_are_in_a_request(
    version: int, topics: list[tuple[str, list[int]]], change: tuple[int, int] | None
) -> None:
    """What is found without reading a request is what reading it finds."""
    asked = [
        wants(name, *numbers, last_fetched_epoch=2) | {"topic_id": UUID(int=ord(name))}
        for name, numbers in topics
    ]
    fields = FETCH | {"topics": asked, **CONSUMER}
    key = BY_NAME["Fetch"].key
    body = encode_request(key, version, fields)
    if change is not None:
        place = change[0] % len(body)
        body = body[:place] + bytes([change[1]]) + body[place + 1 :]
    layout = layout_of(version)
    found = layout.blocks(body)
    try:
        whole = decode_request(key, version, body)
    except MalformedMessage:
        # Whatever of it differs from what was read before, a request is never compared with one like this.
        return
    if found is None:
        assert change is not None
        return
    blocks, _ = found
    entries = [
        layout.want(layout.topic(name), body[at + n * layout.size : at + (n + 1) * layout.size])
        for name, at, count in blocks
        for n in range(count)
    ]
    named = [
        (t.topic_id if version >= 13 else t.topic, p.partition, p.fetch_offset, p.partition_max_bytes)
        for t in whole.topics
        for p in t.partitions
    ]
    assert [(w.topic, w.partition, w.fetch_offset, w.max_bytes) for w in entries] == named


def test_the_one_that_is_used_least_recently_gives_way() -> None:
    let_go = []

    class One:
        def __init__(self, name: str) -> None:
            self.name = name

        def let_go(self) -> None:
            let_go.append(self.name)

    kept = Habits(partitions_max=10)
    a, b, c, d = (One(name) for name in "abcd")
    kept.keep(a, 4)
    kept.keep(b, 4)
    kept.used(a)
    kept.keep(c, 4)
    assert let_go == ["b"] and kept.partitions == 8
    kept.forget(b)
    kept.used(b)
    kept.keep(d, 11)
    assert let_go == ["b", "a", "c", "d"] and (len(kept), kept.partitions) == (0, 0)


def test_a_thousand_clients_that_ask_for_very_much_in_turn_are_not_all_kept() -> None:
    """Each asks for another set each time: what is kept is bounded by partitions, not by connections."""
    kept = Habits()

    class One:
        def let_go(self) -> None:
            kept.forget(self)

    before: dict[int, One] = {}
    for turn in range(3):
        for client in range(1000):
            if client in before:
                kept.forget(before[client])
            before[client] = One()
            kept.keep(before[client], 10_000 + turn)
            assert kept.partitions <= PARTITIONS_MAX and len(kept) <= PARTITIONS_MAX // 10_000
    assert len(kept) == PARTITIONS_MAX // 10_002
