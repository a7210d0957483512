"""Kafka's compression codecs: the bytes that follow a batch's header, packed and unpacked.

Framing is what Kafka's clients write and read: gzip members, lz4 frames with independent blocks, zstd frames,
and for snappy the blocks of snappy-java ("xerial"); librdkafka writes one bare snappy block, which is
accepted too. cramjam is imported at first use, since most brokers never look inside a batch.
"""

from __future__ import annotations

import mmap
import struct
from enum import IntEnum
from typing import Any

from ottla.errors import ErrorCode, KafkaError
from ottla.types import Buffer

# A batch that unpacks to more than this is refused: a few kilobytes can stand for gigabytes.
UNPACKED_BYTES_MAX = 128 * 1024 * 1024

_FIRST_TRY_BYTES = 64 * 1024
# What is larger is given out as it lies in memory of its own: to copy it would take milliseconds.
_COPIED_BYTES_MAX = 1024 * 1024
_LZ4_PIECE_BYTES = 64 * 1024
_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = _XERIAL_MAGIC + struct.pack(">ii", 1, 1)
_XERIAL_BLOCK_BYTES = 32 * 1024
_LENGTH = struct.Struct(">i")


class Codec(IntEnum):
    """A batch's codec: the lowest three bits of its attributes, and the value of ``compression.type``."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


def compress(codec: int, data: Buffer, level: int | None = None) -> bytes:
    """Pack ``data``; ``level`` is the codec's own scale, None for its default. ValueError: unknown codec."""
    import cramjam

    match codec:
        case Codec.NONE:
            return bytes(data)
        case Codec.GZIP:
            return bytes(cramjam.gzip.compress(data, 6 if level is None or level < 0 else level))
        case Codec.SNAPPY:
            return _xerial_compress(cramjam.snappy, memoryview(data))
        case Codec.LZ4:
            # Kafka's own reader refuses frames whose blocks depend on one another.
            packer = cramjam.lz4.Compressor(level=9 if level is None else level, block_linked=False)
            view = memoryview(data)
            for start in range(0, len(view), _LZ4_PIECE_BYTES):
                # This codec keeps other threads from running while it works.
                packer.compress(bytes(view[start : start + _LZ4_PIECE_BYTES]))
            return bytes(packer.finish())
        case Codec.ZSTD:
            return bytes(cramjam.zstd.compress(data, 3 if level is None else level))
    raise ValueError(f"unknown compression codec {codec}")


def decompress(codec: int, data: Buffer, size_max: int = UNPACKED_BYTES_MAX) -> Buffer:
    """Unpack ``data`` into at most ``size_max`` bytes.

    In a thread this does not keep the event loop from its work: the codecs let others run, and what is large
    is not copied in one piece.

    KafkaError: CORRUPT_MESSAGE where the bytes are not what the codec writes or unpack to too much,
    UNSUPPORTED_COMPRESSION_TYPE for a codec that Kafka does not define.
    """
    if codec == Codec.NONE:
        return bytes(data)
    import cramjam

    match codec:
        case Codec.GZIP:
            module: Any = cramjam.gzip
        case Codec.SNAPPY:
            return _snappy_decompress(cramjam, memoryview(data), size_max)
        case Codec.LZ4:
            module = cramjam.lz4
        case Codec.ZSTD:
            module = cramjam.zstd
        case _:
            raise KafkaError(ErrorCode.unsupported_compression_type, f"unknown compression codec {codec}")
    return _bounded(cramjam.DecompressionError, module.decompress_into, data, size_max)


def _bounded(failure: type[Exception], decompress_into: Any, data: Buffer, size_max: int) -> Buffer:
    """Unpack into a buffer of a fixed size, small at first.

    cramjam does not tell a full buffer from bad input, so a failure is tried again with all that is
    allowed: anonymous memory, of which only the pages that are written are ever taken, and which is given
    back with the last view of it.
    """
    if len(data) <= _FIRST_TRY_BYTES:
        small = bytearray(min(size_max, max(_FIRST_TRY_BYTES, 8 * len(data))))
        try:
            return bytes(memoryview(small)[: decompress_into(data, small)])
        except failure as error:
            if len(small) == size_max:
                raise _corrupt(error) from error
    large = mmap.mmap(-1, size_max)
    try:
        unpacked_bytes = decompress_into(data, large)
    except failure as error:
        raise _corrupt(error) from error
    view = memoryview(large)[:unpacked_bytes]
    return bytes(view) if unpacked_bytes <= _COPIED_BYTES_MAX else view


def _corrupt(error: object) -> KafkaError:
    return KafkaError(ErrorCode.corrupt_message, f"the batch's records cannot be unpacked: {error}")


def _xerial_compress(snappy: Any, data: memoryview) -> bytes:
    parts = [_XERIAL_HEADER]
    for start in range(0, len(data), _XERIAL_BLOCK_BYTES):
        block = bytes(snappy.compress_raw(data[start : start + _XERIAL_BLOCK_BYTES]))
        parts += (_LENGTH.pack(len(block)), block)
    return b"".join(parts)


def _snappy_decompress(cramjam: Any, data: memoryview, size_max: int) -> Buffer:
    if data[: len(_XERIAL_MAGIC)] != _XERIAL_MAGIC:
        return _snappy_block(cramjam, data, size_max)
    parts: list[Buffer] = []
    unpacked_bytes = 0
    position = len(_XERIAL_HEADER)
    while position < len(data):
        if position + _LENGTH.size > len(data):
            raise _corrupt("a snappy block is cut short")
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if not 0 <= length <= len(data) - position:
            raise _corrupt("a snappy block is cut short")
        parts.append(_snappy_block(cramjam, data[position : position + length], size_max - unpacked_bytes))
        unpacked_bytes += len(parts[-1])
        position += length
    return b"".join(parts) if unpacked_bytes <= _COPIED_BYTES_MAX else _joined(parts, unpacked_bytes)


def _joined(parts: list[Buffer], size: int) -> memoryview:
    """Parts put together one by one, so that others may run in between."""
    joined = memoryview(mmap.mmap(-1, size))
    position = 0
    for part in parts:
        for start in range(0, len(part), _COPIED_BYTES_MAX):
            piece = part[start : start + _COPIED_BYTES_MAX]
            joined[position : position + len(piece)] = piece
            position += len(piece)
    return joined


def _snappy_block(cramjam: Any, block: memoryview, size_max: int) -> Buffer:
    """One bare snappy block; its first bytes say how much it unpacks to."""
    try:
        size = cramjam.snappy.decompress_raw_len(block)
        if size > size_max:
            raise _corrupt(f"they are larger than {size_max} bytes")
        if size <= _COPIED_BYTES_MAX:
            return bytes(cramjam.snappy.decompress_raw(block))
        large = mmap.mmap(-1, size)
        return memoryview(large)[: cramjam.snappy.decompress_raw_into(block, large)]
    except cramjam.DecompressionError as error:
        raise _corrupt(error) from error
