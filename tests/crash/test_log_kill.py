"""The log under SIGKILL: whatever was acknowledged is there, once and in order, however the process ends.

One process appends as an idempotent producer would, one batch itself and the next one in a thread, and writes
down each acknowledgement; it is killed at a random moment, and another takes over where the log ends. The
bytes are real, the segments small.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import soak
from ottla.env.disk import RealDisk
from ottla.log.log import Log
from ottla.log.settings import LogConfig
from ottla.types import TopicPartition
from ottla.wire.records import iter_batches, iter_records

ROUNDS = 25 * soak.FACTOR

WRITER = """
import asyncio, sys
from ottla.env.disk import RealDisk
from ottla.log.files import InPlace
from ottla.log.log import Log
from ottla.log.settings import LogConfig
from ottla.types import Record, TopicPartition
from ottla.wire.records import build_batch

config = LogConfig(segment_bytes=20_000, index_interval_bytes=500)
where = TopicPartition("t", 0)
disk = RealDisk()
background = InPlace()
background.begin_write = disk.begin_write
log = Log.open(
    disk, sys.argv[1], config, topic_partition=where, now_ms=1000, clean=False, background=background
)
entry = log.producers.get(1)
sequence = entry.last_sequence + 1 if entry else 0
assert sequence == log.log_end_offset, (sequence, log.log_end_offset)

async def append(batch, in_thread):
    written = asyncio.get_running_loop().create_future()
    done = log.append(
        batch, leader_epoch=3, now_ms=1000, then=written.set_result if in_thread else None
    )
    if in_thread:
        assert await written is None
    assert log.log_end_offset == done.last_offset + 1
    return done

async def main(sequence):
    while True:
        count = sequence % 3 + 1
        records = [Record(0, 1000, None, b"%d" % (sequence + n) * (1 + sequence % 50)) for n in range(count)]
        numbered = {"producer_id": 1, "producer_epoch": 0, "base_sequence": sequence}
        batch = build_batch(records, compression=sequence % 5, **numbered)
        done = await append(batch, in_thread=sequence % 2)
        assert done.base_offset == sequence
        sequence += count
        sys.stdout.write(f"{sequence}\\n")
        sys.stdout.flush()

asyncio.run(main(sequence))
"""


def acknowledged_by(folder: Path, chance: random.Random) -> int:
    """Let a writer run for a moment, kill it, and return the offset after the last one it acknowledged."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    try:
        last = 0
        for _ in range(chance.randrange(1, 400)):
            last = int(writer.stdout.readline())
    finally:
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate(timeout=60)
    assert writer.returncode == -signal.SIGKILL
    # What it wrote before the signal came; the last line may be torn.
    return max([last, *map(int, rest.splitlines()[: rest.count("\n")])])


def test_nothing_acknowledged_is_lost_or_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "t-0"
    chance = random.Random(20)
    acknowledged = 0
    for _ in range(ROUNDS):
        acknowledged = max(acknowledged, acknowledged_by(folder, chance))
    log = Log.open(
        RealDisk(), str(folder), LogConfig(segment_bytes=20_000), topic_partition=TopicPartition("t", 0),
        now_ms=1000, clean=False,
    )  # fmt: skip
    assert log.log_end_offset >= acknowledged > 0
    assert len(log.segments) > 3
    offset = 0
    while (piece := log.read(offset, 1 << 20, end_offset=log.log_end_offset, min_one=True)) is not None:
        for header, batch in iter_batches(piece.file.read(piece.position, piece.size)):
            assert (header.base_offset, header.base_sequence) == (offset, offset)
            for record in iter_records(batch):
                assert record.offset == offset
                assert record.value == b"%d" % offset * (1 + header.base_sequence % 50)
                offset += 1
    assert offset == log.log_end_offset
