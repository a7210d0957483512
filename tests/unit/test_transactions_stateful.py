"""Transactional producers that come back, repeat themselves and are late, while writes fail and nodes change.

Whatever happens: of each id one producer may write at a time, its epochs only grow, a transaction is decided
once and in one way, which is what its producer is told and what its markers say; the log holds what the
machine holds; and once nothing fails any more, everything ends.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from transactions_support import T0, T1, U0, TransactionBench

from ottla.coordinators.transactions.metadata import TV_0, TV_2, TransactionMetadata
from ottla.coordinators.transactions.states import PREPARED
from ottla.coordinators.transactions.transaction_machine import TransactionMachine
from ottla.errors import ErrorCode

NAMES = ("a", "b")
PARTITIONS = (T0, T1, U0)
TIMEOUT_MS = 20_000

Ids = tuple[int, int]


class Sent:
    """An EndTxn, and what its producer is told."""

    def __init__(self, name: str, producer: Ids, commit: bool, version: int, waiter: str) -> None:
        self.name = name
        self.producer = producer
        self.commit = commit
        self.version = version
        self.waiter = waiter


class ProducersUnderFire(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = TransactionBench(auto_commit=False, auto_mark=False)
        # What clients know of themselves: they may be the latest or have been followed.
        self.known: dict[str, list[Ids]] = {name: [] for name in NAMES}
        self.inits: list[tuple[str, str]] = []
        self.adds: list[str] = []
        self.ends: list[Sent] = []
        # How far the checks have looked into the log, and the last value of each id there.
        self.seen = 0
        self.last: dict[str, TransactionMetadata] = {}
        # How transactions were decided, by their id and their producer then: in the classic protocol these
        # are many transactions.
        self.decisions: dict[tuple[str, int, int], list[bool]] = {}

    # What clients do

    @rule(name=st.sampled_from(NAMES), data=st.data(), says=st.booleans())
    def init(self, name: str, data: st.DataObject, says: bool) -> None:
        expected = None
        if says and self.known[name]:
            expected = data.draw(st.sampled_from(self.known[name]))
        waiter = self.bench.ask_init(expected, name=name, timeout_ms=TIMEOUT_MS)
        self.inits.append((name, waiter))

    @precondition(lambda self: any(self.known.values()))
    @rule(data=st.data(), late=st.booleans(), version=st.sampled_from([TV_0, TV_2]), waits=st.booleans())
    def add(self, data: st.DataObject, late: bool, version: int, waits: bool) -> None:
        name, producer = self._draw(data, late)
        partitions = data.draw(st.sets(st.sampled_from(PARTITIONS), min_size=1))
        waiter = self.bench.ask_add(producer, *partitions, name=name, version=version, may_wait=waits)
        self.adds.append(waiter)

    @precondition(lambda self: any(self.known.values()))
    @rule(data=st.data(), late=st.booleans(), commit=st.booleans(), version=st.sampled_from([TV_0, TV_2]))
    def end(self, data: st.DataObject, late: bool, commit: bool, version: int) -> None:
        name, producer = self._draw(data, late)
        waiter = self.bench.ask_end(producer, commit=commit, name=name, version=version)
        self.ends.append(Sent(name, producer, commit, version, waiter))

    @precondition(lambda self: self.ends)
    @rule(data=st.data())
    def an_end_comes_again(self, data: st.DataObject) -> None:
        """Its answer was lost, or it was on the way for long."""
        sent = data.draw(st.sampled_from(self.ends))
        waiter = self.bench.ask_end(sent.producer, commit=sent.commit, name=sent.name, version=sent.version)
        self.ends.append(Sent(sent.name, sent.producer, sent.commit, sent.version, waiter))

    @precondition(lambda self: any(self.known.values()))
    @rule(data=st.data(), commit=st.booleans(), version=st.sampled_from([TV_0, TV_2]))
    def a_whole_transaction(self, data: st.DataObject, commit: bool, version: int) -> None:
        self._settle()
        name, producer = self._draw(data, late=False)
        self.adds.append(self.bench.ask_add(producer, T0, name=name, version=version))
        self._settle()
        waiter = self.bench.ask_end(producer, commit=commit, name=name, version=version)
        self.ends.append(Sent(name, producer, commit, version, waiter))
        self.bench.commit_all()

    @precondition(lambda self: any(self.known.values()))
    @rule(data=st.data(), version=st.sampled_from([TV_0, TV_2]))
    def a_transaction_begins(self, data: st.DataObject, version: int) -> None:
        self._settle()
        name, producer = self._draw(data, late=False)
        self.adds.append(self.bench.ask_add(producer, T1, name=name, version=version))
        self._settle()

    def _draw(self, data: st.DataObject, late: bool) -> tuple[str, Ids]:
        name = data.draw(st.sampled_from([name for name in NAMES if self.known[name]]))
        known = self.known[name]
        return name, data.draw(st.sampled_from(known)) if late else known[-1]

    # What the world does

    @precondition(lambda self: self.bench.tables.in_flight)
    @rule()
    def an_append_succeeds(self) -> None:
        self.bench.commit_one()

    @precondition(lambda self: self.bench.tables.in_flight)
    @rule()
    def an_append_fails(self) -> None:
        self.bench.fail_one(ErrorCode.not_enough_replicas)

    @precondition(lambda self: self.bench.markers)
    @rule(data=st.data())
    def a_partition_has_its_marker(self, data: st.DataObject) -> None:
        self.bench.mark_one(data.draw(st.sampled_from(sorted(self.bench.markers[0].partitions))))

    @precondition(lambda self: self.bench.decided)
    @rule(data=st.data())
    def a_marker_is_told_of_late(self, data: st.DataObject) -> None:
        """One that its coordinator, or the one before it, has long been told of, or has given up."""
        markers = data.draw(st.sampled_from(self.bench.decided))
        if markers not in self.bench.markers:
            self.bench.marked(markers, *markers.partitions)

    @rule(delay_ms=st.integers(0, 15_000))
    def time_goes_by(self, delay_ms: int) -> None:
        self.bench.wait(delay_ms)

    @rule()
    def another_node_takes_over(self) -> None:
        self.bench.fail_over()
        for waiter in (
            *(waiter for _, waiter in self.inits),
            *self.adds,
            *(each.waiter for each in self.ends),
        ):
            assert waiter in self.bench.replies

    @rule(are_out=st.booleans())
    def producer_ids(self, are_out: bool) -> None:
        self.bench.ids.are_out = are_out

    @rule(level=st.sampled_from([1, 2]))
    def the_level_changes(self, level: int) -> None:
        self.bench.level = level

    @precondition(lambda self: self.bench.tables.metadata)
    @rule(data=st.data(), epoch=st.integers(32_764, 32_766))
    def epochs_are_nearly_used_up(self, data: st.DataObject, epoch: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.bench.tables.metadata)))
        value = self.bench.value(name)
        if (
            name not in self.bench.tables.pending
            and value.state not in PREPARED
            and value.producer_epoch < epoch
        ):
            ids = self.bench.put(name, producer_epoch=epoch, last_producer_epoch=-1, previous_producer_id=-1)
            self.known[name].append(ids)

    def _settle(self) -> None:
        self.bench.commit_all()
        while self.bench.markers:
            self.bench.mark_one()
            self.bench.commit_all()

    # What holds

    @invariant()
    def clients_hear_of_their_producers(self) -> None:
        waiting = []
        for name, waiter in self.inits:
            response = self.bench.replies.get(waiter)
            if response is None:
                waiting.append((name, waiter))
            elif response.error == ErrorCode.none:
                self.known[name].append((response.producer_id, response.epoch))
        self.inits = waiting
        for sent in self.ends:
            response = self.bench.replies.get(sent.waiter)
            if response is not None and response.error == ErrorCode.none and sent.version >= TV_2:
                ids = (response.producer_id, response.epoch)
                if ids not in self.known[sent.name]:
                    self.known[sent.name].append(ids)

    @invariant()
    def the_log_is_what_is_held(self) -> None:
        machine = TransactionMachine(self.bench.config, take_id=lambda: None)
        for record in self.bench.log:
            machine.replay(record)
        assert machine.tables.metadata == self.bench.tables.metadata
        assert machine.tables.ongoing.keys() == self.bench.tables.ongoing.keys()

    @invariant()
    def epochs_grow_and_decisions_stand(self) -> None:
        for name, value, _ in self.bench.log[self.seen :]:
            assert value is not None
            before = self.last.get(name)
            if before is not None:
                assert value.producer_id >= before.producer_id
                if value.producer_id == before.producer_id:
                    assert value.producer_epoch >= before.producer_epoch
                if before.state in PREPARED:
                    # What was decided is only ever completed.
                    assert value.state.value == before.state.value.replace("Prepare", "Complete")
                    if value.producer_id != before.producer_id:
                        # The epochs were used up. By the classic protocol its producer may end under the new
                        # id what has ended: it is told how, as under the same id.
                        producer = name, value.producer_id, value.producer_epoch
                        self.decisions.setdefault(producer, []).append(before.is_committing)
            if value.state in PREPARED:
                producer = name, value.producer_id, value.producer_epoch
                self.decisions.setdefault(producer, []).append(value.is_committing)
                if value.client_version >= TV_2:
                    # There each transaction has an epoch of its own.
                    assert len(self.decisions[producer]) == 1
            self.last[name] = value
        self.seen = len(self.bench.log)

    @invariant()
    def one_producer_of_each_id_may_write(self) -> None:
        for name, producers in self.known.items():
            writing = set()
            for producer in producers:
                errors = self.bench.verify(producer, *PARTITIONS, name=name)
                if "none" in errors.values():
                    writing.add(producer)
            assert len(writing) <= 1

    @invariant()
    def markers_say_what_was_decided(self) -> None:
        for markers in self.bench.decided:
            producer = markers.transactional_id, markers.producer_id, markers.producer_epoch
            assert markers.commit in self.decisions[producer]

    @invariant()
    def who_is_told_of_an_end_is_told_the_truth(self) -> None:
        left = []
        for sent in self.ends:
            response = self.bench.replies.get(sent.waiter)
            if response is None:
                left.append(sent)
            elif response.error == ErrorCode.none:
                epoch = sent.producer[1] + (sent.version >= TV_2)
                if sent.version >= TV_2:
                    # It goes on with the very next epoch: a late request ends nothing that began since.
                    overflows = epoch == 32_767
                    following = (response.producer_id, response.epoch)
                    assert following == (sent.producer[0], epoch) or (overflows and following[1] == 0)
                ways = self.decisions[sent.name, sent.producer[0], epoch]
                assert sent.commit in ways, (sent.producer, sent.commit, sent.version)
        self.ends = [*left, *self.ends[-5:]] if len(self.ends) > 50 else self.ends

    def teardown(self) -> None:
        """Nothing fails any more."""
        bench = self.bench
        bench.ids.are_out = False
        bench.auto_commit = bench.auto_mark = True
        bench.finish(bench.step())
        for _ in range(10):
            bench.wait(TIMEOUT_MS)
        assert not bench.tables.pending
        assert not bench.tables.marking
        assert not bench.tables.retries
        assert not bench.tables.waiting
        assert not bench.tables.ongoing
        for value in bench.tables.metadata.values():
            assert value.state not in PREPARED
        for name in NAMES:
            producer = bench.init(name=name)
            assert bench.add(producer, T0, name=name) == "none"
            bench.end(producer, name=name)
        self.the_log_is_what_is_held()
        self.epochs_grow_and_decisions_stand()


TestProducersUnderFire = ProducersUnderFire.TestCase
