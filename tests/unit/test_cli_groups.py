"""`ottla group` against an embedded broker: its lists, members that are removed, offsets that are deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, TopicPartition
from inside_support import Inside

from ottla.cli import group as group_command
from ottla.cli import group_admin, members, requests
from ottla.cli.direct import DirectCluster
from ottla.cli.errors import CliError, ExitCode
from ottla.errors import ErrorCode
from ottla.testing import Acl, Broker
from ottla.types import TopicPartition as Partition

PARTITIONS = 6
Join = Callable[..., Consumer]


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker(topics={"orders": PARTITIONS, "bills": 1}) as broker:
        broker.produce("orders", "a", "b", "c", partition=1)
        yield broker


@pytest.fixture
def ottla(broker: Broker, capsys: pytest.CaptureFixture[str]) -> Inside:
    return Inside(broker, capsys)


@pytest.fixture
def group() -> str:
    return f"g-{uuid4().hex[:10]}"


@pytest.fixture
def join(broker: Broker, group: str) -> Iterator[Join]:
    """A consumer of the group, which has its partitions when this returns."""
    joined: list[Consumer] = []

    def begin(instance: str | None = None) -> Consumer:
        settings = {"group.id": group, "client.id": "till", "auto.offset.reset": "earliest"}
        static = {} if instance is None else {"group.instance.id": instance}
        consumer = Consumer(broker.client_properties() | settings | static)
        joined.append(consumer)
        consumer.subscribe(["orders"])
        while not consumer.assignment():
            consumer.poll(0.05)
        return consumer

    yield begin
    for consumer in joined:
        consumer.close()


def commit(broker: Broker, group: str, **offsets: int) -> None:
    """Commit, as somebody who is no member, offsets of `orders`: p1=2."""
    consumer = Consumer(broker.client_properties() | {"group.id": group})
    partitions = [TopicPartition("orders", int(name[1:]), offset) for name, offset in offsets.items()]
    consumer.commit(offsets=partitions, asynchronous=False)
    consumer.close()


def member_ids(ottla: Inside, group: str) -> list[str]:
    (found,) = ottla.json("group", "describe", group)
    return [member["member_id"] for member in found["members"]]


# ------------------------------------------------------------ what is shown


def test_states_are_those_of_kafka(ottla: Inside, broker: Broker, group: str, join: Join) -> None:
    commit(broker, group, p0=0)
    listed = {one["group"]: one for one in ottla.json("group", "list")}
    assert listed[group] == {"group": group, "state": "Empty", "type": "Classic"}
    join()
    listed = {one["group"]: one for one in ottla.json("group", "list")}
    assert listed[group]["state"] == "Stable"
    assert [group, "Stable", "Classic"] in ottla.rows("group", "list")
    (found,) = ottla.json("group", "describe", group)
    assert (found["state"], found["type"]) == ("Stable", "Classic")


def test_librdkafkas_words_become_those_of_kafka() -> None:
    from confluent_kafka import ConsumerGroupState, ConsumerGroupType

    assert {members.word_of(state) for state in ConsumerGroupState} == {
        None, "PreparingRebalance", "CompletingRebalance", "Stable", "Dead", "Empty",
    }  # fmt: skip
    assert {members.word_of(kind) for kind in ConsumerGroupType} == {None, "Consumer", "Classic"}


def test_a_coordinator_that_is_loading_is_asked_again(
    ottla: Inside, broker: Broker, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Kafka's Admin does."""
    commit(broker, group, p0=0)
    ask, asked = DirectCluster.ask_node, []

    def loading(self: DirectCluster, node: int, name: str, *fields: Any, **options: Any) -> Any:
        asked.append(name)
        answer = ask(self, node, name, *fields, **options)
        if len(asked) == 1:
            group_answer = SimpleNamespace(error_code=int(ErrorCode.coordinator_load_in_progress))
            return SimpleNamespace(groups=[group_answer])
        return answer

    monkeypatch.setattr(DirectCluster, "ask_node", loading)
    monkeypatch.setattr(requests, "RETRY_STEP_S", 0.001)
    (found,) = ottla.json("group", "describe", group)
    assert found["state"] == "Empty"
    assert asked[:2] == ["DescribeGroups"] * 2


def test_members_are_shown_whole_with_ranges_of_partitions(
    ottla: Inside, broker: Broker, group: str, join: Join
) -> None:
    join()
    head, columns, row = ottla.rows("group", "describe", group, "--members")
    assert head[:4] == [f"{group}:", "Stable,", "1", "member,"]
    assert columns == ["MEMBER", "INSTANCE", "CLIENT", "HOST", "PARTITIONS"]
    (member,) = member_ids(ottla, group)
    assert len(member) > 36
    assert row == [member, "-", "till", "127.0.0.1", f"orders-[0-{PARTITIONS - 1}]"]
    (found,) = ottla.json("group", "describe", group)
    assert found["members"][0]["partitions"] == [f"orders-{i}" for i in range(PARTITIONS)]


def test_trouble_of_partitions_is_in_words(ottla: Inside, broker: Broker, group: str, join: Join) -> None:
    commit(broker, group, p1=1)
    _, columns, row = ottla.rows("group", "describe", group)
    assert columns == ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "CLIENT", "HOST", "TROUBLE"]
    assert row == ["orders", "1", "1", "3", "2", "-", "-", "lag", "2"]
    join()
    rows = ottla.rows("group", "describe", group)[2:]
    none = "no committed offset"
    assert [" ".join(row[7:]) for row in rows] == [none, "lag 2", none, none, none, none]

    def trouble(end: int | None, committed: int | None, member: str | None) -> Any:
        lag = None if end is None or committed is None else end - committed
        row = {"end_offset": end, "committed_offset": committed, "lag": lag, "member_id": member}
        cell = group_command._trouble(row, has_members=True)
        return None if cell is None else cell.cell

    assert trouble(5, 5, "m") is None
    assert trouble(None, 5, None) == "offline or deleted, no member"


def test_a_group_that_is_not_there(ottla: Inside, group: str) -> None:
    for words in (("describe",), ("delete-offsets", "-t", "orders")):
        why = ottla.fails(ExitCode.NOT_FOUND, "group", words[0], group, *words[1:])
        assert group in why


# ------------------------------------------------------------ remove-member


def test_a_dynamic_and_a_static_member_are_removed(ottla: Inside, group: str, join: Join) -> None:
    join()
    (dynamic,) = member_ids(ottla, group)
    assert ottla.out("group", "remove-member", group, "--member", dynamic) == (
        f"{dynamic}: removed from group {group}\n"
    )
    assert member_ids(ottla, group) == []
    why = ottla.fails(ExitCode.NOT_FOUND, "group", "remove-member", group, "--member", dynamic)
    assert f"has no member '{dynamic}'" in why
    join("till-7")
    done = ottla.json("group", "remove-member", group, "--instance", "till-7", "--reason", "broken")
    assert done == {"group": group, "removed": [{"member_id": None, "instance_id": "till-7"}]}
    assert "till-7" not in ottla.out("group", "describe", group, "--members")


def test_all_members_are_removed(ottla: Inside, group: str, join: Join) -> None:
    join("till-8")
    removed = ottla.json("group", "remove-member", group, "--all")["removed"]
    assert removed == [{"member_id": None, "instance_id": "till-8"}]
    assert ottla.json("group", "remove-member", group, "--all")["removed"] == []


def test_those_that_are_there_are_removed_though_others_are_not(
    ottla: Inside, group: str, join: Join
) -> None:
    join("till-9")
    words = ("group", "remove-member", group, "-i", "till-9", "-i", "till-0")
    assert "no static member 'till-0'" in ottla.fails(ExitCode.NOT_FOUND, *words)
    assert member_ids(ottla, group) == []


@pytest.mark.parametrize("words", [(), ("--all", "--member", "m")])
def test_somebody_must_be_named(ottla: Inside, words: tuple[str, ...]) -> None:
    assert "--all" in ottla.fails(ExitCode.USAGE, "group", "remove-member", "g", *words)


# ------------------------------------------------------------ delete-offsets


def test_offsets_are_deleted(ottla: Inside, broker: Broker, group: str) -> None:
    commit(broker, group, p0=0, p1=2, p2=0, p5=0)
    assert ottla.out("group", "delete-offsets", group, "--topic", "orders:0-1") == (
        "orders-[0-1]: offsets deleted\n"
    )
    assert broker.committed(group).keys() == {("orders", 2), ("orders", 5)}
    done = ottla.json("group", "delete-offsets", group, "-t", "orders")
    assert done == {
        "group": group,
        "partitions": [{"topic": "orders", "partition": i, "committed_offset": 0} for i in (2, 5)],
    }
    assert not broker.committed(group)
    why = ottla.fails(ExitCode.NOT_FOUND, "group", "delete-offsets", group, "-t", "orders")
    assert why == f"group '{group}' has no committed offset for topic 'orders'"


@pytest.mark.parametrize(
    ("topic", "code", "said"),
    [
        ("orders:1,3-4", ExitCode.NOT_FOUND, "no committed offset for orders-[3-4]"),
        ("orders:9", ExitCode.NOT_FOUND, "no partition 9"),
        ("orders:x", ExitCode.USAGE, "0-5,8"),
        ("orders:", ExitCode.USAGE, "give TOPIC"),
        ("bills:0", ExitCode.NOT_FOUND, "no committed offset for topic 'bills'"),
    ],
)
def test_what_has_no_offsets(
    ottla: Inside, broker: Broker, group: str, topic: str, code: ExitCode, said: str
) -> None:
    commit(broker, group, p1=2)
    assert said in ottla.fails(code, "group", "delete-offsets", group, "-t", topic)
    assert broker.committed(group)


def test_offsets_that_a_member_may_commit_again_stay(
    ottla: Inside, broker: Broker, group: str, join: Join
) -> None:
    commit(broker, group, p1=2)
    join()
    why = ottla.fails(ExitCode.FAILED, "group", "delete-offsets", group, "-t", "orders")
    assert f"orders-1: members of group '{group}' read the topic; stop them first" in why


def test_offsets_of_a_topic_that_was_deleted_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster: Any = SimpleNamespace(metadata=SimpleNamespace(topics={}))
    committed = {Partition("gone", 0): 1, Partition("gone", 2): 1}
    assert group_admin._chosen(cluster, "g", ["gone:0"], committed) == [Partition("gone", 0)]
    with pytest.raises(CliError, match="no partition 1"):
        group_admin._chosen(cluster, "g", ["gone:0-1"], committed)


# ------------------------------------------------------------ errors and rights


def test_errors_of_partitions_are_told_together() -> None:
    def codes(*of: ErrorCode) -> dict[Partition, int]:
        return {Partition("t", i): int(code) for i, code in enumerate(of)}

    unknown, refused = ErrorCode.unknown_topic_or_partition, ErrorCode.topic_authorization_failed
    first, second = group_admin._not_deleted("g", codes(unknown, refused, unknown))
    assert (str(first), first.code) == ("t-[0,2]: unknown topic or partition", ExitCode.NOT_FOUND)
    assert "lacks the right to read on topic 't'" in str(second)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ErrorCode.group_authorization_failed, "lacks the right to delete on group 'g'"),
        (ErrorCode.group_id_not_found, "group id not found"),
        (ErrorCode.non_empty_group, "members that are no consumers"),
    ],
)
def test_a_refusal_of_all_is_told(monkeypatch: pytest.MonkeyPatch, error: ErrorCode, said: str) -> None:
    requests = group_admin.GroupRequests(SimpleNamespace(), retry_s=0)  # type: ignore[arg-type]
    answer: Any = SimpleNamespace(error_code=int(error), topics=[])
    monkeypatch.setattr(requests, "_ask", lambda *arguments: answer)
    with pytest.raises(CliError, match=said):
        requests.delete_offsets("g", [Partition("t", 0)])


def test_the_right_that_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    rules = [Acl("ann", "describe", group="g"), Acl("ann", "describe", topic="t")]
    with Broker(topics=["t"], users={"ann": "secret"}, acls=rules) as broker:
        ann = Inside(broker, capsys, "ann")
        why = ann.fails(ExitCode.FAILED, "group", "remove-member", "g", "-m", "m")
        assert "'ottla acl add USER --operation read --group g'" in why
        why = ann.fails(ExitCode.FAILED, "group", "describe", "other")
        assert "lacks the right to describe on group 'other'" in why
