"""The steps of a random walk that are about transactions: two transactional ids, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from protocol.sequence_records import batch, produce_fields
from protocol.sequence_transactions import Producer, adding, at_rest, begin, initializing, of

if TYPE_CHECKING:
    from protocol.random_walks import Walk

NAMES = ("x", "y")
NOBODY = (-1, -1)


class Transactions:
    """Everything is drawn once; each broker is asked with the ids that it has given itself."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.producers: dict[str, list[Producer]] = {
            name: [begin(peer, f"{name}-{walk.seed}") for peer in walk.peers] for name in NAMES
        }
        # What each producer writes next to each partition, as far as it is known.
        self.sequences: dict[tuple[str, str, int], int] = {}
        self.steps: list[Callable[[], None]] = [
            self.begin,
            *[self.add] * 2,
            *[self.write] * 5,
            *[self.commit_offsets] * 2,
            *[self.end] * 3,
            self.describe,
        ]

    def draw(self) -> tuple[str, list[Producer]]:
        """A name, and its producers: now and then with an epoch that is not theirs."""
        name = self.walk.chance.choice(NAMES)
        off = self.walk.chance.choice([0] * 8 + [-1, 1])
        return name, [one._replace(epoch=one.epoch + off) for one in self.producers[name]]

    def ask(self, api: str, fields: list[Any], version: int | None = None) -> list[Any]:
        """Ask both, and wait until nothing is about to end: how soon it does is each broker's affair."""
        answers = self.walk.ask(api, *fields, version=version)
        for peer, producers in zip(self.walk.peers, zip(*self.producers.values(), strict=True), strict=True):
            for one in producers:
                at_rest(peer, one)
        return answers

    def begin(self) -> None:
        name, producers = self.draw()
        knows = self.walk.chance.random() < 0.3
        known = [(one.producer_id, one.epoch) if knows else NOBODY for one in producers]
        fields = [initializing(one.transactional_id, at) for one, at in zip(producers, known, strict=True)]
        self.become(name, self.ask("InitProducerId", fields))

    def become(self, name: str, answers: list[Any]) -> None:
        """Go on with what an answer gives, if both do."""
        if all(answer.error_code == 0 and getattr(answer, "producer_id", -1) >= 0 for answer in answers):
            self.producers[name] = [
                one.after(answer) for one, answer in zip(self.producers[name], answers, strict=True)
            ]
            self.sequences = {key: at for key, at in self.sequences.items() if key[0] != name}

    def add(self) -> None:
        _, producers = self.draw()
        topic, _, index = self.walk.draw()
        self.ask("AddPartitionsToTxn", [adding(one, (topic, [index])) for one in producers])

    def write(self) -> None:
        name, producers = self.draw()
        topic, ids, index = self.walk.draw()
        # The third there may not be: then we refuse what comes behind it as well, see produce/refusals.py.
        index %= 2
        count = self.walk.chance.randint(1, 3)
        sequence = self.sequences.get((name, topic, index), 0)
        version = self.walk.chance.randint(9, 13)
        fields = []
        for one, topic_id in zip(producers, ids, strict=True):
            data = batch(
                [b"k"] * count,
                producer_id=one.producer_id,
                producer_epoch=one.epoch,
                base_sequence=sequence,
                transactional=True,
            )
            more = {"transactional_id": one.transactional_id}
            fields.append(produce_fields(topic, topic_id, (index, data), **more))
        answers = self.ask("Produce", fields, version)
        if not answers[0].responses[0].partition_responses[0].error_code:
            self.sequences[name, topic, index] = sequence + count

    def commit_offsets(self) -> None:
        _, producers = self.draw()
        topic, ids, index = self.walk.draw()
        group = self.walk.group()
        version = self.walk.chance.randint(0, 4)
        self.ask("AddOffsetsToTxn", [of(one, group_id=group) for one in producers], version)
        part = {
            "partition_index": index,
            "committed_offset": self.walk.chance.randint(0, 9),
            "committed_leader_epoch": -1,
            "committed_metadata": "m",
        }
        fields = [
            of(one)
            | {
                "group_id": group,
                "generation_id": -1,
                "generation_id_or_member_epoch": -1,
                "member_id": "",
                "group_instance_id": None,
                "topics": [{"name": topic, "topic_id": topic_id, "partitions": [part]}],
            }
            for one, topic_id in zip(producers, ids, strict=True)
        ]
        self.ask("TxnOffsetCommit", fields)

    def end(self) -> None:
        name, producers = self.draw()
        commit = self.walk.chance.random() < 0.6
        answers = self.ask("EndTxn", [of(one, committed=commit) for one in producers])
        self.become(name, answers)

    def describe(self) -> None:
        names = [self.producers[name][0].transactional_id for name in NAMES]
        self.ask("DescribeTransactions", [{"transactional_ids": names}])
