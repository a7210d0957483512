"""Classic groups message by message: who is told what, and when; and what a crash leaves of a group."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from interop.process import BrokerProcess, wait_until
from interop.raw import RawClient
from measuring import not_waiting
from ottla.errors import ErrorCode

SESSION_MS = 6000


@pytest.fixture(scope="module")
def broker(ottla_process_module: Callable[..., BrokerProcess]) -> BrokerProcess:
    return ottla_process_module({"group.min.session.timeout.ms": "100", "group.max.size": "3"})


@pytest.fixture
def client(broker: BrokerProcess, name: str) -> Iterator[RawClient]:
    with RawClient(broker.bootstrap) as connection:
        coordinate(connection, name)
        yield connection


def coordinate(client: RawClient, group: str) -> None:
    def found() -> bool:
        answer = client.call("FindCoordinator", 4, key_type=0, coordinator_keys=[group])
        return bool(answer.coordinators[0].error_code == 0)

    wait_until(found, what="a coordinator")


class Member:
    """One member with a connection of its own."""

    def __init__(self, broker: BrokerProcess, group: str, *, instance: str | None = None) -> None:
        self.client = RawClient(broker.bootstrap)
        self.group = group
        self.instance = instance
        self.member_id = ""
        self.generation = -1
        self.leader = ""

    def join_fields(self, **change: Any) -> dict[str, Any]:
        fields = {
            "group_id": self.group,
            "session_timeout_ms": SESSION_MS,
            "rebalance_timeout_ms": 10_000,
            "member_id": self.member_id,
            "group_instance_id": self.instance,
            "protocol_type": "consumer",
            "protocols": [{"name": "range", "metadata": b"m"}],
            "reason": None,
        }
        return {**fields, **change}

    def begin_join(self, **change: Any) -> None:
        """Get a member id first where that is asked for, then send the request that waits."""
        if not self.member_id and self.instance is None:
            answer = self.client.call("JoinGroup", 7, **self.join_fields(**change))
            assert answer.error_code == ErrorCode.member_id_required
            self.member_id = answer.member_id
        self.client.send(self.client.frame("JoinGroup", 7, self.join_fields(**change), 7))

    def end_join(self) -> Any:
        answer = self.client.answer("JoinGroup", 7, 7)
        if answer.error_code == 0:
            self.member_id, self.generation, self.leader = (
                answer.member_id,
                answer.generation_id,
                answer.leader,
            )
        return answer

    def join(self, **change: Any) -> Any:
        self.begin_join(**change)
        return self.end_join()

    @property
    def leads(self) -> bool:
        return self.leader == self.member_id

    def sync_fields(self, assignments: dict[str, bytes] | None = None, **change: Any) -> dict[str, Any]:
        fields = {
            "group_id": self.group,
            "generation_id": self.generation,
            "member_id": self.member_id,
            "group_instance_id": self.instance,
            "protocol_type": "consumer",
            "protocol_name": "range",
            "assignments": [{"member_id": m, "assignment": a} for m, a in (assignments or {}).items()],
        }
        return {**fields, **change}

    def sync(self, assignments: dict[str, bytes] | None = None, **change: Any) -> Any:
        return self.client.call("SyncGroup", 5, **self.sync_fields(assignments, **change))

    def heartbeat(self, **change: Any) -> int:
        fields = {
            "group_id": self.group,
            "generation_id": self.generation,
            "member_id": self.member_id,
            "group_instance_id": self.instance,
        }
        return int(self.client.call("Heartbeat", 4, **{**fields, **change}).error_code)

    def commit(self, topic: str, offset: int, **change: Any) -> int:
        partition = {
            "partition_index": 0,
            "committed_offset": offset,
            "committed_leader_epoch": -1,
            "committed_metadata": "",
        }
        fields = {
            "group_id": self.group,
            "generation_id_or_member_epoch": self.generation,
            "member_id": self.member_id,
            "group_instance_id": self.instance,
            "topics": [{"name": topic, "partitions": [partition]}],
        }
        answer = self.client.call("OffsetCommit", 8, **{**fields, **change})
        return int(answer.topics[0].partitions[0].error_code)

    def leave(self) -> int:
        one = {"member_id": self.member_id, "group_instance_id": self.instance, "reason": None}
        return int(
            self.client.call("LeaveGroup", 5, group_id=self.group, members=[one]).members[0].error_code
        )


def stable(broker: BrokerProcess, group: str, count: int) -> list[Member]:
    """`count` members that share a group, the leader first."""
    members: list[Member] = []
    for _ in range(count):
        new = Member(broker, group)
        new.begin_join()
        for member in members:
            wait_until(
                lambda m=member: m.heartbeat() == ErrorCode.rebalance_in_progress, what="the rebalance"
            )
        for member in members:
            member.begin_join()
        members.append(new)
        for member in members:
            assert member.end_join().error_code == 0
        assert len({member.generation for member in members}) == 1
        members.sort(key=lambda member: not member.leads)
        plan = {member.member_id: f"for {member.member_id}".encode() for member in members}
        for member in members:
            answer = member.sync(plan if member.leads else None)
            assert (answer.error_code, answer.assignment) == (0, plan[member.member_id])
    return members


@pytest.mark.usefixtures("client")
def test_a_member_joins_and_leaves(broker: BrokerProcess, name: str) -> None:
    one, two = stable(broker, name, 2)
    assert one.heartbeat() == two.heartbeat() == 0
    three = Member(broker, name)
    three.begin_join()
    wait_until(lambda: one.heartbeat() == ErrorCode.rebalance_in_progress, what="the rebalance")
    assert one.commit("t", 1) in (ErrorCode.unknown_topic_or_partition, 0)
    one.begin_join()
    two.begin_join()
    generations = {member.end_join().generation_id for member in (one, two, three)}
    assert generations == {one.generation}
    plan = {member.member_id: b"x" for member in (one, two, three)}
    followers = [member for member in (one, two, three) if not member.leads]
    for member in followers:
        member.client.send(member.client.frame("SyncGroup", 5, member.sync_fields(), 8))
    (leader,) = (member for member in (one, two, three) if member.leads)
    assert leader.sync(plan).error_code == 0
    for member in followers:
        assert member.client.answer("SyncGroup", 5, 8).assignment == b"x"
    assert three.leave() == 0
    wait_until(lambda: one.heartbeat() == ErrorCode.rebalance_in_progress, what="the rebalance")
    assert three.heartbeat() == ErrorCode.unknown_member_id


@pytest.mark.usefixtures("client")
def test_stale_members_are_fenced(broker: BrokerProcess, client: RawClient, name: str) -> None:
    client.create_topic(name)
    (one,) = stable(broker, name, 1)
    old = {"generation_id": one.generation - 1}
    assert one.heartbeat(**old) == ErrorCode.illegal_generation
    assert one.sync(**old).error_code == ErrorCode.illegal_generation
    assert (
        one.commit(name, 5, generation_id_or_member_epoch=one.generation - 1) == ErrorCode.illegal_generation
    )
    assert one.commit(name, 5, member_id="strange") == ErrorCode.unknown_member_id
    assert one.commit(name, 5, member_id="", generation_id_or_member_epoch=-1) == ErrorCode.unknown_member_id
    assert one.join(member_id="strange").error_code == ErrorCode.unknown_member_id
    assert one.sync(protocol_type="other").error_code == ErrorCode.inconsistent_group_protocol
    assert one.sync(protocol_name="other").error_code == ErrorCode.inconsistent_group_protocol
    assert one.commit(name, 6) == 0
    assert one.heartbeat() == 0


@pytest.mark.usefixtures("client")
def test_protocols_must_match(broker: BrokerProcess, name: str) -> None:
    stable(broker, name, 1)
    other = Member(broker, name)
    wrong = [{"name": "sticky", "metadata": b""}]
    codes = [
        (other.client.call("JoinGroup", 3, **other.join_fields(**change)).error_code)
        for change in (
            {"protocols": wrong},
            {"protocol_type": "connect"},
            {"protocols": []},
            {"protocol_type": ""},
        )
    ]
    assert codes == [ErrorCode.inconsistent_group_protocol] * 4
    for timeout_ms in (1, 10**8):
        answer = other.client.call("JoinGroup", 3, **other.join_fields(session_timeout_ms=timeout_ms))
        assert answer.error_code == ErrorCode.invalid_session_timeout


@pytest.mark.usefixtures("client")
def test_a_group_has_its_size(broker: BrokerProcess, name: str) -> None:
    stable(broker, name, 3)
    fourth = Member(broker, name)
    answer = fourth.client.call("JoinGroup", 3, **fourth.join_fields())
    assert answer.error_code == ErrorCode.group_max_size_reached


@pytest.mark.usefixtures("client")
def test_silence_ends_a_membership(broker: BrokerProcess, name: str) -> None:
    """No heartbeat for the session timeout: the others are told to rebalance, and the group shrinks."""
    quiet = Member(broker, name)
    assert quiet.join(session_timeout_ms=300).error_code == 0
    assert quiet.sync({quiet.member_id: b"all"}).error_code == 0
    other = Member(broker, name)
    with not_waiting(30):
        answer = other.join()
    assert answer.error_code == 0
    assert [member.member_id for member in answer.members] == [other.member_id]
    assert quiet.heartbeat() == ErrorCode.unknown_member_id


@pytest.mark.usefixtures("client")
def test_those_who_do_not_rejoin_in_time_are_left_behind(broker: BrokerProcess, name: str) -> None:
    """The rebalance timeout, while the slow one goes on sending heartbeats."""
    slow = Member(broker, name)
    assert slow.join(rebalance_timeout_ms=1000).error_code == 0
    assert slow.sync({slow.member_id: b"all"}).error_code == 0
    other = Member(broker, name)
    other.begin_join(rebalance_timeout_ms=1000)
    wait_until(lambda: slow.heartbeat() == ErrorCode.rebalance_in_progress, what="the rebalance")
    answer = other.end_join()
    assert [member.member_id for member in answer.members] == [other.member_id]
    assert slow.heartbeat() == ErrorCode.unknown_member_id


@pytest.mark.usefixtures("client")
def test_a_leader_that_never_plans(broker: BrokerProcess, name: str) -> None:
    """Followers wait in SyncGroup; once the leader's session is over, they are told to join again."""
    leader = Member(broker, name)
    assert leader.join(session_timeout_ms=600, rebalance_timeout_ms=600).error_code == 0
    follower = Member(broker, name)
    follower.begin_join(rebalance_timeout_ms=600)
    leader.begin_join(session_timeout_ms=600, rebalance_timeout_ms=600)
    assert leader.end_join().error_code == follower.end_join().error_code == 0
    if follower.leads:
        leader, follower = follower, leader
    with not_waiting(30):
        answer = follower.sync()
    assert answer.error_code in (ErrorCode.rebalance_in_progress, ErrorCode.unknown_member_id)


@pytest.mark.usefixtures("client")
def test_static_members_are_replaced(broker: BrokerProcess, client: RawClient, name: str) -> None:
    """KIP-345: the newcomer takes the old one's place and assignment; the old one is fenced."""
    client.create_topic(name)
    old = Member(broker, name, instance="one")
    assert old.join().error_code == 0
    assert old.sync({old.member_id: b"mine"}).error_code == 0
    new = Member(broker, name, instance="one")
    answer = new.join()
    assert (answer.error_code, answer.generation_id) == (0, old.generation)
    assert new.member_id != old.member_id
    assert new.sync().assignment == b"mine"
    assert old.heartbeat() == ErrorCode.fenced_instance_id
    assert old.sync().error_code == ErrorCode.fenced_instance_id
    assert old.commit(name, 1) == ErrorCode.fenced_instance_id
    assert old.join().error_code == ErrorCode.fenced_instance_id
    assert new.heartbeat() == 0
    assert old.leave() == ErrorCode.fenced_instance_id
    assert new.leave() == 0


def test_a_crash_is_no_rebalance(ottla_process: Callable[..., BrokerProcess]) -> None:
    """Members go on in the generation that they were in, also those that are static; offsets are there."""
    broker = ottla_process()
    with RawClient(broker.bootstrap) as client:
        coordinate(client, "g")
        client.create_topic("t")
    one, two = stable(broker, "g", 2)
    assert one.commit("t", 42) == 0
    for _ in range(2):
        broker.kill()
        broker.start()
        for member in (one, two):
            member.client.socket.close()
            member.client = RawClient(broker.bootstrap)
        coordinate(one.client, "g")
        wait_until(lambda: one.heartbeat() == 0, what="the group is loaded")
        assert two.heartbeat() == 0
        again = one.sync()
        assert (again.error_code, again.assignment) == (0, f"for {one.member_id}".encode())
        group = {"group_id": "g", "member_id": None, "member_epoch": -1, "topics": None}
        answer = one.client.call("OffsetFetch", 9, groups=[group], require_stable=False).groups[0]
        assert answer.topics[0].partitions[0].committed_offset == 42
    described = one.client.call(
        "DescribeGroups", 5, groups=["g"], include_authorized_operations=False
    ).groups[0]
    assert described.group_state == "Stable"
    assert {member.member_id for member in described.members} == {one.member_id, two.member_id}


def test_the_first_members_are_awaited(ottla_process: Callable[..., BrokerProcess]) -> None:
    """group.initial.rebalance.delay.ms: those who come within it are in the first generation together."""
    broker = ottla_process({"group.initial.rebalance.delay.ms": "700"})
    with RawClient(broker.bootstrap) as client:
        coordinate(client, "g")
    members = [Member(broker, "g") for _ in range(4)]
    started = time.monotonic()
    for member in members:
        member.begin_join()
    generations = [member.end_join().generation_id for member in members]
    assert generations == [1, 1, 1, 1]
    assert time.monotonic() - started > 0.6


def test_offsets_expire(ottla_process: Callable[..., BrokerProcess]) -> None:
    """offsets.retention.minutes counts from when the group became empty; the check is frequent here."""
    broker = ottla_process(
        {"offsets.retention.minutes": "1", "offsets.retention.check.interval.ms": "100"},
    )
    with RawClient(broker.bootstrap) as client:
        coordinate(client, "g")
        client.create_topic("t")
        partition = {"partition_index": 0, "committed_offset": 1, "committed_leader_epoch": -1}
        fields = {
            "group_id": "g",
            "generation_id_or_member_epoch": -1,
            "member_id": "",
            "retention_time_ms": 200,
            "topics": [{"name": "t", "partitions": [{**partition, "committed_metadata": None}]}],
        }
        # Versions 2 to 4 let the client say how long its offsets are to be kept.
        answer = client.call("OffsetCommit", 4, **fields)
        assert answer.topics[0].partitions[0].error_code == 0
        group = {"group_id": "g", "member_id": None, "member_epoch": -1, "topics": None}

        def gone() -> bool:
            found = client.call("OffsetFetch", 9, groups=[group], require_stable=False).groups[0]
            return not found.topics

        wait_until(gone, what="the offset expires")
        wait_until(
            lambda: (
                client.call("DescribeGroups", 6, groups=["g"], include_authorized_operations=False)
                .groups[0]
                .error_code
                == ErrorCode.group_id_not_found
            ),
            what="the group is gone with its last offset",
        )
