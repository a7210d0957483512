"""Transactions: their ids, their partitions and offsets, how they end, and what is told of them."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from ottla.wire.apis import BY_NAME
from protocol.peer import Fields, Peer
from protocol.sequence_groups import fetching
from protocol.sequence_records import (
    batch,
    fetch_fields,
    list_offsets_fields,
    produce_fields,
    producers_fields,
)

NO_PRODUCER = (-1, -1)


class Producer(NamedTuple):
    """A transactional id of this run, and what it has been given."""

    transactional_id: str
    producer_id: int
    epoch: int

    def after(self, answer: Any) -> Producer:
        """What an answer makes of it."""
        return self._replace(producer_id=answer.producer_id, epoch=answer.producer_epoch)


def initializing(name: str, known: tuple[int, int] = NO_PRODUCER, timeout_ms: int = 60_000) -> Fields:
    return {
        "transactional_id": name,
        "transaction_timeout_ms": timeout_ms,
        "producer_id": known[0],
        "producer_epoch": known[1],
        "enable_2_pc": False,
        "keep_prepared_txn": False,
    }


def begin(peer: Peer, name: str) -> Producer:
    """A new transactional id with its producer (no part of the transcript), whose coordinator is ready."""
    transactional_id = peer.name(name)
    deadline = time.monotonic() + peer.timeout_s
    while True:
        peer.send("FindCoordinator", 4, {"key_type": 1, "coordinator_keys": [transactional_id]})
        answer = peer.send("InitProducerId", 4, initializing(transactional_id))
        if answer.error_code == 0:
            peer.normaliser.answer(answer)
            return Producer(transactional_id, answer.producer_id, answer.producer_epoch)
        assert time.monotonic() < deadline, answer
        time.sleep(0.02)


def at_rest(peer: Peer, producer: Producer) -> None:
    """Wait until no transaction of this id is about to end."""
    deadline = time.monotonic() + peer.timeout_s
    while True:
        answer = peer.send("DescribeTransactions", 0, {"transactional_ids": [producer.transactional_id]})
        (state,) = answer.transaction_states
        if not state.transaction_state.startswith("Prepare"):
            return
        assert time.monotonic() < deadline, answer
        time.sleep(0.01)


def adding(producer: Producer, *topics: tuple[str, list[int]], verify_only: bool = False) -> Fields:
    """AddPartitionsToTxn, of one transaction in the versions for many."""
    name, producer_id, epoch = producer
    found = [{"name": topic, "partitions": indexes} for topic, indexes in topics]
    one = {
        "transactional_id": name,
        "producer_id": producer_id,
        "producer_epoch": epoch,
        "verify_only": verify_only,
        "topics": found,
    }
    return {
        "v3_and_below_transactional_id": name,
        "v3_and_below_producer_id": producer_id,
        "v3_and_below_producer_epoch": epoch,
        "v3_and_below_topics": found,
        "transactions": [one],
    }


def of(producer: Producer, **more: Any) -> Fields:
    return {
        "transactional_id": producer.transactional_id,
        "producer_id": producer.producer_id,
        "producer_epoch": producer.epoch,
    } | more


def add(peer: Peer, producer: Producer, topic: str, *indexes: int) -> None:
    """Add partitions (no part of the transcript)."""
    answer = peer.send("AddPartitionsToTxn", 3, adding(producer, (topic, list(indexes))))
    told = [one for found in answer.results_by_topic_v3_and_below for one in found.results_by_partition]
    assert all(one.partition_error_code == 0 for one in told), answer


def end(peer: Peer, producer: Producer, *, commit: bool = True) -> Producer:
    """End a transaction (no part of the transcript), and wait for that."""
    answer = peer.send("EndTxn", 5, of(producer, committed=commit))
    assert answer.error_code == 0, answer
    at_rest(peer, producer)
    return producer.after(answer)


def transactional_ids(peer: Peer) -> None:
    """InitProducerId: what it refuses, and what a producer that begins again is given."""
    begin(peer, "warm")
    for kind, fields in {
        "no id": initializing(""),
        "timeout 0": initializing(peer.name("t0"), timeout_ms=0),
        "timeout -1": initializing(peer.name("t-1"), timeout_ms=-1),
        "timeout 900000": initializing(peer.name("t900000"), timeout_ms=900_000),
        "timeout 900001": initializing(peer.name("t900001"), timeout_ms=900_001),
        "long": initializing(peer.name("x" * 20_000)),
        "odd": initializing(peer.name(" \u2603/\n")),
    }.items():
        peer.each(kind, "InitProducerId", fields)
    for known in ((2**40, 0), (2**40, -1), (-1, 5), (-2, -2), (2**62, 32_767)):
        name = peer.name(f"new {known}")
        peer.each(f"new, of {known[0]} {known[1]}", "InitProducerId", initializing(name, known), (3, 4, 5))
    producer = begin(peer, "again")
    name, producer_id, epoch = producer
    for kind, known in {
        "itself": (producer_id, epoch),
        "the one before": (producer_id, epoch),
        "epoch to come": (producer_id, epoch + 9),
        "another": (producer_id + 10_000, epoch),
        "another, epoch 32767": (producer_id + 10_000, 32_767),
        "nobody": NO_PRODUCER,
        "itself, as it was before that": (producer_id, epoch + 1),
    }.items():
        peer.each(f"again, {kind}", "InitProducerId", initializing(name, known), (3, 4, 5))


def transactional_ids_that_are_busy(peer: Peer) -> None:
    """InitProducerId while a transaction is open: it is aborted, and the client told to ask again."""
    peer.create("busy", 2)
    topic = peer.name("busy")
    for version in (2, 3, 4, 5):
        producer = begin(peer, f"open {version}")
        add(peer, producer, topic, 0)
        fields = initializing(producer.transactional_id)
        peer.each("of an open transaction", "InitProducerId", fields, (version,))
        at_rest(peer, producer)
        peer.each("after that", "InitProducerId", fields, (version,))
    peer.ask("described", "DescribeTransactions", 0, transactional_ids=[producer.transactional_id])
    for version in (3, 4, 5):
        producer = begin(peer, f"own {version}")
        add(peer, producer, topic, 0)
        own = (producer.producer_id, producer.epoch)
        fields = initializing(producer.transactional_id, own)
        peer.each("of one's own open transaction", "InitProducerId", fields, (version,))
        at_rest(peer, producer)
        peer.each("with one's own after that", "InitProducerId", fields, (version,))
        peer.each("the fenced one ends", "EndTxn", of(producer, committed=True), (version,))
    for version in (3, 4, 5):
        producer = begin(peer, f"stale {version}")
        add(peer, producer, topic, 0)
        stale = (producer.producer_id, producer.epoch + 5)
        fields = initializing(producer.transactional_id, stale)
        peer.each("of an open transaction, with an epoch to come", "InitProducerId", fields, (version,))
        at_rest(peer, producer)
        peer.each("again", "InitProducerId", fields, (version,))
        another = initializing(producer.transactional_id, (producer.producer_id + 10_000, producer.epoch))
        peer.each("of another", "InitProducerId", another, (version,))
        asked = {"transactional_ids": [producer.transactional_id]}
        peer.ask(f"after v{version}", "DescribeTransactions", 0, **asked)


def partitions_of_transactions(peer: Peer) -> None:
    """AddPartitionsToTxn by clients (to v3), and by brokers that add or only look."""
    peer.create("parts", 3)
    topic = peer.name("parts")
    producer = begin(peer, "adds")
    later = producer._replace(epoch=producer.epoch + 1)
    newer = begin(peer, "new")
    earlier = newer
    newer = newer.after(peer.send("InitProducerId", 4, initializing(newer.transactional_id)))
    kinds: dict[str, Fields] = {
        "no id": adding(producer._replace(transactional_id=""), (topic, [0])),
        "unknown id": adding(producer._replace(transactional_id=peer.name("unknown")), (topic, [0])),
        "another's producer": adding(producer._replace(producer_id=newer.producer_id), (topic, [0])),
        "producer -1": adding(producer._replace(producer_id=-1), (topic, [0])),
        "epoch to come": adding(later, (topic, [0])),
        "epoch before": adding(earlier, (topic, [0])),
        "epoch -1": adding(producer._replace(epoch=-1), (topic, [0])),
        "nothing": adding(newer),
        "no partition": adding(newer, (topic, [])),
        "missing topic": adding(newer, (peer.name("no"), [0])),
        "no name": adding(newer, ("", [0])),
        "bad name": adding(newer, ("a/b", [0])),
        "partition 3": adding(newer, (topic, [3])),
        "partition -1": adding(newer, (topic, [-1])),
        "one of two is missing": adding(newer, (topic, [0, 3])),
        "internal": adding(newer, ("__consumer_offsets", [0])),
        "state": adding(newer, ("__transaction_state", [0])),
        "verify before": adding(newer, (topic, [0]), verify_only=True),
    }
    for kind, fields in kinds.items():
        versions = (4, 5) if kind.startswith("verify") else None
        peer.each(kind, "AddPartitionsToTxn", fields, versions)
    # A transaction for each version: what the first one adds the next one would find.
    for version in range(BY_NAME["AddPartitionsToTxn"].version_max + 1):
        one = begin(peer, f"adds {version}")
        for kind, fields in {
            "one": adding(one, (topic, [0])),
            "again": adding(one, (topic, [0])),
            "another": adding(one, (topic, [1])),
            "twice": adding(one, (topic, [2, 2])),
        }.items():
            peer.each(kind, "AddPartitionsToTxn", fields, (version,))
        for kind, fields in {
            "verify": adding(one, (topic, [0]), verify_only=True),
            "verify one that is not in it": adding(one, (topic, [0, 7]), verify_only=True),
            "verify another's": adding(
                one._replace(producer_id=newer.producer_id), (topic, [0]), verify_only=True
            ),
            "verify epoch to come": adding(one._replace(epoch=one.epoch + 1), (topic, [0]), verify_only=True),
            "verify epoch before": adding(one._replace(epoch=one.epoch - 1), (topic, [0]), verify_only=True),
        }.items():
            peer.each(f"{kind} (added by v{version})", "AddPartitionsToTxn", fields, (4, 5))


def transactions_end(peer: Peer) -> None:
    """EndTxn: in each state, by whoever, commit after abort and the other way round."""
    peer.create("ends", 1)
    topic = peer.name("ends")
    base = begin(peer, "base")
    for kind, fields in {
        "no id": of(base._replace(transactional_id=""), committed=True),
        "unknown id": of(base._replace(transactional_id=peer.name("unknown")), committed=True),
        "another's producer": of(base._replace(producer_id=base.producer_id + 10_000), committed=True),
        "producer -1": of(base._replace(producer_id=-1), committed=True),
        "epoch to come": of(base._replace(epoch=base.epoch + 1), committed=True),
        "epoch -1": of(base._replace(epoch=-1), committed=True),
    }.items():
        peer.each(kind, "EndTxn", fields)
    for version in range(6):
        for commit in (True, False):
            word = "commit" if commit else "abort"
            other = "abort" if commit else "commit"
            empty = begin(peer, f"empty {word} {version}")
            peer.each(f"{word} of nothing", "EndTxn", of(empty, committed=commit), (version,))
            at_rest(peer, empty)
            one = begin(peer, f"one {word} {version}")
            add(peer, one, topic, 0)
            answer = peer.ask(word, "EndTxn", version, **of(one, committed=commit))
            at_rest(peer, one)
            peer.each(f"{word} again", "EndTxn", of(one, committed=commit), (version,))
            at_rest(peer, one)
            peer.each(f"{other} after {word}", "EndTxn", of(one, committed=not commit), (version,))
            at_rest(peer, one)
            if version >= 5:
                bumped = one.after(answer)
                peer.each(f"{word} of nothing, bumped", "EndTxn", of(bumped, committed=commit), (version,))
                at_rest(peer, bumped)
                stale = of(one, committed=commit)
                peer.each(f"{word} by the one before {word}", "EndTxn", stale, (version,))
                at_rest(peer, one)
                stale = of(one, committed=not commit)
                peer.each(f"{other} by the one before {word}", "EndTxn", stale, (version,))
                at_rest(peer, one)
            fields = {"transactional_ids": [one.transactional_id, empty.transactional_id]}
            peer.ask(f"after v{version} {word}", "DescribeTransactions", 0, **fields)


def transactional_records(peer: Peer) -> None:
    """Produce within and without a transaction, and what consumers see of it."""
    topic_id = peer.create("recs", 4)
    topic = peer.name("recs")

    def write(
        kind: str, producer: Producer, sequence: int, partition: int, version: int, **more: Any
    ) -> None:
        options = {
            "producer_id": producer.producer_id,
            "producer_epoch": producer.epoch,
            "transactional": True,
        }
        data = batch([b"k"] * 2, base_sequence=sequence, **(options | more))
        fields = produce_fields(
            topic, topic_id, (partition, data), transactional_id=producer.transactional_id
        )
        peer.each(kind, "Produce", fields, (version,))

    older = begin(peer, "older")
    write("not added", older, 0, 0, 11)
    add(peer, older, topic, 0)
    write("added", older, 0, 0, 11)
    write("added, again", older, 0, 0, 11)
    write("gap", older, 9, 0, 11)
    write("not transactional", older, 2, 0, 11, transactional=False)
    # Last: Kafka keeps in mind what was refused, and takes what follows for out of order.
    write("epoch to come", older._replace(epoch=older.epoch + 1), 0, 0, 11)
    newer = begin(peer, "newer")
    write("adds itself", newer, 0, 1, 12)
    write("goes on", newer, 2, 1, 12)
    write("another partition", newer, 0, 2, 13)
    write("another's epoch", newer._replace(epoch=newer.epoch + 1), 0, 3, 12)
    write("another's id", newer._replace(producer_id=older.producer_id), 0, 3, 12)
    write("unknown id", newer._replace(transactional_id=peer.name("unknown")), 0, 3, 12)

    def look(when: str) -> None:
        for isolation in (0, 1):
            word = "committed" if isolation else "all"
            fields = list_offsets_fields(topic, *((index, -1) for index in range(4)), isolation=isolation)
            peer.ask(f"{when} ({word})", "ListOffsets", 7, **fields)
            parts = [{"partition": index} for index in range(4)]
            fields = fetch_fields(topic, topic_id, *parts, isolation_level=isolation)
            peer.each(f"{when} ({word})", "Fetch", fields, (4, 11, 12, 16))
        peer.ask(when, "DescribeProducers", 0, **producers_fields(topic, 0, 1, 2, 3))
        ids = [older.transactional_id, newer.transactional_id]
        peer.ask(when, "DescribeTransactions", 0, transactional_ids=ids)

    look("open")
    end(peer, older, commit=False)
    newer = end(peer, newer)
    look("ended")
    write("sequence goes on", newer, 4, 1, 12)
    write("sequence begins anew", newer, 0, 1, 12)
    end(peer, newer, commit=False)
    look("aborted")


class Offsets:
    """A group that commits offsets of a topic in transactions."""

    def __init__(self, peer: Peer) -> None:
        self.topic_id = peer.create("offs", 2)
        self.topic, self.group, self.elsewhere = peer.name("offs"), peer.name("og"), peer.name("another")
        self.missing, self.unknown = peer.name("no"), peer.name("unknown")

    def fetching(self, *, stable: bool) -> Fields:
        return fetching(self.group, self.topic, self.topic_id, 0, 1, require_stable=stable)

    def committing(self, producer: Producer, *asked: tuple[int, int], named: str = "", **more: Any) -> Fields:
        usual = {"committed_leader_epoch": -1, "committed_metadata": "m"}
        parts = [{"partition_index": index, "committed_offset": offset} | usual for index, offset in asked]
        topic = {"name": named or self.topic, "topic_id": self.topic_id, "partitions": parts}
        fields = {"group_id": self.group, "generation_id": -1, "generation_id_or_member_epoch": -1}
        fields |= {"member_id": "", "group_instance_id": None, "topics": [topic]}
        return of(producer) | fields | more

    def commits(self, one: Producer, version: int) -> dict[str, Fields]:
        """What is asked in a transaction that has the group."""
        generation = {"generation_id": 3, "generation_id_or_member_epoch": 3}
        return {
            "plain": self.committing(one, (0, 5 + version), (1, 6)),
            "no group": self.committing(one, (0, 1), group_id=""),
            "another group": self.committing(one, (0, 1), group_id=self.elsewhere),
            "a member": self.committing(one, (0, 1), member_id="nobody"),
            "a generation": self.committing(one, (0, 1), member_id="nobody", **generation),
            "a generation alone": self.committing(one, (0, 1), **generation),
            "static": self.committing(one, (0, 1), group_instance_id="i"),
            "missing partition": self.committing(one, (7, 1)),
            "nothing": self.committing(one) | {"topics": []},
            "missing topic": self.committing(one, (0, 1), named=self.missing),
            "epoch to come": self.committing(one._replace(epoch=one.epoch + 1), (0, 1)),
            "another's producer": self.committing(one._replace(producer_id=one.producer_id + 10_000), (0, 1)),
            "unknown id": self.committing(one._replace(transactional_id=self.unknown), (0, 1)),
            "no id": self.committing(one._replace(transactional_id=""), (0, 1)),
        }

    def await_stable(self, peer: Peer) -> None:
        """Wait until the group's coordinator knows that the transaction has ended."""
        deadline = time.monotonic() + peer.timeout_s
        while True:
            answer = peer.send("OffsetFetch", 8, self.fetching(stable=True))
            if not any(one.error_code for one in answer.groups[0].topics[0].partitions):
                return
            assert time.monotonic() < deadline, answer
            time.sleep(0.01)


def groups_of_transactions(peer: Peer) -> None:
    """AddOffsetsToTxn: who may add which group."""
    group, base = peer.name("og"), begin(peer, "base")
    for kind, fields in {
        "no id": of(base._replace(transactional_id=""), group_id=group),
        "unknown id": of(base._replace(transactional_id=peer.name("unknown")), group_id=group),
        "another's producer": of(base._replace(producer_id=base.producer_id + 10_000), group_id=group),
        "epoch to come": of(base._replace(epoch=base.epoch + 1), group_id=group),
        "no group": of(base, group_id=""),
        "a group": of(base, group_id=group),
    }.items():
        peer.each(kind, "AddOffsetsToTxn", fields)


def offsets_of_transactions(peer: Peer) -> None:
    """TxnOffsetCommit: who may, and what OffsetFetch tells of it before and after the end."""
    offsets = Offsets(peer)
    for version in range(BY_NAME["TxnOffsetCommit"].version_max + 1):
        one = begin(peer, f"one {version}")
        peer.each("not added", "TxnOffsetCommit", offsets.committing(one, (0, 1)), (version,))
        peer.send("AddOffsetsToTxn", 4, of(one, group_id=offsets.group))
        for kind, fields in offsets.commits(one, version).items():
            peer.each(kind, "TxnOffsetCommit", fields, (version,))
        for stable in (False, True):
            word = "stable" if stable else "any"
            peer.ask(f"open in v{version}, {word}", "OffsetFetch", 8, **offsets.fetching(stable=stable))
        end(peer, one, commit=bool(version % 2))
        offsets.await_stable(peer)
        peer.ask(f"ended in v{version}", "OffsetFetch", 8, **offsets.fetching(stable=True))


def transactions_told(peer: Peer) -> None:
    """DescribeTransactions and ListTransactions."""
    peer.create("told", 2)
    topic = peer.name("told")
    empty, open_, done = (begin(peer, name) for name in ("empty", "open", "done"))
    add(peer, open_, topic, 0, 1)
    add(peer, done, topic, 0)
    done = end(peer, done)
    names = [empty.transactional_id, open_.transactional_id, done.transactional_id]
    for kind, asked in {
        "all": names,
        "twice": [names[0], names[0]],
        "unknown": [peer.name("unknown"), ""],
        "nothing": [],
    }.items():
        peer.ask(kind, "DescribeTransactions", 0, transactional_ids=asked)
    mine = [empty.producer_id, open_.producer_id, done.producer_id]
    usual = {
        "state_filters": [],
        "producer_id_filters": mine,
        "duration_filter": -1,
        "transactional_id_pattern": None,
    }
    for kind, more in {
        "all of mine": {},
        "Ongoing": {"state_filters": ["Ongoing"]},
        "ongoing": {"state_filters": ["ongoing"]},
        "Empty and CompleteCommit": {"state_filters": ["Empty", "CompleteCommit"]},
        "unknown states": {"state_filters": ["Ongoing", "Nothing", ""]},
        "one producer": {"producer_id_filters": mine[:1]},
        "no such producer": {"producer_id_filters": [-1, 2**62]},
        "a day": {"duration_filter": 86_400_000},
        "0 ms": {"duration_filter": 0},
        "pattern": {"transactional_id_pattern": ".*(empty|done)"},
        "pattern of a part": {"transactional_id_pattern": "empty"},
        "empty pattern": {"transactional_id_pattern": ""},
        "bad pattern": {"transactional_id_pattern": "(empty"},
        "bad pattern and unknown state": {"transactional_id_pattern": "(", "state_filters": ["Nothing"]},
    }.items():
        peer.each(kind, "ListTransactions", usual | more)


def markers_written(peer: Peer) -> None:
    """WriteTxnMarkers, which an operator's tools send as well."""
    peer.create("marks", 2)
    topic = peer.name("marks")

    def marking(*topics: tuple[str, list[int]], **more: Any) -> Fields:
        one = {
            "producer_id": 4000,
            "producer_epoch": 0,
            "transaction_result": False,
            "topics": [{"name": name, "partition_indexes": indexes} for name, indexes in topics],
            "coordinator_epoch": 0,
            "transaction_version": 0,
        }
        return {"markers": [one | more]}

    for kind, fields in {
        "unknown producer": marking((topic, [0])),
        "again": marking((topic, [0])),
        "epoch before": marking((topic, [0]), producer_epoch=-1),
        "higher epoch": marking((topic, [1]), producer_epoch=3),
        "epoch before that": marking((topic, [1]), producer_epoch=2),
        "coordinator before": marking((topic, [1]), producer_epoch=3, coordinator_epoch=-1),
        "missing": marking((topic, [7]), (peer.name("no"), [0])),
        "nothing": marking(),
        "producer -1": marking((topic, [0]), producer_id=-1),
        "epoch -1": marking((topic, [0]), producer_id=4001, producer_epoch=-1),
        "no marker": {"markers": []},
    }.items():
        peer.each(kind, "WriteTxnMarkers", fields)
    peer.ask("written", "ListOffsets", 7, **list_offsets_fields(topic, (0, -1), (1, -1)))
    peer.ask("written", "DescribeProducers", 0, **producers_fields(topic, 0, 1))


def features(peer: Peer) -> None:
    """UpdateFeatures, changing nothing: what is refused."""

    def updating(*asked: tuple[str, int, int], validate: bool = True) -> Fields:
        return {
            "timeout_ms": 5000,
            "feature_updates": [
                {
                    "feature": name,
                    "max_version_level": level,
                    "upgrade_type": kind,
                    "allow_downgrade": kind > 1,
                }
                for name, level, kind in asked
            ],
            "validate_only": validate,
        }

    for kind, fields in {
        "nothing": updating(),
        "unknown": updating(("no.such.version", 1, 1)),
        "no name": updating(("", 1, 1)),
        "as it is": updating(("transaction.version", 2, 1)),
        "down": updating(("transaction.version", 1, 2)),
        "down, unsafe": updating(("transaction.version", 1, 3)),
        "up by a downgrade": updating(("transaction.version", 2, 2)),
        "down by an upgrade": updating(("transaction.version", 1, 1)),
        "too high": updating(("transaction.version", 3, 1)),
        "negative": updating(("transaction.version", -1, 3)),
        "kind 0": updating(("transaction.version", 2, 0)),
        "kind 4": updating(("transaction.version", 2, 4)),
        "metadata too high": updating(("metadata.version", 99, 1)),
        "metadata too low": updating(("metadata.version", 1, 3)),
        "two": updating(("transaction.version", 1, 2), ("no.such.version", 1, 1)),
    }.items():
        peer.each(kind, "UpdateFeatures", fields, (1, 2))


def repeated_beginnings(peer: Peer) -> None:
    """InitProducerId of who has not heard the answer (KIP-360), with a classic transaction in between."""
    peer.create("again", 1)
    first = begin(peer, "again")
    known = (first.producer_id, first.epoch)
    again = initializing(first.transactional_id, known)
    second = first.after(peer.ask("from the first", "InitProducerId", 4, **again))
    peer.ask("from the first again", "InitProducerId", 5, **again)
    add(peer, second, peer.name("again"), 0)
    peer.ask("a transaction of the second", "EndTxn", 4, **of(second, committed=True))
    at_rest(peer, second)
    peer.ask("from the first behind it", "InitProducerId", 4, **again)
    third = initializing(first.transactional_id, (second.producer_id, second.epoch))
    peer.ask("from the second", "InitProducerId", 4, **third)
    peer.ask("from the first, too late", "InitProducerId", 4, **again)
    peer.ask("from the second again", "InitProducerId", 5, **third)


def offsets_of_nobody(peer: Peer) -> None:
    """TxnOffsetCommit without a producer's id or epoch, and of producers that are not the id's."""
    topic_id = peer.create("nobody", 1)
    one, other = begin(peer, "one"), begin(peer, "other")
    for kind, (producer_id, epoch) in {
        "no epoch": (one.producer_id, -1),
        "the next epoch": (one.producer_id, one.epoch + 1),
        "no producer": (-1, 0),
        "neither": (-1, -1),
        "another": (other.producer_id, other.epoch),
        "another without an epoch": (other.producer_id, -1),
    }.items():
        partition = {
            "partition_index": 0,
            "committed_offset": 1,
            "committed_leader_epoch": -1,
            "committed_metadata": "",
        }
        fields = {
            "transactional_id": one.transactional_id,
            "group_id": peer.name("group"),
            "producer_id": producer_id,
            "producer_epoch": epoch,
            "generation_id": -1,
            "member_id": "",
            "group_instance_id": None,
            "topics": [{"name": peer.name("nobody"), "topic_id": topic_id, "partitions": [partition]}],
        }
        peer.each(f"by {kind}", "TxnOffsetCommit", fields, (2, 3, 5))


SEQUENCES = (
    transactional_ids,
    transactional_ids_that_are_busy,
    partitions_of_transactions,
    transactions_end,
    transactional_records,
    groups_of_transactions,
    offsets_of_transactions,
    transactions_told,
    markers_written,
    features,
    repeated_beginnings,
    offsets_of_nobody,
)
