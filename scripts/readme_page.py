"""README for the page of the package at PyPI, where a relative link leads nowhere (used by hatch_build.py).

With the address of the repository, links and pictures get it. Without one, as long as pyproject.toml names
none under ``[project.urls]`` as ``Source``, a link is its words alone, and pictures are left out.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_LINK = re.compile(r"(?P<code>`+[^`]+`+)|(?P<image>!?)\[(?P<words>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


def for_pypi(text: str, repository: str | None) -> str:
    """README's text as it is to be at PyPI."""

    def replaced(found: re.Match[str]) -> str:
        target = found["target"]
        if found["code"] or _ELSEWHERE.match(target):
            return found[0]
        if repository is None:
            return "" if found["image"] else found["words"]
        kind = "raw" if found["image"] else "blob"
        path = f"README.md{target}" if target.startswith("#") else target
        return f"{found['image']}[{found['words']}]({repository.rstrip('/')}/{kind}/main/{path})"

    fence = ""
    lines = []
    for line in text.splitlines():
        if opened := _FENCE.match(line):
            fence = "" if fence and opened[1].startswith(fence) else fence or opened[1]
        made = line if fence or opened else _LINK.sub(replaced, line)
        if made or not line:
            lines.append(made)
    return "\n".join(lines) + "\n"
