"""Ranges of partitions, as people write and read them: ``0-5,8``, and ``orders-[0-5,8]`` (pure).

Tables have them; ``--json`` has each partition whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ottla.cli.errors import CliError, ExitCode
from ottla.cli.values import shown
from ottla.numbers import INT_MAX, parse_whole, trim
from ottla.types import TopicPartition

# Topics that Kafka itself keeps, and their contents. Describing a topic tells it too, but a listing should
# not ask for each.
INTERNAL = {
    "__consumer_offsets": "the offsets of all groups",
    "__transaction_state": "the state of all transactions",
    "__share_group_state": "the state of all share groups",
}


def users_first(topic: str) -> tuple[bool, str]:
    """A key to sort topics by: those of users by name, and then those that brokers keep for themselves."""
    return topic in INTERNAL, topic


def numbers(partitions: Iterable[int]) -> str:
    """``0-5,8`` of the numbers of partitions."""
    spans: list[list[int]] = []
    for number in sorted(set(partitions)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def compressed(partitions: Iterable[TopicPartition]) -> list[str]:
    """``orders-[0-5,8]`` or ``orders-3`` for each topic, those of users first."""
    topics: dict[str, set[int]] = {}
    for topic, number in partitions:
        topics.setdefault(topic, set()).add(number)
    return [
        f"{topic}-{numbers(found)}" if len(found) == 1 else f"{topic}-[{numbers(found)}]"
        for topic, found in sorted(topics.items(), key=lambda one: users_first(one[0]))
    ]


def compressed_names(names: Iterable[str]) -> list[str]:
    """As ``compressed``, of partitions as ``--json`` names them: ``orders-3``."""
    return compressed(
        TopicPartition(topic, int(number)) for topic, _, number in (name.rpartition("-") for name in names)
    )


def spans(option: str, text: str) -> list[tuple[int, int]]:
    """The first and the last number of each part of ``0-5,8``; CliError (usage) where it names none."""
    found = []
    for part in text.split(","):
        first, dash, last = (trim(word) for word in trim(part).partition("-"))
        low = parse_whole(first, 0, INT_MAX)
        high = parse_whole(last, 0, INT_MAX) if dash else low
        if low is None or high is None or high < low:
            raise CliError(f"{option} {shown(text)}: give partitions such as 0,3 or 0-5,8", ExitCode.USAGE)
        found.append((low, high))
    return found


def parse(option: str, text: str, known: Collection[int]) -> list[int]:
    """The numbers that ``0-5,8`` names, each once and in order, of the ``known`` partitions of a topic.

    CliError (usage) where it names none, and (not found) where it names one that is not known.
    """
    found: set[int] = set()
    for span in spans(option, text):
        low, high = span
        for number in span:
            if number not in known:
                count = f"it has {len(known)}, from 0"
                raise CliError(
                    f"{option} {shown(text)}: the topic has no partition {number}: {count}",
                    ExitCode.NOT_FOUND,
                )
        # The range may be as long as numbers go; the topic is not.
        found.update(number for number in known if low <= number <= high)
    return sorted(found)
