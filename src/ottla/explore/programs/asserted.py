"""What a plain `assert` has found: its source, and the values that local names in it had."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator, Mapping
from reprlib import Repr
from types import TracebackType
from typing import Any

from ottla.explore.programs import lines
from ottla.text import printable

# So many characters of the source, and of each value; so many names.
SOURCE_CHARS_MAX = 200
VALUE_CHARS_MAX = 200
NAMES_MAX = 8
_SHORT = Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxfrozenset = _SHORT.maxdict = 10
_SHORT.maxstring = _SHORT.maxother = 80


def told(error: BaseException) -> str:
    """In one line: `assert len(got) == 3, where got = [1, 2]`. Empty for what no assert of the user's raised.

    Whoever compares failures is not to compare this: values are others in another run.
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None or not lines.is_own(traceback.tb_frame.f_code.co_filename):
        return ""
    source = "".join(linecache.getlines(traceback.tb_frame.f_code.co_filename))
    found = _assert_at(source, traceback)
    if found is None:
        return ""
    text = _cut(ast.unparse(found), SOURCE_CHARS_MAX)
    values = ", ".join(_values(found.test, traceback.tb_frame.f_locals))
    return printable(f"{text}, where {values}" if values else text)


def _assert_at(source: str, traceback: TracebackType) -> ast.Assert | None:
    """The statement whose line a traceback has."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        # It has changed since it was imported.
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and node.lineno <= traceback.tb_lineno <= (node.end_lineno or 0):
            return node
    return None


def _values(test: ast.expr, known: Mapping[str, Any]) -> Iterator[str]:
    """NAME = VALUE of each local name, in the order of the source."""
    names = [node for node in ast.walk(test) if isinstance(node, ast.Name) and node.id in known]
    names.sort(key=lambda node: (node.lineno, node.col_offset))
    for name in [*dict.fromkeys(node.id for node in names)][:NAMES_MAX]:
        yield f"{name} = {_cut(_value(known[name]), VALUE_CHARS_MAX)}"


def _value(value: Any) -> str:
    try:
        return _SHORT.repr(value)
    except Exception as error:  # noqa: BLE001 - users' code, after the failure that is to be told
        return f"({type(error).__name__} in its repr)"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
