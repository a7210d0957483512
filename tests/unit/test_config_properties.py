"""Java property files, as java.util.Properties reads them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ottla.config import ConfigError, ConfigFile, parse_properties


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# comment\n! another\n\n   \n", {}),
        ("a=1\nb:2\nc 3\nd\t=\t4", {"a": "1", "b": "2", "c": "3", "d": "4"}),
        ("  a = 1 ", {"a": "1 "}),
        ("a=1\na=2", {"a": "2"}),
        ("a", {"a": ""}),
        ("a=x=y:z", {"a": "x=y:z"}),
        ("a=one,\\\n   two", {"a": "one,two"}),
        ("a=one\\\\\nb=2", {"a": "one\\", "b": "2"}),
        ("a=1\\\n# no comment", {"a": "1# no comment"}),
        ("a\\ b=1", {"a b": "1"}),
        ("a\\=b=1", {"a=b": "1"}),
        ("a=\\u0041\\t\\n\\x", {"a": "A\t\nx"}),
        ("a=1\r\nb=2\rc=3", {"a": "1", "b": "2", "c": "3"}),
        ("a=C:\\\\kafka", {"a": "C:\\kafka"}),
        ("a=1\\", {"a": "1"}),
        ("\\\n#b=2\nc=3", {"c": "3"}),
        ("listeners=PLAINTEXT://:9092", {"listeners": "PLAINTEXT://:9092"}),
        ("a==1", {"a": "=1"}),
    ],
)
def test_syntax(text: str, expected: dict[str, str]) -> None:
    assert parse_properties(text) == expected


@pytest.mark.parametrize("text", ["a=\\u00", "a=\\u00zz", "a=\\u+123", "a=\\u١٢٣٤"])
def test_a_broken_escape_is_an_error_that_names_the_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^line 3: Malformed"):
        parse_properties(f"# C:\\users\nb=2\n{text}")


@pytest.mark.parametrize(
    ("data", "rack"),
    [
        ("broker.rack=Köln".encode(), "Köln"),
        ("broker.rack=Köln".encode("latin-1"), "Köln"),
        ("# Größe\nbroker.rack=a".encode("latin-1"), "a"),
        ("\ufeffbroker.rack=東京".encode(), "東京"),
        (b"broker.rack=K\\u00f6ln", "Köln"),
        (b"broker.rack=\xff\xfe", "ÿþ"),
    ],
)
def test_files_are_utf_8_or_else_what_java_reads(data: bytes, rack: str) -> None:
    assert ConfigFile("f", data).properties == {"broker.rack": rack}


@given(st.binary(max_size=60))
def test_any_bytes_are_a_file_or_a_configuration_error(data: bytes) -> None:
    with suppress(ConfigError):
        ConfigFile("f", data)


def test_an_error_is_told_with_the_lines_that_it_comes_from() -> None:
    file = ConfigFile("f", b"# \na.b=1\n\nlog.roll.ms = 0\\\n 5\nnum.partitions=x\n")
    assert file.where("Invalid value x for configuration num.partitions: no", {}) == " (f, line 6)"
    assert file.where("log.roll.ms against num.partitions", {}) == " (f, lines 4 and 6)"
    assert file.where("Invalid value x for configuration num.partitions: no", {"num.partitions": "x"}) == ""
    with pytest.raises(ConfigError, match=r"^the configuration file f, line 2: Malformed"):
        ConfigFile("f", b"\na=\\u12\n")


def escape(text: str, *, name: bool) -> str:
    special = "\\=: #!" if name else "\\"
    out = []
    for index, character in enumerate(text):
        if character in special or (index == 0 and character == " "):
            out.append("\\" + character)
        elif character in "\t\n\r\f" or not " " <= character <= "~":
            code = ord(character)
            out.append(f"\\u{code:04x}")
        else:
            out.append(character)
    return "".join(out)


basic = st.text(st.characters(max_codepoint=0xD7FF), max_size=20)


@given(st.dictionaries(basic.filter(bool), basic, max_size=5))
def test_what_is_written_with_escapes_is_read_back(properties: dict[str, str]) -> None:
    lines = [f"{escape(name, name=True)}={escape(value, name=False)}" for name, value in properties.items()]
    assert parse_properties("\n".join(lines)) == properties
