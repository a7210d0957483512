"""Kafka's error codes, and the exception that carries one to the client.

The codes are kio's. kio looks for hypothesis, to register strategies for its types, whenever it is first
imported. Where a developer has hypothesis installed that would cost a broker a fifth of a second at start,
so it is hidden while kio's base types load (unless a test run has imported it already).
"""

from __future__ import annotations

import sys

_hide = "hypothesis" not in sys.modules
if _hide:
    sys.modules["hypothesis"] = None  # type: ignore[assignment]
try:
    from kio.schema.errors import ErrorCode
finally:
    if _hide:
        del sys.modules["hypothesis"]

__all__ = ("ErrorCode", "KafkaError")


class KafkaError(Exception):
    """A request, or a part of one, that Kafka answers with an error code.

    ``message`` goes to the client where the response has room for one, so it says what to do.
    """

    def __init__(self, code: ErrorCode, message: str | None = None) -> None:
        super().__init__(message or code.name)
        self.code = code
        self.message = message

    @property
    def text(self) -> str:
        """The message, or what the code says: for where Kafka never leaves a client without words."""
        return self.message or self.code.name.replace("_", " ")
