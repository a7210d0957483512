"""librdkafka writes records twice by itself: what 0010-refused-batches.md says of it, and what the campaign's
oracle (cluster_faults/sends.py) reads in its log, is what it does."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_faults.logs import batches, log_bytes
from cluster_faults.sends import Gap, Heard, Sent, Where, events_of, objection, story
from cluster_faults.worker import QUIET, TALKATIVE
from confluent_kafka import Producer

from interop.process import wait_until
from ottla.testing import Broker

GAP, OTHER = ("gap", 0), ("other", 0)


# How long the refusal of the first batch takes: until all are on their way, on a slow machine as well.
DELAYS_MS = (3_000, 9_000, 27_000)


def produce(broker: Broker, delay_ms: int, capfd: pytest.CaptureFixture[str]) -> str:
    """One record to each, and then two to GAP, of which the first is refused and the second out of order, and
    one to OTHER, which is appended and not acknowledged; the producer's log."""
    logged = ""
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "enable.idempotence": True,
            # A batch for each message.
            "batch.num.messages": 1,
            "linger.ms": 0,
            **QUIET,
            **TALKATIVE,
        }
    )
    for topic, _ in (GAP, OTHER):
        producer.produce(topic, b"first", partition=0)
    assert producer.flush(30) == 0
    faults = broker.faults
    faults.delay("Produce", delay_ms, topic=GAP[0], times=1)
    faults.fail("Produce", "NOT_ENOUGH_REPLICAS", topic=GAP[0], times=1)
    faults.fail("Produce", "OUT_OF_ORDER_SEQUENCE_NUMBER", topic=GAP[0], times=1)
    faults.drop("Produce", after=True, topic=OTHER[0], times=1)
    for _ in range(2):
        producer.produce(GAP[0], b"again", partition=0)

    def both_are_sent() -> bool:
        nonlocal logged
        producer.poll(0)
        logged += capfd.readouterr().err
        events = events_of(logged.splitlines())
        return any(isinstance(e, Sent) and e.where == GAP and e.first == 2 for e in events)

    # The connection ends behind OTHER's.
    wait_until(both_are_sent, what="both batches are on their way")
    producer.produce(OTHER[0], b"again", partition=0)
    assert producer.flush(30) == 0
    return logged + capfd.readouterr().err


def test_librdkafka_sends_again_in_another_epoch_what_is_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for delay_ms in DELAYS_MS:
        data = tmp_path / f"data-{delay_ms}"
        with Broker(data=data) as broker:
            for topic, _ in (GAP, OTHER):
                broker.create_topic(topic)
            logged = produce(broker, delay_ms, capfd)
            stored = {where: [r.value for r in broker.records(where[0])] for where in (GAP, OTHER)}
        if was_in_time(logged):
            break
    assert stored == {GAP: [b"first", b"again", b"again"], OTHER: [b"first", b"again", b"again"]}
    logs = {w: list(batches(log_bytes(data / f"{w[0]}-{w[1]}"))) for w in (GAP, OTHER)}
    assert [batch.producer_epoch for batch in logs[OTHER]] == [0, 0, 1], "one record, twice"
    events = events_of(logged.splitlines())
    (gap,) = (event for event in events if isinstance(event, Gap))
    assert (gap.where, gap.epoch, gap.base_sequence) == (GAP, 0, 2)
    copies = logs[OTHER][1:]
    told = "\n".join(story(events, OTHER, 1, copies))
    assert "skipped sequence numbers" in told and "bumped epoch" in told, told
    # Here it was the broker that missed what it was sent, and the oracle sees that.
    assert objection(events, OTHER, 1, copies, logs).startswith(f"node {gap.node} missed what it was sent")
    assert objection(events, OTHER, 0, logs[OTHER][:1] * 2, logs) == "no later epoch of its producer"
    check_events(events, OTHER)


def was_in_time(logged: str) -> bool:
    """Whether the batch for OTHER was sent before the refusal of the first one for GAP was heard."""
    sent = [e for e in events_of(logged.splitlines()) if isinstance(e, Sent) and e.where == OTHER]
    return any((each.first, each.epoch) == (1, 0) for each in sent)


def check_events(events: list[object], where: Where) -> None:
    """Each batch that was sent is in there, and what became of it."""
    sent = [event for event in events if isinstance(event, Sent) and event.where == where]
    heard = [event for event in events if isinstance(event, Heard) and event.where == where]
    assert [(each.first, each.count, each.epoch, each.base_sequence) for each in sent] == [
        (0, 1, 0, 0),
        (1, 1, 0, 1),
        (1, 1, 1, 0),
    ]
    assert [bool(each.error) for each in heard] == [False, True, False]
    assert all(h.is_of(s) for s, h in zip(sent, heard, strict=True))
