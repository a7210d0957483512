"""A partition of `__consumer_offsets` from its log into a `GroupMachine`, when it is loaded.

Of all plain records with one key only the last counts, and a log that was not compacted for a while has very
many of each. So keys and values are gathered as they are, and only the last of each key is decoded.
"""

from __future__ import annotations

import logging
import struct
from collections import Counter

from ottla.coordinators.group_machine import GroupMachine
from ottla.coordinators.offsets import NO_PRODUCER_ID
from ottla.coordinators.schemas import SchemaError, UnknownRecord, decode_record
from ottla.errors import ErrorCode, KafkaError
from ottla.types import Buffer
from ottla.wire.records import BatchHeader, iter_records

log = logging.getLogger(__name__)

_CONTROL_KEY = struct.Struct(">hh")
_COMMIT_MARKER = 1


class LogReplay:
    """Call `add` for each batch, then `apply` until it has nothing left, then `report`."""

    def __init__(self, machine: GroupMachine, partition: int) -> None:
        self._machine = machine
        self._partition = partition
        # The last value of each key, None for its removal.
        self._latest: dict[bytes | None, bytes | None] = {}
        # How many keys there are of each version that is not known here.
        self._unknown: Counter[int] = Counter()

    def add(self, header: BatchHeader, batch: Buffer) -> None:
        """The next batch of the log. KafkaError where its records cannot be unpacked."""
        if header.is_control or header.is_transactional:
            # What a transaction writes counts at its end, and among plain records by its place in the log.
            while self.apply(len(self._latest)):
                pass
            self._add_transactional(header, batch)
            return
        for record in iter_records(batch):
            self._latest[record.key] = record.value

    def _add_transactional(self, header: BatchHeader, batch: Buffer) -> None:
        for record in iter_records(batch):
            if header.is_control:
                if len(record.key or b"") < _CONTROL_KEY.size:
                    raise KafkaError(
                        ErrorCode.invalid_record, f"the marker at offset {record.offset} has no type"
                    )
                _, marker = _CONTROL_KEY.unpack_from(record.key or b"")
                self._machine.offsets.end_transaction(header.producer_id, committed=marker == _COMMIT_MARKER)
            else:
                self._replay(record.key, record.value, header.producer_id)

    def apply(self, count: int) -> bool:
        """Replay up to ``count`` of the records that were gathered; whether any are left."""
        for _ in range(min(count, len(self._latest))):
            self._replay(*self._latest.popitem())
        return bool(self._latest)

    def _replay(self, key: bytes | None, value: bytes | None, producer_id: int = NO_PRODUCER_ID) -> None:
        try:
            record = decode_record(key, value)
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
