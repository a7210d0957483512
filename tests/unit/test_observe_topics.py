"""Metrics of topics, groups, transactions, logins, rights and quotas move as clients do something."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from observe_support import Scraped, collected, scrape, scrape_until

from interop.raw import RawClient, batch, fetch_fields, produce_fields
from ottla.observe.exposition import Page
from ottla.observe.labels import OTHERS, Labels
from ottla.observe.parts import Parts
from ottla.observe.subjects import topics
from ottla.replication import traffic
from ottla.replication.traffic import TOPICS_LEFT_MAX, Left, Traffic
from ottla.testing import Broker

VALUE = b"x" * 1000


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(topics={"orders": 2, "bills": 1}, metrics=True) as running:
        yield running


def more(before: Scraped, after: Scraped, name: str, **labels: str) -> float:
    return after.total(name, **labels) - before.total(name, **labels)


# ------------------------------------------------------------ topics


def test_what_is_appended_and_sent_is_counted(broker: Broker) -> None:
    before = scrape(broker)
    with RawClient(broker.bootstrap_servers) as client:
        for partition in (0, 1):
            data = batch(VALUE, VALUE, VALUE)
            assert client.produce("orders", data, partition=partition).error_code == 0
        found = client.fetch("orders")
    after = scrape(broker)
    for names, moved in (
        (("ottla_messages_in_total", "ottla_topic_messages_in_total"), 6),
        (("ottla_batches_in_total", "ottla_topic_batches_in_total"), 2),
        (("ottla_bytes_in_total", "ottla_topic_bytes_in_total"), 2 * len(data)),
        (("ottla_bytes_out_total", "ottla_topic_bytes_out_total"), len(found.records)),
    ):
        assert [more(before, after, name) for name in names] == [moved, moved]
        assert more(before, after, names[1], topic="orders") == moved
    assert more(before, after, "ottla_topic_log_bytes", topic="orders") == 2 * len(data)
    assert after.value("ottla_topic_segments", topic="orders") == 2
    where = {"topic": "orders", "partition": "1"}
    assert after.value("ottla_partition_log_end_offset", **where) == 3
    assert after.value("ottla_partition_high_watermark", **where) == 3
    assert after.value("ottla_partition_log_start_offset", **where) == 0
    assert after.value("ottla_compaction_failures_total") == 0
    assert 0 < after.value("ottla_disk_free_bytes") < after.value("ottla_disk_bytes")
    cleaner = broker._node.services.log_manager.cleaner
    cleaner.failures, cleaner.rounds, cleaner.dirty_ratio = 2, 3, 0.5
    found = scrape(broker)
    assert found.value("ottla_compaction_failures_total") == 2
    assert found.value("ottla_compactions_total") == 3
    assert found.value("ottla_compaction_dirty_ratio") == 0.5


def test_logs_that_cannot_be_compacted_are_told_of() -> None:
    with Broker(topics={"deleted": 1}, metrics=True) as running:
        with RawClient(running.bootstrap_servers) as client:
            client.create_topic("compacted", cleanup_policy="compact")
        for partition in running._node.services.replicas.partitions.values():
            partition.log.replacement.fails = True
        # Of the one that is not compacted any more nothing need be said.
        assert scrape(running).value("ottla_uncompactable_partitions") == 1


def test_waiting_consumers_that_get_the_same_count_each(broker: Broker) -> None:
    before = scrape(broker)
    with (
        RawClient(broker.bootstrap_servers) as producer,
        RawClient(broker.bootstrap_servers) as one,
        RawClient(broker.bootstrap_servers) as other,
    ):
        end = int(before.value("ottla_partition_log_end_offset", topic="bills", partition="0"))
        fields = fetch_fields("bills", end, max_wait_ms=20_000) | {"min_bytes": 1}
        for client in (one, other):
            client.send(client.frame("Fetch", 12, fields))
        waiting = broker._node.services.replicas.partitions["bills", 0]._waiters
        while len(waiting) < 2:
            pass
        assert scrape(broker).value("ottla_waiting_fetches") == 2
        data = batch(VALUE)
        producer.produce("bills", data)
        for client in (one, other):
            client.receive()
    assert scrape(broker).value("ottla_waiting_fetches") == 0
    assert more(before, scrape(broker), "ottla_topic_bytes_out_total", topic="bills") == 2 * len(data)


def test_counters_survive_a_topic(broker: Broker) -> None:
    broker.create_topic("gone")
    broker.produce("gone", VALUE)
    before = scrape(broker)
    assert before.value("ottla_topic_bytes_in_total", topic="gone") > 1000
    with RawClient(broker.bootstrap_servers) as client:
        client.call("DeleteTopics", 5, topic_names=["gone"], timeout_ms=10_000)
    after = scrape_until(broker, lambda found: not found.total("ottla_topic_segments", topic="gone"))
    assert after.value("ottla_bytes_in_total") == before.value("ottla_bytes_in_total")
    assert not after.total("ottla_topic_bytes_in_total", topic="gone")


class Log:
    log_end_offset, log_start_offset, size_bytes = 7, 1, 100
    replacement = SimpleNamespace(fails=False)

    def __init__(self) -> None:
        self.segments, self.producers = [1, 2], [1]


def held(name: str, index: int, sent: int) -> tuple[tuple[str, int], Any]:
    traffic = Traffic()
    traffic.follower_bytes_in = 10
    traffic.sent(sent, to_follower=True)
    made = SimpleNamespace(
        topic_partition=(name, index), log=Log(), traffic=traffic, high_watermark=5, removed=False
    )
    return (name, index), made


def parts_of(names: list[str], left: Left, count_max: int) -> Any:
    partitions = dict(held(name, 0, 100) for name in names)
    services = SimpleNamespace(
        metadata=SimpleNamespace(image=SimpleNamespace(topics=dict.fromkeys(names))),
        replicas=SimpleNamespace(partitions=partitions, left=left),
        log_manager=SimpleNamespace(cleaner=SimpleNamespace(failures=0, rounds=0, dirty_ratio=0.0)),
    )
    parts: Any = SimpleNamespace(services=services, topics=Labels(count_max), volume_bytes=None, left={})
    left.forgotten = lambda topic, sums: Parts.keep_left(parts, topic, sums)
    return parts


def test_topics_beyond_the_limit_are_one_and_never_become_less() -> None:
    left = Left()
    parts = parts_of(["a", "b", "c", "d"], left, 2)
    found = collected(topics.collect, parts)
    sent = "ottla_topic_replication_bytes_out_total"
    assert [found.value(sent, topic=name) for name in ("a", "b", OTHERS)] == [100, 100, 200]
    assert found.value("ottla_topic_replication_bytes_in_total", topic=OTHERS) == 20
    assert found.value("ottla_replication_bytes_out_total") == 400
    assert found.value("ottla_replication_bytes_in_total") == 40
    assert found.value("ottla_producers") == 4
    assert found.total("ottla_partition_log_end_offset") == 14
    # One of each kind is deleted, and one is new.
    for name in ("a", "c"):
        left.add(name, parts.services.replicas.partitions.pop((name, 0)).traffic)
        del parts.services.metadata.image.topics[name]
    parts.services.replicas.partitions.update([held("e", 0, 1)])
    parts.services.metadata.image.topics["e"] = None
    later = collected(topics.collect, parts)
    assert [later.total(sent, topic=name) for name in ("a", "b", "e", OTHERS)] == [0, 100, 1, 200]
    assert later.value("ottla_replication_bytes_out_total") == 401


def test_what_leaves_between_two_pieces_of_a_scrape_counts_once() -> None:
    left = Left()
    parts = parts_of([str(number) for number in range(2 * topics.LOOKED_AT_ONCE)], left, 1)
    page = Page()
    pieces = topics.collect(parts, page)
    next(pieces)
    partitions = parts.services.replicas.partitions
    for key in list(partitions):
        left.add(key[0], partitions.pop(key).traffic)
    for _ in pieces:
        pass
    sent = f"ottla_replication_bytes_out_total {100 * 2 * topics.LOOKED_AT_ONCE}\n"
    assert page.lines(topics.FOLLOWING[0]) == [sent]


def test_sums_of_topics_that_left_long_ago_stay_where_they_were_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "TOPICS_LEFT_MAX", 1)
    left = Left()
    parts = parts_of(["a", "b", "c", "d"], left, 2)
    collected(topics.collect, parts)
    sent = "ottla_topic_replication_bytes_out_total"
    image, partitions = parts.services.metadata.image, parts.services.replicas.partitions
    # Of two that have labels, and two that have none, one stays, with replicas elsewhere.
    for name in ("a", "b", "c", "d"):
        left.add(name, partitions.pop((name, 0)).traffic)
    del image.topics["b"], image.topics["d"]
    for _ in range(2):
        found = collected(topics.collect, parts)
        assert [found.total(sent, topic=name) for name in ("a", "b", OTHERS)] == [100, 0, 200]
        assert found.value("ottla_replication_bytes_out_total") == 400
    del image.topics["a"]
    assert collected(topics.collect, parts).total(sent, topic="a") == 0
    assert parts.left.keys() == {OTHERS}


def test_what_has_left_is_bounded() -> None:
    left, one = Left(), Traffic()
    one.appended(3, 10)
    for number in range(TOPICS_LEFT_MAX + 2):
        left.add(str(number), one)
    left.add("5", one)
    assert len(left.by_topic) == TOPICS_LEFT_MAX
    assert (left.by_topic["5"].bytes_in, left.others.messages_in) == (20, 6)


# ------------------------------------------------------------ groups


def test_groups_are_told_of(broker: Broker) -> None:
    with RawClient(broker.bootstrap_servers) as client:
        for _ in range(10):
            client.produce("orders", batch(VALUE))
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap_servers, "group.id": 'g"1', "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["orders"])
    assert consumer.consume(1, timeout=60)
    consumer.commit(offsets=[TopicPartition("orders", 0, 2)], asynchronous=False)
    found = scrape(broker)
    end = found.value("ottla_partition_high_watermark", topic="orders", partition="0")
    assert found.value("ottla_group_lag_messages", group='g"1', topic="orders") == end - 2
    assert found.value("ottla_group_members", group='g"1') == 1
    assert found.value("ottla_group_generation", group='g"1') == 1
    assert found.value("ottla_group_lag_unknown_partitions", group='g"1') == 0
    assert found.value("ottla_groups", state="Stable") == 1
    assert found.value("ottla_group_offsets") == 1
    assert found.value("ottla_coordinator_partitions", coordinator="groups") == 1
    assert found.value("ottla_coordinator_loading_partitions", coordinator="groups") == 0
    shard = broker._node.services.groups.host.shards[0]
    shard.loaded_ms, shard.is_active = 1500, False
    shard.machine.tables.in_flight.append(Any)  # type: ignore[arg-type]
    shard.machine.tables.offsets.by_group['g"1']["orders"][99] = (0, 0, "", 0, 0, 0)
    try:
        loading = scrape(broker)
    finally:
        shard.is_active = True
        shard.machine.tables.in_flight.clear()
        del shard.machine.tables.offsets.by_group['g"1']["orders"][99]
    assert loading.value("ottla_coordinator_load_seconds_max", coordinator="groups") == 1.5
    assert loading.value("ottla_coordinator_loading_partitions", coordinator="groups") == 1
    assert loading.value("ottla_coordinator_waiting_writes", coordinator="groups") == 1
    assert loading.value("ottla_group_lag_unknown_partitions", group='g"1') == 1
    consumer.close()
    scrape_until(broker, lambda found: found.value("ottla_groups", state="Empty") == 1)


def test_groups_beyond_the_limit_are_one() -> None:
    with Broker(
        topics=["t"], metrics=True, config={"metrics.groups.max": 1, "metrics.topics.max": 0}
    ) as running:
        running.produce("t", VALUE, VALUE)
        for group in ("a", "b", "c"):
            consumer = Consumer({"bootstrap.servers": running.bootstrap_servers, "group.id": group})
            consumer.commit(offsets=[TopicPartition("t", 0, 1)], asynchronous=False)
            consumer.close()
        found = scrape(running)
        lags = {key[1]: value for key, value in found.samples.items() if key[0] == "ottla_group_lag_messages"}
        assert sorted(lags.values()) == [1, 2]
        assert all(("topic", OTHERS) in labels for labels in lags)
        assert not found.total("ottla_partition_log_end_offset")
        assert found.total("ottla_topic_messages_in_total", topic=OTHERS) >= 2


# ------------------------------------------------------------ transactions


def test_transactions_are_told_of(broker: Broker) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": "tx"})
    producer.init_transactions(30)
    assert scrape(broker).value("ottla_transactional_ids", state="Empty") == 1
    producer.begin_transaction()
    producer.produce("orders", VALUE, partition=0)
    producer.flush()
    found = scrape(broker)
    assert found.value("ottla_transactional_ids", state="Ongoing") == 1
    assert found.value("ottla_producers") >= 1
    later = scrape_until(broker, lambda now: now.value("ottla_transaction_oldest_seconds") > 0)
    assert later.value("ottla_coordinator_partitions", coordinator="transactions") == 1
    producer.commit_transaction(30)
    ended = scrape_until(
        broker, lambda now: now.value("ottla_transactional_ids", state="CompleteCommit") == 1
    )
    assert ended.value("ottla_transaction_oldest_seconds") == 0
    assert ended.value("ottla_transactions_awaiting_markers") == 0
    tables = broker._node.services.transactions.host.shards[0].machine.tables
    tables.marking["tx"] = set()
    assert scrape(broker).value("ottla_transactions_awaiting_markers") == 1
    del tables.marking["tx"]


# ------------------------------------------------------------ logins, rights, quotas


def test_logins_and_denials_are_counted() -> None:
    with Broker(topics=["t"], metrics=True, users={"ada": "secret"}, acls=()) as running:
        good = running.client_properties("ada")
        for properties in (good, good | {"sasl.password": "wrong"}):
            moved = "ottla_denials_total" if properties is good else "ottla_login_failures_total"
            consumer = Consumer(properties | {"group.id": "g"})

            def is_counted(now: Scraped) -> bool:
                # librdkafka would ask again until its time is up; when it has been answered is for us to see.
                with pytest.raises(KafkaException):
                    consumer.committed([TopicPartition("t", 0)], timeout=0.1)  # noqa: B023
                return now.total(moved) > 0  # noqa: B023

            found = scrape_until(running, is_counted)
            consumer.close()
        assert found.total("ottla_denials_total") >= 1
        assert found.total("ottla_logins_total") >= 1


def test_failed_handshakes_are_counted() -> None:
    with Broker(metrics=True, tls=True) as running:
        before = scrape(running)
        assert before.total("ottla_certificate_end_timestamp_seconds") > time.time() + 3_600
        with closing(socket.create_connection((running.host, running.port))) as client:
            client.sendall(b"this is no TLS at all")
            while client.recv(100):
                pass
        assert more(before, scrape(running), "ottla_tls_failures_total") == 1


def test_quotas_are_counted() -> None:
    with Broker(topics=["a"], metrics=True) as running, RawClient(running.bootstrap_servers) as client:
        ops = [
            {"key": key, "value": value, "remove": False}
            for key, value in (("producer_byte_rate", 1000.0), ("consumer_byte_rate", 1000.0))
        ]
        entry = {"entity": [{"entity_type": "client-id", "entity_name": None}], "ops": ops}
        client.call("AlterClientQuotas", 0, entries=[entry], validate_only=False)
        assert client.call("Produce", 9, **produce_fields("a", batch(b"v" * 11_000))).throttle_time_ms > 0
        found = scrape(running)
        assert found.value("ottla_throttles_total", quota="produce") == 1
        assert found.value("ottla_throttle_seconds_total", quota="produce") > 0
        for kind in ("fetch", "request", "mutation"):
            running._node.services.quotas.note(kind, 250)
            running._node.services.quotas.note(kind, 0)
        after = scrape(running)
        for kind in ("fetch", "request", "mutation"):
            assert more(found, after, "ottla_throttles_total", quota=kind) == 1
            assert more(found, after, "ottla_throttle_seconds_total", quota=kind) == 0.25
