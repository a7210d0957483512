"""A Fetch of thousands of partitions: the same answers, while others have their turn."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from admin_support import Client, code, create, new_topic, run
from test_broker_fetch import batch, by_partition, errors, fetch, freeze, produce, wants

from measuring import HANG_S
from ottla.broker.api.records.fetch import asked, habit, habit_fetch, handler, large, reader, slowly
from ottla.broker.api.records.fetch.asked import PIECE
from ottla.broker.api.records.fetch.encoding import PartitionWriter, TopicsWriter
from ottla.broker.api.records.fetch.reader import Reader
from ottla.broker.api.records.fetch.session import Want
from ottla.broker.memory import UNSENT_BYTES_MAX
from ottla.env.slices import Slices
from ottla.metadata.image import PartitionState
from ottla.wire.apis import BY_NAME
from ottla.wire.messages import encode_response

COUNT = 4_000


async def turns_during(work: asyncio.Future[Any]) -> int:
    """How often somebody else has a turn meanwhile."""
    turns = 0
    while not work.done():
        turns += 1
        await asyncio.sleep(0)
    return turns


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (asked, handler, habit_fetch, slowly):
        monkeypatch.setattr(module, "PIECE", 2)


@pytest.mark.parametrize("session_epoch", [-1, 0])
def test_thousands_of_partitions_that_nobody_knows_hold_up_nobody(tmp_path: Path, session_epoch: int) -> None:
    async def body(client: Client) -> None:
        asked = [
            wants("", 0, current_leader_epoch=5) | {"topic_id": UUID(int=number + 1)}
            for number in range(COUNT)
        ]
        state = {"replica_id": -1, "replica_epoch": -1}
        more = {"version": 17, "replica_state": state, "session_epoch": session_epoch}
        handled = []
        whole, kept = large.LargeFetch.answer, slowly.look_and_read

        async def answer(it: large.LargeFetch) -> Any:
            work = asyncio.ensure_future(whole(it))
            handled.append(await turns_during(work))
            return work.result()

        async def looking(*of: Any) -> Any:
            work = asyncio.ensure_future(kept(*of))
            handled.append(await turns_during(work))
            return work.result()

        large.LargeFetch.answer = answer  # type: ignore[method-assign]
        habit_fetch.look_and_read = looking
        try:
            found = await fetch(client, *asked, max_wait_ms=120_000, **more)
        finally:
            large.LargeFetch.answer = whole  # type: ignore[method-assign]
            habit_fetch.look_and_read = kept
        answers = [one for topic in found["responses"] for one in topic["partitions"]]
        assert len(answers) == COUNT and {code(one) for one in answers} == {"unknown_topic_id"}
        # To look, and to answer.
        assert handled[0] >= 2 * COUNT // PIECE
        assert (found["session_id"] != 0) == (session_epoch == 0)

    run(tmp_path, body)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("session_epoch", [-1, 0])
def test_others_have_their_turn_after_each_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session_epoch: int
) -> None:
    since, most = [0], [0]
    pause, look_at = Slices.pause, Reader.look_at

    async def pausing(slices: Slices) -> None:
        since[0] = 0
        await pause(slices)

    def looking(reader: Reader, wants: Any, collected: Any) -> Any:
        since[0] += len(wants)
        most[0] = max(most[0], since[0])
        return look_at(reader, wants, collected)

    monkeypatch.setattr(Slices, "pause", pausing)
    monkeypatch.setattr(Reader, "look_at", looking)

    async def body(client: Client) -> None:
        await create(client, *(new_topic(name, 1) for name in "abcdefg"))
        found = await fetch(client, *(wants(name, 0) for name in "abcdefg"), session_epoch=session_epoch)
        assert len(by_partition(found)) == 7

    run(tmp_path, body)
    assert most == [2]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("session_epoch", [-1, 0])
def test_one_that_waits_is_woken_by_any_of_its_partitions(tmp_path: Path, session_epoch: int) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 7))
        waiters = client.node.services.replicas.get("t", 5)._waiters
        waiting = asyncio.ensure_future(
            fetch(client, wants("t", *range(7)), max_wait_ms=120_000, session_epoch=session_epoch)
        )
        while not waiters:
            await asyncio.sleep(0.001)
        client.node.services.replicas.get("t", 5).append(batch(b"v"), now_ms=1)
        found = by_partition(await asyncio.wait_for(waiting, HANG_S))
        assert [index for _, index in found] == list(range(7)) and found["t", 5]["records"]
        if session_epoch < 0:
            while waiters:
                await asyncio.sleep(0)
        # And at its deadline.
        found = by_partition(await fetch(client, wants("t", *range(5)), max_wait_ms=30))
        assert len(found) == 5

    run(tmp_path, body)


@pytest.mark.usefixtures("small_pieces")
def test_one_that_was_woken_for_too_little_waits_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not look again and again until its deadline."""
    looks = []
    collect = large.LargeFetch._collect

    async def counted(it: large.LargeFetch) -> Any:
        looks.append(it)
        return await collect(it)

    monkeypatch.setattr(large.LargeFetch, "_collect", counted)

    async def body(client: Client) -> None:
        await create(client, new_topic("t", 7))
        partition = client.node.services.replicas.get("t", 5)
        waiting = asyncio.ensure_future(
            fetch(client, wants("t", *range(7)), max_wait_ms=120_000, min_bytes=1_000, session_epoch=-1)
        )
        while not partition._waiters:
            await asyncio.sleep(0.001)
        partition.append(batch(b"v"), now_ms=1)
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert not waiting.done() and len(looks) <= 4
        partition.append(batch(b"v" * 1_000), now_ms=1)
        found = by_partition(await asyncio.wait_for(waiting, HANG_S))
        assert len(found["t", 5]["records"]) > 1_000

    run(tmp_path, body)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("session_epoch", [-1, 0])
@pytest.mark.parametrize("turn", range(12))
def test_what_comes_while_it_looks_wakes_it(tmp_path: Path, session_epoch: int, turn: int) -> None:
    """In whichever turn of the loop it comes."""

    async def body(client: Client) -> None:
        await create(client, new_topic("t", 7))
        first = client.node.services.replicas.get("t", 0)
        whole = large.LargeFetch.answer

        async def answer(it: large.LargeFetch) -> Any:
            work = asyncio.ensure_future(whole(it))
            for _ in range(turn):
                await asyncio.sleep(0)
            assert not work.done()
            first.append(batch(b"v"), now_ms=1)
            return await work

        large.LargeFetch.answer = answer  # type: ignore[method-assign]
        try:
            waiting = fetch(client, wants("t", *range(7)), max_wait_ms=120_000, session_epoch=session_epoch)
            found = by_partition(await asyncio.wait_for(waiting, HANG_S))
        finally:
            large.LargeFetch.answer = whole  # type: ignore[method-assign]
        assert found["t", 0]["records"]

    run(tmp_path, body)


@pytest.mark.usefixtures("small_pieces")
def test_what_is_cold_is_read_first_and_a_disk_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 5))
        for index in range(5):
            await produce(client, "t", index, batch(b"v"))
        freeze(monkeypatch, OSError(5, "Input/output error"))
        answer = await fetch(client, wants("t", *range(5)), session_epoch=0)
        assert set(errors(answer).values()) == {"kafka_storage_error"}
        monkeypatch.undo()
        for module in (asked, handler, slowly):
            monkeypatch.setattr(module, "PIECE", 2)
        answer = await fetch(client, session_id=answer["session_id"], session_epoch=1)
        assert set(errors(answer).values()) == {"none"} and len(errors(answer)) == 5

    run(tmp_path, body)


@pytest.mark.usefixtures("small_pieces")
def test_a_client_that_goes_leaves_nothing(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 4))
        waiters = client.node.services.replicas.get("t", 3)._waiters
        waiting = asyncio.ensure_future(fetch(client, wants("t", *range(4)), max_wait_ms=2**31 - 1))
        while not waiters:
            await asyncio.sleep(0.001)
        client.close()
        while waiters:
            await asyncio.sleep(0.001)
        waiting.cancel()

    run(tmp_path, body)


@pytest.mark.usefixtures("small_pieces")
def test_a_session_that_grows_and_forgets_much(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 9))
        answer = await fetch(client, wants("t", *range(3)), session_epoch=0)
        session_id = answer["session_id"]
        sessions = client.node.services.fetch_sessions
        assert sessions.partitions == 3
        answer = await fetch(client, wants("t", *range(2, 9)), session_id=session_id, session_epoch=1)
        assert sorted(by_partition(answer)) == [("t", index) for index in range(3, 9)]
        assert sessions.partitions == 9
        gone = [{"topic": "t", "partitions": list(range(7))}]
        answer = await fetch(client, session_id=session_id, session_epoch=2, forgotten_topics_data=gone)
        assert sessions.partitions == 2
        assert [want.partition for want in sessions._sessions[session_id].wants.values()] == [7, 8]

    run(tmp_path, body)


@pytest.mark.usefixtures("small_pieces")
def test_a_session_that_forgets_all_ends_and_nothing_is_waited_for(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        await create(client, new_topic("t", 3))
        session_id = (await fetch(client, wants("t", *range(3)), session_epoch=0))["session_id"]
        gone = [{"topic": "t", "partitions": list(range(3))}]
        more: dict[str, Any] = {"session_epoch": 1, "forgotten_topics_data": gone, "max_wait_ms": 120_000}
        answer = await asyncio.wait_for(fetch(client, session_id=session_id, **more), HANG_S)
        assert (answer["session_id"], answer["error_code"]) == (0, 0) and not answer["responses"]
        assert not len(client.node.services.fetch_sessions)

    run(tmp_path, body)


@pytest.mark.parametrize("large_answer", [False, True])
def test_an_answer_with_many_records_goes_out_though_others_do_not_take_theirs(
    tmp_path: Path, large_answer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was kept to the room that there was, and most of that is its own by the time that it is written."""
    if large_answer:
        for module in (asked, handler, habit_fetch, slowly):
            monkeypatch.setattr(module, "PIECE", 100)
    count = 300

    async def body(client: Client) -> None:
        await create(client, new_topic("t", count))
        whole = batch(b"v" * 30_000)
        for index in range(count):
            client.node.services.replicas.get("t", index).append(whole, now_ms=1)
        memory = client.node.services.memory
        memory.unsent_bytes = others = UNSENT_BYTES_MAX - 250 * len(whole)
        found = by_partition(await fetch(client, wants("t", *range(count)), max_bytes=2**30))
        assert sum(len(one["records"]) for one in found.values()) == 250 * len(whole)
        assert memory.unsent_bytes == others

    run(tmp_path, body)


@pytest.mark.usefixtures("small_pieces")
def test_one_that_waits_without_a_session_looks_only_at_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    whole = Reader._read

    def read(self: Reader, want: Any, *more: Any) -> Any:
        looked.append(want.partition)
        return whole(self, want, *more)

    monkeypatch.setattr(Reader, "_read", read)

    async def body(client: Client) -> None:
        await create(client, new_topic("t", 7), new_topic("u"))
        replicas = client.node.services.replicas
        last = replicas.get("u", 0)

        async def waiting(*asked: dict[str, Any]) -> asyncio.Future[dict[str, Any]]:
            looked.clear()
            future = asyncio.ensure_future(fetch(client, *asked, version=10, max_wait_ms=120_000))
            while not last._waiters:
                await asyncio.sleep(0.001)
            assert looked == [*range(7), 0]
            looked.clear()
            return future

        future = await waiting(wants("t", *range(7)), wants("u", 0))
        replicas.get("t", 5).append(batch(b"v"), now_ms=1)
        found = by_partition(await asyncio.wait_for(future, HANG_S))
        assert looked == [5] and len(found) == 8
        assert found["t", 5]["records"] and not found["t", 4]["records"]
        while last._waiters:
            await asyncio.sleep(0)
        # A leader that resigns is told of, too.
        future = await waiting(
            wants("t", *range(5)), wants("t", 5, fetch_offset=1), wants("t", 6), wants("u", 0)
        )
        it = replicas.get("t", 3)
        it.apply(PartitionState(2, 5, 1, (1, 2), (1, 2)))
        found = by_partition(await asyncio.wait_for(future, HANG_S))
        assert looked == [3] and code(found["t", 3]) == "not_leader_or_follower"
        assert {code(found["t", index]) for index in (0, 1, 2, 4)} == {"none"}

    run(tmp_path, body)


@pytest.mark.parametrize("version", range(BY_NAME["Fetch"].version_min, BY_NAME["Fetch"].version_max + 1))
def test_topics_are_written_one_partition_at_a_time_as_they_are_as_a_whole(version: int) -> None:
    def answer(index: int, **more: Any) -> dict[str, Any]:
        numbers = {"high_watermark": 7 + index, "last_stable_offset": 6, "log_start_offset": 2}
        return {"partition_index": index, "error_code": 0, "aborted_transactions": None, "records": b""} | (
            numbers | more
        )

    answers = {
        1: [answer(0), answer(1), answer(2, aborted_transactions=()), answer(3, records=b"r" * 70)],
        2: [answer(index) for index in range(200)],
        3: [answer(0, error_code=3), answer(1, preferred_read_replica=4), answer(2), answer(0)],
        4: [answer(9, diverging_epoch={"epoch": 3, "end_offset": 8})],
        5: [answer(1, error_code=6, current_leader={"leader_id": 1, "leader_epoch": 2})],
    }
    partitions, topics = PartitionWriter(version), TopicsWriter(version)
    named = {(UUID(int=key) if version >= 13 else f"t{key}"): value for key, value in answers.items()}
    for topic, each in named.items():
        for one in each:
            if one["records"]:
                topics.add_records(topic, partitions.write(one))
            else:
                topics.add(topic, partitions.write_empty(one))
    fields = {"error_code": 0, "session_id": 0, "throttle_time_ms": 0, "node_endpoints": ()}
    expected = [{"topic": key, "topic_id": key, "partitions": value} for key, value in named.items()]
    written = encode_response(1, version, fields | {"responses": topics.finish()})
    assert written == encode_response(1, version, fields | {"responses": expected})


@pytest.mark.parametrize("is_large", [False, True])
def test_one_whose_session_gives_way_to_others_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    """Nothing wakes it any more: its client hears with its next request that it has to begin anew."""

    async def body(client: Client) -> None:
        await create(client, new_topic("t", 7))
        sessions = client.node.services.fetch_sessions
        if is_large:
            monkeypatch.setattr(large, "PIECE", 2)
            monkeypatch.setattr(handler, "PIECE", 2)
            monkeypatch.setattr(asked, "PIECE", 2)
            more: dict[str, Any] = {"session_epoch": 0}
            topics = [wants("t", *range(7))]
        else:
            first = await fetch(client, wants("t", *range(7)), session_epoch=0)
            more, topics = {"session_id": first["session_id"], "session_epoch": 1}, []
        waiting = asyncio.ensure_future(fetch(client, *topics, max_wait_ms=120_000, **more))
        while not (sessions._sessions and next(iter(sessions._sessions.values())).waiter):
            await asyncio.sleep(0.001)
        (session_id,) = sessions._sessions
        await asyncio.sleep(0.01)
        sessions.close(session_id)
        answer = await asyncio.wait_for(waiting, HANG_S)
        assert (code(answer), answer["session_id"]) == ("none", session_id)
        again = await fetch(client, session_id=session_id, session_epoch=2)
        assert code(again) == "fetch_session_id_not_found"

    run(tmp_path, body)


@pytest.mark.parametrize("session_epoch", [-1, 0])
def test_what_one_was_made_of_is_forgotten_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session_epoch: int
) -> None:
    """Thousands of partitions, and what was found for them, take as long to be freed as a look at them."""
    piece, count = 10, 200
    for module in (asked, handler, habit_fetch, large, slowly):
        monkeypatch.setattr(module, "PIECE", piece)
    monkeypatch.setattr(habit, "FORGOTTEN_AT_ONCE", piece)
    step = 0
    freed: Counter[tuple[str, int]] = Counter()

    class CountedFound(reader.Found):
        def __del__(self) -> None:
            freed["found", step] += 1

    class CountedWant(Want):
        __slots__ = ()

        def __del__(self) -> None:
            freed["want", step] += 1

    monkeypatch.setattr(reader, "Found", CountedFound)
    monkeypatch.setattr(asked, "Want", CountedWant)
    run_handle = asyncio.events.Handle._run

    def counted(handle: asyncio.Handle) -> None:
        nonlocal step
        step += 1
        run_handle(handle)

    async def body(client: Client) -> None:
        await create(client, new_topic("t", count))
        for index in range(count):
            client.node.services.replicas.get("t", index).append(batch(b"v"), now_ms=1)
        found = await fetch(client, wants("t", *range(count)), version=10, session_epoch=session_epoch)
        assert all(one["records"] for one in by_partition(found).values())
        client.node.services.fetch_sessions.habits.let_go()
        seen = {"found", "want"} if session_epoch < 0 else {"found"}
        while any(sum(n for (kind, _), n in freed.items() if kind == each) < count for each in seen):
            await asyncio.sleep(0)
        assert max(n for (kind, _), n in freed.items() if kind in seen) <= 2 * piece

    monkeypatch.setattr(asyncio.events.Handle, "_run", counted)
    run(tmp_path, body)


@pytest.mark.parametrize(("count", "named"), [(120, 1), (PIECE + 1, 1), (2, PIECE)])
def test_those_that_wait_without_a_session_give_way_to_later_ones(
    tmp_path: Path, count: int, named: int
) -> None:
    """However long they wish to wait: what they hold is many times what their requests were."""

    async def body(client: Client) -> None:
        await create(client, new_topic("t", count))
        without = client.node.services.fetch_sessions.without
        size = count * named + 1
        without.partitions_max = 2 * size + 1
        clients = [
            Client(client.node, *await asyncio.open_connection(*client.node.address)) for _ in range(4)
        ]
        waiting: list[asyncio.Future[Any]] = []
        for number, one in enumerate(clients):
            asked = fetch(one, wants("t", *named * list(range(count))), max_wait_ms=2**31 - 1)
            waiting.append(asyncio.ensure_future(asked))
            if number < 2:
                while without.partitions != size * (number + 1):
                    await asyncio.sleep(0.001)
            else:
                assert len(by_partition(await asyncio.wait_for(waiting[number - 2], HANG_S))) == count
                assert without.partitions == 2 * size
        assert not any(one.done() for one in waiting[2:])
        for one in clients:
            one.close()
        while without.partitions:
            await asyncio.sleep(0.001)
        for one in waiting[2:]:
            one.cancel()

    run(tmp_path, body)
