"""What members may say of themselves: by group and by node, and what is read of it."""

from __future__ import annotations

import pytest
from coordinators_support import Bench, subscription
from hypothesis import given
from hypothesis import strategies as st

from ottla.coordinators.groups import classic_group, rebalance
from ottla.coordinators.groups.member import Protocol


def offered(size: int, *topics: str) -> tuple[Protocol, ...]:
    """One protocol whose metadata has some topics, and so many bytes in all."""
    data = subscription(*topics)
    return (Protocol("range", data + bytes(size - len(data))),)


def test_a_group_takes_no_member_that_makes_it_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebalance, "GROUP_BYTES_MAX", 10_000)
    bench = Bench()
    bench.stable("m1", offered=offered(6_000, "t"))
    assert bench.error(bench.join(new_id="m2", offered=offered(6_000, "t"))) == "group_max_size_reached"
    assert bench.error(bench.join("m1", offered=offered(11_000, "t"))) == "group_max_size_reached"
    # It is as it was.
    assert list(bench.group().members) == ["m1"]
    assert bench.group().state.value == "Stable"
    assert bench.error(bench.delete_group("other")) == "group_id_not_found"
    # One that says less, or no more than before, is let in.
    join = bench.join("m1", offered=offered(6_000, "u"))
    assert bench.replies[join].generation_id == 2
    bench.sync("m1", 2, {"m1": b""})
    bench.join(new_id="m3", offered=offered(1_000, "t"))
    assert list(bench.group().members) == ["m1", "m3"]


def test_a_static_member_that_comes_back_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebalance, "GROUP_BYTES_MAX", 10_000)
    bench = Bench()
    bench.stable("s1", instance="i1", offered=offered(6_000, "t"))
    join = bench.join(new_id="s2", instance="i1", offered=offered(6_000, "t"))
    assert bench.error(join) == "none"
    assert bench.group().kept_bytes < 7_000


def test_a_node_that_keeps_much_takes_small_members_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebalance, "NODE_BYTES_MAX", 100_000)
    bench = Bench()
    for group_id in ("a", "b"):
        bench.join(new_id="m", group_id=group_id, offered=offered(45_000, "t"))
    large = bench.join(new_id="m", group_id="c", offered=offered(20_000, "t"))
    assert bench.error(large) == "coordinator_not_available"
    assert "c" not in bench.tables.groups
    bench.join(new_id="m", group_id="d", offered=offered(1_000, "t"))
    assert list(bench.group("d").members) == ["m"]
    # Once others have left there is room.
    bench.leave("m", group_id="a")
    bench.join(new_id="m", group_id="c", offered=offered(20_000, "t"))
    assert list(bench.group("c").members) == ["m"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["join", "rejoin", "static", "leave", "wait", "fail over"]),
            st.integers(0, 3),
            st.integers(30, 3_000),
        ),
        max_size=25,
    )
)
def test_what_is_kept_is_counted(story: list[tuple[str, int, int]]) -> None:
    bench = Bench()
    for number, (what, index, size) in enumerate(story):
        members = [each for group in bench.tables.groups.values() for each in group.members]
        if what == "join":
            bench.join(new_id=f"m{number}", group_id=f"g{index % 2}", offered=offered(size, "t"))
        elif what == "static":
            bench.join(new_id=f"s{number}", instance=f"i{index}", group_id="g0", offered=offered(size, "t"))
        elif what == "rejoin" and members:
            bench.join(members[index % len(members)], group_id="g0", offered=offered(size, "t"))
        elif what == "leave" and members:
            bench.leave(members[index % len(members)], group_id=f"g{index % 2}")
        elif what == "wait":
            bench.wait(size * 20)
        elif what == "fail over":
            bench = bench.failed_over()
        groups = bench.tables.groups.values()
        for group in groups:
            assert group.kept_bytes == sum(member.kept_bytes for member in group.members.values())
        assert bench.tables.member_bytes.count == sum(group.kept_bytes for group in groups)
    bench.unload()
    assert bench.tables.member_bytes.count == 0


def test_topics_of_a_group_that_names_too_many_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classic_group, "TOPICS_READ_MAX", 3)
    bench = Bench()
    bench.stable("m1", offered=offered(200, "a", "b", "c"))
    assert bench.group().subscribed_topics == {"a", "b", "c"}
    bench.join("m1", offered=offered(200, "a", "b", "c", "d"))
    assert bench.group().subscribed_topics is None
    # So any topic may be one of its own: no offset is forgotten.
    assert bench.group().is_subscribed_to("x")
