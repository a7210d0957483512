"""Quotas: rates as Kafka measures them, which quota holds for whom, how long one waits, what is kept."""

from __future__ import annotations

import math
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from measuring import cpu_at_most
from ottla.numbers import INT_MAX
from ottla.security import quotas
from ottla.security.quota_entities import (
    CONSUMER_BYTE_RATE,
    PRODUCER_BYTE_RATE,
    Entity,
)
from ottla.security.quotas import IDLE_MS_MAX, Quotas, RateQuota
from ottla.security.rates import Rate, TokenBucket, Window

WINDOW = Window(11, 1_000)
Table = dict[Entity, dict[str, float]]


def entity(**names: str | None) -> Entity:
    return Entity.of({"client-id" if kind == "client" else kind: name for kind, name in names.items()})


def following(table: Table, window: Window = WINDOW) -> Quotas:
    made = Quotas(window, window)
    for _ in made.follow({}, table):
        pass
    return made


# Rates --------------------------------------------------


class Sampled:
    """Kafka's ``SampledStat`` to the letter: a ring of samples, one more than the window has."""

    def __init__(self, samples: int, sample_ms: int) -> None:
        self.count, self.sample_ms = samples, sample_ms
        self.ring: list[list[float]] = []
        self.current = 0

    def record(self, value: float, now_ms: int) -> None:
        if not self.ring:
            self.ring.append([now_ms, now_ms, 0.0])
        if now_ms - self.ring[self.current][0] >= self.sample_ms:
            self.current = (self.current + 1) % (self.count + 1)
            if self.current >= len(self.ring):
                self.ring.append([now_ms, now_ms, 0.0])
            else:
                self.ring[self.current] = [now_ms, now_ms, 0.0]
        self.ring[self.current][1] = now_ms
        self.ring[self.current][2] += value

    def window_ms(self, now_ms: int) -> int:
        for place, (_, last_ms, _) in enumerate(self.ring):
            if now_ms - last_ms >= self.count * self.sample_ms:
                self.ring[place] = [now_ms, now_ms, 0.0]
        oldest_ms = min((sample[0] for sample in self.ring), default=now_ms)
        elapsed_ms = int(now_ms - oldest_ms)
        full = elapsed_ms // self.sample_ms
        if full < self.count - 1:
            elapsed_ms += (self.count - 1 - full) * self.sample_ms
        return max(elapsed_ms, 1)

    def rate(self, now_ms: int) -> float:
        window_ms = self.window_ms(now_ms)
        return sum(sample[2] for sample in self.ring) / (window_ms / 1000)


@given(
    st.lists(st.tuples(st.integers(0, 3_500), st.integers(-5, 1_000)), max_size=60),
    st.sampled_from([Window(11, 1_000), Window(2, 500), Window(1, 100)]),
)
def test_rates_are_kafka_s(events: list[tuple[int, int]], window: Window) -> None:
    rate, model = Rate(window), Sampled(*window)
    now_ms = 5_000
    for passed_ms, value in events:
        now_ms += passed_ms
        rate.record(value, now_ms)
        model.record(value, now_ms)
        assert rate.window_ms(now_ms) == model.window_ms(now_ms)
        assert math.isclose(rate.per_second(now_ms), model.rate(now_ms), abs_tol=1e-9)
        assert len(rate._samples) <= window.samples + 2


def test_how_long_one_waits() -> None:
    rate = Rate(WINDOW)
    rate.record(10_000, 0)
    # 1,000 a second over ten whole samples.
    assert rate.per_second(0) == 1_000
    assert rate.throttle_ms(1_000, 0) == 0
    assert rate.throttle_ms(500, 0) == 10_000
    rate.record(5_000, 0)
    assert rate.throttle_ms(1_000, 0) == 5_000
    assert rate.throttle_ms(1_000, 11_000) == 0
    # Nothing happened in it: it is as long all the same.
    assert rate.window_ms(11_000) == Rate(WINDOW).window_ms(0) == 10_000


def test_a_bucket_of_tokens() -> None:
    bucket = TokenBucket(Window(2, 1_000), 5, 0)
    bucket.take(10, 5, 0)
    assert bucket.throttle_ms(5, 0) == 0
    bucket.take(4, 5, 0)
    assert bucket.throttle_ms(5, 0) == 800
    assert bucket.throttle_ms(5, 400) == 400
    # Never more than a window has.
    assert bucket.throttle_ms(5, 1_000_000) == 0
    bucket.take(11, 5, 1_000_000)
    assert bucket.throttle_ms(5, 1_000_000) == 200
    # What comes while nothing is taken, and is more than that, does not pay for what is taken afterwards.
    idle = TokenBucket(Window(2, 1_000), 5, 0)
    idle.take(11, 5, 60_000)
    assert idle.throttle_ms(5, 60_000) == 200


# Whose quota --------------------------------------------


def holding(table: Table, user: str, client: str) -> float | None:
    found = following(table).producers.find(user, client, 0)
    return None if found is None else found.limit


ORDER = [
    entity(user="u", client="c"),
    entity(user="u", client=None),
    entity(user="u"),
    entity(user=None, client="c"),
    entity(user=None, client=None),
    entity(user=None),
    entity(client="c"),
    entity(client=None),
]


def test_the_first_of_kafka_s_order_holds() -> None:
    table = {each: {PRODUCER_BYTE_RATE: float(place)} for place, each in enumerate(ORDER, 1)}
    for place, (first, _) in enumerate(pairwise([*ORDER, ORDER[0]]), 1):
        assert holding(table, "u", "c") == place
        del table[first]
    assert holding(table, "u", "c") is None


@pytest.mark.parametrize(
    ("names", "user", "client", "expected"),
    [
        ([entity(user="u")], "u", "any", 1.0),
        ([entity(user="u")], "v", "any", None),
        ([entity(user=None)], "v", "any", 1.0),
        ([entity(client="c")], "any", "c", 1.0),
        ([entity(client="c")], "any", "", None),
        ([entity(client=None)], "any", "", None),
        ([entity(user="u", client="c")], "u", "d", None),
        ([entity(user="u", client=None)], "u", "", None),
        ([entity(user="u", client=None), entity(user="u")], "u", "", 2.0),
        ([entity(ip="1.1.1.1")], "u", "c", None),
    ],
)
def test_who_has_which(names: list[Entity], user: str, client: str, expected: float | None) -> None:
    table = {each: {PRODUCER_BYTE_RATE: float(place)} for place, each in enumerate(names, 1)}
    assert holding(table, user, client) == expected


def test_who_shares_what_is_used() -> None:
    def share(table: Table, one: tuple[str, str], other: tuple[str, str]) -> bool:
        made = following(table).producers
        return made.find(*one, 0) is made.find(*other, 0)

    rate = {PRODUCER_BYTE_RATE: 1.0}
    assert share({entity(user=None): rate}, ("u", "c"), ("u", "d"))
    assert not share({entity(user=None): rate}, ("u", "c"), ("v", "c"))
    assert share({entity(client=None): rate}, ("u", "c"), ("v", "c"))
    assert not share({entity(client=None): rate}, ("u", "c"), ("u", "d"))
    assert not share({entity(user="u", client=None): rate}, ("u", "c"), ("u", "d"))
    mixed = {entity(user="u"): rate, entity(client="c"): rate, entity(user=None, client="e"): rate}
    assert share(mixed, ("u", "c"), ("u", "d"))
    assert share(mixed, ("v", "c"), ("w", "c"))
    assert not share(mixed, ("v", "e"), ("w", "e"))


NAMES = st.none() | st.sampled_from("ab")
ENTITIES = st.one_of(
    st.builds(lambda u: entity(user=u), NAMES),
    st.builds(lambda c: entity(client=c), NAMES),
    st.builds(lambda u, c: entity(user=u, client=c), NAMES, NAMES),
    st.just(entity(ip="10.0.0.1")),
)
VALUES = st.dictionaries(
    st.sampled_from([PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE]), st.sampled_from([1.0, 2.0, 3.0])
)
TABLES = st.dictionaries(ENTITIES, VALUES, max_size=6)


@settings(max_examples=60)
@given(st.lists(TABLES, min_size=2, max_size=4))
def test_quotas_that_change_are_as_if_they_had_been_from_the_start(tables: list[Table]) -> None:
    made = Quotas(WINDOW, WINDOW)
    for old, new in pairwise([{}, *tables]):
        for _ in made.follow(old, new):
            pass
        fresh = following(new)
        assert made.producers.is_set == fresh.producers.is_set
        for user, client in product(("a", "b", "z"), ("a", "b", "")):
            found: list[Any] = [
                kind.find(user, client, 0)
                for kind in (made.producers, fresh.producers, made.consumers, fresh.consumers)
            ]
            limits = [one and one.limit for one in found]
            assert limits[0] == limits[1]
            assert limits[2] == limits[3]


# What becomes of it -------------------------------------


def test_bytes_and_their_throttle() -> None:
    made = following({entity(user="u"): {PRODUCER_BYTE_RATE: 1_000.0, "request_percentage": 10.0}})
    assert made.producers.record("u", "c", 10_000, 0) == 0
    assert made.producers.record("u", "d", 1_000, 0) == 1_000
    assert made.producers.record("v", "c", 1e9, 0) == 0
    assert made.producers.value_max("u", "c", 0) == 10_000
    assert made.producers.value_max("v", "c", 0) == math.inf
    assert made.consumers.value_max("u", "c", 0) == math.inf
    assert made.consumers.record("u", "c", 1e9, 0) == 0
    made.producers.unrecord("u", "c", 1_000, 0)
    assert made.producers.record("u", "c", 0, 0) == 0
    # Time is not waited for longer than a sample has.
    assert made.requests.record("u", "c", 1_000, 0) == 1_000
    # What was used counts when the quota changes.
    table = {entity(user="u"): {PRODUCER_BYTE_RATE: 500.0}}
    for _ in made.follow({entity(user="u"): {}}, table):
        pass
    assert made.producers.record("u", "c", 0, 0) == 10_000
    assert made.requests.record("u", "c", 1_000, 0) == 0


def test_changes_to_the_metadata() -> None:
    made = following({entity(user="u"): {"controller_mutation_rate": 2.0}}, Window(5, 1_000))
    assert made.mutations.of("v", "c", 0, strict=True) is None
    first = made.mutations.of("u", "c", 0, strict=True)
    assert first is not None
    # Ten tokens; one request may go into debt, and no other until that is paid.
    assert first.take(8, 0)
    assert first.take(8, 0)
    assert not first.take(1, 0)
    assert first.throttle_ms(0) == 3_000
    assert first.throttle_ms(1_000) == 2_000
    assert first.throttle_ms(9_000) == 0
    older = made.mutations.of("u", "c", 1_000, strict=False)
    assert older is not None
    # It is let through, and waits the longer.
    assert older.take(2, 1_000)
    assert older.throttle_ms(1_000) == 3_000
    again = made.mutations.of("u", "d", 4_000, strict=True)
    assert again is not None
    assert again.take(1, 4_000)
    assert again.throttle_ms(4_000) == 0


def test_connections() -> None:
    rate = "connection_creation_rate"
    made = following({entity(ip="::ffff:10.0.0.1"): {rate: 1.0}, entity(ip=None): {rate: 2.0}}).connections
    assert [made.enter("L", "10.0.0.1", 0).refuse_ms for _ in range(12)] == [0] * 10 + [1_000] * 2
    assert [made.enter("L", "10.0.0.2", 0).refuse_ms for _ in range(21)] == [0] * 20 + [500]
    only = following({entity(ip="10.0.0.1"): {rate: 1.0}}).connections
    assert [only.enter("L", "10.0.0.9", 0) for _ in range(50)] == [(0, 0)] * 50
    # One that nobody can have, which only a damaged store has, holds for nobody.
    assert not following({entity(ip="nowhere"): {rate: 1.0}}).connections.is_set
    # Those that were refused do not count, and time passes.
    assert made.enter("L", "10.0.0.1", 12_000).refuse_ms == 0
    free = Quotas(WINDOW, WINDOW).connections
    free.node_limit, free.listener_limits = 2.0, {"L": 1.0}
    waits = [free.enter("L", "h", 0).wait_ms for _ in range(12)]
    assert waits == [0] * 10 + [1_000] * 2
    assert [free.enter("M", "h", 0).wait_ms for _ in range(9)] == [0] * 8 + [500]
    assert free.enter("P", "h", 0, protected=True) == (0, 0)


# What it costs ------------------------------------------


def test_where_there_are_no_quotas_nothing_is_kept() -> None:
    made = Quotas(WINDOW, WINDOW)
    for attempt in cpu_at_most(0.010 * 2):
        with attempt.cpu():
            for number in range(10_000):
                if made.producers.is_set:
                    made.producers.record("u", str(number), 1, number)
    assert len(made.producers) == 0


def test_ten_thousand_clients_with_quotas() -> None:
    table: Table = {entity(client=f"client-{n}"): {PRODUCER_BYTE_RATE: 1e6} for n in range(10_000)}
    made = following(table)
    clients = [f"client-{n}" for n in range(10_000)]
    for client in clients[:9_000]:
        made.producers.record("u", client, 100, 0)
    # 3 microseconds each.
    for attempt in cpu_at_most(0.030 * 3):
        with attempt.cpu():
            for client in clients[:9_000]:
                made.producers.record("u", client, 100, 10)


def test_who_is_idle_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    made = RateQuota(PRODUCER_BYTE_RATE, WINDOW)
    made.change(entity(client=None), {PRODUCER_BYTE_RATE: 1.0})
    for number in range(100):
        made.record("u", f"old-{number}", 1, 0)
    made.record("u", "old-7", 1, IDLE_MS_MAX - 1)
    made.record("u", "new", 1, IDLE_MS_MAX)
    assert len(made) == 2
    monkeypatch.setattr(quotas, "MEASURED_MAX", 5)
    for number in range(50):
        made.record("u", f"more-{number}", 1, IDLE_MS_MAX)
    assert len(made) == 5
    monkeypatch.setattr(quotas, "KNOWN_MAX", 3)
    for number in range(50):
        made.find("u", f"more-{number}", IDLE_MS_MAX)
    made.find("u", "x" * 1_000, IDLE_MS_MAX)
    assert len(made._known) <= 3


@pytest.mark.parametrize("limit", [0.001, 1e-300, 5e-324])
def test_no_time_is_longer_than_clients_can_be_told(limit: float) -> None:
    table = {
        entity(user=None): {"producer_byte_rate": limit, "controller_mutation_rate": limit},
    }
    made = following(table)
    assert made.producers.record("u", "c", 1 << 30, 5_000) == INT_MAX
    mutations = made.mutations.of("u", "c", 5_000, strict=False)
    assert mutations is not None and mutations.take(10_000_000, 5_000)
    assert mutations.throttle_ms(5_000) == INT_MAX


def test_long_names_are_told_apart_and_not_kept() -> None:
    made = following({entity(client=None): {"producer_byte_rate": 1_000.0}})
    names = ["x" * 32_766 + last for last in "ab"]
    for name in names:
        assert made.producers.record("u", name, 100_000, 5_000) > 0
        assert made.producers.record("u", name[:-1] + "c", 0, 5_000) == 0
    assert len(made.producers) == 3
    assert sum(len(part) for key in made.producers._measured for part in key) < 3 * quotas.KNOWN_NAME_MAX
