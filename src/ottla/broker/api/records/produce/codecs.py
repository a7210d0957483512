"""Which codecs a client may use, by the version of its requests."""

from __future__ import annotations

from typing import Final

from ottla.broker.api.records.produce.transactional import ATTRIBUTES_POSITION
from ottla.errors import ErrorCode, KafkaError
from ottla.types import Buffer
from ottla.wire.records import CODEC_MASK, MAGIC, STAMP_BYTES

# zstd came with Produce v7 (KIP-110): before it, a client's batch cannot honestly be compressed so.
ZSTD_SINCE: Final = 7
_ZSTD: Final = 4


def check_codec(version: int, records: Buffer | None) -> None:
    """UNSUPPORTED_COMPRESSION_TYPE for zstd, from a client of before ``ZSTD_SINCE``."""
    if (
        records is not None
        and len(records) > ATTRIBUTES_POSITION
        # Older formats have their time of day there.
        and records[STAMP_BYTES] == MAGIC
        and records[ATTRIBUTES_POSITION] & CODEC_MASK == _ZSTD
    ):
        raise KafkaError(
            ErrorCode.unsupported_compression_type,
            f"Produce requests with version {version} are not allowed to use zstd",
        )
