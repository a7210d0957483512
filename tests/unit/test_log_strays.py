"""Folders of nothing that a node holds, and folders of others: what is touched, and what is not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from uuid import UUID

import pytest
from log_support import NOW_MS, append, values
from manager_support import TOPIC, WHERE, FakeClock, manager, scenario, settled
from memory_disk import MemoryDisk

from ottla.config import BrokerConfig
from ottla.env.clock import SystemClock
from ottla.env.disk import RealDisk
from ottla.log.folders import FOLDER_NAME_MAX, Suffix, aside_name, parse_aside, parse_folder
from ottla.log.manager import LogManager
from ottla.log.settings import LogConfig
from ottla.types import TopicPartition

OTHER = UUID(int=2)


def strays(disk: MemoryDisk) -> list[str]:
    return [name for name in disk.list("data") if name.endswith("-stray")]


async def leave(disk: MemoryDisk, clock: FakeClock, *records: str, where: TopicPartition = WHERE) -> None:
    """A broker writes records and stops in order."""
    one = manager(disk, clock)
    await one.start()
    append(one.get_or_create(where, TOPIC, LogConfig(), NOW_MS), *records)
    await one.close()


async def started(disk: MemoryDisk, clock: FakeClock) -> LogManager:
    one = manager(disk, clock)
    await one.start()
    return one


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a-b-12", ("a-b", 12)),
        ("foo--1", ("foo-", 1)),
        ("v-0", ("v", 0)),
        (f"a-{2**31 - 1}", ("a", 2**31 - 1)),
        (f"{'t' * 249}-7", ("t" * 249, 7)),
    ],
)
def test_folders_of_partitions(name: str, expected: tuple[str, int]) -> None:
    assert parse_folder(name) == expected
    assert str(TopicPartition(*expected)) == name


@pytest.mark.parametrize(
    "name",
    [
        "a", "a-", "-1", "a-b", "a-0.0123-delete", "metadata.db", "lost+found", "foo-²", "foo-٣", "foo-00",
        "foo-01", "foo- 1", "foo-+1", "foo-1_0", "foo-1\n", "a\nb-3", "\udcff\udcfe-0", "foo-" + "9" * 5000,
        f"foo-{2**31}", f"{'t' * 250}-7", ".-0", "..-0", "a/b-0", "é-0", "",
    ],
)  # fmt: skip
def test_folders_of_others(name: str) -> None:
    assert parse_folder(name) is None
    assert parse_aside(name) is None


def test_names_of_folders_with_a_suffix() -> None:
    hex_id = "0123456789abcdef" * 2
    assert parse_aside(f"a-b-12.{hex_id}-delete") == ("a-b", 12, Suffix.DELETE)
    assert parse_aside(f"a-0.{hex_id}-stray") == ("a", 0, Suffix.STRAY)
    assert parse_aside(f"a-0.{hex_id}-future") == ("a", 0, Suffix.FUTURE)
    for name in (
        "photos-to-delete", "notes-delete", "a-0-delete", f"a-0.{hex_id[1:]}-delete", f"a.{hex_id}-delete",
        f"a-0.{hex_id.upper()}-delete", f"a-0.{hex_id}-deleted", f"a-0.{hex_id}-stray-0",
        f"a-x.{hex_id}-stray",
    ):  # fmt: skip
        assert parse_aside(name) is None
    # A topic may well be called like that.
    assert parse_folder(f"a-0.{hex_id}-stray-0") == (f"a-0.{hex_id}-stray", 0)


@pytest.mark.parametrize("suffix", list(Suffix))
@pytest.mark.parametrize("topic", ["a", "t" * 249])
def test_a_name_with_a_suffix_fits_and_is_read_back(topic: str, suffix: Suffix) -> None:
    name = aside_name(TopicPartition(topic, 2**31 - 1), suffix)
    assert len(name) <= FOLDER_NAME_MAX
    aside = parse_aside(name)
    assert aside is not None
    assert topic.startswith(aside.topic) and aside[1:] == (2**31 - 1, suffix)
    assert aside.may_be_short == (aside.topic != topic)


@scenario
async def test_a_folder_of_another_topic_of_the_same_name_is_set_aside(
    disk: MemoryDisk, clock: FakeClock
) -> None:
    await leave(disk, clock, "acknowledged")
    two = await started(disk, clock)
    log = two.get_or_create(WHERE, OTHER, LogConfig(), NOW_MS)
    assert (log.log_end_offset, log.topic_id) == (0, OTHER)
    [stray] = strays(disk)
    assert parse_aside(stray) == ("topic", 0, Suffix.STRAY)
    assert b"acknowledged" in disk.files[f"data/{stray}/{0:020d}.log"].data
    append(log, "new")
    await two.close()
    # It stays, and what the checkpoints said of it is not taken for its successor's.
    three = await started(disk, clock)
    assert values(three.get_or_create(WHERE, OTHER, LogConfig(), NOW_MS)) == [b"new"]
    three.set_strays_aside({WHERE})
    assert strays(disk) == [stray]


@scenario
async def test_also_where_the_topic_is_made_while_the_broker_runs(disk: MemoryDisk, clock: FakeClock) -> None:
    """The folder could not be renamed at the start, say, or was put there since."""
    await leave(disk, clock, "acknowledged")
    two = await started(disk, clock)
    disk.fail_with["rename"] = OSError(13, "Permission denied")
    two.set_strays_aside(set())
    assert disk.exists("data/topic-0") and not strays(disk)
    disk.fail_with.clear()
    two.get_or_create(WHERE, OTHER, LogConfig(), NOW_MS)
    assert len(strays(disk)) == 1
    # One that does not tell its topic is not that of a topic that has just been made.
    disk.make_dirs("data/topic-1")
    disk.write_file(f"data/topic-1/{0:020d}.log", b"records of somebody")
    log = two.get_or_create(TopicPartition("topic", 1), OTHER, LogConfig(), NOW_MS)
    assert log.log_end_offset == 0 and len(strays(disk)) == 2
    # An empty one is what an attempt left.
    disk.make_dirs("data/topic-2")
    two.get_or_create(TopicPartition("topic", 2), OTHER, LogConfig(), NOW_MS)
    assert len(strays(disk)) == 2


def test_what_no_topic_knows_is_set_aside_at_the_start_and_said(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        disk, clock = MemoryDisk(), FakeClock()
        await leave(disk, clock, "a")
        disk.make_dirs("data/topic-1")
        disk.make_dirs("data/not a partition")
        disk.make_dirs("data/photos-to-delete")
        disk.write_file("data/other-0", b"a file")
        one = await started(disk, clock)
        # One that is this node's and cannot be opened stays where it is.
        one.set_strays_aside({TopicPartition("topic", 1)})
        [stray] = strays(disk)
        assert stray.startswith("topic-0.")
        names = set(disk.list("data"))
        assert {"topic-1", "not a partition", "photos-to-delete", "other-0"} <= names
        said = [record.getMessage() for record in caplog.records if "topic-0" in record.getMessage()]
        assert len(said) == 1 and stray in said[0] and "ottla log stray" in said[0]
        assert "stray partitions in data: 1;" in caplog.text
        await one.close()
        caplog.clear()
        two = await started(disk, clock)
        two.set_strays_aside({TopicPartition("topic", 1)})
        assert strays(disk) == [stray]
        assert "stray partitions in data: 1;" in caplog.text and stray not in caplog.text

    asyncio.run(run())


@scenario
async def test_a_data_directory_of_another_broker_is_left_alone(disk: MemoryDisk, clock: FakeClock) -> None:
    """As `ottla cluster up` calls them, in the folder that a broker was started on by mistake."""
    disk.make_dirs("data/node-1")
    disk.write_file("data/node-1/meta.properties", b"version=1\n")
    one = await started(disk, clock)
    one.set_strays_aside(set())
    assert strays(disk) == [] and disk.exists("data/node-1/meta.properties")
    with pytest.raises(FileExistsError):
        one.get_or_create(TopicPartition("node", 1), TOPIC, LogConfig(), NOW_MS)
    assert disk.exists("data/node-1/meta.properties")
    await one.close()


@scenario
async def test_a_topic_that_is_known_again_has_its_records_again(disk: MemoryDisk, clock: FakeClock) -> None:
    """The metadata was restored twice: from an old backup, then from the right one."""
    one = await started(disk, clock)
    log = one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    append(log, "a", "b", "c")
    log.advance_log_start(1)
    await one.close()
    two = await started(disk, clock)
    two.set_strays_aside(set())
    await two.close()
    assert not disk.exists("data/topic-0")
    three = await started(disk, clock)
    log = three.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    # What was deleted stays deleted, also after a crash.
    assert (log.log_start_offset, values(log)) == (1, [b"b", b"c"])
    three.abandon()
    four = await started(disk, clock)
    log = four.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    assert (log.log_start_offset, values(log)) == (1, [b"b", b"c"])
    assert not strays(disk)


@scenario
async def test_what_was_set_aside_is_not_taken_for_another_topics(disk: MemoryDisk, clock: FakeClock) -> None:
    await leave(disk, clock, "a")
    two = await started(disk, clock)
    two.set_strays_aside(set())
    await two.close()
    three = await started(disk, clock)
    assert three.get_or_create(WHERE, OTHER, LogConfig(), NOW_MS).log_end_offset == 0
    log = three.get_or_create(TopicPartition("topic", 1), TOPIC, LogConfig(), NOW_MS)
    assert log.log_end_offset == 0
    assert len(strays(disk)) == 1


@scenario
async def test_two_folders_of_one_partition_are_left_to_people(disk: MemoryDisk, clock: FakeClock) -> None:
    await leave(disk, clock, "a")
    two = await started(disk, clock)
    two.set_strays_aside(set())
    await two.close()
    await leave(disk, clock, "b", where=TopicPartition("elsewhere", 0))
    [stray] = strays(disk)
    disk.rename("data/elsewhere-0", f"data/{aside_name(WHERE, Suffix.STRAY)}")
    three = await started(disk, clock)
    assert three.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS).log_end_offset == 0
    assert len(strays(disk)) == 2 and stray in strays(disk)


@scenario
async def test_a_long_name_is_told_beside_the_shortened_one(disk: MemoryDisk, clock: FakeClock) -> None:
    long, longer = TopicPartition("t" * 240, 3), TopicPartition("t" * 249, 3)
    await leave(disk, clock, "a", where=longer)
    two = await started(disk, clock)
    two.set_strays_aside(set())
    await two.close()
    three = await started(disk, clock)
    assert three.get_or_create(long, TOPIC, LogConfig(), NOW_MS).log_end_offset == 0
    assert values(three.get_or_create(longer, TOPIC, LogConfig(), NOW_MS)) == [b"a"]


@scenario
async def test_only_our_own_leftovers_are_removed(disk: MemoryDisk, clock: FakeClock) -> None:
    doomed = aside_name(WHERE, Suffix.DELETE)
    kept = [
        "photos-to-delete", "topic-0-delete", "topic-0.0123-delete", f"{doomed}d",
        aside_name(WHERE, Suffix.STRAY), aside_name(WHERE, Suffix.FUTURE), f"topic.{'0' * 32}-delete",
    ]  # fmt: skip
    for name in (doomed, *kept):
        disk.make_dirs(f"data/{name}")
        disk.write_file(f"data/{name}/precious", b"")
    disk.write_file("data/notes-delete", b"")
    disk.write_file(f"data/{aside_name(TopicPartition('file', 0), Suffix.DELETE)}", b"")
    before = set(disk.list("data"))
    one = await started(disk, clock)
    one.set_strays_aside(set())
    await settled()
    await one.close()
    assert before - set(disk.list("data")) == {doomed}


def test_of_a_link_only_the_link_is_removed(tmp_path: Path) -> None:
    outside, data = tmp_path / "outside", tmp_path / "data"
    outside.mkdir()
    data.mkdir()
    (outside / "precious").write_text("")
    (data / aside_name(WHERE, Suffix.DELETE)).symlink_to(outside)
    (data / "mine-delete").symlink_to(outside)

    async def run() -> None:
        disk = RealDisk()
        one = LogManager(disk, str(data), BrokerConfig({}), SystemClock(), node_id=1)
        await one.start()
        await one.close()
        disk.close()

    asyncio.run(run())
    assert (outside / "precious").exists()
    assert [name for name in os.listdir(data) if name.endswith("-delete")] == ["mine-delete"]


@scenario
async def test_a_file_where_a_folder_belongs(disk: MemoryDisk, clock: FakeClock) -> None:
    one = await started(disk, clock)
    disk.write_file("data/topic-0", b"not ours")
    with pytest.raises(FileExistsError, match="what is no partition's folder is in its place: move it away"):
        one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
    assert disk.read_file("data/topic-0") == b"not ours"
    disk.remove("data/topic-0")
    append(one.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS), "a")


@pytest.mark.parametrize("name", ["recovery-point-offset-checkpoint", "replication-offset-checkpoint",
                                  "cleaner-offset-checkpoint", ".kafka_cleanshutdown"])  # fmt: skip
def test_a_folder_where_a_file_belongs(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        disk, clock = MemoryDisk(), FakeClock()
        await leave(disk, clock, "a")
        disk.remove(f"data/{name}")
        disk.make_dirs(f"data/{name}")
        two = await started(disk, clock)
        assert f"data/{name}" in caplog.text and "move it away" in caplog.text
        assert values(two.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)) == [b"a"]
        assert name in disk.list("data")

    asyncio.run(run())


def test_files_of_others_in_a_partitions_folder_are_left_alone() -> None:
    async def run() -> None:
        disk, clock = MemoryDisk(), FakeClock()
        await leave(disk, clock, "a")
        kept = ["notes.tmp", "old.deleted", "mine.swap", "x.cleaned", "00000000000000000000.notes.log",
                "99999999999999999999.log", "0.log", "00000000000000000000.log.bak"]  # fmt: skip
        for name in kept:
            disk.write_file(f"data/topic-0/{name}", b"precious")
        gone = [f"{5:020d}.log.deleted", f"{5:020d}.log.cleaned", f"{5:020d}.snapshot.tmp",
                "leader-epoch-checkpoint.tmp", "partition.metadata.tmp"]  # fmt: skip
        for name in gone:
            disk.write_file(f"data/topic-0/{name}", b"")
        disk.make_dirs("data/topic-0/folder.tmp")
        two = await started(disk, clock)
        log = two.get_or_create(WHERE, TOPIC, LogConfig(), NOW_MS)
        assert values(log) == [b"a"]
        names = set(disk.list("data/topic-0"))
        assert set(kept) <= names and "folder.tmp" in names and not names & set(gone)

    asyncio.run(run())
