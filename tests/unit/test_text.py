"""Text from outside: what is shown of it, and what is none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ottla.text import is_text, printable


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_is_shown_is_printable(text: str) -> None:
    assert printable(text).isprintable()


def test_what_is_visible_stays_as_it_is() -> None:
    assert printable("Köln 東京 🚀 a b") == "Köln 東京 🚀 a b"
    assert printable("a\x1b[31mb\nc\u202ed\x9b\udc80\x00") == "a\\x1b[31mb\\nc\\u202ed\\x9b\\udc80\\x00"


def test_bytes_that_are_not_utf_8_are_no_text() -> None:
    assert is_text("Köln\x1b")
    assert not is_text(b"K\xf6ln".decode("utf-8", "surrogateescape"))
    assert not is_text("\ud800")
