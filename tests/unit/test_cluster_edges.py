"""Rare timings and losses that once cost a cluster its order."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest
from admin_support import Client, new_topic, no_room_for
from admin_support import run as run_node
from coordinators_support import settle
from log_support import FOLDER, append, open_log, read_all, values
from members_support import Members
from members_support import run as run_members
from memory_disk import MemoryDisk
from test_coordinators_runtime import Node, commit_request, error_of, run
from test_replication_leading import Bench, state

from ottla.broker.api.records.fetch.session import Session, Want
from ottla.errors import ErrorCode, KafkaError
from ottla.log.settings import LogConfig
from ottla.metadata import keys, service
from ottla.metadata.image import initial_state
from ottla.metadata.reassignment import reassign
from ottla.metadata.store import Delete, Put
from ottla.metadata.topics import NewTopic

EPOCHS = f"{FOLDER}/leader-epoch-checkpoint"
SMALL = LogConfig(segment_bytes=250)


def test_what_a_truncation_cut_off_does_not_come_back_behind_what_replaced_it() -> None:
    disk = MemoryDisk()
    log = open_log(disk)
    for value in ("a", "b", "c"):
        append(log, value, epoch=1)
    size = log.segments[-1].size // 3
    old = bytes(disk.files[log.segments[-1].path(".log")].data)
    log.truncate_to(1, 0)
    append(log, "n", epoch=2)
    data = disk.files[log.segments[-1].path(".log")].data
    data += old[2 * size :]
    again = open_log(disk)
    assert values(again) == [b"a", b"n"]
    assert again.epochs.entries == [(1, 0), (2, 1)]


@pytest.mark.parametrize("damage", ["lost", "damaged"])
@pytest.mark.parametrize("clean", [True, False])
def test_leader_epochs_are_read_from_the_log_where_their_checkpoint_is_gone(damage: str, clean: bool) -> None:
    disk = MemoryDisk()
    log = open_log(disk, SMALL)
    for number in range(9):
        append(log, f"{number}" * 50, epoch=number // 2)
    assert len(log.segments) > 2
    expected, entries, end = read_all(log), log.epochs.entries, log.log_end_offset
    log.close()
    if damage == "lost":
        del disk.files[EPOCHS]
    else:
        disk.files[EPOCHS].data[:] = b"junk"
    again = open_log(disk, SMALL, clean=clean, recovery_point=end)
    assert again.epochs.entries == entries
    assert read_all(again) == expected


def test_a_reassignment_that_is_complete_at_once_finds_another_leader_than_a_dead_one() -> None:
    made = reassign(initial_state((3, 1, 2)), (3, 1), frozenset((1, 2)), 1)
    assert (made.leader, made.replicas) == (1, (3, 1))


def test_a_shard_that_was_closed_appends_nothing_more() -> None:
    """Its node may lead on, in another epoch, whose shard has read the log without it."""

    async def story() -> None:
        node = await Node().start()
        commit = node.groups.commit(commit_request())  # gathered: to be appended in the loop's next turn
        node.groups.unload(0, 1)
        await node.groups.load(0, 1)
        assert await error_of(commit) == "not_coordinator"
        await settle()
        assert node.log.batches[0] == []
        assert list(node.groups.fetch("g", None, require_stable=False)) == []

    run(story)


def test_who_gives_its_lease_back_does_not_become_controller_for_ever(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2)
        await members.until(lambda: members.any().image.controller_id == 1)
        leaving = members.nodes[2]
        revoke, gone = leaving.store.lease_revoke, asyncio.Event()

        async def slow_revoke(lease: int) -> None:
            await gone.wait()
            await revoke(lease)

        leaving.store.lease_revoke = slow_revoke  # type: ignore[method-assign]
        left = asyncio.ensure_future(leaving.membership.leave())
        await members.until(lambda: not leaving.membership.lease)
        await members.kill(1, expire=False)
        await members.store.txn([], [Delete("brokers/1"), Delete("controller")])
        await asyncio.sleep(0.2)
        gone.set()
        await left
        assert await members.store.get("controller") is None

    run_members(tmp_path, body)


def test_fetches_of_a_process_without_a_registration_are_no_progress() -> None:
    """Another process of its id may be the member by now, with less data."""
    bench = Bench(state(isr=(1, 2)))
    bench.wait("a", bench.append() + 1)
    assert bench.refusal(2, 1, broker_epoch=-1) == "not_leader_or_follower"
    assert bench.it.high_watermark == 0 and bench.told == []
    bench.fetch(2, 1)
    assert bench.told == [("a", None)]


@pytest.mark.parametrize("goes", ["dies", "falls behind"])
def test_a_follower_that_was_about_to_join_and_goes_holds_no_commit_back(goes: str) -> None:
    bench = Bench(state(isr=(1,)))
    bench.append()
    bench.fetch(2, 1)
    assert bench.around.proposed
    bench.it.proposal_failed(bench.around.proposed[0])
    bench.wait("a", bench.append() + 1)
    bench.it.look_again()
    assert bench.told == []
    if goes == "dies":
        del bench.around.registered[2]
    else:
        bench.around.now_ms += bench.around.lag_ms_max + 1
    bench.it.look_again()
    assert bench.told == [("a", None)]


def test_each_producer_is_told_once_though_another_gives_up_meanwhile() -> None:
    bench = Bench()
    offset = bench.append() + 1
    bench.it.when_committed(offset, lambda error: bench.it.forget_commit(third) and None)
    bench.wait("second", offset)
    third = bench.wait("third", offset)
    bench.fetch(2, offset)
    bench.fetch(3, offset)
    bench.append()
    bench.fetch(2, offset + 1)
    bench.fetch(3, offset + 1)
    assert bench.told == [("second", None)]


def test_each_producer_is_told_once_though_a_batch_is_repeated_meanwhile() -> None:
    bench = Bench()
    first, second, third = (bench.append() + 1 for _ in range(3))

    def repeated(error: KafkaError | None) -> None:
        bench.wait("again", second)

    bench.it.when_committed(first, repeated)
    bench.wait("second", second)
    bench.wait("third", third)
    bench.fetch(2, third)
    bench.fetch(3, second)
    bench.fetch(3, third)
    assert sorted(bench.told) == [("again", None), ("second", None), ("third", None)]


def test_a_session_tells_each_time_that_another_replica_is_nearer() -> None:
    """Otherwise the client would ask again and again, and be answered nothing at once."""
    session = Session(1, False, 0)
    want = Want("t", 0, 5, 1024, -1)
    session.update([want], ())
    ends = {"high_watermark": 9, "last_stable_offset": 9, "log_start_offset": 0}
    answer = {"records": b"", "error_code": 0, **ends}
    assert len(session.news([(want, dict(answer))])) == 1
    assert session.news([(want, dict(answer))]) == []
    for _ in range(2):
        assert len(session.news([(want, answer | {"preferred_read_replica": 2})])) == 1


def test_a_replica_that_nobody_asks_for_is_made_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(client: Client) -> None:
        no_room_for(monkeypatch, "/t-")
        await client.ask("CreateTopics", 5, {"topics": [new_topic("t")], "timeout_ms": 1_000})
        replicas = client.node.services.replicas
        replicas.look_for_laggards()
        assert ("t", 0) not in replicas.partitions
        monkeypatch.undo()
        # What has just failed is left alone for a moment.
        deadline = asyncio.get_running_loop().time() + 10
        while ("t", 0) not in replicas.partitions:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)
            replicas.look_for_laggards()

    run_node(tmp_path, body)


@pytest.mark.parametrize("names", [("a.b", "a_b"), ("a.b", "a.b"), ("a_x", "c.d")])
def test_names_that_collide_are_not_made_at_once_on_two_nodes(tmp_path: Path, names: tuple[str, str]) -> None:
    """Neither node knows of the other's topic when it asks the store for its own."""

    async def body(members: Members) -> None:
        await members.start(1, 2)
        first, second = members.nodes[1], members.nodes[2]

        async def be_faster() -> None:
            (result,) = await first.metadata.controller.create_topics([NewTopic(names[0])])
            assert result.error is None

        second.store.before_txn = be_faster
        (result,) = await second.metadata.controller.create_topics([NewTopic(names[1])])
        if names == ("a_x", "c.d"):
            assert result.error is None
        else:
            assert result.error is not None
            codes = (ErrorCode.invalid_topic_exception, ErrorCode.topic_already_exists)
            assert result.error.code is codes[names[0] == names[1]]
        await members.until(lambda: "c.d" in first.image.topics or result.error is not None)
        assert sorted(first.image.topics) == sorted({names[0]} if result.error else set(names))

    run_members(tmp_path, body)


def test_metadata_that_cannot_be_followed_is_read_again_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(members: Members) -> None:
        monkeypatch.setattr(service, "RETRY_MS_MAX", 20)
        await members.start(1)
        monkeypatch.setattr(service, "apply", None)
        monkeypatch.setattr(service, "load", None)
        await members.store.txn([], [Put("nodes/7", keys.broker_value({"L": ("h", 1)}, None))])
        await members.until(lambda: caplog.text.count("cannot be decoded") > 1)
        monkeypatch.undo()
        await members.until(lambda: 7 in members.any().image.nodes)

    run_members(tmp_path, body)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("brokers/of-another-version", b"{}"),
        ("brokers/5", b'{"endpoints": {}}'),
        ("topics/u", b"not JSON"),
        ("partitions/t/0", b'{"leader": 1}'),
        ("partitions/t/x", b"{}"),
        ("configs/brokers/x", b"{}"),
        ("controller", b"[]"),
    ],
)
def test_what_is_not_understood_leaves_the_rest_of_the_metadata_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str, value: bytes
) -> None:
    """While nodes run, and at the start of one."""

    async def body(members: Members) -> None:
        await members.start(1)
        await members.create("t", (1,))
        await members.until(lambda: members.any().image.controller_id == 1)
        before = members.any().image
        await members.store.txn([], [Put(key, value), Put("topics/v", topic_value)])
        await members.until(lambda: "v" in members.any().image.topics)
        image = members.any().image
        assert (image.brokers, image.controller_id, image.topics["t"], "u" in image.topics) == (
            before.brokers,
            before.controller_id,
            before.topics["t"],
            False,
        )
        assert caplog.text.count(f"not understood, under the key {key!r}") == 1
        again = service.Metadata(members.nodes[1].store, members.nodes[1].config, 1)
        await again.start()
        assert again.image.topics.keys() == image.topics.keys()
        await again.close()

    topic_value = keys.topic_value(UUID(int=9), [[1]], {})
    run_members(tmp_path, body)
