"""Tables and JSON on stdout, progress on stderr.

A terminal gets rich tables; a pipe gets plain aligned text, never wrapped or cut, that `awk` can take apart.
Whatever is for people goes through ``printable``: names come from others, and may hold what moves a cursor,
begins a line or changes a terminal. Nothing else in the commands prints.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn, Protocol

from ottla.cli.errors import CliError, ExitCode
from ottla.text import printable

Plain = str | int | float | None


class Marked(NamedTuple):
    """A cell, or a part of a line, with a colour of its own in a terminal. Its words say the same."""

    cell: Plain
    style: str


Cell = Plain | Marked

# Something is offline or lost; something lags or lacks a copy.
ALARM, WARNING = "bold red", "yellow"
# The least width of a column whose cells may be folded, in characters.
FOLDED_WIDTH_MIN = 20

BAR_WIDTH_MAX = 40
PROGRESS_DELAY_S = 1.0
PROGRESS_STEP_S = 0.1


def print_json(document: Any) -> None:
    """One JSON document: compact for a program, indented for a person who looks at it in a terminal."""
    _print_json(document, 2 if sys.stdout.isatty() else None)


def print_json_line(document: Any, *, flush: bool = False) -> None:
    """One of many JSON documents, each on a line of its own."""
    _print_json(document, None, flush=flush)


def _print_json(document: Any, indent: int | None, *, flush: bool = False) -> None:
    # Exact in any case; in ASCII alone where something might get lost, or be taken for a terminal's.
    plain = sys.stdout.isatty() or (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    try:
        print(json.dumps(document, indent=indent, ensure_ascii=plain), flush=flush)
    except UnicodeEncodeError:
        # Bytes that were no text came in as lone surrogates, which UTF-8 does not have.
        print(json.dumps(document, indent=indent), flush=flush)


def say(text: str = "", *, flush: bool = False) -> None:
    """A line for people on stdout."""
    print(printable(text), flush=flush)


def write_lines(lines: Iterable[str]) -> None:
    """Lines of JSON, many at once. They go out now, although stdout is a pipe or a file."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def say_marked(*parts: str | Marked) -> None:
    """A line for people on stdout, with colours in a terminal."""
    if not sys.stdout.isatty():
        say("".join(_text(_cell_of(part)) for part in parts))
        return
    from rich.console import Console
    from rich.text import Text

    texts = [
        (_text(part.cell), part.style) if isinstance(part, Marked) else printable(part) for part in parts
    ]
    Console().print(Text.assemble(*texts), soft_wrap=True)


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


def marked(cell: Plain, style: str, *, when: bool = True) -> Cell:
    """A cell with a colour, ``when`` something is the matter."""
    return Marked(cell, style) if when else cell


def _cell_of(cell: Cell) -> Plain:
    return cell.cell if isinstance(cell, Marked) else cell


def _text(cell: Plain) -> str:
    if cell is None:
        return "-"
    return f"{cell:.3f}" if isinstance(cell, float) else printable(str(cell))


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], right: Sequence[int] = ()) -> None:
    """Print rows under headings; columns of numbers, and those in ``right``, are right-aligned."""
    plain = [[_cell_of(cell) for cell in row] for row in rows]
    numeric = [
        i in right
        or (
            bool(plain)
            and any(row[i] is not None for row in plain)
            and all(isinstance(row[i], int | float | None) for row in plain)
        )
        for i in range(len(columns))
    ]
    texts = [[_text(cell) for cell in row] for row in plain]
    if sys.stdout.isatty():
        styles = [[cell.style if isinstance(cell, Marked) else "" for cell in row] for row in rows]
        _rich_table(columns, texts, styles, numeric)
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


def _rich_table(
    columns: Sequence[str],
    texts: Sequence[Sequence[str]],
    styles: Sequence[Sequence[str]],
    numeric: Sequence[bool],
) -> None:
    """The table in colours. What is one word, such as an id, stays whole: if the terminal is too narrow, it
    wraps the line, and the word can still be copied."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    grid = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    width = 0
    for i, (column, right) in enumerate(zip(columns, numeric, strict=True)):
        cells = [column.upper(), *(row[i] for row in texts)]
        words = max(max(map(len, cell.split()), default=0) for cell in cells)
        is_whole = not any(" " in cell for cell in cells[1:])
        grid.add_column(
            column.upper(), justify="right" if right else "left", overflow="fold", no_wrap=is_whole
        )
        # Two blanks between columns.
        width += 2 + (max(map(len, cells)) if is_whole else max(words, FOLDED_WIDTH_MIN))
    for row, marks in zip(texts, styles, strict=True):
        grid.add_row(*(Text(cell, style=mark) for cell, mark in zip(row, marks, strict=True)))
    if width > console.width:
        console = Console(width=width)
    console.print(grid)


class Done(Protocol):
    """So much is done."""

    def __call__(self, count: int, label: str = "") -> None: ...


@contextmanager
def progress(
    label: str, total: int | None = None, *, prints: bool = False, typed: bool = False
) -> Iterator[Done]:
    """A bar on stderr for work that lasts: yields ``done(count)``, called with the total done so far.

    ``done(count, label)`` changes what it says before the bar.
    Nothing shows in the first second, nor where stderr is not a terminal. ``prints`` says that the command
    prints to stdout meanwhile, ``typed`` that somebody may be typing: one line of a terminal is not for two,
    so that there is no bar where they would meet.
    """
    if typed or not sys.stderr.isatty() or (prints and sys.stdout.isatty()):
        yield lambda count, label="": None
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

    def show(self, count: int, label: str = "") -> None:
        now = time.monotonic()
        if now < self._next_s:
            return
        self._next_s = now + PROGRESS_STEP_S
        if self._bar is None:
            self._open()
        self._label = printable(label) or self._label
        self._bar.update(self._task, completed=count, description=self._label)

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        of_all = "" if self._total is None else "/{task.total:,.0f}"
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            # In a narrow terminal the bar gets shorter, and what is said stays whole.
            BarColumn(bar_width=None, table_column=Column(max_width=BAR_WIDTH_MAX)),
            TextColumn("{task.completed:,.0f}" + of_all),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            # Rich would have whatever is printed meanwhile go to the bar's own stream, out of a pipe or file.
            redirect_stdout=False,
        )
        self._task = self._bar.add_task(self._label, total=self._total)
        self._bar.start()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def report(kind: str, done: Sequence[tuple[str, str]], errors: Sequence[CliError], json: bool) -> None:
    """What became of each of several things of a kind; raises the last error after all else is said."""
    documents = [{kind: name, "result": result} for name, result in done]
    say_done(documents, [f"{name}: {result}" for name, result in done], json)
    raise_last(errors)


def say_done(document: Any, lines: Iterable[str], json: bool) -> None:
    """What has been done, as JSON or in lines for people."""
    if json:
        print_json(document)
    else:
        for line in lines:
            say(line)


def raise_last(errors: Sequence[CliError]) -> None:
    """Say all errors but the last, and raise that."""
    for error in errors[:-1]:
        warn(str(error))
    if errors:
        raise errors[-1]


def listing(
    documents: Sequence[Any],
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    json: bool,
    *,
    none: str,
) -> None:
    """What there is: ``documents`` as JSON, or ``rows`` for people, to whom ``none`` says that there is
    nothing."""
    if json:
        print_json(documents)
    elif rows:
        table(columns, rows)
    else:
        note(none)


def fail_usage(message: str) -> NoReturn:
    """End with the code for a wrong command line."""
    raise CliError(message, ExitCode.USAGE)
