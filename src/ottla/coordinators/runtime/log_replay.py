"""A partition of an internal topic from its log into its machine, when it is loaded.

Of all plain records with one key only the last counts, and a log that was not compacted for a while has very
many of each. So keys and values are gathered as they are, and only the last of each key is decoded.
"""

from __future__ import annotations

import logging
import struct
from collections import Counter
from collections.abc import Iterator

from ottla.coordinators.runtime.machine import Machine, SchemaError, UnknownRecord
from ottla.coordinators.runtime.pieces import PIECE
from ottla.errors import ErrorCode, KafkaError
from ottla.types import Buffer, Record
from ottla.wire.records import NO_PRODUCER_ID, BatchHeader, iter_records

log = logging.getLogger(__name__)

_CONTROL_KEY = struct.Struct(">hh")
_COMMIT_MARKER = 1
# Values that are decoded in pieces: those of groups of some hundred members and more, say.
LARGE_VALUE_BYTES = 64 * 1024


class LogReplay:
    """Call `add` for each batch, then `apply`, then `report`. The first two are generators: they yield after
    each piece of their work, and are to be run to their ends."""

    def __init__(self, machine: Machine, partition: int) -> None:
        self._machine = machine
        self._partition = partition
        # The last value of each key, None for its removal.
        self._latest: dict[bytes | None, bytes | None] = {}
        # How many keys there are of each version that is not known here.
        self._unknown: Counter[int] = Counter()

    def add(self, header: BatchHeader, batch: Buffer) -> Iterator[None]:
        """The next batch of the log. KafkaError where its records cannot be unpacked."""
        if header.is_control or header.is_transactional:
            # What a transaction writes counts at its end, and among plain records by its place in the log.
            yield from self.apply()
        for count, record in enumerate(iter_records(batch), 1):
            if header.is_control:
                yield from self._end_transaction(header.producer_id, record)
            elif header.is_transactional:
                yield from self._replay(record.key, record.value, header.producer_id)
            else:
                self._latest[record.key] = record.value
            if count % PIECE == 0:
                yield

    def _end_transaction(self, producer_id: int, marker: Record) -> Iterator[None]:
        key = marker.key or b""
        if len(key) < _CONTROL_KEY.size:
            raise KafkaError(ErrorCode.invalid_record, f"the marker at offset {marker.offset} has no type")
        _, kind = _CONTROL_KEY.unpack_from(key)
        return self._machine.end_transaction(producer_id, committed=kind == _COMMIT_MARKER)

    def apply(self) -> Iterator[None]:
        """Replay the records that were gathered."""
        count = 0
        while self._latest:
            yield from self._replay(*self._latest.popitem())
            count += 1
            if count % PIECE == 0:
                yield

    def _replay(
        self, key: bytes | None, value: bytes | None, producer_id: int = NO_PRODUCER_ID
    ) -> Iterator[None]:
        try:
            if value is not None and len(value) > LARGE_VALUE_BYTES:
                record = yield from self._machine.decoding(key, value)
            else:
                record = self._machine.decode(key, value)
        except SchemaError as error:
            log.error("partition %d: passed over the record of key %r: %s", self._partition, key, error)
            return
        if isinstance(record, UnknownRecord):
            self._unknown[record.key_version] += 1
        else:
            self._machine.replay(record, producer_id)

    def report(self) -> None:
        """Say once for each kind what was passed over because it is not known here."""
        for key_version, count in sorted(self._unknown.items()):
            log.warning(
                "partition %d: passed over %d keys of version %d, a kind that is not kept here",
                self._partition,
                count,
                key_version,
            )
