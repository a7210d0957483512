"""What programs ask nodes, and what these answer: read from the bytes on the connections of programs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ottla.explore.recording import decoding
from ottla.explore.recording.decoding import Names, Request, Unreadable, Where
from ottla.explore.recording.frames import Frame, Frames
from ottla.explore.recording.recording import (
    ENTRIES_MAX,
    NOT_WANTED,
    TEXT_MAX,
    Call,
    Committed,
    Read,
    Recording,
    Remark,
    Written,
)
from ottla.explore.world.transport import SimTransport
from ottla.wire.apis import FETCH, OFFSET_COMMIT, PRODUCE

T = TypeVar("T")


@dataclass(slots=True)
class Asked:
    """A request, and what of the recording came of it."""

    request: Request
    call: Call
    written: dict[Where, list[Written]] = field(default_factory=dict)
    committed: dict[Where, Committed] = field(default_factory=dict)
    # What its answer brings, as soon as that is there.
    read: list[Read] = field(default_factory=list)


@dataclass(slots=True)
class Wire:
    """A connection of a program to a node."""

    program: str
    node: str
    requests: Frames = field(default_factory=Frames)
    answers: Frames = field(default_factory=Frames)
    # By correlation id.
    pending: dict[int, Asked] = field(default_factory=dict)
    # Answers under way, with where they end, and how many bytes have arrived.
    due: deque[tuple[int, Asked]] = field(default_factory=deque)
    taken: int = 0
    # Where the last Fetch began: in a session the next one may not say so.
    fetches_from: dict[Where, int] = field(default_factory=dict)
    # Which ends are closed.
    closed: set[SimTransport] = field(default_factory=set)
    failed: bool = False


class WireTap:
    """``world.transport.Tap``: puts what it reads into a recording."""

    def __init__(self, recording: Recording, now_s: Callable[[], float], names: Names) -> None:
        self._recording = recording
        self._now_s = now_s
        self._names = names
        # By the programs' ends.
        self._wires: dict[SimTransport, Wire] = {}
        # What belongs to transactions that have not ended, and those of which nobody knows how they end.
        self._open: dict[str, list[Written | Committed]] = {}
        self._ending: set[str] = set()

    # ------------------------------------------------------------ the tap

    def written(self, end: SimTransport, data: bytes) -> None:
        if end.process.is_program:
            wire = self._wire(end)
            if wire is not None:
                self._each(wire, wire.requests, data, self._asked)
        else:
            wire = self._wires.get(end.peer)
            if wire is not None:
                self._each(wire, wire.answers, data, self._answered)

    def taken(self, end: SimTransport, count: int) -> None:
        wire = self._wires.get(end)
        if wire is None:
            return
        wire.taken += count
        while wire.due and wire.due[0][0] <= wire.taken:
            self._heard(wire.due.popleft()[1])

    def closed(self, end: SimTransport) -> None:
        near = end if end in self._wires else end.peer
        wire = self._wires.get(near)
        if wire is None:
            return
        wire.closed.add(end)
        if end is near:
            for asked in (*wire.pending.values(), *(asked for _, asked in wire.due)):
                asked.call.lost_s = self._now_s()
            wire.due.clear()
        if len(wire.closed) == 2:
            del self._wires[near]

    # ------------------------------------------------------------ frames

    def _wire(self, near: SimTransport) -> Wire | None:
        """The connection of a program's end; None where it leads to another program."""
        wire = self._wires.get(near)
        if wire is None and not near.peer.process.is_program:
            names = near.process.machine.name, near.peer.process.machine.name
            wire = self._wires[near] = Wire(*names)
        return wire

    def _each(self, wire: Wire, frames: Frames, data: bytes, read: Callable[[Wire, Frame], None]) -> None:
        for frame in frames.feed(data):
            try:
                read(wire, frame)
            except Unreadable as error:
                self._fail(wire, str(error))
        if frames.broken:
            self._fail(wire, "a size below zero")

    def _fail(self, wire: Wire, why: str) -> None:
        """Say so once for each connection."""
        if not wire.failed:
            wire.failed = True
            text = f"what {wire.program} and {wire.node} say to each other cannot be read: {why}"
            self._add(
                self._recording.remarks, Remark(lane=wire.program, at_s=self._now_s(), text=text[:TEXT_MAX])
            )

    def _add(self, entries: list[T], entry: T) -> None:
        if len(entries) < ENTRIES_MAX:
            entries.append(entry)

    # ------------------------------------------------------------ requests

    def _asked(self, wire: Wire, frame: Frame) -> None:
        request = decoding.read_request(frame.data, is_whole=frame.is_whole)
        call = Call(program=wire.program, node=wire.node, api=request.name, sent_s=self._now_s())
        call.about = decoding.about(request, self._names) if frame.is_whole else "too large to be read"
        self._add(self._recording.calls, call)
        asked = Asked(request, call)
        fields = request.fields
        if request.api_key != PRODUCE or fields is None or fields.acks:
            wire.pending[request.correlation_id] = asked
        else:
            call.result = NOT_WANTED
        if fields is None:
            return
        if request.api_key == PRODUCE:
            self._produced(asked)
        elif request.api_key == FETCH:
            wire.fetches_from |= decoding.asked_from(fields, self._names)
        elif request.api_key in (OFFSET_COMMIT, decoding.TXN_OFFSET_COMMIT):
            self._commits(asked)
        elif request.api_key == decoding.END_TXN:
            self._ending.add(fields.transactional_id)

    def _produced(self, asked: Asked) -> None:
        transaction = asked.request.fields.transactional_id or ""
        for where, batches in decoding.produced(asked.request.fields, self._names):
            records = asked.written.setdefault(where, [])
            if len(self._recording.written) >= ENTRIES_MAX:
                return
            for record in decoding.records_of(batches):
                made = Written(
                    program=asked.call.program,
                    topic=where[0],
                    partition=where[1],
                    offset=None,
                    key=None if record.key is None else record.key[:TEXT_MAX],
                    value=None if record.value is None else record.value[:TEXT_MAX],
                    sent_s=asked.call.sent_s,
                    transaction=transaction,
                )
                records.append(made)
                self._add(self._recording.written, made)
                if transaction:
                    self._open.setdefault(transaction, []).append(made)

    def _commits(self, asked: Asked) -> None:
        fields = asked.request.fields
        transaction = getattr(fields, "transactional_id", "")
        for where, offset in decoding.committed(fields, self._names):
            made = asked.committed[where] = Committed(
                program=asked.call.program,
                group=fields.group_id,
                topic=where[0],
                partition=where[1],
                offset=offset,
                at_s=asked.call.sent_s,
                transaction=transaction,
            )
            self._add(self._recording.committed, made)
            if transaction:
                self._open.setdefault(transaction, []).append(made)

    # ------------------------------------------------------------ answers

    def _answered(self, wire: Wire, frame: Frame) -> None:
        asked = wire.pending.pop(decoding.correlation_of(frame.data), None)
        if asked is None:
            raise Unreadable("an answer to nothing")
        if asked.call.lost_s is None:
            wire.due.append((frame.end, asked))
        if asked.request.fields is None:
            return
        if not frame.is_whole:
            asked.call.result = "too large to be read"
            return
        answer = decoding.read_answer(asked.request, frame.data)
        asked.call.result = decoding.result_of(answer)
        said = decoding.told(asked.request, answer, self._names)
        if said:
            asked.call.about = f"{asked.call.about}: {said}"[:TEXT_MAX] if asked.call.about else said
        self._apply(wire, asked, answer)

    def _apply(self, wire: Wire, asked: Asked, answer: Any) -> None:
        request = asked.request
        if request.api_key == PRODUCE:
            for where, first_offset, result in decoding.stored(answer, self._names):
                for index, written in enumerate(asked.written.get(where, ())):
                    written.result = result
                    written.offset = first_offset + index if result == decoding.OK else None
        elif request.api_key == FETCH:
            for where, first, last in decoding.fetched(answer, self._names):
                first = min(max(first, wire.fetches_from.get(where, 0)), last)
                asked.read.append(
                    Read(
                        program=wire.program,
                        topic=where[0],
                        partition=where[1],
                        first_offset=first,
                        last_offset=last,
                        at_s=self._now_s(),
                    )
                )
        elif request.api_key in (OFFSET_COMMIT, decoding.TXN_OFFSET_COMMIT):
            for where, result in decoding.commit_results(answer, self._names).items():
                if where in asked.committed:
                    asked.committed[where].result = result
        elif asked.call.result == decoding.OK:
            self._end_transaction(request)

    def _end_transaction(self, request: Request) -> None:
        """What an EndTxn, or an InitProducerId, has ended."""
        if request.api_key == decoding.END_TXN:
            is_committed = request.fields.committed
        elif request.api_key == decoding.INIT_PRODUCER_ID:
            is_committed = False
        else:
            return
        transaction = request.fields.transactional_id
        entries = self._open.pop(transaction, [])
        if request.api_key == decoding.INIT_PRODUCER_ID and transaction in self._ending:
            # Its end was asked for, and nobody has heard an answer: it may be either.
            entries = []
        self._ending.discard(transaction)
        for entry in entries:
            entry.outcome = "committed" if is_committed else "aborted"

    def _heard(self, asked: Asked) -> None:
        now_s = self._now_s()
        asked.call.answered_s = now_s
        for records in asked.written.values():
            for written in records:
                if written.offset is not None:
                    written.acknowledged_s = now_s
        for read in asked.read:
            read.at_s = now_s
            self._add(self._recording.read, read)
