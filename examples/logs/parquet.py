"""Parquet files that keep their own books: what is in them, and where to go on, becomes true in one step.

A file holds lines of one partition, named after the partition and the offset where it begins; inside it says
where the next one begins. So the files of a partition form a chain, and its end is where to go on.

A file is written under a draft's name, flushed to the disk, and then linked to its name. The link is the
commit: before it nothing has happened, after it the rows and the new position are there, both. And a name can
be given once: if two sinks believe that a partition is theirs, one of them gets FileExistsError, and knows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_NEXT_OFFSET = b"next_offset"
_TIME = pa.timestamp("ms", tz="UTC")

SCHEMA = pa.schema(
    [
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("arrived", _TIME),
        ("at", _TIME),
        ("service", pa.string()),
        ("host", pa.string()),
        ("level", pa.string()),
        ("pid", pa.string()),
        ("via", pa.string()),
        ("text", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The files of one topic, in `directory`. `writer` is the name of this program among those that write."""

    directory: Path
    writer: str

    def prepare(self) -> None:
        """Make the folder, and remove drafts that an earlier life of this writer left."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for draft in self.directory.glob(f".{self.writer}.*.draft"):
            draft.unlink()

    def files(self, partition: int) -> list[Path]:
        """Oldest first."""
        return sorted(self.directory.glob(f"lines-{partition:03}-*.parquet"))

    def next_offset(self, partition: int) -> int | None:
        """Where to go on; None if there is no file yet."""
        files = self.files(partition)
        if not files:
            return None
        return int(pq.read_schema(files[-1]).metadata[_NEXT_OFFSET])

    def append(self, partition: int, first: int, next_offset: int, rows: list[dict[str, Any]]) -> Path:
        """Commit rows that reach from offset `first` to before `next_offset`. FileExistsError if somebody
        else has committed from `first` on."""
        schema = SCHEMA.with_metadata({_NEXT_OFFSET: str(next_offset).encode()})
        draft = self.directory / f".{self.writer}.{partition:03}.draft"
        with draft.open("wb") as file:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        final = self.directory / f"lines-{partition:03}-{first:020}.parquet"
        try:
            os.link(draft, final)
        finally:
            draft.unlink()
        folder = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return final
