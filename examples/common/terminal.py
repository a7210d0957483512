"""A view that is drawn anew a few times a second; where there is no terminal, a line now and then instead."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live

DRAWN_PER_SECOND = 4
PLAIN_EVERY_S = 2.0
PICTURE_WIDTH = 120


class Screen:
    """Shows what `draw` gives, or prints `line()` every two seconds if stdout is not a terminal."""

    def __init__(self, draw: Callable[[], RenderableType], line: Callable[[], str]) -> None:
        self._draw = draw
        self._line = line
        self._printed_at = 0.0
        self._live: Live | None = None
        if sys.stdout.isatty():
            self._live = Live(draw(), auto_refresh=False, screen=False, transient=False)

    def update(self) -> None:
        """Draw; cheap enough to be called a few times a second."""
        if self._live is not None:
            self._live.update(self._draw(), refresh=True)
        elif time.monotonic() - self._printed_at >= PLAIN_EVERY_S:
            self._printed_at = time.monotonic()
            print(self._line(), flush=True)

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()


def save_picture(drawn: RenderableType, path: Path, title: str, width: int = PICTURE_WIDTH) -> None:
    """The view as an SVG."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    console.print(drawn)
    path.parent.mkdir(parents=True, exist_ok=True)
    console.save_svg(str(path), title=title)
