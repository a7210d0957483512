"""Tables and JSON on stdout, progress on stderr.

A terminal gets rich tables; a pipe gets plain aligned text, never wrapped or cut, that `awk` can take apart.
Whatever is for people goes through ``printable``: names come from others, and may hold what moves a cursor,
begins a line or changes a terminal. Nothing else in the commands prints.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from ottla.cli.errors import CliError, ExitCode
from ottla.text import printable

Cell = str | int | float | None

PROGRESS_DELAY_S = 1.0
PROGRESS_STEP_S = 0.1


def print_json(document: Any) -> None:
    """One JSON document: compact for a program, indented for a person who looks at it in a terminal."""
    _print_json(document, 2 if sys.stdout.isatty() else None)


def print_json_line(document: Any) -> None:
    """One of many JSON documents, each on a line of its own."""
    _print_json(document, None)


def _print_json(document: Any, indent: int | None) -> None:
    # Exact in any case; in ASCII alone where something might get lost, or be taken for a terminal's.
    plain = sys.stdout.isatty() or (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(document, indent=indent, ensure_ascii=plain))


def say(text: str = "", *, flush: bool = False) -> None:
    """A line for people on stdout."""
    print(printable(text), flush=flush)


def note(text: str) -> None:
    """A remark for people on stderr, left out where nobody watches."""
    if sys.stderr.isatty():
        warn(text)


def warn(text: str) -> None:
    """A remark that scripts should keep too."""
    print(f"ottla: {printable(text)}", file=sys.stderr)


def counted(number: int, thing: str, ending: str = "s") -> str:
    """'1 node', '2 nodes'; with another ``ending`` of several '2 batches'."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}{ending}"


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    return f"{cell:.3f}" if isinstance(cell, float) else printable(str(cell))


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], right: Sequence[int] = ()) -> None:
    """Print rows under headings; columns of numbers, and those in ``right``, are right-aligned."""
    numeric = [
        i in right
        or (
            bool(rows)
            and any(row[i] is not None for row in rows)
            and all(isinstance(row[i], int | float | None) for row in rows)
        )
        for i in range(len(columns))
    ]
    texts = [[_text(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(columns, texts, numeric)
    else:
        print(plain_table(columns, texts, numeric), end="")


def plain_table(columns: Sequence[str], texts: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    """The table as lines of text, headings in capitals, columns two spaces apart."""
    lines = [[column.upper() for column in columns], *texts]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )


def _rich_table(columns: Sequence[str], texts: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column, right in zip(columns, numeric, strict=True):
        grid.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in texts:
        grid.add_row(*(Text(cell) for cell in row))
    Console().print(grid)


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr for work that lasts: yields ``done(count)``, called with the total done so far.

    Nothing shows in the first second, nor where stderr is not a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    bar = _Bar(label, total)
    try:
        yield bar.show
    finally:
        bar.close()


class _Bar:
    def __init__(self, label: str, total: int | None) -> None:
        self._label, self._total = printable(label), total
        self._bar: Any = None
        self._task: Any = None
        self._next_s = time.monotonic() + PROGRESS_DELAY_S

    def show(self, count: int) -> None:
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + PROGRESS_STEP_S
        if self._bar is None:
            self._open()
        self._bar.update(self._task, completed=count)

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:,.0f}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(self._label, total=self._total)
        self._bar.start()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def report(kind: str, done: Sequence[tuple[str, str]], errors: Sequence[CliError], json: bool) -> None:
    """What became of each of several things of a kind; raises the last error after all else is said."""
    if json:
        print_json([{kind: name, "result": result} for name, result in done])
    else:
        for name, result in done:
            say(f"{name}: {result}")
    for error in errors[:-1]:
        warn(str(error))
    if errors:
        raise errors[-1]


def fail_usage(message: str) -> NoReturn:
    """End with the code for a wrong command line."""
    raise CliError(message, ExitCode.USAGE)
