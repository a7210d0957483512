"""Fetch sessions as in KIP-227: epochs, changes, what is news, and room for a bounded number."""

from __future__ import annotations

from typing import Any

import pytest

from ottla.broker.api.records.fetch.session import Session, Want
from ottla.broker.api.records.fetch.session_cache import FetchSessions
from ottla.errors import ErrorCode, KafkaError


class StoppedClock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ms(self) -> int:
        return self.ms

    def call_later(self, delay_ms: float, callback: Any) -> Any:
        raise AssertionError("sessions need no timers")


def want(partition: int, offset: int = 0, topic: str = "t") -> Want:
    return Want(topic, partition, offset, 1024, -1)


def answer(records: bytes = b"", error_code: int = 0, high_watermark: int = 0) -> dict[str, Any]:
    return {
        "records": records,
        "error_code": error_code,
        "high_watermark": high_watermark,
        "last_stable_offset": high_watermark,
        "log_start_offset": 0,
    }


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def sessions(clock: StoppedClock) -> FetchSessions:
    ids = iter(range(1, 1000))
    return FetchSessions(clock, slots_max=2, eviction_ms_min=1000, new_id=lambda: next(ids))


def opened(sessions: FetchSessions, *partitions: int) -> Session:
    session = sessions.open(False, [want(p) for p in partitions])
    assert session is not None
    return session


def code(error: pytest.ExceptionInfo[KafkaError]) -> ErrorCode:
    return error.value.code


def test_each_request_must_carry_the_next_epoch(sessions: FetchSessions) -> None:
    session = opened(sessions, 0)
    assert sessions.resume(session.session_id, 1, False, [], []) is session
    with pytest.raises(KafkaError) as error:
        sessions.resume(session.session_id, 1, False, [], [])
    assert code(error) == ErrorCode.invalid_fetch_session_epoch
    assert sessions.resume(session.session_id, 2, False, [], []) is session


def test_the_epoch_wraps_to_one(sessions: FetchSessions) -> None:
    session = opened(sessions, 0)
    session.epoch = 2**31 - 1
    sessions.resume(session.session_id, 2**31 - 1, False, [], [])
    assert session.epoch == 1


def test_an_unknown_session_and_a_change_from_names_to_ids_are_refused(sessions: FetchSessions) -> None:
    with pytest.raises(KafkaError) as error:
        sessions.resume(77, 1, False, [], [])
    assert code(error) == ErrorCode.fetch_session_id_not_found
    session = opened(sessions, 0)
    with pytest.raises(KafkaError) as error:
        sessions.resume(session.session_id, 1, True, [], [])
    assert code(error) == ErrorCode.fetch_session_topic_id_error


def test_changes_add_replace_and_forget(sessions: FetchSessions) -> None:
    session = opened(sessions, 0, 1)
    sessions.resume(session.session_id, 1, False, [want(1, offset=5), want(2)], [("t", 0)])
    assert [(w.partition, w.fetch_offset) for w in session.wants.values()] == [(1, 5), (2, 0)]


def test_only_news_is_told_and_partitions_that_gave_records_go_last(sessions: FetchSessions) -> None:
    session = opened(sessions, 0, 1)
    first = [(want(0), answer(high_watermark=3)), (want(1), answer(high_watermark=4))]
    assert len(session.news(first)) == 2
    assert session.news(first) == []
    records = [(want(0), answer(b"data", high_watermark=5)), (want(1), answer(high_watermark=4))]
    assert [w.partition for w, _ in session.news(records)] == [0]
    assert [w.partition for w in session.wants.values()] == [1, 0]


def test_an_error_is_told_again_and_so_is_its_end(sessions: FetchSessions) -> None:
    session = opened(sessions, 0)
    session.news([(want(0), answer(high_watermark=3))])
    failed = [(want(0), answer(error_code=6, high_watermark=-1))]
    assert session.news(failed) == failed
    assert session.news(failed) == failed
    healed = [(want(0), answer(high_watermark=3))]
    assert session.news(healed) == healed
    assert session.news(healed) == []


def test_a_divergence_is_told_each_time_and_then_everything(sessions: FetchSessions) -> None:
    """A follower that truncates takes nothing else from the answer, and may have to truncate again."""
    session = opened(sessions, 0)
    diverging = answer(high_watermark=5) | {"diverging_epoch": {"epoch": 1, "end_offset": 3}}
    for _ in range(3):
        assert len(session.news([(want(0), dict(diverging))])) == 1
    assert len(session.news([(want(0), answer(high_watermark=5))])) == 1
    assert session.news([(want(0), answer(high_watermark=5))]) == []


def test_a_full_cache_keeps_those_in_use_and_gives_up_the_oldest(
    sessions: FetchSessions, clock: StoppedClock
) -> None:
    one, two = opened(sessions, 0), opened(sessions, 0)
    assert sessions.open(False, [want(0)]) is None
    clock.ms += 1000
    assert sessions.open(False, [want(0)]) is None
    clock.ms += 1
    sessions.resume(one.session_id, 1, False, [], [])
    three = opened(sessions, 0)
    with pytest.raises(KafkaError):
        sessions.resume(two.session_id, 1, False, [], [])
    assert sessions.resume(one.session_id, 2, False, [], []) is one
    assert sessions.resume(three.session_id, 1, False, [], []) is three
    assert (len(sessions), sessions.evicted) == (2, 1)


def test_a_follower_has_a_consumers_place_and_not_another_followers(sessions: FetchSessions) -> None:
    def follow() -> Session | None:
        return sessions.open(False, [want(0)], is_follower=True)

    first = follow()
    consumer = opened(sessions, 0)
    assert first is not None
    second = follow()
    assert second is not None and len(sessions) == 2
    with pytest.raises(KafkaError):
        sessions.resume(consumer.session_id, 1, False, [], [])
    assert follow() is None and sessions.open(False, [want(0)]) is None
    assert sessions.resume(first.session_id, 1, False, [], []) is first
    assert sessions.resume(second.session_id, 1, False, [], []) is second


def test_one_in_use_for_long_gives_way_to_a_larger_one(sessions: FetchSessions, clock: StoppedClock) -> None:
    """KIP-227's third rule: the smallest goes first, and only for one that is larger."""
    small, large = opened(sessions, 0), opened(sessions, 0, 1, 2)
    for epoch in range(1, 5):
        clock.ms += 400
        # Both are used all the time, and neither is too young from the third time on.
        assert sessions.open(False, [want(p) for p in range(9)] if epoch < 3 else [want(0)]) is None
        sessions.resume(small.session_id, epoch, False, [], [])
        sessions.resume(large.session_id, epoch, False, [], [])
    two = opened(sessions, 0, 1)
    assert small.session_id not in sessions._sessions and large.session_id in sessions._sessions
    assert sessions.open(False, [want(p) for p in range(9)]) is not None, "of the larger one, which is old"
    assert list(sessions._sessions) == [two.session_id, two.session_id + 1]


def test_a_session_is_as_large_as_at_its_last_use(sessions: FetchSessions, clock: StoppedClock) -> None:
    one, two = opened(sessions, 0), opened(sessions, 0, 1, 2)
    clock.ms += 900
    for session in (one, two):
        sessions.resume(session.session_id, 1, False, [], [])
    clock.ms += 900
    sessions.resume(one.session_id, 2, False, [want(p) for p in range(4)], [])
    sessions.resume(two.session_id, 2, False, [], [("t", 0), ("t", 1)])
    assert opened(sessions, 0, 1) and two.session_id not in sessions._sessions


def test_a_follower_has_an_old_followers_place_if_it_is_larger(
    sessions: FetchSessions, clock: StoppedClock
) -> None:
    def follow(count: int) -> Session | None:
        return sessions.open(False, [want(p) for p in range(count)], is_follower=True)

    first, second = follow(2), follow(3)
    assert first is not None and second is not None
    for epoch in (1, 2, 3):
        clock.ms += 400
        assert follow(9) is None
        for session in (first, second):
            sessions.resume(session.session_id, epoch, False, [], [])
    # A consumer's is worth less, however large it is.
    assert sessions.open(False, [want(p) for p in range(9)]) is None
    assert follow(2) is None and follow(3) is not None
    assert first.session_id not in sessions._sessions


def test_partitions_are_counted_over_all_sessions(clock: StoppedClock) -> None:
    ids = iter(range(1, 1000))
    sessions = FetchSessions(
        clock,
        eviction_ms_min=1000,
        session_partitions_max=50,
        partitions_max=100,
        new_id=lambda: next(ids),
    )
    one, two = opened(sessions, *range(50)), opened(sessions, *range(40))
    assert sessions.open(False, [want(p) for p in range(51)]) is None, "one alone is too large"
    assert sessions.open(False, [want(p) for p in range(11)]) is None and sessions.partitions == 90
    three = opened(sessions, *range(10))
    sessions.resume(two.session_id, 1, False, [], [("t", p) for p in range(5)])
    assert sessions.partitions == 95
    # One that grows too large is gone: its client begins anew.
    for grows, count in ((three, 16), (one, 51)):
        with pytest.raises(KafkaError) as error:
            sessions.resume(grows.session_id, 1, False, [want(p) for p in range(count)], [])
        assert code(error) == ErrorCode.fetch_session_id_not_found
    assert sessions.partitions == 35 and len(sessions) == 1
    opened(sessions, *range(50))
    clock.ms += 1001
    # What nobody uses gives way, as many as it takes.
    opened(sessions, *range(49))
    assert len(sessions) == 2 and sessions.partitions == 99
    sessions.close(2)
    sessions.close(99)
    for session_id in list(sessions._sessions):
        sessions.close(session_id)
    assert (
        sessions.partitions == 0 == len(sessions._evictable_by_all) == len(sessions._evictable_by_followers)
    )
