"""A follower that asks again for what it asked for: the short way says and does what the long one does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from replication_support import LAG_MS_MAX
from test_replication_leading import Bench

from ottla.broker.api.records.fetch.session import Want
from ottla.errors import KafkaError
from ottla.metadata.elections import with_isr
from ottla.replication.divergence import Divergence
from ottla.replication.isr import Follower

# What a follower asks for that has everything, and in what it may differ from that: past the end, in the last
# epoch that it read, in the leader's epoch, in its log's start, in its registration.
PLAIN = (0, 0, 0, 0, 0)
DIFFERENCES = [(0, -1), (0, 1), (1, -1), (1, 1), (1, None), (2, -1), (2, 1), (3, 1), (4, -1), (4, 1)]


def _asked(node_id: int, difference: tuple[Any, ...]) -> tuple[Any, ...]:
    fields: list[Any] = list(PLAIN)
    if difference:
        fields[difference[0]] = difference[1]
    return ("fetch", node_id, *fields)


BOTH = st.just((_asked(2, ()), _asked(3, ())))
ONE = st.builds(lambda *asked: (_asked(*asked),), st.sampled_from([2, 3]), st.sampled_from(DIFFERENCES))
OTHERS = st.one_of(
    st.tuples(st.just("append")),
    st.tuples(st.just("time"), st.sampled_from([1, LAG_MS_MAX + 1])),
    st.tuples(st.just("shrink")),
    st.tuples(st.just("deletion")),
    st.tuples(st.just("isr"), st.sampled_from([(1, 2, 3), (1, 2), (1, 3), (1,)])),
    st.tuples(st.just("epoch")),
)


def fetched(bench: Bench, step: tuple[Any, ...], known: dict[int, Follower], *, shortens: bool) -> str:
    """What comes of a fetch, in words. ``known``: what the last one of each follower found."""
    _, node_id, past_end, last_epoch, leader_epoch, start, broker_epoch = step
    it = bench.it
    want = Want(
        "t",
        0,
        it.log.log_end_offset + past_end,
        1,
        it.leader_epoch + leader_epoch,
        -1 if last_epoch is None else it.log.latest_epoch + last_epoch,
        start,
    )
    registration = bench.around.registered[node_id] + broker_epoch
    follower = known.get(node_id)
    if (
        shortens
        and follower is not None
        and it.follower_stands(node_id, registration, follower, want, bench.around.now_ms)
    ):
        return "noted"
    try:
        it.check_leader(want.current_leader_epoch)
        known[node_id] = it.follower_fetched(
            node_id,
            registration,
            want.fetch_offset,
            want.last_fetched_epoch,
            want.log_start_offset,
            current_leader_epoch=want.current_leader_epoch,
        )
    except KafkaError as error:
        return error.code.name
    except Divergence as divergence:
        return str(divergence)
    return "noted"


def take(bench: Bench, step: tuple[Any, ...], known: dict[int, Follower], *, shortens: bool) -> str:
    it = bench.it
    match step:
        case ("append",):
            bench.append()
        case ("time", passed_ms):
            bench.around.now_ms += passed_ms
        case ("shrink",):
            it.shrink()
        case ("deletion",):
            bench.wait_deleted("d", 1)
        case ("isr", isr):
            bench.it.apply(with_isr(it.state, isr, 1))
        case ("epoch",):
            later = replace(
                it.state, leader_epoch=it.leader_epoch + 1, partition_epoch=it.state.partition_epoch + 1
            )
            it.apply(later)
        case _:
            return fetched(bench, step, known, shortens=shortens)
    return ""


def picture(bench: Bench) -> Any:
    """All that may differ."""
    leading = bench.it.leading
    assert leading is not None
    followers = {
        node_id: {name: getattr(follower, name) for name in follower.__slots__}
        for node_id, follower in leading.followers.items()
    }
    return (
        followers,
        bench.it.high_watermark,
        bench.told,
        bench.around.proposed,
        leading.out_of_sync(bench.it.log.log_end_offset, bench.around.now_ms, LAG_MS_MAX),
    )


@settings(max_examples=400)
@given(st.lists(st.one_of(BOTH, BOTH, ONE, ONE, OTHERS.map(lambda step: (step,))), min_size=4, max_size=12))
def test_the_short_way_leads_to_the_same(groups: list[tuple[tuple[Any, ...], ...]]) -> None:
    short, long = Bench(), Bench()
    known: dict[int, Follower] = {}
    for step in (step for group in groups for step in group):
        assert take(short, step, known, shortens=True) == take(long, step, {}, shortens=False)
        assert picture(short) == picture(long)


def test_the_short_way_is_taken_by_who_has_everything() -> None:
    bench = Bench()
    bench.append()
    step = ("fetch", 2, 0, 0, 0, 0, 0)
    for node_id in (2, 3):
        assert fetched(bench, ("fetch", node_id, *step[2:]), {}, shortens=False) == "noted"
    assert bench.it.high_watermark == 1
    assert bench.it.leading is not None
    follower = bench.it.leading.followers[2]
    want = Want("t", 0, 1, 1, bench.it.leader_epoch, bench.it.log.latest_epoch, 0)
    bench.around.now_ms += 5
    assert bench.it.follower_stands(2, 20, follower, want, bench.around.now_ms)
    assert follower.caught_up_ms == bench.around.now_ms
    bench.append()
    assert not bench.it.follower_stands(2, 20, follower, want, bench.around.now_ms)
