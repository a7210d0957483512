"""The terminal: draws what ``picture`` says, hands keys to ``look``, and has snapshots taken in a thread.

The terminal's own sixteen colours, no mouse; of what changes only the lines that differ are written, so that
it is of use over a slow connection.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from threading import Event, Thread

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual import events
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from ottla.cli.errors import CliError
from ottla.cli.top.look import Look, press, wanted
from ottla.cli.top.picture import Line, Seen, Style, draw, page
from ottla.cli.top.snapshot import Snapshot, Wanted

STYLES = {style: RichStyle.parse(style.value or "none") for style in Style}

# The second look comes sooner: there are no rates before it.
SECOND_S = 0.5

# Takes the next snapshot: given the one before, and what is to be in it first.
Take = Callable[[Snapshot | None, Wanted], Snapshot]


class Lines(Widget, can_focus=True):
    """All of the terminal, line by line."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[Line] = []

    def show(self, lines: list[Line]) -> None:
        """Draw these where they are others than before."""
        before, self._lines = self._lines, lines
        if len(before) != len(lines):
            self.refresh()
            return
        for y, line in enumerate(lines):
            if line != before[y]:
                self.refresh(Region(0, y, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        line = self._lines[y] if y < len(self._lines) else []
        strip = Strip([Segment(text, STYLES[style]) for text, style in line])
        return strip.adjust_cell_length(self.size.width)

    def on_key(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()
        app = self.app
        assert isinstance(app, Top)
        app.press(event.key, event.character)

    def on_resize(self, event: events.Resize) -> None:
        app = self.app
        assert isinstance(app, Top)
        app.draw()


class Top(App[None]):
    """``run`` it. ``take`` is called in a thread, again and again."""

    ENABLE_COMMAND_PALETTE = False
    CSS = "Screen { background: ansi_default; } Lines { width: 100%; height: 100%; }"
    BINDINGS = [("ctrl+c", "end", "Quit")]  # noqa: RUF012 - as textual has it

    def __init__(self, take: Take, look: Look | None = None) -> None:
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self._take = take
        self._seen = Seen(None, look or Look())
        self._lines = Lines()
        # Something else is to be taken, or at other times.
        self._stir = Event()
        self._ends = False
        # What was not foreseen, and ended it.
        self.failure: Exception | None = None
        # Whether SIGTERM ended it.
        self.is_terminated = False
        # Whether somebody wants to see it now, also while it is paused.
        self._is_asked_for = False

    @property
    def seen(self) -> Seen:
        """What is drawn."""
        return self._seen

    def compose(self) -> ComposeResult:
        yield self._lines

    def on_mount(self) -> None:
        self._lines.focus()
        loop = asyncio.get_running_loop()
        # The signal alone would end the process without giving the terminal back.
        loop.add_signal_handler(signal.SIGTERM, self._terminate)
        # It may hang in a connection to a node that does; nobody who quits waits for it.
        Thread(target=self._watch, args=(loop,), name="top", daemon=True).start()

    def on_unmount(self) -> None:
        self._ends = True
        self._stir.set()

    def action_end(self) -> None:
        self.exit()

    def _terminate(self) -> None:
        self.is_terminated = True
        self.exit()

    # ------------------------------------------------------------ what is seen

    def draw(self) -> None:
        """Draw what there is."""
        width, height = self._lines.size
        if width and height:
            self._lines.show(draw(self._seen, width, height))

    def press(self, key: str, character: str | None) -> None:
        """A key was pressed."""
        before = self._seen.look
        rows = page(self._lines.size.height)
        look = press(before, key, character, rows, len(before.shown(self._seen.snapshot)))
        self._seen = replace(self._seen, look=look)
        if look.wants_end:
            self.exit()
            return
        is_other = (look.interval_s, look.is_paused) != (before.interval_s, before.is_paused)
        if key == "u" and not before.is_typing:
            self._is_asked_for = is_other = True
        if is_other:
            self._stir.set()
        self.draw()

    def _found(self, snapshot: Snapshot | None, trouble: str) -> None:
        taken = time.strftime("%H:%M:%S") if snapshot is not None else self._seen.taken
        snapshot = snapshot if snapshot is not None else self._seen.snapshot
        self._seen = replace(self._seen, snapshot=snapshot, trouble=trouble, taken=taken)
        self.draw()

    # ------------------------------------------------------------ the thread

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._look_again_and_again(loop)
        except Exception as error:
            if self._ends:
                raise
            # A picture that stands still would be taken for the cluster's.
            self.failure = error
            loop.call_soon_threadsafe(self.exit)

    def _look_again_and_again(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._ends:
            began_s = time.monotonic()
            seen = self._seen
            if not seen.look.is_paused or seen.snapshot is None or self._is_asked_for:
                self._is_asked_for = False
                snapshot, trouble = None, ""
                try:
                    rows = page(self._lines.size.height)
                    snapshot = self._take(seen.snapshot, wanted(seen.look, seen.snapshot, rows))
                except CliError as error:
                    trouble = f"{error}; it is tried again"
                if self._ends:
                    return
                loop.call_soon_threadsafe(self._found, snapshot, trouble)
            took_s = time.monotonic() - began_s
            # However slow the cluster is, it is left alone for as long as it took.
            interval_s = self._seen.look.interval_s
            if seen.snapshot is None:
                interval_s = min(interval_s, SECOND_S)
            self._stir.wait(max(interval_s - took_s, took_s, 0.1))
            self._stir.clear()
