"""links.py: check that relative links in the repository's Markdown files lead to files, and to headings.

Anchors are GitHub's: a heading in lower case, without punctuation, with a hyphen for each blank. Addresses on
the network are not looked at. `links.py` prints what is broken, and exits with 1 then: `make check` runs it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_TARGETS = (
    re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)"),
    re.compile(r"^ {0,3}\[[^\]]+\]:\s*(\S+)"),
    re.compile(r"<(?:a|img|source)\s[^>]*?(?:href|src|srcset)=\"([^\"]+)\""),
)
_HEADING = re.compile(r"^ {0,3}(#{1,6})\s+(.*?)(?:\s+#+)?\s*$")
_NAMED = re.compile(r"<[a-z]+\s[^>]*?(?:id|name)=\"([^\"]+)\"")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


class Link(NamedTuple):
    """A relative link. ``path`` is empty for the page itself."""

    line: int
    path: str
    anchor: str

    def __str__(self) -> str:
        return f"{self.path}#{self.anchor}" if self.anchor else self.path


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are no code, with their numbers."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        opened = _FENCE.match(line)
        if fence:
            if opened and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif opened:
            fence = opened[1]
        else:
            yield number, line


def links(text: str) -> Iterator[Link]:
    """The relative links of a page."""
    for number, line in prose(text):
        bare = _CODE.sub("", line)
        for pattern in _TARGETS:
            for target in pattern.findall(bare):
                if not _ELSEWHERE.match(target):
                    path, _, anchor = target.partition("#")
                    yield Link(number, unquote(path), unquote(anchor))


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading, if it is the first one of its words."""
    plain = _LINK.sub(r"\1", heading).replace("`", "")
    plain = re.sub(r"(?<!\w)[*_]+|[*_]+(?!\w)|<[^>]+>", "", plain)
    return re.sub(r"[^\w\- ]", "", plain.lower().strip()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """All anchors of a page."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for _, line in prose(text):
        found.update(_NAMED.findall(line))
        if heading := _HEADING.match(line):
            name = slug(heading[2])
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return found


def pages(root: Path) -> list[Path]:
    """The Markdown files that are, or are to be, in the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    return [path for name in sorted(listed.splitlines()) if (path := root / name).exists()]


def broken(root: Path, found: list[Path]) -> list[str]:
    """What is wrong, one line for each link."""
    texts = {path: path.read_text() for path in found}
    known = {path: anchors(text) for path, text in texts.items()}
    wrong = []
    for page, text in texts.items():
        for link in links(text):
            where = f"{page.relative_to(root)}:{link.line}: {link}"
            target = (page.parent / link.path).resolve() if link.path else page
            if not target.is_relative_to(root.resolve()):
                wrong.append(f"{where} leads out of the repository")
            elif not target.exists():
                wrong.append(f"{where}: there is no such file")
            elif link.anchor and link.anchor not in known.get(target, ()):
                wrong.append(f"{where}: there is no such heading")
    return wrong


def main() -> int:
    found = pages(ROOT)
    wrong = broken(ROOT, found)
    print("\n".join(wrong) if wrong else f"links of {len(found)} pages lead somewhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
