"""CRC-32C, the checksum of record batches and of producers' snapshots: docs/decisions/0027-checksum.md.

The function is fastcrc's, which is native code on each platform; there is no slow one that could be taken in
its place. It reads any bytes-like object where it lies, and of 16 KiB on it lets other threads run meanwhile.
"""

from __future__ import annotations

from typing import Final

from fastcrc.crc32 import iscsi

# crc32c(data, crc=0): of bytes-like data, going on from a checksum.
crc32c: Final = iscsi
