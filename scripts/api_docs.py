"""docs/API.md: the lists of the public API, with the rule for changes."""

from __future__ import annotations

from pathlib import Path

import api_lists

TEXT = Path(__file__).with_name("api_page.txt")
FOLDER = Path(__file__).resolve().parent.parent / "docs" / "api"
# The list that is written by hand.
JSON = "json"

TITLES = {
    "python": "Python",
    "pytest": "pytest",
    "commands": "Commands",
    "exit-codes": "Exit codes",
    JSON: "JSON",
    "metrics": "Metrics",
    "environment": "Environment",
    "control": "Control port",
    "extras": "Extras",
}


def pages() -> dict[str, str]:
    """The lists that follow from the code, as files of docs/."""
    return {f"api/{name}.txt": api_lists.text(name) for name in api_lists.LISTS}


def render() -> str:
    """The page."""
    parts = [TEXT.read_text()]
    for name, title in TITLES.items():
        text = (FOLDER / f"{name}.txt").read_text() if name == JSON else api_lists.text(name)
        parts.append(f"\n## {title}\n\n```\n{text}```\n")
    return "".join(parts)
