"""Java's regular expressions in bounded time. What is expected is what Java answered."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.security.patterns.match import JavaPattern, TooMuchWork, Work
from ottla.security.patterns.parse import PatternError
from ottla.security.patterns.replace import Replacement


def groups(pattern: str, text: str) -> list[str | None] | None:
    """Those of the first match, the match itself among them."""
    compiled = JavaPattern(pattern)
    match = compiled.find(text, 0, Work())
    return None if match is None else [match.group(number) for number in range(compiled.groups + 1)]


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("a|ab", "ab", ["a"]),
        ("(?:a|ab)$", "ab", ["ab"]),
        ("(a+?)(a*)", "aaa", ["aaa", "a", "aa"]),
        ("(a{2,3}?)(a*)", "aaaa", ["aaaa", "aa", "aa"]),
        ("(a)|(b)", "b", ["b", None, "b"]),
        ("(?:(a)|b)*", "ab", ["ab", "a"]),
        ("(?:([a-c])=?){2}", "a=b", ["a=b", "b"]),
        ("x(?<first>.)(?<second>.)", "xab", ["xab", "a", "b"]),
        ("[]a]+", "x]a]", ["]a]"]),
        ("[^]a]", "]ab", ["b"]),
        ("[a-]+", "b-a-", ["-a-"]),
        ("[\\d.-]+", "a1.2-", ["1.2-"]),
        ("\\Qa.b*\\E+", "aab*a.b***", ["a.b***"]),
        ("\\x41\\u0042\\x{43}\\t", "ABC\t", ["ABC\t"]),
        ("(?i)cn=é", "CN=é", ["CN=é"]),
        ("(?i)É", "é", None),
        ("a(?i)b|c", "aB", ["aB"]),
        ("a(?i)b|c", "C", ["C"]),
        ("(?:a(?i)b)c", "aBC", None),
        ("(?i:a)a", "AA", None),
        ("(?-i:a)(?i)a", "aA", ["aA"]),
        ("(?i)\\P{Lower}", "aA1", ["1"]),
        (".+", "a\nb", ["a"]),
        ("(?s).+", "a\nb", ["a\nb"]),
        (".", "\u2028\x85\r", None),
        ("a$", "a\n", ["a"]),
        ("a$", "a\r\n", ["a"]),
        ("a$", "a\nb", None),
        ("a\\z", "a\n", None),
        ("\\bb\\B", "ab bb", ["b"]),
        ("\\w+", "é_a", ["_a"]),
        ("\\p{Alnum}+\\P{Alnum}", "-a1-", ["a1-"]),
        ("}]", "}]", ["}]"]),
        ("", "a", [""]),
    ],
)
def test_matches_are_javas(pattern: str, text: str, found: list[str | None] | None) -> None:
    assert groups(pattern, text) == found


@pytest.mark.parametrize(
    "pattern",
    [
        "(", ")", "(a", "a)", "[", "[a", "[]", "*", "a**", "a{", "a{b}", "a{2,1}", "a{1001}", "a++", "a*+",
        "{1}", "\\", "\\1", "(a)\\1", "\\k<a>", "\\y", "\\G", "\\R", "\\p{L}", "\\p{Lower", "\\pL", "\\x4",
        "\\u12",
        "\\x{110000}", "\\x{}", "(?=a)", "(?!a)", "(?<=a)", "(?<!a)", "(?>a)", "(?<1>a)", "(?<a>b)(?<a>c)",
        "(?m)a", "(?", "(?i", "[b-a]", "[a-\\d]", "[\\d-a]", "[a[b]]", "[a&&b]", "(a*)*", "(?:a?|b)+",
        "(^){2}", "((a{1000}){1000})", "(" * 60 + ")" * 60, "a{2}{3}",
    ],
)  # fmt: skip
def test_what_is_wrong_or_not_taken_is_refused_with_a_sentence(pattern: str) -> None:
    with pytest.raises(PatternError, match=r"\w+ \w+"):
        JavaPattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "template", "text", "result"),
    [
        ("b", "x", "abbc", "axxc"),
        ("(b)(c)?", "<$1$2>", "abbc", "a<b><bc>"),
        (".*", "x", "ab", "xx"),
        ("", "-", "ab", "-a-b-"),
        ("(a)", "$1\\$1\\\\", "a", "a$1\\"),
        ("(a)", "$0$1", "a", "aa"),
        ("(a)", "$12", "a", "a2"),
        ("(?<n>a)", "${n}${n}", "a", "aa"),
        ("^a", "", "aa", "a"),
    ],
)
def test_replacements_are_javas(pattern: str, template: str, text: str, result: str) -> None:
    assert Replacement(JavaPattern(pattern), template).in_all(text, Work()) == result


@pytest.mark.parametrize("template", ["$", "$x", "$2", "\\", "${n}", "${", "$ 1"])
def test_a_replacement_that_names_no_group_is_refused(template: str) -> None:
    with pytest.raises(PatternError):
        Replacement(JavaPattern("(a)"), template)


def test_only_the_first_is_replaced_where_that_is_asked_for() -> None:
    assert Replacement(JavaPattern("a"), "x").in_first("baa", Work()) == "bxa"


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a+)+b", "a" * 400),
        ("(a|a)+b", "a" * 400),
        ("(.*)(.*)(.*)(.*)(.*)(.*)b", "a" * 400),
        ("(?:a{1,20}){1,20}b", "a" * 60),
    ],
)
def test_time_is_bounded_whatever_is_tried(pattern: str, text: str) -> None:
    work = Work(10**9)
    compiled = JavaPattern(pattern)
    assert compiled.matches(text, work) is None
    assert compiled.find(text, 0, work) is None
    assert 10**9 - work.left < 2 * len(compiled._steps) * (len(text) + 1)
    with pytest.raises(TooMuchWork):
        compiled.matches(text, Work(100))


# What both mean alike: Python's is the other opinion.
ALIKE = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", "[^a]", "\\d", "^", "a?", "b*?", "a+", "[a-c]{1,2}"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        inner.map("({})".format),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        inner.map("(?:{})?".format),
    ),
    max_leaves=6,
)


@given(ALIKE, st.text(st.sampled_from("abc1\n"), max_size=8))
def test_python_agrees_where_it_means_the_same(pattern: str, text: str) -> None:
    match = JavaPattern(pattern).matches(text, Work())
    other = re.fullmatch(pattern, text, re.ASCII)
    assert (match is None) == (other is None)
    if match is not None and other is not None:
        assert [match.group(n) for n in range(1, 1 + other.re.groups)] == list(other.groups())
    found, searched = JavaPattern(pattern).find(text, 0, Work()), re.search(pattern, text, re.ASCII)
    assert (None if found is None else (found.start, found.end)) == (
        None if searched is None else searched.span()
    )


@given(st.text(max_size=30), st.text(max_size=20))
def test_any_text_is_a_pattern_or_refused(pattern: str, text: str) -> None:
    try:
        JavaPattern(pattern).find(text, 0, Work())
    except (PatternError, TooMuchWork) as error:
        assert type(error) in (PatternError, TooMuchWork)
