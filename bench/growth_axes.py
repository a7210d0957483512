"""What grows, and what is measured as it does: partitions, groups, connections, consumers, the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import asking
from asking import Connection
from growth_readers import BATCH_RECORD_BYTES, BATCH_RECORDS, WAIT_MS, Reader, Tail, ends
from growth_subject import (
    MESSAGE_BYTES,
    Figures,
    Rig,
    Subject,
    cost,
    evict,
    idle,
    meanwhile,
    memory,
    paced_producer,
    raise_open_files,
    start,
    stop,
    timed,
    writes,
)
from ottla.cli.bench import processes

# One producer with many consumers, in messages a second.
FAN_PER_S = 250
COMMIT_CONNECTIONS = 4
WRITES_IN_FLIGHT = 4
# A log's messages are of so many times, a second apart.
TIMES = 16
# Of fewer, what each takes is lost in what the broker's memory does anyway.
CONNECTIONS_MIN = 100


def partitions(subject: Subject, count: int, rig: Rig, figures: Figures) -> None:
    """So many partitions with a message each, and a consumer of all of them."""
    with subject.connect() as connection:
        began_s = time.monotonic()
        topics = subject.make_topics(connection, "many", count)
        figures["create_s"] = time.monotonic() - began_s
        (beside,) = subject.make_topics(connection, "beside", 1)
        records = asking.batch(1, MESSAGE_BYTES)
        began_s = time.monotonic()
        asking.fill(connection, topics, records)
        figures["fill_s"] = time.monotonic() - began_s
        idle(subject, rig, figures)
        everything = asking.metadata(list(topics))
        timed(subject, rig, "metadata", figures, lambda: connection.exchange(everything))
        all_ends = asking.fetch(ends(topics))
        timed(subject, rig, "fetch", figures, lambda: connection.exchange(all_ends))
        paced_producer(subject, rig, beside, "produce", figures)
        for name, in_session in (("produce_by_fetch", False), ("produce_by_session", True)):
            with subject.connect() as own:
                tail = Tail(own, beside, topics, in_session=in_session)
                if in_session and not tail.has_session:
                    continue
                if in_session:
                    timed(subject, rig, "session", figures, partial(tail.fetch, wait_ms=0))
                with meanwhile(tail.fetch):
                    paced_producer(subject, rig, beside, name, figures)
        if subject.broker is None:
            return
        asking.fill(connection, topics, records)
    stop(subject, figures)
    topic, last = list(topics.items())[-1]
    start(subject, "start_s", figures, writes(topic, last - 1))
    with subject.connect() as connection:
        asking.fill(connection, topics, records)
    subject.broker.kill()
    start(subject, "start_killed_s", figures, writes(topic, last - 1))


def groups(subject: Subject, count: int, rig: Rig, figures: Figures) -> None:
    """So many groups with an offset each, all of which are committed again and again."""
    names = [f"{subject.prefix}-{number:06}" for number in range(count)]
    with subject.connect() as connection:
        (topic,) = subject.make_topics(connection, "read", 1)
        subject.groups += names
        asking.commit_each(connection, names, topic)
        idle(subject, rig, figures)
        targets = [subject.target(asking.commit(group, topic, 1)) for group in names]
        found = rig.program.ask(
            targets,
            COMMIT_CONNECTIONS,
            rig.seconds,
            error_at=asking.commit_error_at(topic),
            brokers=subject.find_pids(),
        ).result()
        figures |= {"commit_p50_ms": found["p50_ms"], "commit_p99_ms": found["p99_ms"]}
        if "broker_cpu_s" in found:
            figures["commit_cpu_us"] = found["broker_cpu_s"] / found["count"] * 1e6
        listing = asking.request("ListGroups")
        timed(subject, rig, "list", figures, lambda: connection.exchange(listing))
    if subject.broker is None:
        return

    def knows(connection: Connection) -> bool:
        asked = [{"name": topic, "partition_indexes": [0]}]
        answer = connection.ask("OffsetFetch", group_id=names[-1], topics=asked)
        return not answer.error_code and answer.topics[0].partitions[0].committed_offset >= 0

    stop(subject, figures)
    start(subject, "start_s", figures, knows)
    subject.broker.kill()
    start(subject, "start_killed_s", figures, knows)


def transactional_ids(subject: Subject, count: int, rig: Rig, figures: Figures) -> None:
    """So many transactional ids, whose producers begin again and again. At an address they stay until they
    expire: nobody can delete one."""
    ids = [f"{subject.prefix}-{number:06}" for number in range(count)]
    with subject.connect() as connection:
        asking.init_each(connection, ids)
        idle(subject, rig, figures)
        found = rig.program.ask(
            [subject.target(asking.init_producer(one)) for one in ids],
            # Nobody asks for one id twice at a time, which is refused.
            min(COMMIT_CONNECTIONS, count),
            rig.seconds,
            error_at=asking.init_error_at(),
            brokers=subject.find_pids(),
        ).result()
        figures |= {"init_p50_ms": found["p50_ms"], "init_p99_ms": found["p99_ms"]}
        if "broker_cpu_s" in found:
            figures["init_cpu_us"] = found["broker_cpu_s"] / found["count"] * 1e6
    if subject.broker is None:
        return

    def serves(connection: Connection) -> bool:
        answer = connection.exchange(asking.init_producer(ids[-1]))
        return answer[asking.init_error_at() :][:2] == b"\0\0"

    stop(subject, figures)
    start(subject, "start_s", figures, serves)
    subject.broker.kill()
    start(subject, "start_killed_s", figures, serves)


def connections(subject: Subject, count: int, rig: Rig, figures: Figures) -> None:
    """So many connections: first all of them idle, then each of them a producer."""
    raise_open_files(count + 100)
    with subject.connect() as connection:
        topics = subject.make_topics(connection, "six", 6)
        (topic,) = topics
        (beside,) = subject.make_topics(connection, "beside", 1)
        asking.fill(connection, topics, asking.batch(1, MESSAGE_BYTES))
        memory(subject, figures)
        before_mb = figures.get("memory_mb")
        with ExitStack() as opened:
            hello = asking.request("ApiVersions") + asking.metadata([topic])
            mine = []
            for _ in range(count):
                mine.append(opened.enter_context(subject.connect()))
                mine[-1].send(hello)
            for one in mine:
                one.receive(), one.receive()
            idle(subject, rig, figures)
            if before_mb is not None and count >= CONNECTIONS_MIN:
                figures["connection_kb"] = max(0.0, figures["memory_mb"] - before_mb) / count * 1e3
            paced_producer(subject, rig, beside, "produce", figures)
        records = asking.batch(1, MESSAGE_BYTES)
        targets = [subject.target(asking.produce({topic: [(p, records)]})) for p in range(6)]
        found = rig.program.ask(
            targets,
            count,
            rig.seconds,
            error_at=asking.produce_error_at(topic),
            brokers=subject.find_pids(),
        ).result()
        figures["busy_per_s"] = found["count"] / found["seconds"]
        figures |= {"busy_p50_ms": found["p50_ms"], "busy_p99_ms": found["p99_ms"]}
        if "broker_cpu_s" in found:
            figures["busy_cpu_us"] = found["broker_cpu_s"] / found["count"] * 1e6
    if subject.broker is not None:
        stop(subject, figures)


def consumers(subject: Subject, count: int, rig: Rig, figures: Figures) -> None:
    """One producer, and so many consumers of its partition, without and with a session."""
    deliver(subject, count, rig, "deliver", figures, in_session=False)
    deliver(subject, count, rig, "deliver_session", figures, in_session=True)
    if subject.broker is not None:
        stop(subject, figures)


def deliver(subject: Subject, count: int, rig: Rig, name: str, figures: Figures, *, in_session: bool) -> None:
    """Have one producer's messages come to so many consumers. Nothing where a broker has no sessions."""
    with subject.connect() as connection:
        (topic,) = subject.make_topics(connection, name.replace("_", "-"), 1)
        session = (0, 0 if in_session else -1)
        answer = connection.exchange(asking.fetch({topic: {0: 0}}, session=session))
        if in_session and not asking.fetch_session(answer):
            return
        found = rig.program.fan(
            subject.target(asking.produce({topic: [(0, asking.batch(1, MESSAGE_BYTES))]})),
            subject.target(asking.fetch({topic: {0: 0}}, wait_ms=WAIT_MS, session=session)),
            count,
            rig.seconds,
            rate=FAN_PER_S,
            places=(
                asking.produce_error_at(topic),
                asking.fetch_end_at(topic),
                asking.fetch_offset_at(topic),
            ),
            session=(asking.session_at(), asking.fetch_session_at()) if in_session else (-1, -1),
            brokers=subject.find_pids(),
        ).result()
    figures |= {f"{name}_p50_ms": found["p50_ms"], f"{name}_p99_ms": found["p99_ms"]}
    if "broker_cpu_s" in found:
        figures[f"{name}_cpu_us"] = found["broker_cpu_s"] / found["count"] * 1e6
        figures["memory_mb"] = found["broker_memory_mb"]


def log_size(subject: Subject, megabytes: int, rig: Rig, figures: Figures) -> None:
    """A partition of so many megabytes: read as it lies in memory and, of a broker of ours, from the disk."""
    now_ms = int(time.time() * 1000)
    times_ms = [now_ms - 1000 * ago for ago in reversed(range(TIMES))]
    written = [asking.batch(BATCH_RECORDS, BATCH_RECORD_BYTES, at_ms) for at_ms in times_ms]
    size = len(written[0])
    batches = max(1, round(megabytes * 1e6 / size))
    with subject.connect() as connection:
        (topic,) = subject.make_topics(connection, "large", 1)
        (beside,) = subject.make_topics(connection, "beside", 1)
        pids = subject.find_pids()
        before = processes.usage(pids)
        write(connection, topic, [written[number * TIMES // batches] for number in range(batches)])
        cost(before, processes.usage(pids), size * batches, "write_cpu_s_per_gb", figures)
        memory(subject, figures)
        lookup = asking.lookup(topic, times_ms[TIMES // 2])
        timed(subject, rig, "lookup", figures, lambda: connection.exchange(lookup))
        reader = Reader(connection, topic, size, batches * BATCH_RECORDS)
        before = processes.usage(pids)
        while not reader.is_done:
            reader.fetch()
        cost(before, processes.usage(pids), reader.bytes, "read_cpu_s_per_gb", figures)
        paced_producer(subject, rig, beside, "produce", figures)
    if subject.broker is None:
        return
    subject.broker.kill()
    start(subject, "start_killed_s", figures, writes(topic, 0))
    forget = partial(evict, subject.broker.directory, topic)
    forget()
    with subject.connect() as connection:
        reader = Reader(connection, topic, size, batches * BATCH_RECORDS)
        with meanwhile(partial(reader.fetch_again, forget)):
            paced_producer(subject, rig, beside, "produce_by_cold", figures)
    stop(subject, figures)
    start(subject, "start_s", figures, writes(topic, 0))


def write(connection: Connection, topic: str, batches: Iterable[bytes]) -> None:
    """Write batches, a few at a time."""
    at = asking.produce_error_at(topic)

    def receive() -> None:
        answer = connection.receive()
        asking.check(f"Produce {topic}", int.from_bytes(answer[at : at + 2], "big", signed=True))

    under_way = 0
    for records in batches:
        connection.send(asking.produce({topic: [(0, records)]}))
        under_way += 1
        if under_way > WRITES_IN_FLIGHT:
            receive()
            under_way -= 1
    for _ in range(under_way):
        receive()


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that grows: how an option names it, what its numbers count, and which are taken. ``measure``
    fills in figures as it goes: those that it has when it fails stand."""

    name: str
    label: str
    measure: Callable[[Subject, int, Rig, Figures], None]
    points: tuple[int, ...]


AXES = (
    Axis("partitions", "partitions", partitions, (100, 300, 1000, 3000, 10_000)),
    Axis("groups", "consumer groups", groups, (1, 10, 100, 1000, 5000)),
    Axis("ids", "transactional ids", transactional_ids, (10, 100, 1000, 10_000)),
    Axis("connections", "connections", connections, (1, 10, 100, 1000, 5000)),
    Axis("consumers", "consumers of one producer", consumers, (1, 2, 5, 10, 20)),
    Axis("log", "megabytes in one partition", log_size, (16, 64, 256, 1024)),
)


def points(text: str) -> tuple[int, ...]:
    """A list of numbers, `1,100,5000`. ValueError where it is none."""
    try:
        found: Sequence[int] = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise ValueError(f"{text!r} is not a list of numbers") from None
    if found[0] < 1:
        raise ValueError(f"{text!r}: numbers are at least 1")
    return tuple(found)
