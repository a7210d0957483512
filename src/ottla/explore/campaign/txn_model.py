"""What clients know of their transactions, and what may therefore never be otherwise.

A record's value is ``NAME:N|WHAT``: the transactional id, the number of its transaction among all of that id,
and what nothing else in that transaction has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ottla.explore.campaign.model import Model
from ottla.types import TopicPartition

# The invariants by name, as docs/FAULTS-IN-DETAIL.md has them.
ATOMIC = "a transaction is seen as a whole or not at all"
NOTHING_UNDECIDED = "nothing aborted or undecided reaches read_committed"
STABLE = "the last stable offset never goes back in an epoch"
NEVER_STUCK = "the last stable offset reaches the end once faults end"
OFFSETS_WITH_IT = "group offsets move with their transaction only"
ONE_EPOCH = "one producer epoch writes at a time"
EXACTLY_ONCE = "each input is in the output once"


# What zombies write.
ZOMBIE = b"zombie"


class Outcome(Enum):
    """As far as the transaction's client knows."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"
    # A commit was asked for, and nobody said what became of it.
    UNKNOWN = "unknown"


@dataclass(slots=True, eq=False)
class Transaction:
    """One transaction: what was written in it, and where it was acknowledged (-1: as a repetition)."""

    tag: bytes
    written: dict[bytes, tuple[TopicPartition, int | None]] = field(default_factory=dict)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    commit_sent: bool = False
    outcome: Outcome = Outcome.OPEN


class TransactionModel:
    """The oracle of transactions. ``model`` is told of violations."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.transactions: dict[bytes, Transaction] = {}
        self._counts: dict[str, int] = {}
        # By transactional id, how many instances of its producer were given an epoch.
        self.instances: dict[str, int] = {}
        # What read_committed consumers saw.
        self._seen: dict[TopicPartition, dict[int, bytes]] = {}
        # The group's offsets: the last that was committed for sure.
        self.group_offsets: dict[TopicPartition, int] = {}
        self._doubtful_offsets: dict[TopicPartition, list[Transaction]] = {}
        # How far inputs are transformed and committed, by whomever.
        self.transformed: dict[TopicPartition, int] = {}
        self.fenced_count = 0
        self.zombie_count = 0
        # Producers that were given another id, since the epochs of the one before were used up.
        self.rotation_count = 0

    def violate(self, invariant: str, detail: str) -> None:
        self._model.violate(invariant, detail)

    def begin(self, name: str) -> Transaction:
        number = self._counts[name] = self._counts.get(name, 0) + 1
        tag = b"%s:%d" % (name.encode(), number)
        made = self.transactions[tag] = Transaction(tag)
        return made

    def instance(self, name: str) -> int:
        """A producer was given an epoch: those before it are fenced from now on."""
        number = self.instances[name] = self.instances.get(name, 0) + 1
        return number

    # ------------------------------------------------------------ ends

    def commit_sent(self, transaction: Transaction) -> None:
        transaction.commit_sent = True
        for where in transaction.offsets:
            doubtful = self._doubtful_offsets.setdefault(where, [])
            if transaction not in doubtful:
                doubtful.append(transaction)

    def ended(self, transaction: Transaction, outcome: Outcome) -> None:
        if transaction.outcome is not Outcome.OPEN:
            return
        transaction.outcome = outcome
        if outcome is Outcome.UNKNOWN:
            return
        for where, offset in transaction.offsets.items():
            doubtful = self._doubtful_offsets.get(where, [])
            if transaction in doubtful:
                doubtful.remove(transaction)
            if outcome is Outcome.COMMITTED:
                self.group_offsets[where] = max(offset, self.group_offsets.get(where, -1))

    def fetched_offset(self, where: TopicPartition, least: int, offset: int) -> None:
        """An offset was read with require_stable; ``least`` was committed before it was asked for."""
        allowed = {least, self.group_offsets.get(where, -1)}
        allowed |= {
            transaction.offsets[where]
            for transaction in self._doubtful_offsets.get(where, [])
            if transaction.offsets[where] > least
        }
        if offset not in allowed:
            self.violate(OFFSETS_WITH_IT, f"{where}: {offset} is read, of {sorted(allowed)}")
        self.group_offsets[where] = max(offset, self.group_offsets.get(where, -1))

    # ------------------------------------------------------------ what consumers see

    def saw(self, where: TopicPartition, offset: int, value: bytes, who: str) -> None:
        """A read_committed consumer was given a record."""
        transaction = self.transactions[value.partition(b"|")[0]]
        if not transaction.commit_sent or transaction.outcome is Outcome.ABORTED:
            what = transaction.outcome.value if transaction.commit_sent else "not committed"
            self.violate(NOTHING_UNDECIDED, f"{who} is given {value!r} at {where} {offset}: {what}")
        seen = self._seen.setdefault(where, {}).setdefault(offset, value)
        if seen != value:
            self.violate(ATOMIC, f"{who} is given {value!r} at {where} {offset}, where {seen!r} was seen")

    # ------------------------------------------------------------ at quiesce

    def check_all(self, view: dict[TopicPartition, dict[int, bytes]]) -> None:
        """``view`` is all that a read_committed consumer reads in the end."""
        places: dict[bytes, tuple[TopicPartition, int]] = {}
        for where, values in view.items():
            for offset, value in values.items():
                if value in places:
                    self.violate(ATOMIC, f"{value!r} is at {places[value]} and at {where} {offset}")
                places[value] = where, offset
        for where, seen in self._seen.items():
            for offset, value in seen.items():
                if view[where].get(offset) != value:
                    there = view[where].get(offset)
                    self.violate(ATOMIC, f"{value!r} was seen at {where} {offset}, {there!r} is there")
        for transaction in self.transactions.values():
            self._check_one(transaction, places)

    def _check_one(self, transaction: Transaction, places: dict[bytes, tuple[TopicPartition, int]]) -> None:
        written = transaction.written
        visible = [value for value in written if value in places]
        whole = len(visible) == len(written)
        outcome = transaction.outcome
        must_be = outcome is Outcome.COMMITTED
        may_be = must_be or (outcome is Outcome.UNKNOWN and transaction.commit_sent)
        if (visible and not (may_be and whole)) or (must_be and not whole):
            missing = [value for value in written if value not in places]
            self.violate(
                ATOMIC, f"{transaction.tag!r} ({outcome.value}): {visible} are visible, {missing} are not"
            )
        for value in visible:
            where, offset = written[value]
            if places[value] != (where, offset) and offset != -1:
                self.violate(ATOMIC, f"{value!r} was acknowledged at {where} {offset}, is at {places[value]}")

    def check_transformed(
        self,
        view: dict[TopicPartition, dict[int, bytes]],
        ends: dict[TopicPartition, int],
        output: str,
    ) -> None:
        """Each record of the inputs before ``ends`` is in the output, once."""
        wanted = {
            b"%s-%d@%d" % (where.topic.encode(), where.partition, offset)
            for where in ends
            for offset in view[where]
        }
        found: dict[bytes, bytes] = {}
        for where, values in view.items():
            if where.topic != output:
                continue
            for value in values.values():
                source = value.partition(b"|")[2]
                if source == ZOMBIE:
                    # It came back before another instance had begun.
                    continue
                if source in found:
                    self.violate(EXACTLY_ONCE, f"{found[source]!r} and {value!r} are of the same input")
                found[source] = value
        if found.keys() != wanted:
            missing, extra = sorted(wanted - found.keys())[:5], sorted(found.keys() - wanted)[:5]
            self.violate(EXACTLY_ONCE, f"missing {missing}, beyond the input {extra}")
