"""HOST:PORT: one reading of it, for configurations, commands and stores."""

from __future__ import annotations

import pytest

from ottla.addresses import parse_address


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("localhost:9092", ("localhost", 9092)),
        ("[::1]:0", ("::1", 0)),
        ("h:65535", ("h", 65_535)),
        ("h:65536", None),
        ("h:-1", None),
        ("h:+1", None),
        ("h:1_0", None),
        ("h:\u0661", None),
        ("h:" + "1" * 5_000, None),
        ("h", None),
        ("h:", None),
        (":1", None),
        ("[]:1", None),
        ("::1:1", None),
        ("a b:1", None),
        ("a\0b:1", None),
        ("[h:1", None),
        ("h]:1", None),
        ("[[::1]]:1", None),
        ("", None),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, found: tuple[str, int] | None) -> None:
    assert parse_address(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("h", ("h", 2379)),
        ("[::1]", ("::1", 2379)),
        ("h:1", ("h", 1)),
        ("h:0", None),
        ("h:", None),
        ("::1", None),
        ("[h", None),
        ("h]", None),
        ("", None),
    ],
)
def test_a_port_may_be_left_out_where_there_is_a_default(text: str, found: tuple[str, int] | None) -> None:
    assert parse_address(text, port_min=1, port_default=2379) == found
