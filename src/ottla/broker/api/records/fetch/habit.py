"""What a client without a session asks for time and again (librdkafka's way, and others').

Such a client names all of its partitions each time, in an order that it turns, and few of them differ from
the time before. So what it asked last is kept: the request's bytes, with which the next is compared; its
partitions, which listen as those of a session do; and their answers, written. A request is read only where
its bytes differ, only partitions that have changed or to which something has happened are looked at, and only
their answers are written anew. The answer is, byte for byte, what it would be without.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from ottla.broker.api.records.fetch.asked import READ_COMMITTED
from ottla.broker.api.records.fetch.encoding import PartitionWriter, partition_count, topic_ends
from ottla.broker.api.records.fetch.layout import Block, Layout
from ottla.broker.api.records.fetch.reader import Found
from ottla.broker.api.records.fetch.session import Listener, TopicKey, Want
from ottla.env.slices import Slices
from ottla.wire.codec import Encoded

# Partitions that are compared with those of the time before at a stretch.
_COMPARED_AT_ONCE: Final = 64
# Partitions that are forgotten in one turn of the event loop.
FORGOTTEN_AT_ONCE = 500

# A stretch of partitions that follow each other in a request as they did when it came first: the place of the
# first there, and how many there are.
Run = tuple[int, int]


class Habit(Listener):
    """What one connection asks for each time."""

    __slots__ = (
        "_body", "_end", "_ends", "_entries", "_head", "_layout", "_places", "_runs", "_starts",
        "_starts_moved",
        "_tail", "_topics", "_written", "changed", "elements", "request", "version", "wants", "writer",
    )  # fmt: skip

    def __init__(
        self, version: int, layout: Layout, request: Any, elements: int, body: bytes, wants: list[Want]
    ) -> None:
        """``wants``: all that the request ``body`` names, in its order; ``request``: the rest of it."""
        super().__init__()
        self.version = version
        self.request = request
        self.elements = elements
        self.wants = wants
        self.writer = PartitionWriter(version)
        # What an answer says of where the reader's log ends.
        self._end = "last_stable_offset" if request.isolation_level == READ_COMMITTED else "high_watermark"
        self._layout = layout
        # The last request's bytes, and in them those before and behind the partitions.
        self._body = self._head = self._tail = b""
        # The partitions' bytes in the order of the first request; where the stretch ends that each is in.
        self._entries = bytearray()
        self._ends: list[int] = []
        # By their topic's bytes the place of each partition in that order.
        self._places: dict[bytes, dict[int, int]] = {}
        # The topics of the last request with their partitions, and what an answer has around those.
        self._runs: list[tuple[TopicKey, list[Run]]] = []
        self._topics: dict[TopicKey, tuple[bytes, bytes]] = {}
        # What is answered for each, where there is nothing new; and the logs' starts that it tells.
        self._written = [b""] * len(wants)
        self._starts = [-1] * len(wants)
        self._starts_moved = -1
        # What the last request has changed, and is not taken over yet.
        self.changed: list[tuple[int, bytes]] = []
        for place, want in enumerate(wants):
            want.session, want.place = self, place
            self.due[want] = None
        self._begin(body)

    def _begin(self, body: bytes) -> None:
        found = self._layout.blocks(body)
        assert found is not None
        blocks, tail = found
        place = 0
        for name, at, count in blocks:
            places = self._places.setdefault(name, {})
            end = place + count
            self._ends += [end] * count
            self._entries += body[at : at + count * self._layout.size]
            self._append_run(self.wants[place].topic, place, count, self._runs)
            while place < end:
                places[self.wants[place].partition] = place
                place += 1
        self._body, self._head, self._tail = body, body[: self._layout.head], body[tail:]

    # ------------------------------------------------------------ what is asked

    def takes(self, body: bytes) -> bool:
        """Take over what a request says: False where it is not about the same partitions, in whatever order,
        within the same limits. It is of no use any more then."""
        if body == self._body:
            return True
        head, tail = self._head, self._tail
        if len(body) < len(head) + len(tail) or body[: len(head)] != head:
            return False
        found = self._layout.blocks(body)
        if found is None or body[found[1] :] != tail:
            return False
        runs: list[tuple[TopicKey, list[Run]]] = []
        for block in found[0]:
            if not self._takes_block(body, block, runs):
                return False
        seen = bytearray(len(self.wants))
        named = 0
        for _, stretches in runs:
            for place, count in stretches:
                seen[place : place + count] = b"\1" * count
                named += count
        if named != len(seen) or 0 in seen:
            return False
        self._body, self._runs = body, runs
        return True

    def _takes_block(self, body: bytes, block: Block, runs: list[tuple[TopicKey, list[Run]]]) -> bool:
        name, at, count = block
        places = self._places.get(name)
        if places is None:
            return False
        size, entries = self._layout.size, self._entries
        end = at + count * size
        expected, stretch = -1, _COMPARED_AT_ONCE
        while at < end:
            found = places.get(int.from_bytes(body[at : at + 4], signed=True))
            if found is None:
                return False
            # Where the order is another each time, a stretch of many would never be the same.
            stretch = min(2 * stretch, _COMPARED_AT_ONCE) if found == expected else 1
            n = min(stretch, (end - at) // size, self._ends[found] - found)
            begin = found * size
            if body[at : at + n * size] != entries[begin : begin + n * size]:
                n = self._takes_each(body, at, found, n)
            self._append_run(self.wants[found].topic, found, n, runs)
            at += n * size
            expected = found + n
        return True

    def _takes_each(self, body: bytes, at: int, place: int, count: int) -> int:
        """How many of these are the same partitions as those from ``place`` on, which the first one is."""
        size, entries = self._layout.size, self._entries
        for number in range(count):
            begin = (place + number) * size
            entry = body[at : at + size]
            if entry != entries[begin : begin + size]:
                if entry[:4] != entries[begin : begin + 4]:
                    return number
                entries[begin : begin + size] = entry
                self.changed.append((place + number, entry))
            at += size
        return count

    @staticmethod
    def _append_run(topic: TopicKey, place: int, count: int, runs: list[tuple[TopicKey, list[Run]]]) -> None:
        if not runs or runs[-1][0] != topic:
            runs.append((topic, [(place, count)]))
            return
        stretches = runs[-1][1]
        first, before = stretches[-1]
        if first + before == place:
            stretches[-1] = (first, before + count)
        else:
            stretches.append((place, count))

    def take_changes(self, changes: Iterable[tuple[int, bytes]]) -> None:
        """Take over what a request has changed."""
        for place, entry in changes:
            want = self.wants[place]
            want.take(self._layout.want(want.topic, entry))
            self.due[want] = None

    def misses_any(self) -> bool:
        """Whether there is a partition that was not found, or is here no more."""
        return any(want.replica is None or want.replica.removed for want in self.due)

    def note_log_starts(self, moved: int) -> None:
        """``moved``: how often any log's start has moved by now, of which partitions do not tell."""
        if moved == self._starts_moved:
            return
        self._starts_moved = moved
        starts = self._starts
        for place, want in enumerate(self.wants):
            if want.replica is not None and want.replica.log.log_start_offset != starts[place]:
                self.due[want] = None

    def in_order(self) -> list[Want]:
        """What is due, in the order of the last request."""
        due = list(self.due)
        if len(due) < 2:
            return due
        ranks = [0] * len(self.wants)
        rank = 0
        for _, stretches in self._runs:
            for place, count in stretches:
                ranks[place : place + count] = range(rank, rank + count)
                rank += count
        due.sort(key=lambda want: ranks[want.place])
        return due

    # ------------------------------------------------------------ what is answered

    def note(self, found: Iterable[Found]) -> list[Found]:
        """These were looked at: write what has nothing new, and listen. What is left is to be told."""
        left = []
        for one in found:
            want, answer = one.want, one.answer
            if answer["error_code"] or "diverging_epoch" in answer:
                left.append(one)
                continue
            want.listen(follower=False, both=False)
            if one.slice is not None or want.fetch_offset < answer[self._end]:
                left.append(one)
                continue
            self._written[want.place] = self.writer.write_empty(answer)
            self._starts[want.place] = answer["log_start_offset"]
            self.due.pop(want, None)
        return left

    def responses(self, told: Mapping[int, list[Any]]) -> Encoded:
        """The topics of an answer; ``told``: the pieces of those partitions that have something new, by their
        places."""
        places = sorted(told)
        out: list[Any] = []
        for topic, stretches in self._runs:
            ends = self._topics.get(topic)
            if ends is None:
                ends = self._topics[topic] = topic_ends(self.version, topic)
            named = sum([stretch[1] for stretch in stretches])
            small: list[Any] = [ends[0], partition_count(self.version, named)]
            for place, count in stretches:
                self._add(small, out, place, place + count, places, told)
            small.append(ends[1])
            out.append(b"".join(small))
        return Encoded(len(self._runs), out)

    def _add(
        self,
        small: list[Any],
        out: list[Any],
        place: int,
        end: int,
        places: Sequence[int],
        told: Mapping[int, list[Any]],
    ) -> None:
        """Add the partitions of a stretch to ``small``, which goes before what is large to ``out``."""
        written = self._written
        at = bisect_left(places, place) if places else 0
        while at < len(places) and places[at] < end:
            small += written[place : places[at]]
            pieces = told[places[at]]
            if len(pieces) == 1:
                small += pieces
            else:
                out.append(b"".join(small))
                out += pieces
                small.clear()
            place = places[at] + 1
            at += 1
        small += written[place:end]

    # ------------------------------------------------------------ its end

    def leave(self, slices: Slices) -> None:
        """Nobody asks any more: listen to nothing. In pieces: thousands at once take long."""
        self.ended, self.waiter = True, None
        self.due.clear()
        self._written, self._body, self._entries = [], b"", bytearray()
        wants, self.wants = self.wants, []
        _forget(wants, slices)


def _forget(wants: list[Want], slices: Slices) -> None:
    for _ in range(min(len(wants), FORGOTTEN_AT_ONCE)):
        wants.pop().leave()
    if wants:
        slices.soon(partial(_forget, wants, slices))
