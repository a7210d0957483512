"""A plain assert that fails is told with its values, in a line whose length is bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ottla.explore.programs import asserted

# pytest rewrites the asserts of this file, so these are compiled by hand.
SOURCE = """
class Broken:
    def __repr__(self):
        raise ValueError("no repr")

def few(got=(1, 2), wanted=3):
    assert len(got) == wanted

def over_lines(got=[]):
    assert (
        got
        and got[0] == 1  # the first
    )

def nameless():
    assert not 1

def long(text="a" * 1000, many=tuple(range(1000))):
    assert text == many

def controls(text=type("Odd", (), {"__repr__": lambda self: "\\x1b[2J\\n"})()):
    assert not text

def broken(one=Broken()):
    assert not one

def by_hand(got=1):
    raise AssertionError
"""


def told(name: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("asserted") / "shop.py"
    file.write_text(SOURCE)
    module: dict[str, Callable[[], None]] = {}
    exec(compile(SOURCE, str(file), "exec"), module)
    with pytest.raises(AssertionError) as raised:
        module[name]()
    # Without the frame of pytest's own file, which is the user's too, nothing else would change.
    return asserted.told(raised.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("few", "assert len(got) == wanted, where got = (1, 2), wanted = 3"),
        ("over_lines", "assert got and got[0] == 1, where got = []"),
        ("nameless", "assert not 1"),
        ("controls", "assert not text, where text = \\x1b[2J\\n"),
        ("broken", "assert not one, where one = <Broken instance at 0x"),
        ("by_hand", ""),
    ],
)
def test_an_assert_is_told_with_its_values(
    name: str, expected: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    said = told(name, tmp_path_factory)
    assert said.startswith(expected) and (name == "broken" or said == expected)


def test_long_values_are_cut(tmp_path_factory: pytest.TempPathFactory) -> None:
    said = told("long", tmp_path_factory)
    assert said.startswith("assert text == many, where text = 'aaa") and said.endswith("9, ...)")
    assert len(said) < 250


def test_an_error_that_nobody_raised_has_no_assert() -> None:
    assert asserted.told(AssertionError()) == ""
