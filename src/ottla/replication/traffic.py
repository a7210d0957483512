"""Bytes and records in and out of a partition, while it was on this node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

# Topics of which sums are kept while this node has partitions of them no more.
TOPICS_LEFT_MAX: Final = 1_000


@final
class Traffic:
    """Plain sums. Bytes are those of batches."""

    __slots__ = (
        "batches_in", "bytes_in", "bytes_out", "follower_bytes_in", "follower_bytes_out", "messages_in",
    )  # fmt: skip

    def __init__(self) -> None:
        # What was appended as the leader, what consumers were sent; what was fetched as a follower, and what
        # followers were sent.
        self.batches_in = 0
        self.messages_in = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.follower_bytes_in = 0
        self.follower_bytes_out = 0

    def appended(self, messages: int, size: int) -> None:
        self.batches_in += 1
        self.messages_in += messages
        self.bytes_in += size

    def sent(self, size: int, *, to_follower: bool) -> None:
        if to_follower:
            self.follower_bytes_out += size
        else:
            self.bytes_out += size

    def add(self, other: Traffic) -> None:
        self.batches_in += other.batches_in
        self.messages_in += other.messages_in
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.follower_bytes_in += other.follower_bytes_in
        self.follower_bytes_out += other.follower_bytes_out


class Left:
    """The sums of partitions that are here no more, by topic: what is summed up must not become less. They
    are added in the step in which nobody finds the partition any more."""

    __slots__ = ("by_topic", "forgotten", "others")

    def __init__(self) -> None:
        self.by_topic: dict[str, Traffic] = {}
        # Of those that left so many topics ago that they have none of their own any more.
        self.others = Traffic()
        # Told of each of these, and what its sums are.
        self.forgotten: Callable[[str, Traffic], None] = lambda topic, traffic: None

    def add(self, topic: str, traffic: Traffic) -> None:
        kept = self.by_topic.pop(topic, None)
        if kept is None:
            kept = Traffic()
            if len(self.by_topic) >= TOPICS_LEFT_MAX:
                oldest = next(iter(self.by_topic))
                sums = self.by_topic.pop(oldest)
                self.others.add(sums)
                self.forgotten(oldest, sums)
        # The one that left last stays for longest.
        self.by_topic[topic] = kept
        kept.add(traffic)
