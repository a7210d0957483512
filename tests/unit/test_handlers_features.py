"""ApiVersions and UpdateFeatures: what clients see of features, and how they move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest
from admin_support import Client, code
from admin_support import run as run_as_released
from members_support import Members
from members_support import run as run_members
from test_metadata_store_contract import STORES

import ottla.node
from ottla.config import BrokerConfig
from ottla.env.clock import SystemClock
from ottla.metadata import keys
from ottla.metadata.features import (
    SUPPORTED,
    Features,
    FeatureUpdate,
    Supported,
    UpgradeType,
    features_value,
    supported_features,
)
from ottla.metadata.membership import MembershipError
from ottla.metadata.service import Metadata
from ottla.metadata.sqlite import SqliteStore
from ottla.metadata.store import Delete, Put
from ottla.node import Node, NodeSettings, StartError
from ottla.wire.messages import encode_response

MV, TV, ELR, KRAFT = (
    "metadata.version",
    "transaction.version",
    "eligible.leader.replicas.version",
    "kraft.version",
)
WITH_TRANSACTIONS = supported_features(transactions=True)
SOFTWARE = {"client_software_name": "test", "client_software_version": "1"}
UP, SAFE, UNSAFE = UpgradeType.UPGRADE, UpgradeType.SAFE_DOWNGRADE, UpgradeType.UNSAFE_DOWNGRADE
FAILED = "The update failed for all features since the following feature had an error: "


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a body against a broker that supports transactions, whether they are served yet or not."""
    whole = Node.__init__

    def begin(self: Node, *args: Any, **named: Any) -> None:
        whole(self, *args, **{"supported": WITH_TRANSACTIONS} | named)

    def started(path: Path, body: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
        monkeypatch.setattr(ottla.node.Node, "__init__", begin)
        run_as_released(path, body)

    return started


async def versions(client: Client, version: int = 4) -> dict[str, Any]:
    return await client.ask("ApiVersions", version, SOFTWARE if version >= 3 else {})


async def levels(client: Client) -> dict[str, int]:
    answer = await versions(client)
    assert all(one["min_version_level"] == one["max_version_level"] for one in answer["finalized_features"])
    return {one["name"]: one["max_version_level"] for one in answer["finalized_features"]}


async def update(
    client: Client, *updates: tuple[str, int, int], version: int = 2, validate_only: bool = False
) -> dict[str, Any]:
    features = [
        {
            "feature": name,
            "max_version_level": level,
            "upgrade_type": kind,
            "allow_downgrade": kind != UP,
        }
        for name, level, kind in updates
    ]
    fields = {"timeout": 60_000, "feature_updates": features, "validate_only": validate_only}
    return await client.ask("UpdateFeatures", version, fields)


# ApiVersions --------------------------------------------


def test_which_features_clients_see(tmp_path: Path, run: Callable[..., None]) -> None:
    async def body(client: Client) -> None:
        for version in range(3):
            assert "supported_features" not in await versions(client, version)
        older = await versions(client, 3)
        # Those with a minimum of 0 are none that older clients can read (KAFKA-17492).
        assert [one["name"] for one in older["supported_features"]] == [MV, ELR]
        for version in (4, 5):
            answer = await versions(client, version)
            found = {one["name"]: one for one in answer["supported_features"]}
            assert {
                name: (one["min_version"], one["max_version"]) for name, one in found.items()
            } == WITH_TRANSACTIONS
            assert answer["finalized_features_epoch"] == older["finalized_features_epoch"] == 1
            assert answer["finalized_features"] == older["finalized_features"]
            assert not answer["zk_migration_ready"]
        assert await levels(client) == {MV: 30, TV: 2, ELR: 1, KRAFT: 1}

    run(tmp_path, body)


def test_as_released_clients_do_not_try_what_is_not_served(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        answer = await versions(client)
        found = {
            one["name"]: (one["min_version"], one["max_version"]) for one in answer["supported_features"]
        }
        assert found == SUPPORTED
        for name in ("group.version", "share.version", "streams.version"):
            assert found[name] == (0, 0)
        expected = {MV: 30, ELR: 1, KRAFT: 1} | ({TV: 2} if found[TV] == (0, 2) else {})
        assert await levels(client) == expected

    run_as_released(tmp_path, body)


def test_the_bytes_of_features_are_those_of_kafka_s_definition() -> None:
    """ApiVersionsResponse.json: tagged fields 0 to 2, each behind its tag and size."""
    fields = {
        "error_code": 0,
        "api_keys": [],
        "throttle_time_ms": 0,
        "supported_features": [{"name": "ab", "min_version": 1, "max_version": 2}],
        "finalized_features_epoch": 7,
        "finalized_features": [{"name": "ab", "min_version_level": 2, "max_version_level": 2}],
        "zk_migration_ready": False,
    }
    begin = b"\x00\x00" + b"\x01" + b"\x00\x00\x00\x00"
    feature = b"\x02" + b"\x03ab" + b"\x00\x01\x00\x02" + b"\x00"
    finalized = b"\x02" + b"\x03ab" + b"\x00\x02\x00\x02" + b"\x00"
    tagged = b"\x00\x09" + feature + b"\x01\x08" + b"\x00" * 7 + b"\x07" + b"\x02\x09" + finalized
    for version in (3, 4, 5):
        assert encode_response(18, version, fields) == begin + b"\x03" + tagged


# UpdateFeatures --------------------------------------------


def test_a_level_goes_down_and_up_and_every_version_says_so(tmp_path: Path, run: Callable[..., None]) -> None:
    async def body(client: Client) -> None:
        for version in (1, 2):
            answer = await update(client, (TV, 0, SAFE), version=version)
            assert (code(answer), answer["error_message"]) == ("none", None)
            assert TV not in await levels(client)
            results = [{"feature": TV, "error_code": 0, "error_message": "NONE"}]
            assert answer.get("results") == (results if version == 1 else None)
            # v0 can only go up.
            answer = await update(client, (TV, version, UP), version=0)
            assert (code(answer), answer["results"]) == ("none", results)
            assert (await levels(client))[TV] == version
            image = client.node.services.metadata.image
            assert image.features.level(TV) == version
        assert image.features.epoch == (await versions(client))["finalized_features_epoch"] == 5

    run(tmp_path, body)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_an_update_that_cannot_be_leaves_all_as_it_was(
    tmp_path: Path, run: Callable[..., None], version: int
) -> None:
    async def body(client: Client) -> None:
        before = client.node.services.metadata.image.features
        answer = await update(client, (KRAFT, 1, UP), (TV, 0, UP), version=version)
        assert code(answer) == "invalid_update_version"
        assert answer["error_message"] == (
            FAILED
            + "Invalid update version 0 for feature transaction.version. Can't downgrade the version of "
            "this feature without setting the upgrade type to either safe or unsafe downgrade."
        )
        assert answer.get("results", []) == []
        assert client.node.services.metadata.image.features is before
        if version == 0:
            # As in Kafka, nothing looks at ``allow_downgrade``.
            assert code(await update(client, (TV, 0, SAFE), version=0)) == "invalid_update_version"

    run(tmp_path, body)


def test_what_is_validated_only_changes_nothing(tmp_path: Path, run: Callable[..., None]) -> None:
    async def body(client: Client) -> None:
        for version in (1, 2):
            answer = await update(client, (TV, 1, SAFE), version=version, validate_only=True)
            assert code(answer) == "none"
            answer = await update(client, (TV, 3, UP), version=version, validate_only=True)
            assert code(answer) == "invalid_update_version"
        assert await levels(client) == {MV: 30, TV: 2, ELR: 1, KRAFT: 1}
        assert client.node.services.metadata.image.features.epoch == 1

    run(tmp_path, body)


def test_nothing_and_what_is_so_already_change_no_epoch(tmp_path: Path, run: Callable[..., None]) -> None:
    async def body(client: Client) -> None:
        assert code(await update(client)) == "none"
        for kind in (UP, SAFE, UNSAFE):
            assert code(await update(client, (TV, 2, kind), (MV, 30, kind))) == "none"
        assert client.node.services.metadata.image.features.epoch == 1
        # A feature that is named twice: its last level counts, and each is answered.
        answer = await update(client, (TV, 9, UP), (TV, 2, UP), version=1)
        assert [one["feature"] for one in answer["results"]] == [TV, TV]

    run(tmp_path, body)


def test_a_hostile_name_is_refused_in_few_words(tmp_path: Path) -> None:
    async def body(client: Client) -> None:
        for level in (0, 1):
            answer = await update(client, ("x" * 32_000, level, UP))
            assert code(answer) == "invalid_update_version"
            assert len(answer["error_message"]) < 1_000
        many = [(f"feature.{n}", 1, UP) for n in range(100)]
        assert code(await update(client, *many)) == "invalid_update_version"

    run_as_released(tmp_path, body)


def test_levels_outlive_a_restart(tmp_path: Path, run: Callable[..., None]) -> None:
    async def change(client: Client) -> None:
        assert code(await update(client, (TV, 1, SAFE))) == "none"

    async def look(client: Client) -> None:
        assert (await levels(client))[TV] == 1
        assert (await versions(client))["finalized_features_epoch"] == 2

    run(tmp_path, change)
    run(tmp_path, look)


# Several nodes, and stores of other releases --------------------------------------------


def test_the_levels_of_an_earlier_store_stay_until_they_are_moved(
    tmp_path: Path, run: Callable[..., None]
) -> None:
    async def nothing(client: Client) -> None:
        pass

    async def move(client: Client) -> None:
        assert await levels(client) == {MV: 7, ELR: 1}
        assert (await versions(client))["finalized_features_epoch"] == 0
        assert code(await update(client, (MV, 30, UP), (TV, 2, UP), (KRAFT, 1, UP))) == "none"
        assert await levels(client) == {MV: 30, TV: 2, ELR: 1, KRAFT: 1}
        assert (await versions(client))["finalized_features_epoch"] == 1

    run(tmp_path, nothing)
    asyncio.run(in_store(tmp_path, Delete("features")))
    run(tmp_path, move)


async def in_store(path: Path, operation: Put | Delete) -> None:
    store = await SqliteStore.open(str(path / "data" / "metadata.db"), SystemClock())
    await store.txn([], [operation])
    await store.close()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            features_value({MV: 33, ELR: 1}, 2),
            "metadata.version is at level 33, of which this release supports",
        ),
        (features_value({MV: 30, ELR: 1, "later.version": 2}, 2), "later.version is at level 2"),
        (b'{"levels": "of another form"}', "start the release that wrote it"),
    ],
)
def test_a_node_does_not_start_at_levels_that_it_does_not_know(
    tmp_path: Path, value: bytes, said: str
) -> None:
    async def nothing(client: Client) -> None:
        pass

    async def start() -> None:
        node = Node(NodeSettings(data=str(tmp_path / "data"), port=0))
        with pytest.raises(StartError, match=said):
            await node.start()

    run_as_released(tmp_path, nothing)
    asyncio.run(in_store(tmp_path, Put("features", value)))
    asyncio.run(start())
    asyncio.run(in_store(tmp_path, Put("features", features_value({MV: 30, ELR: 1}, 3))))
    run_as_released(tmp_path, nothing)


@pytest.mark.parametrize("value", [features_value({MV: 30, ELR: 1, TV: 9}, 2), b"[]"])
def test_a_node_stops_when_levels_move_beyond_it(tmp_path: Path, value: bytes) -> None:
    async def body(client: Client) -> None:
        node = client.node
        assert not node.failed.is_set()
        await node._store.txn([], [Put("features", value)])
        await asyncio.wait_for(node.failed.wait(), 10)

    run_as_released(tmp_path, body)


def member(members: Members, node_id: int, supported: Supported) -> Any:
    made = members.make(node_id)
    made.metadata.supported = supported
    made.metadata.controller._supported = supported
    return made


def test_a_node_that_knows_less_does_not_join(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await member(members, 1, WITH_TRANSACTIONS).start(leads=False)
        image = members.nodes[1].image
        assert image.features.level(TV) == 2
        assert image.brokers[1].features == image.nodes[1].features == WITH_TRANSACTIONS
        with pytest.raises(
            MembershipError, match=r"transaction\.version is at level 2, of which this release"
        ):
            await member(members, 2, supported_features(transactions=False)).start(leads=False)
        assert 2 not in members.nodes[1].image.nodes

    run_members(tmp_path, body)


def test_levels_that_move_while_a_node_joins_keep_it_out(tmp_path: Path) -> None:
    """It has looked at them already, and its registration compares them."""

    async def body(members: Members) -> None:
        without = supported_features(transactions=False)
        await member(members, 1, WITH_TRANSACTIONS).start(leads=False)
        controller = members.nodes[1].metadata.controller
        await controller.update_features(1, [FeatureUpdate(TV, 0, SAFE)])
        second = member(members, 2, without)
        await second.metadata.start()

        async def move() -> None:
            await controller.update_features(1, [FeatureUpdate(TV, 2)])

        registers = second.store.txn

        async def txn(compares: Any, operations: Any) -> Any:
            if any(isinstance(op, Put) and op.key == "brokers/2" for op in operations):
                await move()
            return await registers(compares, operations)

        second.store.txn = txn
        with pytest.raises(MembershipError, match=r"transaction\.version is at level 2"):
            await second.membership.join(second.endpoints, None)
        assert 2 not in members.nodes[1].image.brokers

    run_members(tmp_path, body)


def test_nodes_that_are_away_count_as_well(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await member(members, 1, WITH_TRANSACTIONS).start(leads=False)
        one = members.nodes[1]
        await one.metadata.controller.update_features(1, [FeatureUpdate(TV, 0, SAFE)])
        earlier = keys.broker_value({"PLAINTEXT": ("h", 1)}, None)
        for value, said in (
            (earlier, "Broker 9 does not support this feature."),
            (
                keys.broker_value({"PLAINTEXT": ("h", 1)}, None, features={TV: (0, 1)}),
                "Broker 9 only supports versions 0-1",
            ),
        ):
            await one.metadata.reached((await members.store.txn([], [Put("nodes/9", value)])).revision)
            with pytest.raises(Exception, match=said):
                await one.metadata.controller.update_features(1, [FeatureUpdate(TV, 2)])
        assert one.image.features.level(TV) == 0
        await one.metadata.controller.unregister_node(9)
        await one.metadata.controller.update_features(1, [FeatureUpdate(TV, 2)])
        assert one.image.features.level(TV) == 2

    run_members(tmp_path, body)


def test_two_nodes_move_levels_at_the_same_time(tmp_path: Path) -> None:
    """Neither's change is lost: who loses the comparison plans anew."""

    async def body(members: Members) -> None:
        for node_id in (1, 2):
            await member(members, node_id, WITH_TRANSACTIONS).start(leads=False)
        one, two = members.nodes[1], members.nodes[2]
        await members.store.txn([], [Put("features", features_value({MV: 25, ELR: 1}, 1))])
        await members.until(lambda: one.image.features.level(MV) == two.image.features.level(MV) == 25)
        await asyncio.gather(
            one.metadata.controller.update_features(1, [FeatureUpdate(TV, 1)]),
            two.metadata.controller.update_features(2, [FeatureUpdate(MV, 30)]),
            one.metadata.controller.update_features(1, [FeatureUpdate(KRAFT, 1)]),
        )
        await members.until(lambda: one.image.features.epoch == two.image.features.epoch == 4)
        assert one.image.features == two.image.features
        assert one.image.features.levels == {MV: 30, ELR: 1, TV: 1, KRAFT: 1}

    run_members(tmp_path, body)


def test_a_node_that_registers_anew_meanwhile_is_asked_again(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        for node_id in (1, 2):
            await member(members, node_id, WITH_TRANSACTIONS).start(leads=False)
        one = members.nodes[1]
        await one.metadata.controller.update_features(1, [FeatureUpdate(TV, 0, SAFE)])

        async def comes_back_as_an_earlier_release() -> None:
            value = keys.broker_value({"PLAINTEXT": ("h", 2)}, None)
            await members.store.txn([], [Put("brokers/2", value)])

        one.store.before_txn = comes_back_as_an_earlier_release
        with pytest.raises(Exception, match=r"Broker 2 does not support this feature\."):
            await one.metadata.controller.update_features(1, [FeatureUpdate(TV, 2)])

    run_members(tmp_path, body)


@pytest.mark.parametrize("kind", sorted(STORES))
def test_levels_move_by_comparison_in_each_store(tmp_path: Path, kind: str) -> None:
    """And an image that is loaded is the one that came of the events."""

    async def body() -> None:
        store = await STORES[kind](tmp_path).open()
        nodes = [Metadata(store, BrokerConfig(), n, supported=WITH_TRANSACTIONS) for n in (1, 2, 3)]
        one, two, late = nodes
        await one.start()
        await two.start()
        await one.controller.update_features(1, [FeatureUpdate(TV, 0, SAFE)])
        await two.reached(one.image.revision)
        changes = [FeatureUpdate(TV, 1)], [FeatureUpdate(KRAFT, 1)], [FeatureUpdate(TV, 2)]
        updates = (node.controller.update_features(1, change) for node in (one, two) for change in changes)
        await asyncio.gather(*updates, return_exceptions=True)
        await one.controller.update_features(1, [FeatureUpdate(TV, 2)])
        await late.start()
        assert late.image.features == one.image.features
        assert late.image.features.levels == {MV: 30, ELR: 1, KRAFT: 1, TV: 2}
        for node in nodes:
            await node.close()
        await store.close()

    asyncio.run(asyncio.wait_for(body(), 40))


def test_a_deleted_key_is_that_of_an_earlier_store(tmp_path: Path) -> None:
    async def body(members: Members) -> None:
        await member(members, 1, WITH_TRANSACTIONS).start(leads=False)
        await members.store.txn([], [Delete("features")])
        await members.until(lambda: members.nodes[1].image.features == Features())

    run_members(tmp_path, body)


def test_whoever_does_not_support_the_levels_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A release that asks nobody may have joined: it cannot be kept out, but it can be told of."""

    async def body(client: Client) -> None:
        value: Mapping[str, tuple[str, int]] = {"PLAINTEXT": ("h", 1)}
        metadata, store = client.node.services.metadata, client.node._store
        for _ in range(2):
            done = await store.txn([], [Put("brokers/8", keys.broker_value(value, None))])
            await metadata.reached(done.revision)
        await metadata.controller.update_features(1, [])
        assert caplog.text.count("node 8 does not support the finalized features") == 2
        done = await store.txn([], [Put("brokers/9", keys.broker_value(value, None, features=SUPPORTED))])
        await metadata.reached(done.revision)
        assert "node 9" not in caplog.text

    run_as_released(tmp_path, body)
