"""What Fetch promises: limits, waiting, sessions, leader epochs; and what survives a restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from interop.process import BrokerProcess, wait_until
from interop.raw import RawClient, batch, fetch_fields, produce_fields
from measuring import at_most, not_waiting
from ottla.errors import ErrorCode
from ottla.wire import records

KB = 1024
# The type of a configuration resource.
TOPIC = 2


@pytest.fixture(scope="module")
def broker(ottla_process_module: Callable[..., BrokerProcess]) -> BrokerProcess:
    return ottla_process_module()


@pytest.fixture
def client(broker: BrokerProcess) -> Iterator[RawClient]:
    with RawClient(broker.bootstrap) as connection:
        yield connection


@pytest.fixture
def topic(client: RawClient, name: str) -> str:
    assert client.create_topic(name, 3).error_code == 0
    return name


def many(topic: str, offsets: dict[int, int], *, each: int = 1 << 20, **limits: int) -> dict[str, Any]:
    """A Fetch of several partitions of a topic, from `offsets`."""
    fields = fetch_fields(topic, **limits)
    one = fields["topics"][0]["partitions"][0]
    fields["topics"][0]["partitions"] = [
        {**one, "partition": p, "fetch_offset": offset, "partition_max_bytes": each}
        for p, offset in offsets.items()
    ]
    return fields


def sizes(answer: Any) -> dict[int, int]:
    return {p.partition_index: len(p.records) for p in answer.responses[0].partitions}


def test_the_first_batch_is_always_whole(client: RawClient, topic: str) -> None:
    """However small the limits: a consumer can always go on (KIP-74)."""
    data = batch(bytes(50 * KB))
    for partition in range(3):
        for _ in range(2):
            client.produce(topic, data, partition=partition)
    one = sizes(client.call("Fetch", 12, **many(topic, {0: 0, 1: 0, 2: 0}, each=1, max_bytes=1)))
    assert one == {0: len(data), 1: 0, 2: 0}
    # The request's limit: the first partition's batch, and what of the others still fits whole or in part.
    two = sizes(client.call("Fetch", 12, **many(topic, {0: 0, 1: 0, 2: 0}, each=60 * KB, max_bytes=120 * KB)))
    assert two[0] >= len(data)
    assert sum(two.values()) <= 120 * KB
    wide = sizes(
        client.call("Fetch", 12, **many(topic, {0: 0, 1: 0, 2: 0}, each=500 * KB, max_bytes=900 * KB))
    )
    assert wide == {0: 2 * len(data), 1: 2 * len(data), 2: 2 * len(data)}


def test_a_fetch_in_the_middle_of_a_batch_gives_the_batch(client: RawClient, topic: str) -> None:
    client.produce(topic, batch(*[b"%d" % i for i in range(10)]))
    client.produce(topic, batch(b"x"))
    answer = client.fetch(topic, 7)
    headers = [header for header, _ in records.iter_batches(answer.records)]
    assert [(h.base_offset, h.record_count) for h in headers] == [(0, 10), (10, 1)]


def test_offsets_beside_the_log(client: RawClient, topic: str) -> None:
    client.produce(topic, batch(b"a", b"b"))
    assert client.fetch(topic, 2).error_code == 0
    for offset in (3, 100, -1, -5, 2**62):
        assert client.fetch(topic, offset).error_code == ErrorCode.offset_out_of_range


def test_leader_epochs_are_checked(client: RawClient, topic: str) -> None:
    for epoch, code in [(-1, 0), (0, 0), (1, ErrorCode.unknown_leader_epoch)]:
        fields = fetch_fields(topic)
        fields["topics"][0]["partitions"][0]["current_leader_epoch"] = epoch
        assert client.call("Fetch", 12, **fields).responses[0].partitions[0].error_code == code


def test_divergence_is_told(client: RawClient, topic: str) -> None:
    """A last fetched epoch that this log never had (KIP-595's truncation on fetch)."""
    client.produce(topic, batch(b"a"))
    fields = fetch_fields(topic, 1)
    fields["topics"][0]["partitions"][0]["last_fetched_epoch"] = 0
    good = client.call("Fetch", 12, **fields).responses[0].partitions[0]
    assert good.error_code == 0
    assert good.diverging_epoch.end_offset == -1


def test_waiting_for_bytes(broker: BrokerProcess, client: RawClient, topic: str) -> None:
    """min_bytes holds the answer back until enough is there, from any of the partitions."""
    with RawClient(broker.bootstrap) as producer:
        fields = many(topic, {0: 0, 1: 0, 2: 0}, max_wait_ms=15_000, min_bytes=3000)
        client.send(client.frame("Fetch", 12, fields))
        client.socket.settimeout(0.3)
        for partition in range(2):
            producer.produce(topic, batch(bytes(1000)), partition=partition)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        client.socket.settimeout(10)
        with not_waiting(15):
            producer.produce(topic, batch(bytes(1000)), partition=2)
            found = sizes(client.answer("Fetch", 12, 1))
        assert all(size > 1000 for size in found.values())


def test_waiting_ends_at_its_time(client: RawClient, topic: str) -> None:
    for wait_ms in (0, 100, 700):
        for attempt in at_most(1.0, "s too late"):
            started = time.monotonic()
            answer = client.fetch(topic, 0, max_wait_ms=wait_ms)
            elapsed_s = time.monotonic() - started
            assert (answer.error_code, len(answer.records)) == (0, 0)
            assert wait_ms / 1000 - 0.01 <= elapsed_s
            attempt.took(elapsed_s - wait_ms / 1000)


def test_an_error_ends_the_waiting(client: RawClient, topic: str) -> None:
    with not_waiting(15):
        answer = client.call("Fetch", 12, **many(topic, {0: 0, 9: 0}, max_wait_ms=15_000))
    codes = {p.partition_index: p.error_code for p in answer.responses[0].partitions}
    assert codes == {0: 0, 9: ErrorCode.unknown_topic_or_partition}


def test_deleting_a_topic_ends_the_waiting(broker: BrokerProcess, client: RawClient, topic: str) -> None:
    client.send(client.frame("Fetch", 12, fetch_fields(topic, 0, max_wait_ms=15_000)))
    with RawClient(broker.bootstrap) as other:
        # Answered in order: once this is done, the first request was taken up, too.
        other.call("ApiVersions", 0)
        answer = other.call("DeleteTopics", 5, topic_names=[topic], timeout_ms=5000)
        assert answer.responses[0].error_code == 0
    with not_waiting(15):
        (partition,) = client.answer("Fetch", 12, 1).responses[0].partitions
    assert partition.error_code in (ErrorCode.unknown_topic_or_partition, ErrorCode.not_leader_or_follower)


def test_pipelined_requests_are_answered_in_order(client: RawClient, topic: str) -> None:
    """A Produce behind a long poll waits for it, and ends it on no other connection."""
    client.send(client.frame("Fetch", 12, fetch_fields(topic, 0, max_wait_ms=500), 1))
    client.send(client.frame("Produce", 9, produce_fields(topic, batch(b"v")), 2))
    client.send(client.frame("Fetch", 12, fetch_fields(topic, 0, max_wait_ms=500), 3))
    first = client.answer("Fetch", 12, 1).responses[0].partitions[0]
    assert len(first.records) == 0
    assert client.answer("Produce", 9, 2).responses[0].partition_responses[0].base_offset == 0
    third = client.answer("Fetch", 12, 3).responses[0].partitions[0]
    assert third.high_watermark == 1


def session(
    client: RawClient, topic: str, session_id: int, epoch: int, offsets: dict[int, int], **more: Any
) -> Any:
    fields = many(topic, offsets, **more)
    if not offsets:
        fields["topics"] = []
    return client.call("Fetch", 12, **{**fields, "session_id": session_id, "session_epoch": epoch})


def test_sessions(client: RawClient, topic: str) -> None:
    """KIP-227: only what changed is asked and told."""
    first = session(client, topic, 0, 0, {0: 0, 1: 0, 2: 0})
    assert first.session_id != 0
    assert sorted(sizes(first)) == [0, 1, 2]
    quiet = session(client, topic, first.session_id, 1, {})
    assert (quiet.error_code, quiet.responses) == (0, ())
    client.produce(topic, batch(b"v"), partition=1)
    news = session(client, topic, first.session_id, 2, {})
    assert list(sizes(news)) == [1]
    moved = session(client, topic, first.session_id, 3, {1: 1})
    assert moved.responses == ()
    wrong = session(client, topic, first.session_id, 3, {})
    assert wrong.error_code == ErrorCode.invalid_fetch_session_epoch
    strange = session(client, topic, first.session_id ^ 1, 1, {})
    assert strange.error_code == ErrorCode.fetch_session_id_not_found
    fields = {**many(topic, {0: 0}), "session_id": first.session_id, "session_epoch": 4, "topics": []}
    fields["forgotten_topics_data"] = [{"topic": topic, "partitions": [1]}]
    assert client.call("Fetch", 12, **fields).error_code == 0
    client.produce(topic, batch(b"v"), partition=1)
    assert session(client, topic, first.session_id, 5, {}).responses == ()
    closed = session(client, topic, first.session_id, -1, {})
    assert (closed.error_code, closed.session_id) == (0, 0)
    gone = session(client, topic, first.session_id, 6, {})
    assert gone.error_code == ErrorCode.fetch_session_id_not_found


def test_sessions_starve_no_partition(client: RawClient, topic: str) -> None:
    """With room for one batch a time, partitions take turns."""
    for partition in range(3):
        for _ in range(3):
            client.produce(topic, batch(bytes(10 * KB)), partition=partition)
    first = session(client, topic, 0, 0, {0: 0, 1: 0, 2: 0}, each=15 * KB, max_bytes=11 * KB)
    positions = {0: 0, 1: 0, 2: 0}
    answer, epoch = first, 1
    for _ in range(9):
        moved = {}
        for topic_answer in answer.responses:
            for p in topic_answer.partitions:
                headers = [header for header, _ in records.iter_batches(p.records)]
                if headers:
                    moved[p.partition_index] = positions[p.partition_index] = headers[-1].last_offset + 1
        if epoch == 4:
            # The first answer counts for nothing: only those within the session move a partition to the end.
            assert min(positions.values()) >= 1
        answer = session(client, topic, first.session_id, epoch, moved, each=15 * KB, max_bytes=11 * KB)
        epoch += 1
    assert positions == {0: 3, 1: 3, 2: 3}


def test_a_topic_made_again_is_another(client: RawClient, name: str) -> None:
    """Its old id is unknown, its old records are gone, and its offsets begin anew."""
    old = client.create_topic(name).topic_id
    client.produce(name, batch(b"old"))
    client.call("DeleteTopics", 5, topic_names=[name], timeout_ms=5000)
    new = client.create_topic(name).topic_id
    assert new != old
    assert client.values(name) == []
    assert client.produce(name, batch(b"new")).base_offset == 0
    fields = fetch_fields(name)
    for topic_id, code in [(old, ErrorCode.unknown_topic_id), (new, 0)]:
        fields["topics"][0]["topic_id"] = topic_id
        assert client.call("Fetch", 13, **fields).responses[0].partitions[0].error_code == code


def test_auto_creation(client: RawClient, name: str) -> None:
    """As librdkafka, franz-go and Java do it: a Metadata request that names the topic, until it is there."""
    ask = {"include_cluster_authorized_operations": False, "include_topic_authorized_operations": False}
    topics = [{"topic_id": UUID(int=0), "name": name}]

    def found() -> bool:
        answer = client.call("Metadata", 9, topics=topics, allow_auto_topic_creation=True, **ask)
        code = answer.topics[0].error_code
        assert code in (0, ErrorCode.unknown_topic_or_partition, ErrorCode.leader_not_available)
        return bool(code == 0 and answer.topics[0].partitions)

    wait_until(found, what="the topic is there")
    assert client.produce(name, batch(b"v")).error_code == 0


def test_many_waiting_consumers_are_woken(broker: BrokerProcess, client: RawClient, topic: str) -> None:
    waiting = [RawClient(broker.bootstrap) for _ in range(200)]
    for consumer in waiting:
        consumer.send(consumer.frame("Fetch", 12, fetch_fields(topic, 0, max_wait_ms=15_000)))
    with not_waiting(15):
        assert client.produce(topic, batch(b"all")).error_code == 0
        for consumer in waiting:
            assert len(consumer.answer("Fetch", 12, 1).responses[0].partitions[0].records) > 0
            consumer.socket.close()


def test_what_survives_a_clean_stop(ottla_process: Callable[..., BrokerProcess]) -> None:
    """Records, log starts, configurations, ids, offsets, and the cluster's identity."""
    broker = ottla_process()

    def facts(client: RawClient) -> Any:
        ask = {"include_cluster_authorized_operations": False, "include_topic_authorized_operations": False}
        whole = client.call("Metadata", 12, topics=None, allow_auto_topic_creation=False, **ask)
        client.call("FindCoordinator", 4, key_type=0, coordinator_keys=["g"])
        group = {"group_id": "g", "member_id": None, "member_epoch": -1, "topics": None}

        def offsets() -> Any:
            return client.call("OffsetFetch", 9, groups=[group], require_stable=False).groups[0]

        wait_until(lambda: offsets().error_code == 0, what="the group is loaded")
        return (
            whole.cluster_id,
            sorted((t.name, t.topic_id, len(t.partitions)) for t in whole.topics),
            client.values("t", partition=1),
            client.fetch("t", 3, partition=1).log_start_offset,
            offsets(),
        )

    with RawClient(broker.bootstrap) as client:
        client.create_topic("t", 2, retention_ms="99999999")
        client.call("FindCoordinator", 4, key_type=0, coordinator_keys=["g"])
        for i in range(5):
            client.produce("t", batch(b"%d" % i), partition=1)
        commit = {
            "partition_index": 1,
            "committed_offset": 3,
            "committed_leader_epoch": -1,
            "committed_metadata": "",
        }
        fields = {
            "group_id": "g",
            "generation_id_or_member_epoch": -1,
            "member_id": "",
            "group_instance_id": None,
        }
        answer = client.call("OffsetCommit", 8, **fields, topics=[{"name": "t", "partitions": [commit]}])
        assert answer.topics[0].partitions[0].error_code == 0
        before = facts(client)
    assert broker.stop() == 0
    broker.start()
    with RawClient(broker.bootstrap) as client:
        assert facts(client) == before
        assert client.produce("t", batch(b"5"), partition=1).base_offset == 5


def test_stopping_answers_what_is_under_way(ottla_process: Callable[..., BrokerProcess]) -> None:
    """SIGTERM: a long poll is answered, producers get their acknowledgements or a closed connection."""
    broker = ottla_process()
    with RawClient(broker.bootstrap) as client, RawClient(broker.bootstrap) as poller:
        client.create_topic("t")
        poller.send(poller.frame("Fetch", 12, fetch_fields("t", 0, max_wait_ms=60_000)))
        acknowledged = 0
        stopped: list[int] = []
        stopper = threading.Thread(target=lambda: stopped.append(broker.stop()))
        try:
            for i in range(100_000):
                if i == 50:
                    stopper.start()
                assert client.produce("t", batch(b"%d" % i)).error_code == 0
                acknowledged += 1
                if i == 0:
                    assert len(poller.answer("Fetch", 12, 1).responses[0].partitions[0].records) > 0
                    poller.send(
                        poller.frame("Fetch", 12, fetch_fields("t", 1, min_bytes=1 << 30, max_wait_ms=60_000))
                    )
        except (ConnectionError, OSError):
            pass
        stopper.join(60)
        assert stopped == [0]
    broker.start()
    with RawClient(broker.bootstrap) as client:
        assert client.values("t") in (
            [b"%d" % i for i in range(acknowledged)],
            [b"%d" % i for i in range(acknowledged + 1)],
        )


def test_a_second_broker_on_the_same_data_is_refused(ottla_process: Callable[..., BrokerProcess]) -> None:
    broker = ottla_process()
    second = BrokerProcess(broker.directory / "second", data=broker.data)
    with pytest.raises(AssertionError, match="broker ended with 1"):
        second.start()
    assert len(second.log_lines()) == 1
    assert "lock" in second.log() or "in use" in second.log() or "another" in second.log()
    second.process = None
    with RawClient(broker.bootstrap) as client:
        assert client.call("ApiVersions", 0).error_code == 0


def test_retention_removes_old_segments(ottla_process: Callable[..., BrokerProcess]) -> None:
    """By time and by size; consumers find the new start, and the files go after their delay."""
    broker = ottla_process({"log.retention.check.interval.ms": "100", "log.initial.task.delay.ms": "100"})
    with RawClient(broker.bootstrap) as client:
        now_ms = int(time.time() * 1000)
        common = {"segment_bytes": str(1024 * KB), "file_delete_delay_ms": "200"}
        assert client.create_topic("age", retention_ms="-1", **common).error_code == 0
        assert (
            client.create_topic(
                "size", retention_ms="-1", retention_bytes=str(2048 * KB), **common
            ).error_code
            == 0
        )
        for i in range(12):
            client.produce("age", batch(bytes(500 * KB), timestamp_ms=now_ms - (120_000 if i < 6 else 0)))
            client.produce("size", batch(bytes(500 * KB)))
        # Only now: a segment that has expired goes even while it is written, and the next would begin at 5.
        retention = {"name": "retention.ms", "config_operation": 0, "value": "60000"}
        age = {"resource_type": TOPIC, "resource_name": "age", "configs": [retention]}
        altered = client.call("IncrementalAlterConfigs", 1, resources=[age], validate_only=False)
        assert altered.responses[0].error_code == 0

        def start(topic: str) -> int:
            answer = client.fetch(topic, 11)
            assert (answer.error_code, answer.high_watermark) == (0, 12)
            return int(answer.log_start_offset)

        wait_until(lambda: start("age") == 6, what="the old records are gone")
        wait_until(lambda: start("size") >= 6, what="the log is within its size")
        assert start("size") <= 8
        assert client.fetch("age", 0).error_code == ErrorCode.offset_out_of_range
        assert len(client.values("age", offset=6)) == 6
        for topic in ("age", "size"):
            folder = broker.data / f"{topic}-0"
            wait_until(lambda folder=folder: not list(folder.glob("*.deleted")), what="the files are gone")
            assert sum(path.stat().st_size for path in folder.glob("*.log")) < 4096 * KB
