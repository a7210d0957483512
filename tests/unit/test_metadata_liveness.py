"""The end of a process is noticed by its machine's refusal, and by nothing less."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from members_support import Members, SilentNetwork, run

from ottla.metadata import keys, liveness
from ottla.metadata.store import Put


async def cluster(members: Members, network: SilentNetwork) -> None:
    """Nodes 1 (controller), 2 and 3, whose leases last for ever here."""
    await members.start(1, 2, 3)
    for node in members.nodes.values():
        node.watch(network)
    await members.until(lambda: members.any().image.controller_id == 1)
    await members.until(lambda: sum(map(len, network.lines.values())) == 4)


async def kill(members: Members, network: SilentNetwork, node_id: int) -> None:
    await members.kill(node_id, expire=False)
    network.end(f"host{node_id}")


def test_everybody_looks_after_the_controller_and_it_after_everybody(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        network = SilentNetwork()
        await cluster(members, network)
        assert {host: len(lines) for host, lines in network.lines.items()} == {
            "host1": 2,
            "host2": 1,
            "host3": 1,
        }

    run(tmp_path, body)


def test_the_controller_ends_the_registration_of_a_process_that_ended(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        network = SilentNetwork()
        await cluster(members, network)
        await members.create("t", (2, 3))
        await kill(members, network, 2)
        await members.until(lambda: 2 not in members.any().image.brokers)
        await members.until_state(3, (3,))
        # Nobody else has looked.
        assert network.attempts.count("host2") == 2

    run(tmp_path, body)


def test_whoever_notices_ends_the_controller_s(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        network = SilentNetwork()
        await cluster(members, network)
        await members.create("t", (1, 2))
        await kill(members, network, 1)
        await members.until(lambda: 1 not in members.any().image.brokers)
        await members.until(lambda: members.any().image.controller_id in (2, 3))
        await members.until_state(2, (2,))

    run(tmp_path, body)


def test_a_connection_that_breaks_says_nothing(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        network = SilentNetwork()
        await cluster(members, network)
        epochs = {n: b.epoch for n, b in members.any().image.brokers.items()}
        for host in ("host1", "host2", "host3"):
            network.drop(host)
        await members.until(lambda: sum(map(len, network.lines.values())) == 4)
        network.cut_off["host2"] = True
        network.drop("host2")
        await members.until(lambda: network.attempts.count("host2") >= 4)
        assert {n: b.epoch for n, b in members.any().image.brokers.items()} == epochs
        del network.cut_off["host2"]
        await members.until(lambda: "host2" in network.lines)

    run(tmp_path, body)


def test_a_node_whose_name_makes_no_sense_is_watched_again_when_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What a name may raise before anybody is asked for it is no OSError."""
    monkeypatch.setattr(liveness, "BACKOFF_MS_MAX", 50)

    async def body(members: Members) -> None:
        network = SilentNetwork()
        connect = network.connect
        attempts: list[str] = []

        async def encode(factory: Any, host: str, port: int) -> None:
            attempts.append(host)
            if len(attempts) < 4:
                raise UnicodeError("label empty or too long")
            await connect(factory, host, port)

        monkeypatch.setattr(network, "connect", encode)
        await members.start(1, 2)
        network.listen("host2")
        members.nodes[1].watch(network)
        await members.until(lambda: "host2" in network.lines)
        assert caplog.text.count("node 2, at host2:9002, cannot be watched for now") == 1
        await kill(members, network, 2)
        await members.until(lambda: 2 not in members.nodes[1].image.brokers)

    run(tmp_path, body)


def test_a_wrong_guess_costs_a_registration(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        network = SilentNetwork()
        await cluster(members, network)
        first = members.nodes[2].membership.broker_epoch
        network.end("host2")
        await members.until(lambda: members.nodes[2].membership.broker_epoch > first)
        # Its address may be wrong: it is left alone from now on, if nobody gets through to it.
        network.listen("host2")
        await members.until(lambda: "host2" in network.lines)

    run(tmp_path, body)


def test_a_node_that_nobody_has_ever_reached_is_given_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "REFUSED_MS_MAX", 100)

    async def body(members: Members) -> None:
        network = SilentNetwork()
        await members.start(1, 2)
        first = members.nodes[2].membership.broker_epoch
        members.nodes[1].watch(network)
        await members.until(lambda: members.nodes[2].membership.broker_epoch > first)
        second = members.nodes[2].membership.broker_epoch
        await asyncio.sleep(0.5)
        assert members.nodes[2].membership.broker_epoch == second

    run(tmp_path, body)


def test_a_process_that_restarts_at_once_takes_its_own_place(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        network = SilentNetwork()
        await cluster(members, network)
        await members.kill(2, expire=False)
        network.drop("host2")
        await members.start(2)
        members.nodes[2].watch(network)
        await members.until(lambda: len(network.lines.get("host2", [])) >= 1)
        epoch = members.nodes[2].membership.broker_epoch
        await asyncio.sleep(0.05)
        assert members.any().image.brokers[2].epoch == epoch

    run(tmp_path, body)


def test_a_store_out_of_reach_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def body(members: Members) -> None:
        network = SilentNetwork()
        await cluster(members, network)
        members.nodes[1].store.out_of_reach = True
        await kill(members, network, 2)
        await members.until(lambda: "node 2 is being fenced" in caplog.text)
        await members.until(lambda: network.attempts.count("host2") >= 4)
        members.nodes[1].store.out_of_reach = False
        await members.until(lambda: 2 not in members.any().image.brokers)
        assert caplog.text.count("node 2 is being fenced") == 1

    run(tmp_path, body)


def test_a_controller_that_has_a_successor_is_left_alone(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        network = SilentNetwork()
        network.listen("host1")
        await members.start(1, 2, 3)
        await members.until(lambda: members.nodes[2].image.controller_id == 1)
        await asyncio.sleep(0.05)
        members.nodes[2].watch(network)
        await members.until(lambda: "host1" in network.lines)
        succeeded: list[int] = []

        async def succeed() -> None:
            members.nodes[2].store.behind = True
            value = keys.encode({"node_id": 3})
            succeeded.append((await members.store.txn([], [Put("controller", value)])).revision)

        members.nodes[2].store.before_txn = succeed
        network.end("host1")
        await members.until(lambda: members.nodes[1].image.controller_id == 3)
        await members.until(lambda: network.attempts.count("host1") >= 3)
        assert members.any().image.controller_epoch == succeeded[0]
        assert 1 in members.any().image.brokers
        members.nodes[2].store.behind = False

    run(tmp_path, body)
