"""An onlooker: what the shop does, as anybody can see it who can read its topics and ask for its groups.

It reads every topic from where it ended when the run began, commits nothing, and is a member of no group. The
groups it asks the broker for, twice a second. It only knows of the orders of this run.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from examples.messaging import topics

READ_MAX = 1000
ASK_EVERY_S = 0.5
ASK_TIMEOUT_S = 5.0
EVENTS_KEPT = 200

STAGES = {
    topics.ORDERS: "orders",
    topics.PAYMENTS: "paid",
    topics.SHIPMENTS: "packed",
    topics.MAILS: "mailed",
}


@dataclass
class Group:
    """A consumer group as the broker describes it."""

    state: str = "not there yet"
    # Client id of each member, with its partitions by topic.
    members: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    lag: int = 0


class Observer:
    """Call `look` often, from one thread; the rest are figures to read."""

    def __init__(self, bootstrap: str, run: str) -> None:
        self.groups: dict[str, Group] = {name: Group() for name in topics.GROUPS}
        # Orders of this run by stage, with how often an event named them.
        self.seen: dict[str, dict[str, int]] = {topic: {} for topic in STAGES}
        self.retried: dict[str, int] = dict.fromkeys(topics.RETRIES, 0)
        # Dead letters of this run: the order, and why.
        self.dead: dict[str, str] = {}
        self.members_max: dict[str, int] = dict.fromkeys(topics.GROUPS, 0)
        self.rebalances: dict[str, int] = dict.fromkeys(topics.GROUPS, 0)
        # When each question was first asked, and when first answered, by its id: ms since the Unix epoch.
        self.asked_ms: dict[bytes, int] = {}
        self.answered_ms: dict[bytes, int] = {}
        # What happened, newest last: seconds since the beginning, and a line.
        self.events: deque[tuple[float, str]] = deque(maxlen=EVENTS_KEPT)
        self._run = run
        self._id = re.compile(re.escape(run) + r"-\d{6}")
        self._began_at = time.monotonic()
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "client.id": "observer"})
        self._reader = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "observer",
                # librdkafka wants a name, though nothing is committed under it.
                "group.id": "shop.observer",
                "enable.auto.commit": False,
            }
        )
        # The end of each partition that a group reads, as far as we have read.
        self._ends: dict[tuple[str, int], int] = {}
        self._asked_at = 0.0
        self._descriptions: dict[str, Future[Any]] = {}
        self._offsets: dict[str, Future[Any]] = {}
        self._begin()

    def _begin(self) -> None:
        """Assign every partition, from its present end on."""
        partitions = [TopicPartition(t, p) for t, count in topics.PARTITIONS.items() for p in range(count)]
        for partition in partitions:
            _, end = self._reader.get_watermark_offsets(partition, timeout=ASK_TIMEOUT_S)
            partition.offset = end
            self._ends[partition.topic, partition.partition] = end
        self._reader.assign(partitions)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_at

    def note(self, line: str) -> None:
        """Put a line among the events."""
        self.events.append((self.elapsed_s, line))

    def look(self, wait_s: float) -> None:
        """Read what is new, for up to `wait_s`; ask for the groups if it is time."""
        for message in self._reader.consume(READ_MAX, wait_s):
            if error := message.error():
                raise KafkaException(error)
            self._ends[message.topic(), message.partition()] = message.offset() + 1
            self._read(message)
        self._look_at_groups()

    def close(self) -> None:
        self._reader.close()

    def settled(self, taken: Mapping[str, Any]) -> bool:
        """Whether each order that was taken or seen has been mailed, or is a dead letter, and each question
        has its answer. What was taken last may not have been seen yet."""
        orders = {*taken["placed"], *taken["unreadable"], *self.seen[topics.ORDERS]}
        done = self.seen[topics.MAILS].keys() | self.dead.keys()
        return orders <= done and len(self.asked_ms) >= taken["asked"] and self.answered()

    def answered(self) -> bool:
        """Whether each question has its answer. Answers to those of an earlier run may come as well."""
        return self.asked_ms.keys() <= self.answered_ms.keys()

    def again(self, topic: str) -> int:
        """How many events of this run named an order that had been named."""
        return sum(self.seen[topic].values()) - len(self.seen[topic])

    # ------------------------------------------------------------ messages

    def _read(self, message: Message) -> None:
        topic, headers = message.topic(), dict(message.headers() or [])
        _, timestamp_ms = message.timestamp()
        if topic in (topics.QUESTIONS, topics.ANSWERS):
            # Of two partitions either may be read first: they are put together when somebody looks.
            times_ms = self.asked_ms if topic == topics.QUESTIONS else self.answered_ms
            times_ms.setdefault(headers[topics.CORRELATION_ID], timestamp_ms)
            return
        found = self._id.search((message.value() or b"").decode(errors="replace"))
        if found is None:
            return
        order = found[0]
        if topic in STAGES:
            self.seen[topic][order] = self.seen[topic].get(order, 0) + 1
        elif topic in topics.RETRIES:
            self.retried[topic] += 1
        elif topic == topics.DEAD:
            reason = headers[topics.ERROR].decode()
            if reason not in self.dead.values():
                attempts = int(headers[topics.ATTEMPT]) + 1
                self.note(f"first dead letter of its kind: {order}, {reason}, attempts: {attempts}")
            self.dead[order] = reason

    def answer_ms_at(self, quantile: float) -> int:
        """How long answers took, in ms: this share of them no longer. 0 if there are none."""
        times_ms = [
            answered_ms - self.asked_ms[question]
            for question, answered_ms in self.answered_ms.items()
            if question in self.asked_ms
        ]
        if len(times_ms) < 2:
            return sum(times_ms)
        cuts = statistics.quantiles(times_ms, n=100, method="inclusive")
        return round(cuts[min(98, round(quantile * 100) - 1)])

    # ------------------------------------------------------------ groups

    def _look_at_groups(self) -> None:
        """Take up the answers that are there, and ask anew; waits for nothing."""
        for name, future in list(self._descriptions.items()):
            if future.done():
                del self._descriptions[name]
                self._describe(name, future)
        for name, future in list(self._offsets.items()):
            if future.done():
                del self._offsets[name]
                self._measure(name, future)
        if self._descriptions or self._offsets or time.monotonic() - self._asked_at < ASK_EVERY_S:
            return
        self._asked_at = time.monotonic()
        self._descriptions = dict(
            self._admin.describe_consumer_groups(list(topics.GROUPS), request_timeout=ASK_TIMEOUT_S)
        )
        # Of the committed offsets librdkafka takes one group in a request.
        for name in topics.GROUPS:
            self._offsets |= self._admin.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(name)], request_timeout=ASK_TIMEOUT_S
            )

    def _describe(self, name: str, future: Future[Any]) -> None:
        group = self.groups[name]
        try:
            described = future.result()
        except KafkaException as error:
            group.state = error.args[0].str()
            return
        group.state = described.state.name.lower().replace("_", " ")
        members: dict[str, dict[str, list[int]]] = {}
        for member in described.members:
            owned: dict[str, list[int]] = members.setdefault(member.client_id, {})
            for partition in member.assignment.topic_partitions if member.assignment else ():
                owned.setdefault(partition.topic, []).append(partition.partition)
        if group.state != "stable" or members == group.members:
            return
        group.members = dict(sorted(members.items()))
        self.rebalances[name] += 1
        self.members_max[name] = max(self.members_max[name], len(members))
        if members:
            shares = " | ".join(f"{client} {share_of(owned)}" for client, owned in group.members.items())
            self.note(f"{name} rebalanced: {shares}")

    def _measure(self, name: str, future: Future[Any]) -> None:
        try:
            committed = future.result().topic_partitions
        except KafkaException:
            return
        self.groups[name].lag = sum(
            max(0, self._ends.get((at.topic, at.partition), 0) - at.offset)
            for at in committed
            if at.offset >= 0
        )


def share_of(owned: dict[str, list[int]]) -> str:
    """The partitions of one member, shortly: how many of each topic."""
    return "+".join(str(len(partitions)) for _, partitions in sorted(owned.items())) or "none"
