"""What every cluster's store holds: its name, and one min.insync.replicas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from members_support import Members, run

from ottla.config import BrokerConfig
from ottla.metadata import keys
from ottla.metadata.features import SUPPORTED, Features, features_value, new_cluster_levels
from ottla.metadata.founding import MIN_ISR, OPERATIONS_MAX, missing
from ottla.metadata.image import ClusterImage
from ottla.metadata.store import Compare, Delete, Put


def image(configs: dict[int, dict[str, str]], cluster_id: str = "c") -> ClusterImage:
    return ClusterImage(cluster_id=cluster_id, broker_configs=configs)


def wanted(made: ClusterImage, static: dict[str, str] | None = None) -> tuple[Any, Any]:
    return missing(made, BrokerConfig(static or {}), lambda: "new", SUPPORTED)


def test_an_empty_store_gets_a_name_and_the_first_node_s_min_isr() -> None:
    compares, operations = wanted(image({}, ""), {MIN_ISR: "2"})
    assert compares == [Compare("cluster", 0), Compare("features", 0), Compare("configs/brokers/default", 0)]
    assert operations == [
        Put("cluster", keys.encode({"id": "new"})),
        Put("features", features_value(new_cluster_levels(SUPPORTED), 1)),
        Put("configs/brokers/default", keys.encode({MIN_ISR: "2"})),
    ]


def test_levels_that_are_there_before_the_name_are_kept() -> None:
    """Somebody restored a part of the store: the comparison would fail for ever."""
    made = ClusterImage(features=Features({"metadata.version": 9}, 4, revision=7))
    compares, operations = wanted(made)
    assert "features" not in [each.key for each in (*compares, *operations)]
    assert "cluster" in [each.key for each in operations]


def test_a_store_that_has_both_is_left_alone() -> None:
    assert wanted(image({-1: {MIN_ISR: "3"}, 1: {"message.max.bytes": "5"}}), {MIN_ISR: "2"}) == ([], [])


def test_what_an_earlier_version_left_is_put_right() -> None:
    own = {MIN_ISR: "1", "message.max.bytes": "5"}
    compares, operations = wanted(image({-1: {"message.max.bytes": "7"}, 1: own, 2: {MIN_ISR: "4"}}))
    assert compares == [
        Compare("configs/brokers/default", value=keys.encode({"message.max.bytes": "7"})),
        Compare("configs/brokers/1", value=keys.encode(own)),
        Compare("configs/brokers/2", value=keys.encode({MIN_ISR: "4"})),
    ]
    assert operations == [
        Put("configs/brokers/default", keys.encode({"message.max.bytes": "7", MIN_ISR: "1"})),
        Put("configs/brokers/1", keys.encode({"message.max.bytes": "5"})),
        Delete("configs/brokers/2"),
    ]


def test_one_transaction_is_not_too_large() -> None:
    configs = {node_id: {MIN_ISR: "2"} for node_id in range(OPERATIONS_MAX + 5)}
    compares, operations = wanted(image(configs, ""))
    assert len(compares) == len(operations) == OPERATIONS_MAX


def test_nodes_with_other_configurations_count_by_the_same_value(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that an earlier version has given a value of its own."""

    async def body(members: Members) -> None:
        members.properties = {MIN_ISR: "2"}
        await members.start(1, leads=False)
        assert "has no effect" not in caplog.text
        members.properties = {MIN_ISR: "1"}
        await members.store.txn([], [Put("configs/brokers/2", keys.encode({MIN_ISR: "3"}))])
        await members.start(2, leads=False)
        assert "min.insync.replicas=1 of this node has no effect: it is 2" in caplog.text
        for node in members.nodes.values():
            await members.until(lambda node=node: 2 not in node.image.broker_configs)  # type: ignore[misc]
            assert node.config.topic_default(MIN_ISR) == 2
        # Written again, while nodes run: it does not count.
        await members.store.txn([], [Put("configs/brokers/2", keys.encode({MIN_ISR: "3"}))])
        await members.until(lambda: 2 in members.nodes[2].image.broker_configs)
        assert members.nodes[2].config.topic_default(MIN_ISR) == 2

    run(tmp_path, body)
