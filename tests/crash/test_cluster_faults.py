"""Three nodes and a real etcd under load while everything fails: nothing acknowledged is lost or repeated.

Idempotent producers, two consumer groups and their commits go on across a fault of each kind, drawn from a
seed: processes killed, paused, stopped and wiped, machines cut off from each other, etcd killed, paused and
cut off (cluster_faults/faults.py, docs/FAULTS-IN-DETAIL.md). OTTLA_FAULTS_SEED repeats a run's choices, and
not its timing.

Where network namespaces cannot be made (no root), it runs without what needs them, and says so.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from cluster_faults.campaign import SETTINGS, Campaign
from cluster_faults.checker import check, told_of_resent, with_copies
from cluster_faults.faults import java_hash, plan
from cluster_faults.history import Ack, Commit, Committed, History, Read, Stored
from cluster_faults.logs import HEADER, Batch, check_log, differences
from cluster_faults.machines import cluster
from cluster_faults.sends import Gap, Heard, Sent, Turn, events_of
from cluster_faults.transactions import Ledger, check_ledger
from netns import NotPermitted

import soak

# Each kind once, where machines can be cut off from each other.
FAULTS = soak.amount(26, 340)


@pytest.mark.timeout(soak.amount(1500, 7200))
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
    made = history([("a", 0), ("b", 0), ("a", 1), ("a", 2)])
    assert found(made) == "" and with_copies(made) == set() and told_of_resent(made) == []


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


# ------------------------------------------------------------ transactions


def ledger(*values: str, outcome: str = "committed") -> Ledger:
    """Two records of x.1.1 in partition 0 and one in 1, with that outcome; what is there of partition 0."""
    made = Ledger()
    made.take(["began", "x.1.1", {"0": 2, "1": 1}])
    if outcome != "aborted":
        made.take(["commits", "x.1.1"])
    if outcome != "unknown":
        made.take(["ended", "x.1.1", outcome, 1.0])
    made.stored = {0: list(enumerate(values)), 1: [(0, "x.1.1 1 0")] if outcome == "committed" else []}
    made.seen["r", 0] = list(made.stored[0])
    return made


def test_whole_transactions_are_good() -> None:
    assert check_ledger(ledger("x.1.1 0 0", "x.1.1 0 1")) == []
    for outcome in ("aborted", "unknown"):
        assert check_ledger(ledger(outcome=outcome)) == []


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (ledger("x.1.1 0 0"), "TORN x.1.1, committed: 2 of its 3"),
        (ledger("x.1.1 0 0", outcome="aborted"), "TORN x.1.1, aborted: 1 of its 3"),
        (ledger("x.1.1 0 0", outcome="unknown"), "TORN x.1.1, unknown: 1 of its 3"),
        (ledger("x.1.1 0 0", "x.1.1 0 1", "x.1.1 0 0"), "TWICE ledger-0: x.1.1 0 0 at 0 and 2"),
        (ledger("x.1.1 0 0", "x.1.1 0 1", "y 0 0"), "INVENTED ledger-0: y 0 0 at 2"),
    ],
)
def test_what_is_wrong_with_transactions_is_told(made: Ledger, says: str) -> None:
    assert says in "\n".join(check_ledger(made))


def test_what_a_reader_saw_and_is_not_there_is_told() -> None:
    made = ledger("x.1.1 0 0", "x.1.1 0 1")
    made.seen["r", 0].append((2, "x.1.1 0 1"))
    assert "CHANGED ledger-0: r saw something else than there is: 3 of 2" in "\n".join(check_ledger(made))


# ------------------------------------------------------------ what a producer sent again as new


def line(subject: str, text: str) -> str:
    return f"%7|1796032919.030|{subject}|a#producer-1| [thrd:10.0.0.1:1/1]: {text}"


def sent(partition: int, message: int, count: int, sequence: int, *, epoch: int = 0, node: int = 1) -> str:
    return line(
        "PRODUCE",
        f"10.0.0.1:1/{node}: t [{partition}]: Produce MessageSet with {count} message(s) (596 bytes, "
        f"ApiVersion 10, MsgVersion 2, MsgId {message}, BaseSeq {sequence}, PID{{Id:7,Epoch:{epoch}}}, lz4)",
    )


def heard(
    partition: int, message: int, count: int, sequence: int, *, error: str = "timed out", node: int = 1
) -> str:
    text = f"encountered error: {error} (actions Retry) [NOT LEADER]" if error else "delivered"
    return line(
        "MSGSET",
        f"10.0.0.1:1/{node}: t [{partition}]: MessageSet with {count} message(s) "
        f"(MsgId {message}, BaseSeq {sequence}) {text}",
    )


def gap(partition: int, sequence: int, due: int, *, node: int = 1) -> str:
    return line(
        "ERRSEQ",
        f"10.0.0.1:1/{node}: ProduceRequest for t [{partition}] with 1 message(s) failed due to skipped "
        f"sequence numbers (PID{{Id:7,Epoch:0}}, base seq {sequence} > next seq {due}) caused by previous "
        "failed request (NOT_LEADER_FOR_PARTITION, actions Refresh,MsgNotPersisted, base seq 0..0, base "
        "msgid 1, 588ms ago): recovering and retrying",
    )


# Partition 1: record 1 goes to node 2, which refuses it; 2 goes to node 1 before it. Partition 0: records 0
# and 1 have no answer in time.
SENT_FIRST = [sent(0, 1, 2, 0), sent(1, 1, 1, 0)]
NO_ANSWER = [heard(0, 1, 2, 0)]
CLIENTS_GAP = [sent(1, 2, 1, 1, node=2), heard(1, 2, 1, 1, node=2), sent(1, 3, 1, 2), gap(1, 2, 1)]
SENT_AGAIN = [
    line("DRAIN", "All partitions drained, bumped epoch to PID{Id:7,Epoch:1}"),
    sent(0, 1, 2, 0, epoch=1),
    heard(0, 1, 2, 0, error=""),
    sent(0, 3, 1, 2, epoch=1),
]


def copied(lines: list[str], *, epochs: tuple[int, int] = (0, 1), also: tuple[int, ...] = ()) -> History:
    """Records 0 and 1 in partition 0, both again, and then 2; ``also``: what partition 1 has in epoch 0."""
    made = history([("a", 0), ("a", 1), ("a", 0), ("a", 1), ("a", 2)], acked={0: 2, 1: 3, 2: 4}, sent=3)
    made.batches["t", 0] = [
        Batch(0, 1, 3, 7, epochs[0], 0, 2, 0),
        Batch(2, 3, 4, 7, epochs[1], 0, 2, 0),
        Batch(4, 4, 4, 7, epochs[1], 2, 1, 0),
    ]
    made.batches["t", 1] = [Batch(number, number, 3, 7, 0, number, 1, 0) for number in also]
    made.events["a"] = events_of(lines)
    return made


def test_a_producers_log_is_understood() -> None:
    """With lines as librdkafka 2.16 writes them."""
    lines = [*SENT_FIRST, *NO_ANSWER, gap(1, 2, 1), SENT_AGAIN[0], SENT_AGAIN[2], line("FAIL", "gone"), "x"]
    first, second, no_answer, found, drained, delivered = events_of(lines)
    assert first == Sent(lines[0], 1, ("t", 0), 0, 2, 7, 0, 0)
    assert isinstance(second, Sent) and second.where == ("t", 1)
    assert no_answer == Heard(lines[2], 1, ("t", 0), 0, 2, 0, "timed out (actions Retry) [NOT LEADER]")
    assert found == Gap(lines[3], 1, ("t", 1), 7, 0, 2)
    assert drained == Turn(lines[4])
    assert isinstance(delivered, Heard) and delivered.error == "" and delivered.is_of(first)


@pytest.mark.parametrize("last", [sent(1, 2, 1, 1, node=2), heard(1, 2, 1, 1)])
def test_what_a_producer_sends_again_in_a_new_epoch_is_its_own_doing(last: str) -> None:
    """The batch before the gap was sent to another node only, or the client had heard that it was refused."""
    before = [sent(1, 2, 1, 1), last]
    made = copied([*SENT_FIRST, *before, sent(1, 3, 1, 2), gap(1, 2, 1), *NO_ANSWER, *SENT_AGAIN], also=(0,))
    assert found(made) == ""
    assert with_copies(made) == {"a"}
    told = "\n".join(told_of_resent(made))
    assert "2 records of a are in t-0 twice, by its own doing: 0 to 1 again at 2 to 3" in told
    assert "skipped sequence numbers" in told and "leader_epoch=3" in told and "bumped epoch" in told


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (copied([*SENT_FIRST, *NO_ANSWER, *CLIENTS_GAP, *SENT_AGAIN], epochs=(0, 0)), "no later epoch"),
        (copied([*SENT_FIRST, *NO_ANSWER, *CLIENTS_GAP]), "its producer did not send it in epoch 1"),
        (copied([*NO_ANSWER, *CLIENTS_GAP, *SENT_AGAIN]), "its producer did not send it in epoch 0"),
        (
            copied([*SENT_FIRST, heard(0, 1, 2, 0, error=""), *CLIENTS_GAP, *SENT_AGAIN]),
            "the first copy had been acknowledged",
        ),
        (
            copied([*SENT_FIRST, *NO_ANSWER, *CLIENTS_GAP[:3], *SENT_AGAIN]),
            "nothing tells why it ended epoch 0",
        ),
        (
            copied([*SENT_FIRST, *NO_ANSWER, *CLIENTS_GAP, *SENT_AGAIN], also=(0, 1)),
            "a gap was found before sequence number 2 where the log has none",
        ),
        (
            copied([*SENT_FIRST, *NO_ANSWER, sent(1, 2, 1, 1), *CLIENTS_GAP[2:], *SENT_AGAIN]),
            "node 1 missed what it was sent",
        ),
        (
            copied(
                [*SENT_FIRST, *NO_ANSWER, sent(1, 2, 1, 1), *CLIENTS_GAP[2:], heard(1, 2, 1, 1), *SENT_AGAIN]
            ),
            "node 1 missed what it was sent",
        ),
        (copied([*SENT_FIRST, *NO_ANSWER, CLIENTS_GAP[3], *SENT_AGAIN]), "node 1 missed what it was sent"),
    ],
)
def test_what_is_not_proved_to_be_a_producers_doing_is_told(made: History, why: str) -> None:
    told = found(made)
    assert "TWICE t-0: record 0 of a is at [0, 2]: " + why in told
    assert "TWICE t-0: record 1 of a" in told
    assert "ORDER t-0: after record 1 of a at 1 comes 0 at 2" in told


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
