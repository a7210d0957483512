"""Regular expressions of clients: as Java has them, in bounded time."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.broker.api.transactions.patterns import LENGTH_MAX, compile_pattern
from ottla.errors import ErrorCode, KafkaError

PATTERNS = [
    "abc",
    "a.c",
    "a*",
    "a+b?",
    "(ab|c)*d",
    "[a-c]{2,3}",
    "[^a-c]+",
    "a{2}",
    "a{2,}",
    "^ab$",
    "a^b",
    "a$b",
    "(^a|b)c*",
    r"\d+-\w*",
    r"\S\s\D\W",
    r"a\.b",
    "(a*)*b",
    "(a|aa)+",
    "(?:ab)+c",
    "a*?b+?",
    "()",
    "",
    "[ab]|",
    "x{0}y",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@given(text=st.text("abcd-1 .xy", max_size=8))
def test_what_matches_is_what_matches_elsewhere(pattern: str, text: str) -> None:
    assert compile_pattern(pattern)(text) == (re.fullmatch(pattern, text, re.ASCII) is not None)


@given(st.lists(st.sampled_from(["a", "b", "(", ")", "|", "*", "+", "?", "[ab]", ".", "^", "$"]), max_size=9))
def test_any_pattern_is_refused_or_matches_what_it_says(parts: list[str]) -> None:
    pattern = "".join(parts)
    try:
        compiled = compile_pattern(pattern)
    except KafkaError as error:
        assert error.code is ErrorCode.invalid_regular_expression
        return
    for text in ("", "a", "b", "ab", "ba", "aab", "abab"):
        assert compiled(text) == (re.fullmatch(pattern, text) is not None), (pattern, text)


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param("(", id="no pattern"),
        pytest.param("(a)\\1", id="a reference"),
        pytest.param("(?=a)a", id="looking ahead"),
        pytest.param("(?<!a)a", id="looking behind"),
        pytest.param(r"\ba", id="a word's boundary"),
        pytest.param("(?i)a", id="flags"),
        pytest.param("(?i:a)", id="flags of a part"),
        pytest.param("a{1001}", id="many times"),
        pytest.param("(a{100}){100}", id="many times many"),
        pytest.param("((){1000}){1000}", id="many times nothing"),
        pytest.param("(){4000000000}", id="nothing, very many times"),
        pytest.param("a" * (LENGTH_MAX + 1), id="long"),
        pytest.param("(" * 490 + ")" * 490, id="deep"),
    ],
)
def test_what_cannot_be_matched_in_bounded_time_is_refused(pattern: str) -> None:
    with pytest.raises(KafkaError) as caught:
        compiled = compile_pattern(pattern)
        # Depth alone is no harm, if it is taken.
        assert pattern.startswith("((((")
        assert compiled("")
        raise KafkaError(ErrorCode.invalid_regular_expression)
    assert caught.value.code is ErrorCode.invalid_regular_expression


def test_a_long_text_is_matched_in_pieces() -> None:
    pattern = compile_pattern("(a?){300}b*a{10}")
    pieces = pattern.matching("a" * 300)
    assert sum(1 for _ in pieces) > 20
    assert pattern("a" * 300) and not pattern("a" * 320)


def test_patterns_that_make_others_go_back_for_ever_cost_what_their_texts_cost() -> None:
    pattern = compile_pattern("(a|ab)*(a*)*c")
    looks = 0

    def counted(accepts: Callable[[str], bool]) -> Callable[[str], bool]:
        def count(character: str) -> bool:
            nonlocal looks
            looks += 1
            return accepts(character)

        return count

    pattern._accepts = [accepts and counted(accepts) for accepts in pattern._accepts]
    assert not pattern("a" * 1_000)
    # One that goes back would take the square of it, or two to the power of it.
    assert looks <= 1_000 * pattern.size
