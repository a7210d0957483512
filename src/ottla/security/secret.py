"""A password or key that shows itself in no text."""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest
from typing import Final, final

HIDDEN: Final = "[hidden]"


@final
class Secret:
    """Text that ``repr``, ``str`` and format strings do not show, as Kafka's Password type."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def is_equal_to(self, other: str) -> bool:
        """Takes as long whatever the two have in common, and however long they are alike."""
        return compare_digest(_digest(self._text), _digest(other))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.is_equal_to(other._text)

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return HIDDEN

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written anywhere")


def _digest(text: str) -> bytes:
    """Equally long for all texts, so that comparing two of them does not tell how long one is."""
    return sha256(text.encode("utf-8", "surrogatepass")).digest()
