"""docs/TROUBLESHOOTING.md: the messages of ours that it quotes are ones that the sources have."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from ottla.errors import ErrorCode

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text()
# Whatever a value is put in for.
VALUE = "\0"


@cache
def texts() -> str:
    """All texts of the sources, one behind the other, with `VALUE` in the place of what varies."""
    found = []
    for path in sorted((ROOT / "src" / "ottla").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[sdr.\d]+f?", VALUE, node.value))
            elif isinstance(node, ast.JoinedStr):
                found.append("".join(_part(part) for part in node.values))
    return "\n".join(found)


def _part(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else VALUE


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def quoted(title: str) -> list[str]:
    """The messages in the headings of a section."""
    return re.findall(r"^### `(.*)`$", section(title), re.MULTILINE)


OURS = [
    text
    for title in ("Messages of `ottla serve`", "Messages of the `ottla` commands")
    for text in quoted(title)
]


def is_known(message: str) -> bool:
    """Whether one text of the sources has all that the page quotes, in this order."""
    parts = [re.escape(part.strip(" ")) for part in message.split("…") if part.strip(" :")]
    return re.search(r"[^\n]*".join(parts), texts()) is not None


@pytest.mark.parametrize("message", OURS)
def test_a_message_that_the_page_quotes_is_in_the_sources(message: str) -> None:
    assert is_known(message), "the message has changed: change it in docs/TROUBLESHOOTING.md, too"


def test_a_message_that_is_nowhere_would_be_noticed() -> None:
    assert len(OURS) >= 20
    assert not is_known("the data directory … is in use by a cat")


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", section("Messages of clients"))))
)
def test_an_error_that_the_page_names_is_one_of_kafka_s(name: str) -> None:
    assert name.lower() in ErrorCode.__members__ or name in ErrorCode.__members__
