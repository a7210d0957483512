"""docs/pictures/first-messages.svg: a recording of README's first commands, as they run in two terminals.

`python scripts/recording.py` runs them on a broker of its own, in a pseudo-terminal, and draws what was to be
seen as an SVG that plays by itself (CSS), without a script and without fonts of its own. What is typed and
what is answered is real; the pace is not: typing, pauses and the end are as long as a reader needs.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from rich.color import Color
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "pictures" / "first-messages.svg"
BIN = Path(sys.executable).parent
COLUMNS = 96
# What README has the reader type, and what is run for it here: `make run` installs first.
SERVER = ("make run", "ottla serve --data data --listen 127.0.0.1:{port}")
COMMANDS = (
    (r"printf 'one\ntwo\nthree\n' | .venv/bin/ottla produce greetings",) * 2,
    (".venv/bin/ottla consume greetings --from beginning",) * 2,
    (".venv/bin/pytest test_shop.py", ".venv/bin/pytest -p no:cacheprovider test_shop.py"),
)
ANSWER_S_MAX = 60.0
READY = b"listening on"

# The pace, in seconds: of a letter, before the next command is typed, until it answers, at the end.
LETTER_S, PAUSE_S, ANSWER_S, END_S = 0.035, 1.2, 0.5, 6.0
FONT = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
LETTER, LINE, LEFT, BAR = 8.43, 20, 18, 34
GROUND, WINDOW, EDGE, INK, FAINT, GREEN = "#16181d", "#1d2026", "#343944", "#e4e6eb", "#8a90a0", "#7bd88f"


class Shown(NamedTuple):
    """A line of a terminal. ``typed``: by the reader, behind the prompt."""

    words: str
    typed: bool


# ------------------------------------------------------------ what there is to be seen


def environment(folder: Path, port: int) -> dict[str, str]:
    return {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), os.environ.get("PYTHONPATH", ""))),
        "TERM": "xterm-256color",
        "COLUMNS": str(COLUMNS),
        "OTTLA_BOOTSTRAP": f"127.0.0.1:{port}",
    }


class Terminal:
    """A command in a pseudo-terminal, in a folder."""

    def __init__(self, command: str, folder: Path, env: dict[str, str]) -> None:
        self.said = b""
        self._pid, self._end = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "--norc", "-c", command], env)

    def read_until(self, mark: bytes | None) -> bytes:
        """What it says, until a mark is in it, or it ends. TimeoutError where neither comes."""
        deadline = time.monotonic() + ANSWER_S_MAX
        while mark is None or mark not in self.said:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._end], [], [], left)[0]:
                raise TimeoutError(f"this goes on for too long: {self.said[-500:]!r}")
            try:
                piece = os.read(self._end, 65536)
            except OSError:
                # Linux says so where the other end is closed.
                piece = b""
            if not piece:
                break
            self.said += piece
        return self.said

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        os.kill(self._pid, signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        _, status = os.waitpid(self._pid, 0)
        os.close(self._end)
        return os.waitstatus_to_exitcode(status)


def recorded(folder: Path, port: int) -> tuple[list[Shown], list[Shown]]:
    """The lines of both terminals: of the broker's, and of the reader's."""
    env = environment(folder, port)
    (folder / "test_shop.py").write_text(program("test_shop.py"))
    tools = folder / ".venv" / "bin"
    tools.mkdir(parents=True)
    for tool in ("ottla", "pytest"):
        (tools / tool).write_text(f'#!/bin/sh\nexec {BIN / tool} "$@"\n')
        (tools / tool).chmod(0o755)
    server = Terminal(SERVER[1].format(port=port), folder, env)
    try:
        seen = server.read_until(READY)
        seen += b"" if seen.endswith(b"\n") else server.read_until(b"\n")[len(seen) :]
        above = [Shown(SERVER[0], True), *lines(seen, folder, port)]
        below: list[Shown] = []
        for typed, run in COMMANDS:
            terminal = Terminal(run, folder, env)
            said = terminal.read_until(None)
            if code := terminal.ended():
                raise SystemExit(f"{run!r} ended with {code}:\n{said.decode()}")
            below += [Shown(typed, True), *lines(said, folder, port)]
    finally:
        server.stop()
    return above, below


def program(name: str) -> str:
    """The file that README has the reader save."""
    page = (ROOT / "README.md").read_text()
    found = re.search(rf'^```python title="{re.escape(name)}"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"README has no {name}"
    return found[1]


def lines(said: bytes, folder: Path, port: int) -> Iterator[Shown]:
    """What a terminal shows in the end of what was said: a line that is written over is as it was last."""
    text = said.decode(errors="replace").replace(str(folder), "~").replace(f":{port}", ":9092")
    for line in text.replace("\r\n", "\n").rstrip("\n").split("\n"):
        last = line.rstrip("\r").rpartition("\r")[2]
        yield Shown(re.sub(r"\x1b\[[0-9;?]*[A-Za-ln-z]", "", last), False)


# ------------------------------------------------------------ the picture


def pieces(words: str) -> Iterator[tuple[str, str, bool]]:
    """A line in pieces of one colour: the words, the colour, whether they are bold. A long line is cut."""
    text = Text.from_ansi(words)
    if len(text) > COLUMNS:
        text = text[: COLUMNS - 1] + Text("…")
    plain = text.plain
    cuts = sorted({0, len(plain), *(at for span in text.spans for at in (span.start, span.end))})
    for start, end in pairwise(cuts):
        colour, bold = INK, False
        for span in text.spans:
            style = span.style
            if span.start <= start and end <= span.end and not isinstance(style, str):
                bold = bold or bool(style.bold)
                if style.dim:
                    colour = FAINT
                if style.color is not None:
                    colour = hexadecimal(style.color)
        yield plain[start:end], colour, bold


def hexadecimal(colour: Color) -> str:
    return colour.get_truecolor(MONOKAI).hex


def span(words: str, colour: str, bold: bool) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<tspan fill="{colour}"{weight}>{escape(words, quote=False)}</tspan>'


class Player:
    """The picture in the making: what appears where, and when."""

    def __init__(self) -> None:
        self.now_s = 0.6
        self._body: list[str] = []
        self._rules: list[tuple[str, float, float, int]] = []
        self._y = 0.0

    def window(self, title: str, height: int) -> None:
        """A terminal, below what there is."""
        top = self._y + 10
        self._body.append(
            f'<rect x="10" y="{top:g}" width="{width() - 20}" height="{height}" rx="8" fill="{WINDOW}" '
            f'stroke="{EDGE}"/>'
        )
        for number, colour in enumerate(("#ff6159", "#ffbd2e", "#28c941")):
            self._body.append(f'<circle cx="{28 + 18 * number}" cy="{top + 17:g}" r="5.5" fill="{colour}"/>')
        self._body.append(
            f'<text x="{width() / 2:g}" y="{top + 21:g}" text-anchor="middle" fill="{FAINT}">{title}</text>'
        )
        self._y = top + BAR
        self._bottom = top + height

    def end_window(self) -> None:
        self._y = self._bottom

    def show(self, line: Shown) -> None:
        """Type a command, or show a line of its answer."""
        self._y += LINE
        name = f"l{len(self._rules)}"
        if line.typed:
            self.now_s += PAUSE_S
            typing_s = LETTER_S * len(line.words)
            self._rules.append((name, self.now_s, typing_s, len(line.words)))
            self._text(f'<tspan fill="{GREEN}">$</tspan>', 0, "p" + name)
            self._rules.append((f"p{name}", self.now_s - PAUSE_S / 2, 0, 0))
            self._text(escape(line.words, quote=False), 2, name)
            self.now_s += typing_s + ANSWER_S
            return
        self._rules.append((name, self.now_s, 0, 0))
        self._text("".join(span(*piece) for piece in pieces(line.words)), 0, name)
        self.now_s += 0.06

    def _text(self, spans: str, column: int, name: str) -> None:
        x = 10 + LEFT + column * LETTER
        self._body.append(
            f'<text class="{name}" x="{x:g}" y="{self._y:g}" xml:space="preserve">{spans}</text>'
        )

    def svg(self, title: str) -> str:
        height = round(self._y + 10)
        whole_s = self.now_s + END_S
        rules = "\n".join(self._rule(rule, whole_s) for rule in self._rules)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width()} {height}" width="{width()}" '
            f'height="{height}" font-family="{FONT}" font-size="14" fill="{INK}" role="img">\n'
            f"<title>{escape(title, quote=False)}</title>\n<style>\n"
            f"@media (prefers-reduced-motion: no-preference) {{\n{rules}\n}}\n</style>\n"
            f'<rect width="{width()}" height="{height}" rx="10" fill="{GROUND}"/>\n'
            + "\n".join(self._body)
            + "\n</svg>\n"
        )

    def _rule(self, rule: tuple[str, float, float, int], whole_s: float) -> str:
        """When a line is there: from a moment on, or letter by letter, until all begins again."""
        name, from_s, typing_s, letters = rule
        begins, gone = 100 * from_s / whole_s, 100 - 100 * 0.3 / whole_s
        if not typing_s:
            hidden, visible = "{visibility:hidden}", "{visibility:visible}"
            frames = f"0%,{begins:.2f}%{hidden}{begins + 0.01:.2f}%,{gone:.2f}%{visible}to{hidden}"
            return f"@keyframes {name}{{{frames}}}.{name}{{animation:{name} {whole_s:.2f}s infinite}}"
        ends = 100 * (from_s + typing_s) / whole_s
        closed, opened = "clip-path:inset(-4px 100% -4px 0)", "clip-path:inset(-4px -9px -4px 0)"
        frames = (
            f"0%{{{closed}}}{begins:.2f}%{{{closed};animation-timing-function:steps({letters})}}"
            f"{ends:.2f}%,{gone:.2f}%{{{opened}}}to{{{closed}}}"
        )
        return f"@keyframes {name}{{{frames}}}.{name}{{animation:{name} {whole_s:.2f}s infinite}}"


def width() -> int:
    return round(20 + 2 * LEFT + COLUMNS * LETTER)


def draw(above: list[Shown], below: list[Shown]) -> str:
    player = Player()
    for title, shown in (("the broker", above), ("another terminal", below)):
        player.window(title, BAR + LINE * len(shown) + 16)
        for line in shown:
            player.show(line)
        player.end_window()
    return player.svg("A broker starts; messages are written and read; a test makes it fail")


def free_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ottla-recording-") as folder:
        above, below = recorded(Path(folder), free_port())
    PICTURE.write_text(draw(above, below))


if __name__ == "__main__":
    main()
