"""Examples of a command, as data beside it: its help and docs/CLI.md show them, and tests run them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


class Example(NamedTuple):
    """One command line as it would be typed into a shell, and one sentence on what it does."""

    line: str
    text: str


def examples(*pairs: tuple[str, str]) -> Callable[[Function], Function]:
    """Give a command its examples, two or three: pairs of a command line and a sentence on it.

    Below ``@app.command()``: ``@examples(("ottla topic list", "List the topics."), …)``.
    """

    def attach(function: Function) -> Function:
        function.__dict__["examples"] = tuple(Example(*pair) for pair in pairs)
        return function

    return attach


def examples_of(function: Callable[..., Any] | None) -> tuple[Example, ...]:
    """The examples of a command's function, which Typer may have wrapped."""
    found: tuple[Example, ...] = getattr(function, "examples", ())
    return found
