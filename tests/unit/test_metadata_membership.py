"""Joining, staying in and leaving a cluster: who counts as living, and with which data."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from members_support import Members, run
from memory_disk import MemoryDisk

from measuring import HANG_S, not_waiting
from ottla.log.data_dir import RegistrationMark
from ottla.metadata import keys, membership
from ottla.metadata.membership import HAND_OVER_MS_MAX, NOT_REGISTERED, MembershipError
from ottla.metadata.store import Delete, LeaseError, Put

# The mark ---------------------------------------------------------------------


def test_the_mark_of_a_killed_process_vouches_until_the_machine_restarts() -> None:
    disk = MemoryDisk()
    disk.make_dirs("/data")
    assert RegistrationMark(disk, "/data").may_have_lost_data(7)
    RegistrationMark(disk, "/data").registered(7)
    assert not RegistrationMark(disk, "/data").may_have_lost_data(7)
    assert RegistrationMark(disk, "/data").may_have_lost_data(8)
    disk.lose_power()
    assert RegistrationMark(disk, "/data").may_have_lost_data(7)


def test_the_mark_of_an_orderly_end_vouches_for_ever() -> None:
    disk = MemoryDisk()
    disk.make_dirs("/data")
    mark = RegistrationMark(disk, "/data")
    mark.registered(7)
    mark.ended()
    disk.lose_power()
    assert not RegistrationMark(disk, "/data").may_have_lost_data(7)
    assert RegistrationMark(disk, "/data").may_have_lost_data(6)
    # The next registration has to earn it again.
    RegistrationMark(disk, "/data").registered(9)
    disk.lose_power()
    assert RegistrationMark(disk, "/data").may_have_lost_data(9)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"epoch":1}', b'{"epoch":"x","boot_id":"","clean":1}']
)
def test_a_damaged_mark_vouches_for_nothing(content: bytes) -> None:
    disk = MemoryDisk()
    disk.make_dirs("/data")
    disk.write_file("/data/registration.json", content)
    assert RegistrationMark(disk, "/data").may_have_lost_data(1)


def test_where_the_machine_does_not_name_its_start_only_an_orderly_end_vouches() -> None:
    disk = MemoryDisk()
    disk.make_dirs("/data")
    disk.boot_id = lambda: ""  # type: ignore[method-assign]
    mark = RegistrationMark(disk, "/data")
    mark.registered(7)
    assert RegistrationMark(disk, "/data").may_have_lost_data(7)
    mark.ended()
    assert not RegistrationMark(disk, "/data").may_have_lost_data(7)


# Joining ----------------------------------------------------------------------


def test_a_node_joins(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, leads=False)
        node = members.nodes[1]
        epoch = node.membership.broker_epoch
        assert node.image.brokers[1].epoch == node.image.nodes[1].epoch == epoch
        assert node.image.brokers[1].endpoints == node.endpoints
        assert node.image.brokers[1].peer_listener == "PLAINTEXT"
        # What its fetches are known by is with those who live alone: it outlives no registration.
        assert node.image.brokers[1].fetch_key >> 62 == 1 and node.image.nodes[1].fetch_key == 0
        assert json.loads(node.disk.read_file("/data/registration.json")) == {
            "version": 1,
            "epoch": epoch,
            "boot_id": "boot 1",
            "clean": False,
            "next_incarnation": 0,
            "next_boot_id": "",
        }

    run(tmp_path, body)


def test_a_killed_node_is_gone_when_its_lease_ends(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, leads=False)
        await members.kill(2, expire=False)
        # Held leases do not end, however long it takes.
        members.clock.advance(5_000)
        await asyncio.sleep(0.02)
        assert 2 in members.nodes[1].image.brokers
        members.expire()
        await members.until(lambda: 2 not in members.nodes[1].image.brokers)
        assert 2 in members.nodes[1].image.nodes
        assert 1 in members.nodes[1].image.brokers

    run(tmp_path, body)


def test_a_restarted_process_does_not_wait_for_the_lease_of_its_last_run(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, leads=False)
        await members.kill(1, expire=False)
        await members.start(1, leads=False)
        assert members.nodes[1].membership.broker_epoch > 0

    run(tmp_path, body)


@pytest.mark.parametrize("disk", ["empty", "of an earlier registration"])
def test_an_id_that_another_node_has_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, disk: str
) -> None:
    async def body(members: Members) -> None:
        await members.start(1, leads=False)
        first = members.nodes.pop(1)
        members.wipe(1)
        if disk != "empty":
            RegistrationMark(members.disks[1], "/data").registered(first.membership.broker_epoch - 1)
        second = members.make(1)
        joining = asyncio.create_task(second.start(leads=False))
        await members.until(lambda: "node 1 is already registered, at host1:9001" in caplog.text)
        assert second.membership.broker_epoch == NOT_REGISTERED
        assert first.membership.broker_epoch != NOT_REGISTERED
        await first.kill()
        members.expire()
        await joining
        assert second.membership.broker_epoch > first.membership.broker_epoch
        assert caplog.text.count("is already registered") == 1

    run(tmp_path, body)


def test_a_node_gives_up_to_join_and_says_why(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, leads=False)
        first = members.nodes.pop(1)
        members.wipe(1)
        second = members.make(1)
        with pytest.raises(
            MembershipError, match=r"within 50 ms: node 1 is already registered, at host1:9001"
        ):
            await second.start(leads=False)
        await first.kill()

    run(tmp_path, body, {"initial.broker.registration.timeout.ms": "50"})


def test_a_store_that_is_out_of_reach_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that is said once."""
    monkeypatch.setattr(membership, "RETRY_MS", 1)

    async def body(members: Members) -> None:
        node = members.make(1)
        await node.metadata.start()
        wait, waits = node.membership._wait_for_store, []

        async def counted(error: Any) -> None:
            waits.append(error)
            await wait(error)

        node.membership._wait_for_store = counted  # type: ignore[method-assign]
        node.store.out_of_reach = True
        joining = asyncio.create_task(node.membership.join(node.endpoints, None))
        await members.until(lambda: len(waits) > 3)
        node.store.out_of_reach = False
        await joining
        assert node.membership.broker_epoch > 0
        assert caplog.text.count("the metadata store cannot be used") == 1

    run(tmp_path, body)


def test_an_answer_that_is_lost_does_not_make_a_second_registration(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        node = members.make(1)
        await node.metadata.start()
        node.store.unheard = 1
        await node.membership.join(node.endpoints, None)
        puts = [op for _, ops in node.store.txns for op in ops if isinstance(op, Put)]
        assert [put.key for put in puts] == [
            "cluster",
            "features",
            "configs/brokers/default",
            "brokers/1",
            "nodes/1",
        ]
        assert node.image.brokers[1].fetch_key >> 62 == 1
        assert node.membership.broker_epoch == node.image.brokers[1].epoch

    run(tmp_path, body)


# As a stranger ----------------------------------------------------------------


def test_a_node_gives_up_what_it_had_before_it_registers(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3, leads=False)
        await members.create("t", (1, 2, 3), (2, 1, 3), (2, 3, 1), min_insync_replicas="2")
        await members.set_isr(2, 1, index=1)
        await members.set_isr(2, 3, index=2)
        seen: list[tuple[bool, list[int], list[tuple[int, ...]]]] = []
        await members.kill(1)
        await members.until(lambda: 1 not in members.any().image.brokers)
        # There is no controller: nobody else takes it out.
        members.any().metadata.subscribe(
            lambda old, new: seen.append(
                (
                    1 in new.brokers,
                    [s.leader for s in new.topics["t"].partitions],
                    [s.isr for s in new.topics["t"].partitions],
                )
            )
        )
        await members.start(1, leads=False)
        await members.until(lambda: 1 in members.any().image.brokers)
        assert (True, [-1, 2, 2], [(2, 3), (2,), (2, 3)]) in seen
        assert not [entry for entry in seen if entry[0] and entry[1][0] == 1]
        state = members.state("t", 1)
        # Killed, not lost: it has what was committed while it was in sync.
        assert state.elr == (1,)
        assert members.state("t", 0).leader_epoch == 1

    run(tmp_path, body)


@pytest.mark.parametrize("how", ["wiped", "power lost", "other disk"])
def test_a_node_that_may_have_lost_data_leaves_elrs_too(tmp_path: Path, how: str) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3, leads=False)
        await members.create("t", (2, 1, 3), min_insync_replicas="2")
        await members.set_isr(1, 2)
        await members.set_isr(2)
        assert members.state().elr == (1,)
        await members.kill(1)
        if how == "wiped":
            members.wipe(1)
        elif how == "power lost":
            members.disks[1].lose_power()
        else:
            RegistrationMark(members.disks[1], "/data").registered(1)
        await members.start(1, leads=False)
        assert (members.nodes[1].image.topics["t"].partitions[0].elr) == ()

    run(tmp_path, body)


@pytest.mark.parametrize("ends", ["before it is registered", "before it hears of it"])
@pytest.mark.parametrize("power", ["kept", "lost"])
def test_a_node_that_ends_while_it_registers_vouches_for_its_data(
    tmp_path: Path, ends: str, power: str
) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, leads=False)
        await members.create("t", (2, 1), min_insync_replicas="2")
        await members.set_isr(2)
        await members.kill(1)
        node = members.make(1)
        if ends == "before it is registered":
            registering = node.mark.registering

            def end(*what: int) -> None:
                registering(*what)
                raise MembershipError("the process has ended")

            node.mark.registering = end  # type: ignore[method-assign]
            with pytest.raises(MembershipError):
                await node.start(leads=False)
        else:
            node.mark.registered = lambda epoch: None  # type: ignore[method-assign]
            await node.start(leads=False)
        await members.kill(1)
        if power == "lost":
            members.disks[1].lose_power()
        assert members.state().elr == (1,)
        await members.start(1, leads=False)
        assert members.state().elr == ((1,) if power == "kept" else ())

    run(tmp_path, body)


def test_a_node_that_lost_nothing_stays_in_elrs(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, leads=False)
        await members.create("t", (2, 1), min_insync_replicas="2")
        await members.set_isr(2)
        await members.stop(1)
        members.disks[1].lose_power()
        await members.start(1, leads=False)
        assert members.state().elr == (1,)

    run(tmp_path, body)


def test_many_claims_are_given_up_in_several_transactions(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, leads=False)
        await members.create("t", *[(1, 2)] * 300)
        await members.create("u", (1, 2))
        await members.kill(1)
        await members.start(1, leads=False)
        image = members.nodes[1].image
        assert {s.leader for topic in image.topics.values() for s in topic.partitions} == {-1}

    run(tmp_path, body)


def test_claims_that_change_under_way_are_given_up_all_the_same(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3, leads=False)
        await members.create("t", (1, 2, 3))
        await members.kill(1)
        node = members.make(1)
        await node.metadata.start()
        other = members.nodes[2]

        async def shrink() -> None:
            async def again() -> None:
                topic = other.image.topics["t"]
                made = replace(topic.partitions[0], partition_epoch=1, isr=(1, 2))
                assert await other.metadata.controller.change_partition(topic, 0, topic.partitions[0], made)

            # After the barrier, before the claims are given up.
            node.store.before_txn = again

        node.store.before_txn = shrink
        await node.membership.join(node.endpoints, None)
        assert node.image.topics["t"].partitions[0].isr == (2,)

    run(tmp_path, body)


def test_a_node_joins_with_an_image_that_has_all_its_claims(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, leads=False)
        await members.create("t", (2, 1))
        await members.set_isr(2)
        first = members.nodes.pop(1)
        second = members.make(1)
        await second.metadata.start()
        # What happens now it learns only later.
        second.store.behind = True
        members.nodes = {2: members.nodes[2], 1: second}
        await members.set_isr(2, 1)
        await first.kill()
        members.expire()
        await members.until(lambda: 1 not in members.nodes[2].image.brokers)
        joining = asyncio.create_task(second.membership.join(second.endpoints, None))
        await asyncio.sleep(0.05)
        assert 1 not in members.nodes[2].image.brokers
        second.store.behind = False
        await joining
        assert members.state().isr == (2,)

    run(tmp_path, body)


def test_an_id_that_was_taken_and_left_meanwhile_is_noticed(tmp_path: Path) -> None:
    """The compare of ``nodes/<id>``: somebody else of this id came and went after we looked."""

    async def body(members: Members) -> None:
        await members.start(1, 2, leads=False)
        await members.create("t", (2, 1), min_insync_replicas="2")
        await members.set_isr(2)
        await members.kill(1)
        node = members.make(1)
        await node.metadata.start()

        async def intrude() -> None:
            async def come_and_go() -> None:
                value = keys.broker_value(node.endpoints, None)
                await members.store.txn([], [Put("brokers/1", value), Put("nodes/1", value)])
                await members.store.txn([], [Delete("brokers/1")])

            node.store.before_txn = come_and_go

        node.store.before_txn = intrude
        await node.membership.join(node.endpoints, None)
        # Our data are not those of the last registration any more.
        assert node.image.topics["t"].partitions[0].elr == ()

    run(tmp_path, body)


@pytest.mark.parametrize("transaction", [1, 2])
def test_an_id_that_is_taken_between_a_look_and_a_transaction_is_not_taken_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, transaction: int
) -> None:
    """Before the first transaction, which only looks, and before that which registers."""

    async def body(members: Members) -> None:
        await members.start(2, leads=False)
        node = members.make(1)
        await node.metadata.start()
        value = keys.broker_value({"PLAINTEXT": ("elsewhere", 1)}, None)

        async def intrude() -> None:
            await members.store.txn([], [Put("brokers/1", value)])

        async def wait_one_more() -> None:
            node.store.before_txn = intrude

        node.store.before_txn = intrude if transaction == 1 else wait_one_more
        joining = asyncio.create_task(node.membership.join(node.endpoints, None))
        await members.until(lambda: "node 1 is already registered, at elsewhere:1" in caplog.text)
        found = await members.store.get("brokers/1")
        assert found is not None and found.value == value
        assert node.membership.broker_epoch == NOT_REGISTERED
        assert not joining.done()
        await members.store.txn([], [Delete("brokers/1")])
        await joining
        assert node.image.brokers[1].endpoints == node.endpoints

    run(tmp_path, body)


def test_a_lease_that_ends_before_the_image_has_the_registration_is_noticed(tmp_path: Path) -> None:
    """The image shows neither the registration nor its end: it has both at once."""

    async def body(members: Members) -> None:
        node = members.make(1)
        await node.metadata.start()
        txn, leases = node.store.txn, []

        async def end_at_once(compares: Any, operations: Any) -> Any:
            registers = any(isinstance(op, Put) and op.key == "brokers/1" for op in operations)
            if registers and not leases:
                node.store.behind = True
            done = await txn(compares, operations)
            if registers and not leases:
                leases.append(node.membership.lease)
                await members.store.lease_revoke(leases[0])
                node.store.behind = False
            return done

        node.store.txn = end_at_once  # type: ignore[method-assign]
        await asyncio.wait_for(node.membership.join(node.endpoints, None), HANG_S)
        assert node.membership.lease not in (0, *leases)
        assert node.image.brokers[1].epoch == node.membership.broker_epoch
        assert (await members.store.get("brokers/1")).mod_revision == node.membership.broker_epoch  # type: ignore[union-attr]

    run(tmp_path, body)


# Staying ----------------------------------------------------------------------


def test_a_registration_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, leads=False)
        await members.create("t", (2, 1), min_insync_replicas="2")
        await members.set_isr(2)
        node = members.nodes[1]
        first, key = node.membership.broker_epoch, node.image.brokers[1].fetch_key
        await members.store.txn([], [Delete("brokers/1")])
        await members.until(lambda: node.membership.broker_epoch > first)
        assert node.image.brokers[1].epoch == node.membership.broker_epoch == node.mark.last.epoch  # type: ignore[union-attr]
        # What was sent from the one before is not from this one.
        assert node.image.brokers[1].fetch_key not in (0, key)
        # It is the same process: it has what it had.
        assert node.image.topics["t"].partitions[0].elr == (1,)

    run(tmp_path, body)


def test_a_node_whose_lease_was_lost_joins_with_a_new_one(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, leads=False)
        node = members.nodes[1]
        first, epoch = node.membership.lease, node.membership.broker_epoch
        told: list[int] = []
        node.membership.on_ended = lambda: told.append(node.membership.broker_epoch)
        # What a store calls that says so, before the image shows it.
        node.membership._on_lease_lost(first + 1)
        assert told == [], "of another lease"
        node.membership._on_lease_lost(first)
        assert told == [-1]
        await members.store.lease_revoke(first)
        await members.until(lambda: node.membership.broker_epoch > epoch)
        assert node.membership.lease not in (0, first)
        assert (await members.store.get("brokers/1")).lease == node.membership.lease  # type: ignore[union-attr]

    run(tmp_path, body)


def test_nothing_changes_while_the_store_is_out_of_reach(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, leads=False)
        node = members.nodes[1]
        epoch = node.membership.broker_epoch
        node.store.out_of_reach = True
        await asyncio.sleep(0.05)
        assert node.membership.broker_epoch == epoch
        node.store.out_of_reach = False

    run(tmp_path, body)


def test_a_node_on_a_full_disk_waits_until_it_can_vouch_for_its_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(members: Members) -> None:
        disk = members.disks[1] = MemoryDisk()
        room, disk.capacity = disk.capacity, 0
        joining = asyncio.ensure_future(members.start(1, leads=False))
        await members.until(lambda: "cannot be written: No space left on device" in caplog.text)
        assert not members.nodes[1].image.nodes
        disk.capacity = room
        await joining
        assert members.nodes[1].membership.broker_epoch > 0

    run(tmp_path, body)


def test_a_registration_that_could_not_be_noted_is_with_the_next(tmp_path: Path) -> None:
    """The process registers twice, and hears of the second no more."""
    disk = MemoryDisk()
    disk.make_dirs("/data")
    mark = RegistrationMark(disk, "/data")
    mark.registering(11)
    assert mark.made(5, 11) and not mark.made(5, 12)
    # Registered at 5, which could not be written.
    mark.registering(12, own_epoch=5)
    for epoch, incarnation in ((5, 11), (8, 12)):
        assert not RegistrationMark(disk, "/data").may_have_lost_data(epoch, incarnation)
    assert RegistrationMark(disk, "/data").may_have_lost_data(8, 13)
    mark.doubted()
    mark.registering(14, own_epoch=8)
    mark.registered(9)
    for epoch, incarnation in ((8, 12), (9, 14)):
        assert RegistrationMark(disk, "/data").may_have_lost_data(epoch, incarnation)


# Leaving ----------------------------------------------------------------------


def test_the_only_node_leaves_at_once(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1)
        await members.create("t", (1,))
        before = members.store
        with not_waiting(HAND_OVER_MS_MAX / 1000):
            await members.stop(1)
        assert await before.get("brokers/1") is None
        assert RegistrationMark(members.disks[1], "/data").last.clean  # type: ignore[union-attr]

    run(tmp_path, body)


def test_a_node_hands_over_before_it_leaves(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, 3)
        await members.create("t", (1, 2, 3), (2, 1, 3))
        await members.create("alone", (1,))
        with_broker: list[tuple[int, int]] = []
        members.nodes[2].metadata.subscribe(
            lambda old, new: with_broker.append((1 in new.brokers, new.topics["t"].partitions[0].leader))
        )
        leaving = members.nodes.pop(1)
        with not_waiting(HAND_OVER_MS_MAX / 1000):
            await leaving.membership.leave()
        # Others led while it was still there.
        assert (True, 2) in with_broker
        assert (False, 1) not in with_broker
        await members.until_state(2, (2, 3), index=0)
        await members.until_state(2, (2, 3), index=1)
        await members.until_state(-1, (), (1,), name="alone")
        await members.until(lambda: members.any().image.controller_id in (2, 3))
        await leaving.kill()

    run(tmp_path, body)


def test_without_controlled_shutdown_a_node_just_leaves(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2)
        await members.create("t", (1, 2))
        stopping: list[bool] = []
        members.nodes[2].metadata.subscribe(lambda old, new: stopping.append(bool(new.stopping)))
        await members.stop(1)
        await members.until_state(2, (2,))
        assert not any(stopping)

    run(tmp_path, body, {"controlled.shutdown.enable": "false"})


def test_a_node_leaves_although_the_store_is_out_of_reach(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(members: Members) -> None:
        await members.start(1, 2, leads=False)
        members.nodes[1].store.out_of_reach = True
        with not_waiting(HAND_OVER_MS_MAX / 1000):
            await members.stop(1)
        assert "controlled shutdown failed" in caplog.text
        assert "stays registered until its lease ends" in caplog.text

    run(tmp_path, body)


def test_a_node_goes_on_trying_to_join_whatever_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(members: Members) -> None:
        await members.start(1, leads=False)
        node = members.nodes[1]
        epoch = node.membership.broker_epoch
        monkeypatch.setattr(membership, "RETRY_MS", 20)
        monkeypatch.setattr(membership, "claims", None)
        await members.store.txn([], [Delete("brokers/1")])
        await members.until(lambda: caplog.text.count("could not register again") > 1)
        monkeypatch.undo()
        await members.until(lambda: node.membership.broker_epoch > epoch)

    run(tmp_path, body)


# Standing still ---------------------------------------------------------------


def test_a_node_that_stood_still_gives_up_its_place_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the store has been asked: what it would say comes after what the node must not do."""

    async def body(members: Members) -> None:
        await members.start(1, leads=False)
        node = members.nodes[1]
        first, epoch = node.membership.lease, node.membership.broker_epoch
        ended: list[int] = []
        node.membership.on_ended = lambda: ended.append(node.membership.broker_epoch)
        node.store.lasts = False
        node.membership.stood_still()
        assert ended == [NOT_REGISTERED]
        node.membership.stood_still()
        assert ended == [NOT_REGISTERED], "it has no place to give up"
        node.store.lasts = True
        # The lease had not ended: nobody else of this id is waited for.
        await members.until(lambda: node.membership.broker_epoch > epoch)
        assert node.membership.lease not in (0, first)
        with pytest.raises(LeaseError):
            await members.store.lease_keep_alive(first)
        assert "is already registered" not in caplog.text
        assert "stood still for longer than its session" in caplog.text

    run(tmp_path, body)


def test_a_node_that_stood_still_joins_again_where_its_lease_has_ended(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, leads=False)
        node = members.nodes[1]
        epoch = node.membership.broker_epoch
        await members.store.lease_revoke(node.membership.lease)
        node.membership.stood_still()
        await members.until(lambda: node.membership.broker_epoch > epoch)

    run(tmp_path, body)


def test_a_node_whose_lease_surely_lasts_keeps_its_place(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await members.start(1, leads=False)
        node = members.nodes[1]
        epoch, lease = node.membership.broker_epoch, node.membership.lease
        node.membership.stood_still()
        await asyncio.sleep(0.02)
        assert (node.membership.broker_epoch, node.membership.lease) == (epoch, lease)

    run(tmp_path, body)
