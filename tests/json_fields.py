"""The fields of what `--json` prints, held against docs/api/json.txt.

A line of that file is a command and a path: `ottla topic list [].name`. `[]` is each element of an array, `*`
any key, `**` any document, and `?` at the end says that not every document has the field. Any value may be
null.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "docs" / "api" / "json.txt"
ELEMENT, ANY_KEY, ANYTHING = "[]", "*", "**"


class Field:
    """What may stand in one place of a document."""

    def __init__(self) -> None:
        self.inside: dict[str, Field] = {}
        self.is_optional = False

    def add(self, path: Sequence[str], *, is_optional: bool) -> None:
        """Add a field below this one. The fields on the way need no line of their own."""
        if path:
            self.inside.setdefault(path[0], Field()).add(path[1:], is_optional=is_optional)
        else:
            self.is_optional = is_optional


def parts(path: str) -> list[str]:
    """`[].partitions[].leader`: its steps."""
    return [one for one in path.replace(ELEMENT, f".{ELEMENT}").split(".") if one]


@cache
def known() -> dict[str, Field]:
    """Each command's document."""
    found: dict[str, Field] = {}
    for line in FILE.read_text().splitlines():
        command, _, path = line.rpartition(" ")
        found.setdefault(command, Field()).add(parts(path.rstrip("?")), is_optional=path.endswith("?"))
    return found


def differences(document: Any, field: Field, path: str = "") -> Iterator[str]:
    """What of a document is not as the list says: a path with what is wrong with it."""
    if ANYTHING in field.inside:
        return
    if isinstance(document, list):
        if ELEMENT not in field.inside:
            if any(isinstance(element, list | dict) for element in document):
                yield f"{path}{ELEMENT}: not in the list"
            return
        for element in document:
            yield from differences(element, field.inside[ELEMENT], f"{path}{ELEMENT}")
    elif isinstance(document, dict):
        for name, value in document.items():
            inner = field.inside.get(name) or field.inside.get(ANY_KEY)
            if inner is None:
                yield f"{path}.{name}: not in the list".removeprefix(".")
            else:
                yield from differences(value, inner, f"{path}.{name}".removeprefix("."))
        for name, inner in field.inside.items():
            if name not in (ELEMENT, ANY_KEY) and not inner.is_optional and name not in document:
                yield f"{path}.{name}: in the list, and not in the document".removeprefix(".")


def command_of(arguments: Sequence[str]) -> str | None:
    """The command of the list that a command line calls."""
    return max((one for one in known() if _begins(arguments, one)), key=len, default=None)


def _begins(arguments: Sequence[str], command: str) -> bool:
    words = command.split()[1:]
    return list(arguments[: len(words)]) == words


def check(arguments: Sequence[str], documents: Sequence[Any]) -> None:
    """Fails where what a command printed is not what docs/api/json.txt says."""
    command = command_of(arguments)
    assert command is not None, f"docs/api/json.txt has no line for {' '.join(arguments)}"
    found = sorted({one for document in documents for one in differences(document, known()[command])})
    assert not found, f"docs/api/json.txt, {command}: {found}. Change the list, or deprecate (docs/API.md)."
