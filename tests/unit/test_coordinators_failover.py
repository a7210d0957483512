"""Which shards are loaded and unloaded as the image changes, also where it misses steps in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest
from coordinators_support import settle

from ottla.coordinators.runtime.failover import Failover
from ottla.metadata.image import OFFSETS_TOPIC, ClusterImage, TopicImage, initial_state


class Groups:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def load(self, partition: int, epoch: int) -> None:
        self.told.append(f"load {partition} in epoch {epoch}")

    def unload(self, partition: int, epoch: int | None = None) -> None:
        self.told.append(f"unload {partition}" + (f" before epoch {epoch + 1}" if epoch is not None else ""))

    def on_topics_deleted(self, topics: Sequence[tuple[str, UUID]]) -> None:
        self.told += [f"{topic} is deleted" for topic, _ in topics]


def topic(name: str, topic_id: int, *leaders: int) -> TopicImage:
    states = tuple(initial_state((leader,)) for leader in leaders)
    return TopicImage(name, UUID(int=topic_id), states, {})


def image(*topics: TopicImage) -> ClusterImage:
    return ClusterImage(topics={topic.name: topic for topic in topics})


async def told(*images: ClusterImage) -> list[str]:
    """What node 1 does at the last of these images."""
    groups = Groups()
    failover = Failover(1, OFFSETS_TOPIC, groups, groups.on_topics_deleted)
    old = None
    for new in images:
        groups.told.clear()
        failover.apply(old, new)
        await settle()
        old = new
    return groups.told


def test_a_topic_that_was_made_again_in_one_step_was_deleted() -> None:
    before, after = image(topic("t", 1, 1), topic("u", 2, 1)), image(topic("t", 3, 1), topic("u", 2, 1))
    assert asyncio.run(told(before, after)) == ["t is deleted"]


def test_a_topic_that_changes_was_not_deleted() -> None:
    before = topic("t", 1, 1)
    after = replace(before, configs={"retention.ms": "1"})
    assert asyncio.run(told(image(before), image(after))) == []


def test_the_groups_of_a_topic_that_was_made_again_are_others() -> None:
    """Its partitions may well be in the same leader epochs."""
    before, after = image(topic(OFFSETS_TOPIC, 1, 1, 2)), image(topic(OFFSETS_TOPIC, 2, 1, 2))
    assert asyncio.run(told(before, after)) == [
        f"{OFFSETS_TOPIC} is deleted",
        "unload 0 before epoch 0",
        "unload 1 before epoch 1",
        "load 0 in epoch 0",
    ]


def test_what_did_not_change_is_left_alone() -> None:
    before = topic(OFFSETS_TOPIC, 1, 1, 2)
    moved = (before.partitions[0], replace(before.partitions[1], leader=1, leader_epoch=1))
    after = replace(before, partitions=moved)
    assert asyncio.run(told(image(before), image(after))) == ["unload 1 before epoch 1", "load 1 in epoch 1"]


def test_who_leads_again_serves_nothing_of_what_it_led_before() -> None:
    """Others led and coordinated in between, which one image hides: not for a single turn."""
    before = image(topic(OFFSETS_TOPIC, 1, 1))
    state = replace(before.topics[OFFSETS_TOPIC].partitions[0], leader_epoch=2, partition_epoch=2)
    again = image(replace(before.topics[OFFSETS_TOPIC], partitions=(state,)))

    async def story() -> None:
        groups = Groups()
        failover = Failover(1, OFFSETS_TOPIC, groups, groups.on_topics_deleted)
        failover.apply(None, before)
        await settle()
        groups.told.clear()
        failover.apply(before, again)
        assert groups.told == ["unload 0 before epoch 2"]
        await settle()
        assert groups.told == ["unload 0 before epoch 2", "load 0 in epoch 2"]

    asyncio.run(story())


def test_a_load_that_fails_as_nobody_expected_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    class BadGroups(Groups):
        async def load(self, partition: int, epoch: int) -> None:
            raise ValueError("no such thing")

    async def story() -> None:
        failover = Failover(1, OFFSETS_TOPIC, BadGroups())
        failover.apply(None, image(topic(OFFSETS_TOPIC, 1, 1)))
        await settle()
        assert f"{OFFSETS_TOPIC}-0 cannot be read" in caplog.text
        assert "no such thing" in caplog.text

    asyncio.run(story())
