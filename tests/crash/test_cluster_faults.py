"""Three nodes and a real etcd under load while everything fails: nothing acknowledged is lost or repeated.

Idempotent producers, two consumer groups and their commits go on across some thirty faults, drawn from a
seed: processes killed, paused, stopped and wiped, machines cut off from each other, etcd killed, paused and
cut off (cluster_faults/faults.py, docs/FAULTS.md). OTTLA_FAULTS_SEED repeats a run's choices, though not its
timing.

Where network namespaces cannot be made (no root), it runs without what needs them, and says so.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from cluster_faults.campaign import SETTINGS, Campaign
from cluster_faults.checker import check
from cluster_faults.faults import java_hash, plan
from cluster_faults.history import Ack, Commit, Committed, History, Read, Stored
from cluster_faults.logs import HEADER, check_log, differences
from cluster_faults.machines import cluster
from netns import NotPermitted

SOAK = bool(os.environ.get("OTTLA_SOAK"))
FAULTS = 340 if SOAK else 34


@pytest.mark.timeout(3600 if SOAK else 600)
def test_faults_under_load(tmp_path: Path) -> None:
    seed = int(os.environ.get("OTTLA_FAULTS_SEED") or random.getrandbits(32))
    print(f"OTTLA_FAULTS_SEED={seed}")
    try:
        campaign(tmp_path, seed, cuts=True)
    except NotPermitted as reason:
        print(f"without cutting machines off: {reason}")
        campaign(tmp_path, seed, cuts=False)


def campaign(folder: Path, seed: int, *, cuts: bool) -> None:
    with cluster(folder, SETTINGS, cuts=cuts) as made:
        running = Campaign(made, seed, FAULTS)
        running.run()
        print(running.figures())


def test_every_kind_of_fault_is_in_a_run() -> None:
    for cuts in (False, True):
        names = {fault.__name__ for fault in plan(random.Random(1), FAULTS, cuts=cuts)}
        assert len(names) == (26 if cuts else 18)
    assert [f.__name__ for f in plan(random.Random(7), 34, cuts=True)] == [
        f.__name__ for f in plan(random.Random(7), 34, cuts=True)
    ]


# ------------------------------------------------------------ the checker can fail

A, B = ("a", "t", 0), ("b", "t", 0)
G = ("g", "t", 0)


def history(
    stored: list[tuple[str, int]], *, acked: dict[int, int] | None = None, sent: int | None = None
) -> History:
    """Partition t-0 with these (producer, number), all of it read and, by default, all of it acknowledged."""
    made = History()
    records = [Stored(i, producer, number, 1000 + i) for i, (producer, number) in enumerate(stored)]
    made.stored["t", 0] = records
    made.reads["t", 0] = [Read("g", "m", record.offset, record.hash) for record in records]
    mine = [record for record in records if record.producer == "a"]
    made.sent[A] = len(mine) if sent is None else sent
    places = {record.number: record.offset for record in mine} if acked is None else acked
    made.acked[A] = [Ack(number, offset, 1.0, 2.0) for number, offset in places.items()]
    return made


def found(made: History, *, patient: bool = True, doubtful: list[tuple[float, float]] | None = None) -> str:
    return "\n".join(check(made, ["a"] if patient else [], ["g"], doubtful or []))


def test_a_good_history_is_good() -> None:
    assert found(history([("a", 0), ("b", 0), ("a", 1), ("a", 2)])) == ""


def test_what_is_unknown_may_be_there_or_not() -> None:
    for stored in ([("a", 0)], [("a", 0), ("a", 1)]):
        assert found(history(stored, acked={0: 0}, sent=3), patient=False) == ""
    assert "nobody knows what became of 1" in found(history([("a", 0)], acked={0: 0}, sent=2))


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (history([("a", 0), ("a", 1)], acked={0: 0, 1: 1, 2: 2}, sent=3), "LOST t-0: record 2 of a"),
        (history([("a", 0), ("a", 1)], acked={0: 0, 1: 5}), "MOVED t-0: record 1 of a"),
        (
            history([("a", 0), ("a", 1), ("a", 1)], acked={0: 0, 1: 1}, sent=2),
            "TWICE t-0: record 1 of a is at",
        ),
        (history([("a", 1), ("a", 0)]), "ORDER t-0: after record 1 of a at 0 comes 0"),
        (history([("a", 0), ("a", 2)], sent=3), "ORDER t-0: after record 0 of a at 0 comes 2"),
        (history([("a", 0), ("a", 1)], acked={0: 0}, sent=1), "INVENTED t-0: record 1 of a"),
    ],
)
def test_what_is_wrong_with_records_is_told(made: History, says: str) -> None:
    assert says in found(made)


def test_what_is_wrong_with_reads_is_told() -> None:
    made = history([("a", 0), ("a", 1)])
    made.reads["t", 0].append(Read("g", "m", 1, 9))
    assert "CHANGED t-0: m of g read 00000009 at 1, where there is 000003e9" in found(made)
    made.reads["t", 0] = [Read("g", "m", 0, 1000), Read("h", "n", 1, 1001)]
    assert found(made) == "UNSEEN t-0: nobody of g read offset 1"
    made.reads["t", 0] = [*made.reads["t", 0], Read("g", "m", 1, 1001), Read("g", "m", 2, 7)]
    assert "CHANGED" in found(made), "what was read is not there any more"


def test_a_gap_of_offsets_is_told() -> None:
    made = history([("b", 0)])
    made.stored["t", 0] = [Stored(0, "b", 0, 1000), Stored(2, "b", 1, 1002)]
    assert "t-0: offset 1 is missing, 2 comes next" in found(made)


def test_committed_offsets_that_go_back_are_told() -> None:
    made = history([("a", 0)])
    made.commits[G] = [Commit("m", 5, 1.0, 2.0, ""), Commit("m", 9, 4.0, 5.0, "NOT_COORDINATOR")]
    made.committed[G] = [Committed("n", 5, 3.0, 3.1), Committed("n", 9, 6.0, 6.1)]
    assert found(made) == "", "a commit of unknown outcome may count"
    made.committed[G].append(Committed("n", 5, 7.0, 7.1))
    assert "BACK g in t-0: n was told 5 at 7.100, though n saw 9 at 6.100" in found(made)
    assert found(made, doubtful=[(6.5, 8.0)]) == "", "an older state, by a node that was cut off"
    made.committed[G].append(Committed("n", 7, 7.5, 7.6))
    assert "INVENTED g in t-0: n was told 7" in found(made, doubtful=[(6.5, 8.0)])


def test_trouble_is_told() -> None:
    made = history([("a", 0)])
    made.trouble.append("a: fatal")
    assert found(made) == "trouble: a: fatal"


def log(*batches: tuple[int, int, int, int]) -> bytes:
    """Batches of one producer as (base offset, count, leader epoch, base sequence)."""
    from crc32c import crc32c

    data = b""
    for base, count, leader_epoch, sequence in batches:
        body = HEADER.pack(
            base, HEADER.size - 12, leader_epoch, 2, 0, 0, count - 1, 0, 0, 7, 0, sequence, count
        )
        data += body[:17] + crc32c(body[21:]).to_bytes(4, "big") + body[21:]
    return data


def test_logs_are_looked_through() -> None:
    good = log((0, 2, 0, 0), (2, 1, 3, 2))
    assert list(check_log("t-0", good)) == []
    assert "GAP t-0" in "".join(check_log("t-0", log((0, 2, 0, 0), (3, 1, 0, 2))))
    assert "EPOCH t-0" in "".join(check_log("t-0", log((0, 2, 4, 0), (2, 1, 3, 2))))
    assert "SEQUENCE t-0" in "".join(check_log("t-0", log((0, 2, 0, 0), (2, 1, 0, 1))))
    with pytest.raises(AssertionError, match="wrong CRC at offset 2"):
        list(check_log("t-0", good[:-1] + b"x"))
    assert list(differences("t-0", {1: good, 2: good})) == []
    assert "node 1 ends with 2, node 2 with 1" in "".join(differences("t-0", {1: good, 2: log((0, 2, 0, 0))}))
    other = log((0, 2, 0, 0), (2, 1, 4, 2))
    assert "leader_epoch=3" in "".join(differences("t-0", {1: good, 2: other}))


def test_groups_are_mapped_as_kafka_does() -> None:
    # String.hashCode of these, without the sign.
    assert (java_hash("a"), java_hash("group"), java_hash("polygenelubricants")) == (97, 98629247, 0)
