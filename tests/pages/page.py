"""The code blocks of a page of the documentation, and the statements of a shell block."""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# In an item of a list it is indented.
_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """One fenced block. ``title``: the file that its text is saved as (``title="…"`` in its first line)."""

    page: str
    line: int
    language: str
    title: str
    text: str

    @property
    def first_line(self) -> str:
        return self.text.partition("\n")[0].strip()

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.first_line})"


def blocks(page: str) -> list[Block]:
    """All blocks of a page (its path in the repository), in order."""
    text = (ROOT / page).read_text()
    return [_block(page, text, found) for found in _FENCE.finditer(text)]


def _block(page: str, text: str, found: re.Match[str]) -> Block:
    info = found[2].strip()
    title = _TITLE.search(info)
    line = text.count("\n", 0, found.start()) + 2
    return Block(page, line, info.partition(" ")[0], title[1] if title else "", textwrap.dedent(found[3]))


def statements(text: str) -> Iterator[str]:
    """A shell text in pieces that bash takes one by one: lines, with those that belong to them."""
    piece = ""
    for line in text.splitlines():
        piece += line + "\n"
        if line.endswith("\\"):
            continue
        checked = subprocess.run(["bash", "-n"], input=piece, capture_output=True, text=True, check=False)
        if checked.returncode == 0 and "here-document" not in checked.stderr:
            if any(part.strip() and not part.lstrip().startswith("#") for part in piece.splitlines()):
                yield piece
            piece = ""
    assert not piece, f"bash does not understand {piece!r}"


def pattern(line: str) -> re.Pattern[str]:
    """What a line of an output block stands for: numbers and widths may be others, ``…`` is any text."""
    parts = re.split(r"(\s+|…|\d+(?:[.,:]\d+)*)", line.strip())
    made = ""
    for part in parts:
        if part == "…":
            made += ".*"
        elif part and part.isspace():
            made += r"\s+"
        elif part[:1].isdigit():
            made += r"\d+(?:[.,:]\d+)*"
        else:
            made += re.escape(part)
    return re.compile(made)


def unlike(shown: str, said: str) -> str:
    """Why ``said`` is not what an output block shows; "" where it is. A line ``…`` stands for any lines."""
    left = [line.strip() for line in said.splitlines() if line.strip()]
    gap = False
    for line in shown.splitlines():
        if not line.strip():
            continue
        if line.strip() == "…":
            gap = True
            continue
        found = next((n for n, other in enumerate(left) if pattern(line).fullmatch(other)), None)
        if found is None or (found and not gap):
            return f"no line is {line.strip()!r} in:\n" + "\n".join(left[:40])
        left = left[found + 1 :]
        gap = False
    return "" if gap or not left else "more than the page shows:\n" + "\n".join(left[:40])
