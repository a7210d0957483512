"""What clients of earlier versions understand of an error."""

from __future__ import annotations

from ottla.errors import ErrorCode


def told(code: ErrorCode, version: int, fenced_since: int) -> ErrorCode:
    """PRODUCER_FENCED came with a version of each API; before it that was INVALID_PRODUCER_EPOCH."""
    if code == ErrorCode.producer_fenced and version < fenced_since:
        return ErrorCode.invalid_producer_epoch
    return code
